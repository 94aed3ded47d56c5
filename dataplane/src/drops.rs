//! Every way a packet can end without being delivered: one table that makes the enum, the names, the sentences and
//! the documentation.
//!
//! A drop is an outcome, not an error: it has a stable name (an operator's alert may hang on it), a sentence for
//! people, and a counter per port.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $sentence:literal;)+) => {
        /// Why a packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)+
        }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name: lower case, underscores.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What happened, in one sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)+
                }
            }

            /// As an index into arrays of [`DropReason::COUNT`] counters.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

drop_reasons! {
    // what the frame is
    EthernetTruncated, "ethernet_truncated", "The frame is shorter than an Ethernet header.";
    VlanTagged, "vlan_tagged", "The frame carries an 802.1Q or 802.1ad tag; networks are told apart by port, not by tag.";
    EthertypeUnsupported, "ethertype_unsupported", "The frame is neither IPv4, IPv6 nor ARP.";
    Ipv4Malformed, "ipv4_malformed", "The IPv4 header is truncated, or its version, header length or total length is wrong.";
    Ipv4Checksum, "ipv4_checksum", "The IPv4 header checksum is wrong.";
    Ipv4SourceRoute, "ipv4_source_route", "The packet carries a source-route option (RFC 7126 section 4.3).";
    Ipv6Malformed, "ipv6_malformed", "The IPv6 header is truncated, or its version or payload length is wrong.";
    Ipv6ExtensionHeaders, "ipv6_extension_headers", "The chain of IPv6 extension headers is malformed, too long or carries a type 0 routing header (RFC 5095).";
    TransportMalformed, "transport_malformed", "The TCP, UDP or ICMP header is truncated or contradicts the IP header.";
    FragmentTiny, "fragment_tiny", "A fragment is too small, or begins inside the transport header (RFC 1858, RFC 3128).";
    ArpMalformed, "arp_malformed", "The ARP packet is truncated, or not for IPv4 over Ethernet.";
    NdMalformed, "nd_malformed", "The neighbour discovery message fails the checks of RFC 4861 section 7.1 or 6.1.";
    DhcpMalformed, "dhcp_malformed", "The DHCP message is truncated, or its options are.";
    OffloadInvalid, "offload_invalid", "The offload request of the frame's sender contradicts the frame's headers.";
    // who sent it
    SourceMacSpoofed, "source_mac_spoofed", "The source MAC address is not the port's.";
    SourceIpSpoofed, "source_ip_spoofed", "The source address is not one of the port's.";
    ArpSpoofed, "arp_spoofed", "The ARP packet claims an address that is not the port's.";
    NdSpoofed, "nd_spoofed", "The neighbour advertisement or solicitation claims an address that is not the port's.";
    DhcpServerForged, "dhcp_server_forged", "A guest sent a DHCP server's message.";
    RouterAdvertisementForged, "router_advertisement_forged", "A router advertisement or a redirect that is not the switch's own (ICMP or ICMPv6).";
    // what it asks of a trap
    ArpUnknownTarget, "arp_unknown_target", "Nobody in the network has the address that the ARP request asks for.";
    ArpUnasked, "arp_unasked", "An ARP reply or announcement: the switch learns nothing from guests.";
    NdUnknownTarget, "nd_unknown_target", "Nobody in the network has the address that the neighbour solicitation asks for.";
    NdUnasked, "nd_unasked", "A neighbour advertisement: the switch learns nothing from guests.";
    DhcpNoLease, "dhcp_no_lease", "The port has no IPv4 address to hand out.";
    DhcpNotForUs, "dhcp_not_for_us", "The client's request names another DHCP server.";
    DhcpIgnored, "dhcp_ignored", "A DHCP message that a server does not answer.";
    DhcpForeignClient, "dhcp_foreign_client", "The DHCP message is for another hardware address than the port's.";
    DhcpRelayed, "dhcp_relayed", "The DHCP message came through a relay; a guest's port is no network to serve.";
    RouterAbsent, "router_absent", "A router solicitation in a network that has no IPv6 prefix.";
    AnswerNoRoom, "answer_no_room", "The packet's buffer is too small for the answer.";
    GatewayUnserved, "gateway_unserved", "The packet is for the virtual router itself, which offers no such service.";
    TrapRateLimited, "trap_rate_limited", "The port has had its share of answers to ARP, neighbour discovery, echoes and packets that ended here.";
    DhcpRateLimited, "dhcp_rate_limited", "The port has had its share of answers to DHCP.";
    MetadataFull, "metadata_full", "The port has had its share of the metadata service: of its queue, its connections, or its new connections a second.";
    PeerRateLimited, "peer_rate_limited", "Tunnel peers have had their share of answers to ARP and neighbour discovery for the port.";
    // where it is going
    Multicast, "multicast", "The packet is for a multicast group; the overlay floods nothing.";
    Broadcast, "broadcast", "The packet is a broadcast; the overlay floods nothing.";
    DestinationMacUnknown, "destination_mac_unknown", "The destination MAC address is a group's or nobody's.";
    DestinationInvalid, "destination_invalid", "The destination address is unspecified, loopback, link-local or IPv4-mapped.";
    NoRoute, "no_route", "No route of the network covers the destination.";
    RouteDrop, "route_drop", "The route to the destination says drop.";
    NoUplink, "no_uplink", "The route leads out through the host's gateway, and this switch has none.";
    PeerNetworkAbsent, "peer_network_absent", "The route leads into a peer network that is not on this host.";
    PeerTransit, "peer_transit", "The peer network's route leads into yet another network; peering is for neighbours only.";
    DirectoryMiss, "directory_miss", "The directory has no entry for the destination in this network.";
    DirectoryStale, "directory_stale", "The directory says that the destination is on this host, and no port here has the address.";
    TtlExceeded, "ttl_exceeded", "The packet's time to live ended at the virtual router, and its sender could not be told.";
    HairpinToSender, "hairpin_to_sender", "The packet is for the port that sent it.";
    TooBig, "too_big", "The packet is larger than the path, and its sender could not be told.";
    // what the rules say
    RuleDeniedOut, "rule_denied_out", "A rule of the sending port denies the packet.";
    RuleDeniedIn, "rule_denied_in", "A rule of the receiving port denies the packet.";
    ConnectionsFull, "connections_full", "The port has no room for another connection: all that it could displace are established.";
    FragmentUnmatched, "fragment_unmatched", "A later fragment of a datagram whose first fragment has not passed the port's rules, or a first one that has IPv6 extension headers behind its fragment header.";
    // the change of a network
    Moved, "moved", "The frame was waiting when its port moved to another network.";
    StaleReply, "stale_reply", "The answer was made before its port moved to another network.";
    // between hosts
    UnderlaySourceUnknown, "underlay_source_unknown", "The tunnel packet comes from an address that is no host of the directory.";
    TunnelMalformed, "tunnel_malformed", "The tunnel header is truncated, or its version, length or protocol is wrong.";
    TunnelNoVni, "tunnel_no_vni", "The tunnel header carries no network identifier.";
    TunnelCriticalOption, "tunnel_critical_option", "The Geneve header carries a critical option that this switch does not know (RFC 8926 section 3.5).";
    VniAbsent, "vni_absent", "The tunnel packet is for a network that has no port on this host.";
    NotLocal, "not_local", "The tunnel packet is for an address that no port on this host has.";
    InnerSourceInvalid, "inner_source_invalid", "The tunnel packet's inner source address is no station's: unspecified, loopback, link-local, a group's or broadcast.";
    InnerSourceForged, "inner_source_forged", "The tunnel packet claims to come from the virtual router, a link-local service or a port of this very host.";
    TunnelEcn, "tunnel_ecn", "Congestion was marked on the outer header of a flow that does not understand it (RFC 6040 section 4.2).";
    UnderlayEncapsulation, "underlay_encapsulation", "There was no room in front of the packet for the tunnel header.";
    UnderlaySend, "underlay_send", "The kernel refused to send the tunnel packet.";
    UnderlayFamily, "underlay_family", "The destination's physical address is of a family that this host has no address of.";
    // the device
    PortSend, "port_send", "The port's device refused the packet.";
    PortDown, "port_down", "The port has no device, or its link is down.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indexes_are_dense() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(reason.sentence().ends_with('.'), "{}", reason.name());
        }
    }

    /// The reference page, made from the table. `SHUNT_WRITE_DOCS=1` in a test run's environment writes it anew.
    #[test]
    fn the_reference_page_says_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/drops.md");
        let rows: String = DropReason::ALL
            .iter()
            .map(|reason| format!("| `{}` | {} |\n", reason.name(), reason.sentence()))
            .collect();
        let page = format!(
            "# Drop reasons\n\nEvery packet that is not delivered is counted under one of these names: by `shunt vswitch drops`, per port, and \
             in the metrics. Made from `dataplane/src/drops.rs`; do not edit.\n\n| reason | what happened |\n|---|---|\n{rows}"
        );
        if std::env::var_os("SHUNT_WRITE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, page, "run `SHUNT_WRITE_DOCS=1 cargo test -p dataplane reference_page`");
    }
}
