//! Reads the classic pcap file format, as tcpdump writes it.

use super::LabError;
use std::{fs, path::Path};

/// One captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// The bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

const NANOSECONDS: u32 = 0xa1b2_3c4d;
const MICROSECONDS: u32 = 0xa1b2_c3d4;

/// All whole records of a file; a last one that is still being written is left out.
///
/// # Errors
/// `File` when it cannot be read; `Unreadable` when it is no pcap file of this machine's byte order.
pub fn read_pcap(path: &Path) -> Result<Vec<Record>, LabError> {
    let bytes = fs::read(path).map_err(LabError::file("read", path))?;
    parse(&bytes).ok_or_else(|| LabError::Unreadable {
        command: "tcpdump -w".to_owned(),
        why: "no pcap header".to_owned(),
        output: path.display().to_string(),
    })
}

fn parse(bytes: &[u8]) -> Option<Vec<Record>> {
    let (header, mut rest) = bytes.split_first_chunk::<24>()?;
    let unit = match u32::from_ne_bytes(*header.first_chunk()?) {
        NANOSECONDS => 1,
        MICROSECONDS => 1000,
        _ => return None,
    };
    let mut records = Vec::new();
    while let Some((header, tail)) = rest.split_first_chunk::<16>() {
        let [seconds, fraction, captured, _original] = words(header);
        let Some((packet, tail)) = usize::try_from(captured).ok().and_then(|n| tail.split_at_checked(n))
        else {
            break;
        };
        let at_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit;
        records.push(Record { at_ns, bytes: packet.to_vec() });
        rest = tail;
    }
    Some(records)
}

fn words(header: &[u8; 16]) -> [u32; 4] {
    let (words, _) = header.as_chunks::<4>();
    std::array::from_fn(|i| words.get(i).copied().map_or(0, u32::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(magic: u32, fraction: u32, packet: &[u8]) -> Vec<u8> {
        let mut bytes = magic.to_ne_bytes().to_vec();
        bytes.extend([0; 20]);
        let length = u32::try_from(packet.len()).unwrap();
        for word in [1, fraction, length, length] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(packet);
        bytes
    }

    #[test]
    fn both_units_become_nanoseconds() {
        for (magic, fraction) in [(NANOSECONDS, 7000), (MICROSECONDS, 7)] {
            let records = parse(&file(magic, fraction, b"abc")).unwrap();
            assert_eq!(records, [Record { at_ns: 1_000_007_000, bytes: b"abc".to_vec() }]);
        }
    }

    #[test]
    fn a_record_cut_short_is_left_out() {
        let mut bytes = file(NANOSECONDS, 0, b"abc");
        bytes.truncate(bytes.len() - 1);
        assert_eq!(parse(&bytes), Some(vec![]));
        assert_eq!(parse(b"not a capture, not at all"), None);
    }
}
