//! What a guest tries below IP: shapes of frames, foreign MAC addresses, other protocols, ARP.

use dataplane::pipeline::{DropReason, Trap};

use super::End::{Answered, Dropped, Reaches};
use super::bytes::{ARP_REPLY, ARP_REQUEST, BROADCAST, Mac, Mark, ROUTER, V4, arp, ethernet, udp};
use super::{Attack, BOB, CAROL, DAVE, EVE, GATEWAY, Means, by_frame, ip4};

const FRAME: &str = "Frames";
const ARP: &str = "ARP";

fn to_bob(mark: &Mark) -> Vec<u8> {
    V4::new(ip4(1), ip4(2), 17).packet(&udp((7, 7), mark))
}

fn with_macs(to: Mac, from: Mac, mark: &Mark) -> Vec<Vec<u8>> {
    vec![ethernet(to, from, 0x0800, &to_bob(mark))]
}

/// One frame of each protocol.
fn of_types(types: &[u16], mark: &Mark) -> Vec<Vec<u8>> {
    types.iter().map(|&kind| ethernet(BOB, EVE, kind, mark)).collect()
}

/// One frame to each of the groups that bridges and routers speak in.
fn to_group(to: Mac, kind: u16, mark: &Mark) -> Vec<Vec<u8>> {
    vec![ethernet(to, EVE, kind, mark)]
}

fn says(operation: u16, sender: (Mac, u8), target: (Mac, u8), mark: &Mark) -> Vec<Vec<u8>> {
    let message = arp(operation, (sender.0, ip4(sender.1)), (target.0, ip4(target.1)), mark);
    [BROADCAST, BOB, DAVE].map(|to| ethernet(to, EVE, 0x0806, &message)).to_vec()
}

/// An ARP request whose bytes were changed.
fn bent(mark: &Mark, bend: fn(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    let mut message = arp(ARP_REQUEST, (EVE, ip4(1)), ([0; 6], ip4(2)), mark);
    bend(&mut message);
    vec![ethernet(BROADCAST, EVE, 0x0806, &message)]
}

pub(super) const ROWS: &[Attack] = &[
    by_frame(FRAME, "an honest packet to bob", |m| with_macs(BOB, EVE, m), Reaches("bob")),
    by_frame(
        FRAME,
        "an honest packet to dave on the other host",
        |m| {
            let packet = V4::new(ip4(1), ip4(4), 17).packet(&udp((7, 7), m));
            vec![ethernet(DAVE, EVE, 0x0800, &packet)]
        },
        Reaches("dave"),
    ),
    by_frame(
        FRAME,
        "bob's MAC address as source",
        |m| with_macs(DAVE, BOB, m),
        Dropped(DropReason::SourceMacSpoofed),
    ),
    by_frame(
        FRAME,
        "the virtual router's MAC address as source",
        |m| with_macs(BOB, ROUTER, m),
        Dropped(DropReason::SourceMacSpoofed),
    ),
    by_frame(
        FRAME,
        "a group's, the broadcast and the zero MAC address as source",
        |m| {
            [[3, 0, 0, 0, 0, 1], BROADCAST, [0; 6]].iter().flat_map(|&from| with_macs(BOB, from, m)).collect()
        },
        Dropped(DropReason::SourceMacSpoofed),
    ),
    by_frame(
        FRAME,
        "a MAC address off by one in a frame that is malformed besides",
        |m| {
            let mut frame = with_macs(BOB, [2, 0, 0, 0, 0, 9], m).remove(0);
            frame[14] = 0;
            vec![frame]
        },
        Dropped(DropReason::SourceMacSpoofed),
    ),
    by_frame(
        FRAME,
        "a packet for one station in a broadcast frame",
        |m| with_macs(BROADCAST, EVE, m),
        Dropped(DropReason::Broadcast),
    ),
    by_frame(
        FRAME,
        "a packet for one station in a group's frame",
        |m| with_macs([1, 0, 0x5e, 0, 0, 1], EVE, m),
        Dropped(DropReason::DestinationMacUnknown),
    ),
    by_frame(
        FRAME,
        "a packet for bob in a frame to carol, who is in another network",
        |m| with_macs(CAROL, EVE, m),
        Reaches("bob"),
    ),
    by_frame(
        FRAME,
        "802.1Q, 802.1ad, the old QinQ, a priority tag, two tags",
        |m| {
            let tagged = |kind: u16, tag: &[u8]| ethernet(BOB, EVE, kind, &[tag, &to_bob(m)].concat());
            vec![
                tagged(0x8100, &[0, 5, 8, 0]),
                tagged(0x88a8, &[0, 5, 8, 0]),
                tagged(0x9100, &[0, 5, 8, 0]),
                tagged(0x8100, &[0xe0, 0, 8, 0]),
                tagged(0x88a8, &[0, 5, 0x81, 0, 0, 6, 8, 0]),
            ]
        },
        Dropped(DropReason::VlanTagged),
    ),
    by_frame(
        FRAME,
        "a tagged frame with a foreign MAC address",
        |m| vec![ethernet(BOB, DAVE, 0x8100, &[&[0, 5, 8, 0], &to_bob(m)[..]].concat())],
        Dropped(DropReason::VlanTagged),
    ),
    by_frame(
        FRAME,
        "LLDP, STP, LACP, EAPOL, PAUSE: what speaks to the nearest bridge",
        |m| {
            let near = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
            [
                to_group(near, 0x88cc, m),
                to_group([0x01, 0x80, 0xc2, 0, 0, 0], 0x0026, m),
                to_group([0x01, 0x80, 0xc2, 0, 0, 2], 0x8809, m),
                to_group([0x01, 0x80, 0xc2, 0, 0, 3], 0x888e, m),
                to_group([0x01, 0x80, 0xc2, 0, 0, 1], 0x8808, m),
            ]
            .concat()
        },
        Dropped(DropReason::EthertypeUnsupported),
    ),
    by_frame(
        FRAME,
        "RARP, PPPoE, MPLS, MACsec, wake-on-LAN, EtherCAT, CFM, PTP, loopback, 802.3 with LLC, nonsense",
        |m| {
            of_types(
                &[
                    0x8035, 0x8863, 0x8864, 0x8847, 0x8848, 0x88e5, 0x0842, 0x88a4, 0x8902, 0x88f7, 0x9000,
                    0x0040, 0x05dc, 0, 0xffff,
                ],
                m,
            )
        },
        Dropped(DropReason::EthertypeUnsupported),
    ),
    Attack {
        section: FRAME,
        name: "nothing, one byte, half an Ethernet header",
        means: Means::Ring("packet sockets take no frame below 14 bytes"),
        frames: |_| vec![vec![], vec![2], EVE.repeat(2), vec![2; 13]],
        end: Dropped(DropReason::EthernetTruncated),
    },
    by_frame(
        FRAME,
        "an Ethernet header and nothing, or half an IPv4 header",
        |m| vec![ethernet(BOB, EVE, 0x0800, &[]), ethernet(BOB, EVE, 0x0800, &to_bob(m)[..19])],
        Dropped(DropReason::Ipv4Malformed),
    ),
    by_frame(
        FRAME,
        "half an IPv6 header",
        |_| vec![ethernet(BOB, EVE, 0x86dd, &[0x60; 39])],
        Dropped(DropReason::Ipv6Malformed),
    ),
    by_frame(
        FRAME,
        "IPv6 in a frame that says IPv4",
        |m| vec![ethernet(BOB, EVE, 0x0800, &[&[0x60; 40], &m[..]].concat())],
        Dropped(DropReason::Ipv4Malformed),
    ),
    by_frame(
        FRAME,
        "IPv4 in a frame that says IPv6",
        |m| vec![ethernet(BOB, EVE, 0x86dd, &to_bob(m))],
        Dropped(DropReason::Ipv6Malformed),
    ),
    by_frame(
        ARP,
        "a request in bob's name",
        |m| says(ARP_REQUEST, (EVE, 2), ([0; 6], 4), m),
        Dropped(DropReason::ArpSpoofed),
    ),
    by_frame(
        ARP,
        "a reply that claims bob's address",
        |m| says(ARP_REPLY, (EVE, 2), (DAVE, 4), m),
        Dropped(DropReason::ArpSpoofed),
    ),
    by_frame(
        ARP,
        "a reply that claims the gateway's address",
        |m| says(ARP_REPLY, (EVE, GATEWAY), (BOB, 2), m),
        Dropped(DropReason::ArpSpoofed),
    ),
    by_frame(
        ARP,
        "a gratuitous request and reply that claim bob's address",
        |m| [says(ARP_REQUEST, (EVE, 2), ([0; 6], 2), m), says(ARP_REPLY, (EVE, 2), (EVE, 2), m)].concat(),
        Dropped(DropReason::ArpSpoofed),
    ),
    by_frame(
        ARP,
        "her own address under bob's MAC address, in her own frame",
        |m| says(ARP_REQUEST, (BOB, 1), ([0; 6], 2), m),
        Dropped(DropReason::ArpSpoofed),
    ),
    by_frame(
        ARP,
        "a request in bob's name and frame",
        |m| {
            let message = arp(ARP_REQUEST, (BOB, ip4(2)), ([0; 6], ip4(4)), m);
            vec![ethernet(BROADCAST, BOB, 0x0806, &message)]
        },
        Dropped(DropReason::SourceMacSpoofed),
    ),
    by_frame(
        ARP,
        "replies and announcements of her own address, which nobody asked for",
        |m| {
            [
                says(ARP_REPLY, (EVE, 1), (BOB, 2), m),
                says(ARP_REQUEST, (EVE, 1), ([0; 6], 1), m),
                says(ARP_REPLY, (EVE, 1), (EVE, 1), m),
            ]
            .concat()
        },
        Dropped(DropReason::ArpUnasked),
    ),
    by_frame(
        ARP,
        "a request for carol, who is in another network, and for nobody",
        |m| {
            [says(ARP_REQUEST, (EVE, 1), ([0; 6], 3), m), says(ARP_REQUEST, (EVE, 1), ([0; 6], 77), m)]
                .concat()
        },
        Dropped(DropReason::ArpUnknownTarget),
    ),
    by_frame(
        ARP,
        "requests for bob, dave and the gateway",
        |m| {
            [2, 4, GATEWAY]
                .iter()
                .flat_map(|&target| says(ARP_REQUEST, (EVE, 1), ([0; 6], target), m))
                .collect()
        },
        Answered(Trap::Arp),
    ),
    by_frame(
        ARP,
        "a probe for bob's address, as if to take it",
        |m| {
            let message = arp(ARP_REQUEST, (EVE, [0; 4]), ([0; 6], ip4(2)), m);
            vec![ethernet(BROADCAST, EVE, 0x0806, &message)]
        },
        Answered(Trap::Arp),
    ),
    by_frame(
        ARP,
        "a message that is cut, for other hardware, for other protocols, RARP and InARP",
        |m| {
            [
                bent(m, |message| message.truncate(27)),
                bent(m, |message| message.truncate(7)),
                bent(m, |message| message[1] = 6),
                bent(m, |message| message[3] = 6),
                bent(m, |message| message[4] = 255),
                bent(m, |message| message[5] = 16),
                bent(m, |message| message[7] = 3),
                bent(m, |message| message[7] = 8),
                bent(m, |message| message[7] = 0),
            ]
            .concat()
        },
        Dropped(DropReason::ArpMalformed),
    ),
];
