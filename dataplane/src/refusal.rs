//! Which drop reason a parse error is.

use crate::drops::DropReason;
use crate::wire::{Layer, ParseError};

/// Every cause that deserves a name of its own has one; the rest are told apart by header.
pub(crate) const fn of(error: &ParseError) -> DropReason {
    match error {
        ParseError::VlanTagged { .. } => DropReason::VlanTagged,
        ParseError::TinyFragment { .. } | ParseError::OverlappingFragment => DropReason::FragmentTiny,
        ParseError::ExtensionChain { .. } => DropReason::Ipv6ExtensionHeaders,
        ParseError::NoVni { .. } => DropReason::TunnelNoVni,
        ParseError::UnknownCriticalOption { .. } => DropReason::TunnelCriticalOption,
        ParseError::BadChecksum { layer: Layer::Ipv4 } => DropReason::Ipv4Checksum,
        ParseError::Truncated { layer, .. }
        | ParseError::BadVersion { layer, .. }
        | ParseError::BadLength { layer, .. }
        | ParseError::BadChecksum { layer }
        | ParseError::Unsupported { layer, .. }
        | ParseError::Violation { layer, .. } => in_header(*layer),
    }
}

const fn in_header(layer: Layer) -> DropReason {
    match layer {
        Layer::Ethernet => DropReason::EthernetTruncated,
        Layer::Arp => DropReason::ArpMalformed,
        Layer::Ipv4 => DropReason::Ipv4Malformed,
        Layer::Ipv6 => DropReason::Ipv6Malformed,
        Layer::Ipv6Extension => DropReason::Ipv6ExtensionHeaders,
        Layer::Tcp | Layer::Udp | Layer::Icmpv4 | Layer::Icmpv6 => DropReason::TransportMalformed,
        Layer::NeighbourDiscovery => DropReason::NdMalformed,
        Layer::Vxlan | Layer::Geneve => DropReason::TunnelMalformed,
        Layer::Dhcpv4 => DropReason::DhcpMalformed,
    }
}
