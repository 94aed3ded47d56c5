//! The entries of the directory's benchmarks: 100 networks, all with the same customer addresses, on 256 hosts.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::directory::{Entry, Location};
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};

/// The address of entry `number`.
pub(crate) fn address(number: usize) -> (Vni, CustomerIp) {
    let number = u32::try_from(number).unwrap_or(0);
    let vni = Vni::new(1 + number % 100).expect("1 to 100");
    (vni, Ipv4Addr::from_bits((10 << 24) + number / 100).into())
}

/// Where entry `number` is in some round of updates.
pub(crate) fn location(number: usize, round: u64) -> Location {
    let [.., a, b, c] = number.to_be_bytes();
    let [.., version] = round.to_be_bytes();
    let host = u32::from(a ^ b ^ c ^ version);
    let physical_ip = PhysicalIp::from(Ipv4Addr::from_bits((192 << 24) + (2 << 8) + host));
    Location { physical_ip, mac: MacAddr([2, 0, 0, a, b, c]), version }
}

/// Entry `number`.
pub(crate) fn entry(number: usize) -> Entry {
    let (vni, ip) = address(number);
    Entry { vni, ip, location: location(number, 0) }
}

/// Entry `number` with an IPv6 address.
#[allow(dead_code, reason = "not every benchmark has these")]
pub(crate) fn entry_v6(number: usize) -> Entry {
    let ip = Ipv6Addr::from_bits(0xfd00 << 112 | number as u128);
    Entry { ip: ip.into(), ..entry(number) }
}
