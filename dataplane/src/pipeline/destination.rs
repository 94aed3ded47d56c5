//! Which destinations are one station at all: the overlay floods nothing.

use crate::drops::DropReason;
use crate::types::MacAddr;
use crate::wire::flow::{Headers, Network};

/// Passes unicast only.
#[inline]
pub(super) fn check(headers: &Headers) -> Result<(), DropReason> {
    let is_station = match headers.network {
        // All that is special among IPv4's addresses begins with one of these.
        Network::V4 { destination, .. } => !matches!(destination.octets(), [0 | 127 | 169 | 224..=255, ..]),
        Network::V6 { destination, .. } => !matches!(destination.octets(), [0 | 0xfe | 0xff, ..]),
        Network::Other => false,
    };
    if is_station && headers.destination.is_unicast() { Ok(()) } else { look_closer(headers) }
}

#[cold]
fn look_closer(headers: &Headers) -> Result<(), DropReason> {
    let (is_multicast, is_broadcast, is_nobody) = match headers.network {
        Network::V4 { destination: ip, .. } => (
            ip.is_multicast(),
            ip.is_broadcast(),
            matches!(ip.octets(), [0, ..]) || ip.is_loopback() || ip.is_link_local(),
        ),
        Network::V6 { destination: ip, .. } => {
            let is_nobody = ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local();
            (ip.is_multicast(), false, is_nobody || ip.to_ipv4_mapped().is_some())
        }
        Network::Other => return Err(DropReason::EthertypeUnsupported),
    };
    let mac = headers.destination;
    if is_multicast {
        Err(DropReason::Multicast)
    } else if is_broadcast || mac == MacAddr::BROADCAST {
        Err(DropReason::Broadcast)
    } else if !mac.is_unicast() {
        Err(DropReason::DestinationMacUnknown)
    } else if is_nobody {
        Err(DropReason::DestinationInvalid)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::wire::ethernet::{EtherType, Ethernet};

    fn headers(network: Network, mac: [u8; 6]) -> Headers {
        let ethernet =
            Ethernet { destination: MacAddr(mac), source: MacAddr::ROUTER, ethertype: EtherType::ARP };
        Headers { network, ..Headers::parse(&ethernet.to_bytes()).unwrap() }
    }

    proptest! {
        /// The quick look passes nothing that the closer look would not.
        #[test]
        fn both_looks_agree(bits: u128, mac: [u8; 6],
                            corner in prop::sample::select(vec![0, 0x7f00, 0xa9fe, 0xe000, 0xefff, 0xffff, 0xfe80, 0xff02])) {
            for bits in [bits, corner << 112 | bits >> 16, corner << 112, u128::MAX, 1] {
            let [a, b, c, d, ..] = bits.to_be_bytes();
            let (source, destination) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(a, b, c, d));
            let v4 = headers(Network::V4 { source, destination }, mac);
            prop_assert_eq!(check(&v4), look_closer(&v4));
            let (source, destination) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(bits));
            let v6 = headers(Network::V6 { source, destination }, mac);
            prop_assert_eq!(check(&v6), look_closer(&v6));
            }
        }
    }
}
