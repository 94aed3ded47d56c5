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
    fn answers_are_read_from_the_log() {
        assert_eq!(answers("12 red-b\nnoise\n13 blue-b\n"), [(12, "red-b"), (13, "blue-b")]);
    }
}
