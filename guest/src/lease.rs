//! Is there a lease? Told by a file that the DHCP client's script writes, or else by the source address that the kernel
//! would use towards the metadata service.
//!
//! Never here: a DHCP packet, or a wait.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Without a file, an address that did not change within this time counts as leased anew: some clients renew without
/// taking the old address down, and the new network may give the same one.
const SAME_ADDRESS: Duration = Duration::from_millis(300);

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct LeaseSource {
    /// Exists while there is a lease, and is another file after each lease that was asked for anew.
    pub(crate) file: Option<PathBuf>,
    /// The metadata service.
    pub(crate) service: SocketAddr,
}

/// What there was when the old lease ended: a lease that is to count is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    file: Option<(u64, i64, i64)>,
    address: Option<IpAddr>,
    since: Instant,
}

impl LeaseSource {
    /// What there is now.
    pub(crate) fn mark(&self) -> Mark {
        let address = if self.file.is_none() { self.address() } else { None };
        Mark { file: self.file_identity(), address, since: Instant::now() }
    }

    /// Is there a lease that came after `mark`? Without a mark any lease will do. An address that has vanished is
    /// struck from the mark, so that it counts when it comes back.
    pub(crate) fn arrived(&self, mark: &mut Option<Mark>) -> bool {
        if self.file.is_some() {
            let now = self.file_identity();
            return now.is_some() && mark.as_ref().is_none_or(|mark| mark.file != now);
        }
        let now = self.address();
        match mark {
            None => now.is_some(),
            Some(mark) => {
                if now.is_none() {
                    mark.address = None;
                }
                now.is_some() && (mark.address != now || mark.since.elapsed() > SAME_ADDRESS)
            }
        }
    }

    /// Is what there was at `mark` still there? Told by the file alone: an address says nothing of who will take it down.
    pub(crate) fn is_still(&self, mark: &Mark) -> bool {
        mark.file.is_some() && mark.file == self.file_identity()
    }

    /// The same with its prefix's length, as text.
    pub(crate) fn network(&self) -> Option<String> {
        let length = match self.address()? {
            IpAddr::V4(address) => {
                prefix_length(&fs::read_to_string("/proc/net/route").unwrap_or_default(), address)
            }
            IpAddr::V6(_) => 128,
        };
        Some(format!("{}/{length}", self.address()?))
    }

    fn file_identity(&self) -> Option<(u64, i64, i64)> {
        let stat = fs::metadata(self.file.as_ref()?).ok()?;
        Some((stat.ino(), stat.mtime(), stat.mtime_nsec()))
    }

    /// The address that the kernel would speak from. Connecting a UDP socket asks the routing table and sends nothing.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let any = match self.service {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(self.service).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
    }
}

/// Length of the prefix that an IPv4 address is on link with, from the text of `/proc/net/route`: destinations and masks
/// as the machine's own number of the four bytes, in hexadecimal. 32 when no such route holds the address.
fn prefix_length(routes: &str, address: Ipv4Addr) -> u8 {
    let address = u32::from_ne_bytes(address.octets());
    let lengths = routes.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let mut number = || u32::from_str_radix(fields.next()?, 16).ok();
        let (destination, gateway) = (number()?, number()?);
        let mask = u32::from_str_radix(line.split_whitespace().nth(7)?, 16).ok()?;
        let on_link = gateway == 0 && mask != 0 && address & mask == destination;
        on_link.then(|| u8::try_from(mask.count_ones()).unwrap_or(32))
    });
    lengths.max().unwrap_or(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_the_longest_that_is_on_link() {
        // As a little-endian machine prints it.
        let routes = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
            eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n\
            eth0 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
            eth0 0000000A 00000000 0001 0 0 0 0000FFFF 0 0 0\n\
            eth0 FEA9FEA9 00000000 0005 0 0 0 FFFFFFFF 0 0 0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(prefix_length(routes, [10, 0, 0, 5].into()), 24);
            assert_eq!(prefix_length(routes, [10, 0, 1, 5].into()), 16);
        }
        assert_eq!(prefix_length(routes, [10, 1, 1, 5].into()), 32);
        assert_eq!(prefix_length("", [10, 0, 0, 5].into()), 32);
    }

    #[test]
    fn a_file_counts_when_it_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lease");
        let source = LeaseSource { file: Some(file.clone()), service: ([127, 0, 0, 1], 80).into() };
        assert!(!source.arrived(&mut None));
        fs::write(&file, "10.0.0.5").unwrap();
        assert!(source.arrived(&mut None));
        let mut mark = Some(source.mark());
        assert!(!source.arrived(&mut mark));
        fs::write(dir.path().join("new"), "10.0.0.5").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert!(source.arrived(&mut mark), "the same address, but leased anew");
    }

    #[test]
    fn an_address_counts_when_it_is_another_one_or_was_away() {
        let source = LeaseSource { file: None, service: ([127, 0, 0, 1], 80).into() };
        assert!(source.arrived(&mut None));
        let mut same = Some(source.mark());
        assert!(!source.arrived(&mut same));
        let mut other = same.clone();
        if let Some(other) = &mut other {
            other.address = Some([192, 0, 2, 1].into());
        }
        assert!(source.arrived(&mut other));
        let mut away = same.clone();
        if let Some(away) = &mut away {
            away.address = None;
        }
        assert!(source.arrived(&mut away));
        if let Some(same) = &mut same {
            same.since = same.since.checked_sub(SAME_ADDRESS * 2).unwrap();
        }
        assert!(source.arrived(&mut same), "and when it has stood long enough");
    }
}
