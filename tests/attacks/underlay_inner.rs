//! What a neighbour of the hosts tries in the packets that it puts into a tunnel, everything around them being right.

use dataplane::pipeline::{DropReason, Trap};

use super::End::{Answered, Dropped, Reaches};
use super::bytes::{
    ARP_REPLY, ARP_REQUEST, BROADCAST, Mac, Mark, V4, arp, bootp, ethernet, fragment_header, icmp, icmpv6,
    nd_option, tcp, udp, udp6, v6, vxlan,
};
use super::{Arrival, BOB, DAVE, EVE, End, Format, From, GATEWAY, ip4, ip6, link_local};

const SOURCE: &str = "Inner sources";
const DESTINATION: &str = "Inner destinations";
const SHAPE: &str = "Inner frames";
const CONTROL: &str = "Inner control messages";

const fn row(
    section: &'static str,
    name: &'static str,
    payloads: fn(&Mark) -> Vec<Vec<u8>>,
    end: End,
) -> Arrival {
    Arrival { section, name, format: Format::Vxlan, from: From::HostB, tos: 0, payloads, end, counted: None }
}

/// A row that a port's counter tells of.
const fn at(port: &'static str, row: Arrival) -> Arrival {
    Arrival { counted: Some(port), ..row }
}

fn frame(to: Mac, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    vxlan(8, 100, &ethernet(to, DAVE, ether_type, packet))
}

fn from(sources: &[[u8; 4]], mark: &Mark) -> Vec<Vec<u8>> {
    let one = |&source: &[u8; 4]| frame(EVE, 0x0800, &V4::new(source, ip4(1), 17).packet(&udp((7, 7), mark)));
    sources.iter().map(one).collect()
}

fn from6(sources: &[[u8; 16]], mark: &Mark) -> Vec<Vec<u8>> {
    let one = |&source: &[u8; 16]| {
        frame(EVE, 0x86dd, &v6(source, ip6(1), 17, 64, &udp6(source, ip6(1), (7, 7), mark)))
    };
    sources.iter().map(one).collect()
}

fn to(mac: Mac, destinations: &[[u8; 4]], mark: &Mark) -> Vec<Vec<u8>> {
    let one = |&ip: &[u8; 4]| frame(mac, 0x0800, &V4::new(ip4(4), ip, 17).packet(&udp((7, 7), mark)));
    destinations.iter().map(one).collect()
}

fn to_eve(protocol: u8, payload: &[u8]) -> Vec<u8> {
    frame(EVE, 0x0800, &V4::new(ip4(4), ip4(1), protocol).packet(payload))
}

fn bent(mark: &Mark, bend: fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = V4::new(ip4(4), ip4(1), 17).packet(&udp((7, 7), mark));
    bend(&mut packet);
    frame(EVE, 0x0800, &packet)
}

fn with_options(options: &[u8], mark: &Mark) -> Vec<u8> {
    frame(
        EVE,
        0x0800,
        &V4 { options: options.to_vec(), ..V4::new(ip4(4), ip4(1), 17) }.packet(&udp((7, 7), mark)),
    )
}

fn arps(operation: u16, sender: (Mac, u8), target: u8, mark: &Mark) -> Vec<u8> {
    frame(BROADCAST, 0x0806, &arp(operation, (sender.0, ip4(sender.1)), ([0; 6], ip4(target)), mark))
}

fn nd(kind: u8, rest: [u8; 4], target: [u8; 16], option: u8, mark: &Mark) -> Vec<u8> {
    let body = [&target[..], &[option, 1], &DAVE, &nd_option(mark)].concat();
    frame(EVE, 0x86dd, &v6(ip6(4), ip6(1), 58, 255, &icmpv6(ip6(4), ip6(1), kind, rest, &body)))
}

const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2];
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

pub(super) const ROWS: &[Arrival] = &[
    row(
        SOURCE,
        "bob's address, who is on this host; eve's own",
        |m| [from(&[ip4(2), ip4(1)], m), from6(&[ip6(2), ip6(1)], m)].concat(),
        Dropped(DropReason::InnerSourceForged),
    ),
    row(
        SOURCE,
        "the virtual router's address, the metadata addresses",
        |m| {
            [from(&[ip4(GATEWAY), [169, 254, 169, 254], [168, 63, 129, 16]], m), from6(&[ip6(GATEWAY)], m)]
                .concat()
        },
        Dropped(DropReason::InnerSourceForged),
    ),
    row(
        SOURCE,
        "unspecified, loopback, link-local, a group's, broadcast",
        |m| {
            from(
                &[
                    [0; 4],
                    [0, 1, 2, 3],
                    [127, 0, 0, 1],
                    [169, 254, 1, 1],
                    [224, 0, 0, 1],
                    [239, 9, 9, 9],
                    [255; 4],
                ],
                m,
            )
        },
        Dropped(DropReason::InnerSourceInvalid),
    ),
    row(
        SOURCE,
        "IPv6: ::, ::1, link-local, IPv4-mapped, a group's",
        |m| from6(&[[0; 16], LOOPBACK6, link_local(DAVE), MAPPED, ALL_NODES], m),
        Dropped(DropReason::InnerSourceInvalid),
    ),
    row(
        SOURCE,
        "an address that the directory does not know: it may be a peer network's",
        |m| from(&[ip4(99), [10, 9, 9, 9]], m),
        Reaches("eve"),
    ),
    row(
        DESTINATION,
        "addresses that no port here has, the virtual router's, the world's",
        |m| to(EVE, &[ip4(77), ip4(4), ip4(GATEWAY), [8, 8, 8, 8], [168, 63, 129, 16], ip4(3)], m),
        Dropped(DropReason::NotLocal),
    ),
    row(
        DESTINATION,
        "unspecified, loopback, the metadata address",
        |m| to(EVE, &[[0; 4], [127, 0, 0, 1], [169, 254, 169, 254]], m),
        Dropped(DropReason::DestinationInvalid),
    ),
    row(
        DESTINATION,
        "groups",
        |m| [to(EVE, &[[224, 0, 0, 1]], m), to([1, 0, 0x5e, 0, 0, 1], &[[224, 0, 0, 1]], m)].concat(),
        Dropped(DropReason::Multicast),
    ),
    row(
        DESTINATION,
        "broadcast, and one station in a broadcast frame",
        |m| [to(BROADCAST, &[[255; 4], ip4(1)], m), to(EVE, &[[255; 4]], m)].concat(),
        Dropped(DropReason::Broadcast),
    ),
    row(
        DESTINATION,
        "one station in a group's frame",
        |m| to([3, 0, 0, 0, 0, 1], &[ip4(1)], m),
        Dropped(DropReason::DestinationMacUnknown),
    ),
    row(
        DESTINATION,
        "eve's address in a frame to bob: addresses decide",
        |m| to(BOB, &[ip4(1)], m),
        Reaches("eve"),
    ),
    row(
        SHAPE,
        "802.1Q and 802.1ad",
        |m| {
            let packet = V4::new(ip4(4), ip4(1), 17).packet(&udp((7, 7), m));
            [0x8100, 0x88a8, 0x9100]
                .map(|kind| frame(EVE, kind, &[&[0, 5, 8, 0], &packet[..]].concat()))
                .to_vec()
        },
        Dropped(DropReason::VlanTagged),
    ),
    row(
        SHAPE,
        "other protocols than IP and ARP",
        |m| [0x88cc, 0x8863, 0x8847, 0x0026].map(|kind| frame(EVE, kind, m)).to_vec(),
        Dropped(DropReason::EthertypeUnsupported),
    ),
    row(
        SHAPE,
        "an IPv4 header that is cut, of another version, longer than the packet",
        |m| {
            vec![
                bent(m, |packet| packet.truncate(19)),
                bent(m, |packet| packet[0] = 0x65),
                bent(m, |packet| packet[2] = 0x40),
                bent(m, |packet| packet.truncate(40)),
            ]
        },
        Dropped(DropReason::Ipv4Malformed),
    ),
    row(
        SHAPE,
        "a wrong IPv4 header checksum",
        |m| vec![bent(m, |packet| packet[10] ^= 0xff)],
        Dropped(DropReason::Ipv4Checksum),
    ),
    row(
        SHAPE,
        "source routes",
        |m| {
            vec![with_options(&[131, 7, 4, 10, 0, 0, 1, 0], m), with_options(&[137, 7, 4, 10, 0, 0, 1, 0], m)]
        },
        Dropped(DropReason::Ipv4SourceRoute),
    ),
    row(
        SHAPE,
        "an IPv6 header that is cut or longer than the packet",
        |_| vec![frame(EVE, 0x86dd, &[0x60; 39]), frame(EVE, 0x86dd, &[0x60; 60])],
        Dropped(DropReason::Ipv6Malformed),
    ),
    row(
        SHAPE,
        "a type 0 routing header, two fragment headers",
        |m| {
            let datagram = udp6(ip6(4), ip6(1), (7, 7), m);
            let routing = [&[17, 2, 0, 1, 0, 0, 0, 0], &ip6(1)[..], &datagram].concat();
            let twice = [fragment_header(44, 0, true), fragment_header(17, 0, true), datagram].concat();
            vec![
                frame(EVE, 0x86dd, &v6(ip6(4), ip6(1), 43, 64, &routing)),
                frame(EVE, 0x86dd, &v6(ip6(4), ip6(1), 44, 64, &twice)),
            ]
        },
        Dropped(DropReason::Ipv6ExtensionHeaders),
    ),
    row(
        SHAPE,
        "TCP in tiny and overlapping fragments",
        |m| {
            let piece = |fragment, payload: &[u8]| {
                frame(EVE, 0x0800, &V4 { fragment, ..V4::new(ip4(4), ip4(1), 6) }.packet(payload))
            };
            vec![piece(0x2000, &tcp((7, 22), 2, 5, m)[..16]), piece(1, m)]
        },
        Dropped(DropReason::FragmentTiny),
    ),
    row(
        SHAPE,
        "UDP, TCP and ICMP headers that contradict the packet",
        |m| {
            let mut short = udp((7, 7), m);
            short[5] = 4;
            vec![to_eve(17, &short), to_eve(6, &tcp((7, 22), 2, 4, m)), to_eve(1, &[8, 0])]
        },
        Dropped(DropReason::TransportMalformed),
    ),
    row(
        SHAPE,
        "wrong UDP and TCP checksums: eve's stack drops them",
        |m| {
            let mut datagram = udp((7, 7), m);
            datagram[6] = 0x55;
            vec![to_eve(17, &datagram), to_eve(6, &tcp((7, 22), 2, 5, m))]
        },
        Reaches("eve"),
    ),
    row(
        CONTROL,
        "a DHCP server's messages, DHCPv6 too",
        |m| {
            let answer = udp((67, 68), &bootp(2, EVE, &[53, 1, 5], m));
            let answer6 = udp6(ip6(4), ip6(1), (547, 546), m);
            vec![
                to_eve(17, &answer),
                frame(BROADCAST, 0x0800, &V4::new(ip4(GATEWAY), [255; 4], 17).packet(&answer)),
                frame(EVE, 0x86dd, &v6(ip6(4), ip6(1), 17, 64, &answer6)),
            ]
        },
        Dropped(DropReason::DhcpServerForged),
    ),
    row(
        CONTROL,
        "router advertisements and redirects, of ICMP and ICMPv6",
        |m| {
            let quoted = V4::new(ip4(1), ip4(2), 17).packet(&udp((7, 7), m));
            let from_router = V4::new(ip4(GATEWAY), ip4(1), 1).packet(&icmp(5, 1, ip4(4), &quoted));
            vec![
                nd(134, [64, 0, 1, 0], ip6(0), 1, m),
                nd(137, [0; 4], ip6(2), 2, m),
                to_eve(1, &icmp(5, 1, ip4(4), &quoted)),
                to_eve(1, &icmp(9, 0, [1, 2, 7, 8], m)),
                frame(EVE, 0x0800, &from_router),
            ]
        },
        Dropped(DropReason::RouterAdvertisementForged),
    ),
    row(
        CONTROL,
        "neighbour advertisements",
        |m| vec![nd(136, [0x60, 0, 0, 0], ip6(2), 2, m), nd(136, [0x60, 0, 0, 0], ip6(4), 2, m)],
        Dropped(DropReason::NdUnasked),
    ),
    row(
        CONTROL,
        "ARP replies and announcements, for anybody's address",
        |m| {
            vec![
                arps(ARP_REPLY, (DAVE, 2), 1, m),
                arps(ARP_REPLY, (DAVE, GATEWAY), 1, m),
                arps(ARP_REQUEST, (DAVE, 4), 4, m),
            ]
        },
        Dropped(DropReason::ArpUnasked),
    ),
    row(
        CONTROL,
        "ARP requests for the virtual router and for nobody",
        |m| vec![arps(ARP_REQUEST, (DAVE, 4), GATEWAY, m), arps(ARP_REQUEST, (DAVE, 4), 77, m)],
        Dropped(DropReason::ArpUnknownTarget),
    ),
    row(
        CONTROL,
        "neighbour solicitations for the virtual router and for nobody",
        |m| vec![nd(135, [0; 4], ip6(GATEWAY), 1, m), nd(135, [0; 4], ip6(77), 1, m)],
        Dropped(DropReason::NdUnknownTarget),
    ),
    at(
        "bob",
        row(
            CONTROL,
            "an ARP request for bob, as peers ask that are no switches",
            |m| vec![arps(ARP_REQUEST, (DAVE, 4), 2, m)],
            Answered(Trap::Arp),
        ),
    ),
    at(
        "bob",
        row(
            CONTROL,
            "a neighbour solicitation for bob",
            |m| vec![nd(135, [0; 4], ip6(2), 1, m)],
            Answered(Trap::NeighborSolicitation),
        ),
    ),
    row(
        CONTROL,
        "forged ICMP errors in dave's name: eve's stack asks what they quote (rules will too)",
        |m| {
            let quoted = V4::new(ip4(1), ip4(4), 6).packet(&tcp((22, 7), 2, 5, m));
            vec![
                to_eve(1, &icmp(3, 4, [0, 0, 2, 40], &quoted)),
                to_eve(1, &icmp(3, 1, [0; 4], &quoted)),
                to_eve(1, &icmp(11, 0, [0; 4], &quoted)),
            ]
        },
        Reaches("eve"),
    ),
];
