//! Judges what the guests heard and what was captured between the hosts. Pure, so that the judge itself is tested.

use crate::lab::{Frame, Record};
use std::net::Ipv4Addr;

/// What a packet between the hosts must be told by.
pub(super) struct Suspect {
    /// The moved guest's MAC, the same in both networks.
    pub(super) mac: [u8; 6],
    /// Its network before and its address there.
    pub(super) old: (u32, Ipv4Addr),
    /// Its network afterwards and its address there.
    pub(super) new: (u32, Ipv4Addr),
    /// When the change was asked for and when it was acknowledged, in nanoseconds since the epoch.
    pub(super) asked_ns: u64,
    pub(super) acknowledged_ns: u64,
}

/// What a capture between the hosts shows of the moved guest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sightings {
    /// Its packets in the right network, before and after.
    pub(super) right: u64,
    /// Its packets in the old network after the acknowledgement.
    pub(super) late: u64,
    /// Its packets in the new network before the change was asked for.
    pub(super) early: u64,
    /// Its packets with the address of one network in the other.
    pub(super) mixed: u64,
}

/// Counts the moved guest's packets by where and when they were seen.
pub(super) fn sightings(records: &[Record], suspect: &Suspect) -> Sightings {
    let mut found = Sightings::default();
    for record in records {
        let Some((vni, inner)) = Frame::parse(&record.bytes).and_then(|outer| outer.inner()) else {
            continue;
        };
        if inner.source_mac != suspect.mac {
            continue;
        }
        let home = if vni == suspect.old.0 { suspect.old.1 } else { suspect.new.1 };
        if inner.source != Some(home.into()) {
            found.mixed += 1;
        } else if vni == suspect.old.0 && record.at_ns > suspect.acknowledged_ns {
            found.late += 1;
        } else if vni == suspect.new.0 && record.at_ns < suspect.asked_ns {
            found.early += 1;
        } else {
            found.right += 1;
        }
    }
    found
}

/// Who answered, from the log of a chatter: time and name.
pub(super) fn answers(log: &str) -> Vec<(u64, &str)> {
    let line = |line: &'_ str| -> Option<(u64, usize)> {
        let (at, _) = line.split_once(' ')?;
        Some((at.parse().ok()?, at.len() + 1))
    };
    log.lines().filter_map(|text| line(text).and_then(|(at, name)| Some((at, text.get(name..)?)))).collect()
}

/// What came back over the TCP connection of the neighbours that stay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Streamed {
    /// Bytes until the change was asked for.
    pub(super) before: u64,
    /// Bytes since it was acknowledged.
    pub(super) after: u64,
    /// The longest time without any, in nanoseconds.
    pub(super) longest_pause_ns: u64,
}

/// From the log of the stream's sender, whose lines are times and bytes so far.
pub(super) fn streamed(log: &str, asked_ns: u64, acknowledged_ns: u64) -> Streamed {
    let pieces: Vec<(u64, u64)> =
        answers(log).into_iter().filter_map(|(at, bytes)| Some((at, bytes.parse().ok()?))).collect();
    let until = |limit: u64| pieces.iter().rfind(|(at, _)| *at <= limit).map_or(0, |(_, bytes)| *bytes);
    let pauses = pieces.iter().zip(pieces.iter().skip(1)).map(|((a, _), (b, _))| b.saturating_sub(*a));
    Streamed {
        before: until(asked_ns),
        after: until(u64::MAX) - until(acknowledged_ns),
        longest_pause_ns: pauses.max().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

    fn suspect() -> Suspect {
        let (old, new) = ((100, Ipv4Addr::new(10, 0, 0, 5)), (200, Ipv4Addr::new(10, 0, 0, 6)));
        Suspect { mac: MAC, old, new, asked_ns: 1000, acknowledged_ns: 2000 }
    }

    /// A VXLAN packet whose inner frame is an IPv4 header from `source`.
    fn record(at_ns: u64, vni: u8, mac: [u8; 6], source: [u8; 4]) -> Record {
        let mut inner = [&[9; 6], &mac[..], &[8, 0], &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0]].concat();
        inner.extend([source, [10, 0, 0, 10]].concat());
        let mut bytes = vec![0; 12];
        bytes.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        bytes.extend([0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, vni, 0]);
        let length = u16::try_from(16 + inner.len()).unwrap().to_be_bytes();
        bytes.splice(38..40, length);
        bytes.extend(inner);
        Record { at_ns, bytes }
    }

    #[test]
    fn each_kind_of_stray_packet_is_told_from_the_right_ones() {
        let (red, blue) = ([10, 0, 0, 5], [10, 0, 0, 6]);
        let count = |record| sightings(&[record], &suspect());
        let right = Sightings { right: 1, ..Sightings::default() };
        assert_eq!(count(record(500, 100, MAC, red)), right);
        assert_eq!(
            count(record(1500, 100, MAC, red)),
            right,
            "between request and acknowledgement both are right"
        );
        assert_eq!(count(record(1500, 200, MAC, blue)), right);
        assert_eq!(count(record(2500, 200, MAC, blue)), right);
        assert_eq!(count(record(2001, 100, MAC, red)), Sightings { late: 1, ..Sightings::default() });
        assert_eq!(count(record(999, 200, MAC, blue)), Sightings { early: 1, ..Sightings::default() });
        assert_eq!(count(record(2500, 200, MAC, red)), Sightings { mixed: 1, ..Sightings::default() });
        assert_eq!(count(record(500, 100, MAC, blue)), Sightings { mixed: 1, ..Sightings::default() });
        assert_eq!(count(record(2500, 100, [2; 6], red)), Sightings::default(), "another guest's");
    }

    #[test]
    fn a_stream_that_stops_at_the_change_is_told_from_one_that_lives() {
        let alive = "500 16\n900 32\n1500 48\n2001 64\n2600 80\n";
        assert_eq!(streamed(alive, 1000, 2000), Streamed { before: 32, after: 32, longest_pause_ns: 600 });
        assert_eq!(streamed("500 16\n900 32\n1500 48\nshunt demo: broke\n", 1000, 2000).after, 0);
        assert_eq!(streamed("2001 16\n", 1000, 2000).before, 0);
        assert_eq!(streamed("", 1000, 2000), Streamed::default());
    }

    #[test]
    fn answers_are_read_from_the_log() {
        assert_eq!(answers("12 red-b\nnoise\n13 blue-b\n"), [(12, "red-b"), (13, "blue-b")]);
    }
}
