//! What a guest tries with IP: foreign and impossible addresses, options, fragments, times to live, lengths, checksums,
//! extension headers, tunnels of its own.

use dataplane::pipeline::{DropReason, Trap};

use super::End::{Answered, Dropped, Reaches};
use super::bytes::{
    BROADCAST, Mac, Mark, ROUTER, V4, ethernet, fragment_header, geneve, icmp, icmpv6, mend, padding_header,
    tcp, udp, udp6, v6, vxlan,
};
use super::{Attack, BOB, CAROL, DAVE, EVE, HOSTS, by_frame, ip4, ip6, link_local};

const SOURCE: &str = "IP sources";
const DESTINATION: &str = "IP destinations";
const HEADER: &str = "IP headers";
const FRAGMENTS: &str = "Fragments";
const EXTENSIONS: &str = "IPv6 extension headers";
const TRANSPORT: &str = "TCP, UDP and ICMP";
const TUNNELS: &str = "Tunnels of her own";

fn from(sources: &[[u8; 4]], mark: &Mark) -> Vec<Vec<u8>> {
    let to = [(ip4(2), BOB), (ip4(4), DAVE)];
    let frame = |source: [u8; 4], (ip, mac): ([u8; 4], Mac)| {
        ethernet(mac, EVE, 0x0800, &V4::new(source, ip, 17).packet(&udp((7, 7), mark)))
    };
    sources.iter().flat_map(|&source| to.map(|to| frame(source, to))).collect()
}

fn from6(sources: &[[u8; 16]], mark: &Mark) -> Vec<Vec<u8>> {
    let frame = |source: [u8; 16]| {
        let message = udp6(source, ip6(2), (7, 7), mark);
        ethernet(BOB, EVE, 0x86dd, &v6(source, ip6(2), 17, 64, &message))
    };
    sources.iter().map(|&source| frame(source)).collect()
}

fn to(mac: Mac, destinations: &[[u8; 4]], mark: &Mark) -> Vec<Vec<u8>> {
    let frame =
        |&ip: &[u8; 4]| ethernet(mac, EVE, 0x0800, &V4::new(ip4(1), ip, 17).packet(&udp((7, 7), mark)));
    destinations.iter().map(frame).collect()
}

fn to6(mac: Mac, destinations: &[[u8; 16]], mark: &Mark) -> Vec<Vec<u8>> {
    let frame =
        |&ip: &[u8; 16]| ethernet(mac, EVE, 0x86dd, &v6(ip6(1), ip, 17, 64, &udp6(ip6(1), ip, (7, 7), mark)));
    destinations.iter().map(frame).collect()
}

/// To bob, with a header that is changed before it is sent.
fn bent(mark: &Mark, bend: fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = V4::new(ip4(1), ip4(2), 17).packet(&udp((7, 7), mark));
    bend(&mut packet);
    ethernet(BOB, EVE, 0x0800, &packet)
}

fn with_options(options: &[u8], mark: &Mark) -> Vec<u8> {
    let ip = V4 { options: options.to_vec(), ..V4::new(ip4(1), ip4(2), 17) };
    ethernet(BOB, EVE, 0x0800, &ip.packet(&udp((7, 7), mark)))
}

/// A piece of a datagram to bob; the offset counts in eights.
fn piece(protocol: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let fragment = offset | if more { 0x2000 } else { 0 };
    ethernet(BOB, EVE, 0x0800, &V4 { fragment, ..V4::new(ip4(1), ip4(2), protocol) }.packet(payload))
}

fn piece6(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    chain(44, &[fragment_header(next, offset, more), payload.to_vec()].concat())
}

/// To bob, with whatever `next` names behind the IPv6 header.
fn chain(next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(BOB, EVE, 0x86dd, &v6(ip6(1), ip6(2), next, 64, payload))
}

fn udp_to_bob6(mark: &Mark) -> Vec<u8> {
    udp6(ip6(1), ip6(2), (7, 7), mark)
}

fn with_ttl(mac: Mac, ttl: u8, mark: &Mark) -> Vec<u8> {
    ethernet(mac, EVE, 0x0800, &V4 { ttl, ..V4::new(ip4(1), ip4(2), 17) }.packet(&udp((7, 7), mark)))
}

fn transport(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(BOB, EVE, 0x0800, &V4::new(ip4(1), ip4(2), protocol).packet(payload))
}

/// A datagram of so many bytes.
fn long(protocol: u8, header: &[u8], bytes: usize, mark: &Mark) -> Vec<u8> {
    let mut payload = [header, mark].concat();
    payload.resize(bytes - 20, 0);
    transport(protocol, &payload)
}

/// A tunnel packet for carol's network, and one for eve's own.
fn tunnelled(mark: &Mark) -> [Vec<u8>; 2] {
    let inner = V4::new(ip4(2), ip4(3), 17).packet(&udp((7, 7), mark));
    [200, 100].map(|vni| vxlan(8, vni, &ethernet(CAROL, BOB, 0x0800, &inner)))
}

const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2];
const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

pub(super) const ROWS: &[Attack] = &[
    by_frame(
        SOURCE,
        "bob's, dave's, the gateway's, carol's and nobody's address",
        |m| from(&[ip4(2), ip4(4), ip4(254), ip4(3), ip4(77), [8, 8, 8, 8]], m),
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        SOURCE,
        "the hosts' physical addresses",
        |m| from(&HOSTS, m),
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        SOURCE,
        "the metadata addresses",
        |m| from(&[[169, 254, 169, 254], [168, 63, 129, 16]], m),
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        SOURCE,
        "unspecified, loopback, link-local, a group's, class E, broadcast",
        |m| {
            from(
                &[
                    [0; 4],
                    [127, 0, 0, 1],
                    [169, 254, 1, 1],
                    [224, 0, 0, 1],
                    [240, 0, 0, 1],
                    [255; 4],
                    [0, 0, 0, 1],
                ],
                m,
            )
        },
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        SOURCE,
        "IPv6: bob's, the gateway's, ::, ::1, IPv4-mapped, a group's, her link-local to bob",
        |m| {
            from6(
                &[
                    ip6(2),
                    ip6(254),
                    [0; 16],
                    LOOPBACK6,
                    MAPPED,
                    ALL_NODES,
                    link_local(EVE),
                    link_local(ROUTER),
                ],
                m,
            )
        },
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        DESTINATION,
        "unspecified, loopback, link-local",
        |m| to(ROUTER, &[[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [127, 255, 255, 254], [169, 254, 1, 1]], m),
        Dropped(DropReason::DestinationInvalid),
    ),
    by_frame(
        DESTINATION,
        "IPv6: ::, ::1, link-local, IPv4-mapped",
        |m| to6(ROUTER, &[[0; 16], LOOPBACK6, link_local(BOB), MAPPED], m),
        Dropped(DropReason::DestinationInvalid),
    ),
    by_frame(
        DESTINATION,
        "groups, in their own frames, in frames to bob and to the router",
        |m| {
            let groups = [[224, 0, 0, 1], [224, 0, 0, 251], [239, 1, 2, 3]];
            [to([1, 0, 0x5e, 0, 0, 1], &groups, m), to(BOB, &groups, m), to(ROUTER, &groups, m)].concat()
        },
        Dropped(DropReason::Multicast),
    ),
    by_frame(
        DESTINATION,
        "IPv6 groups, in their own frames and in frames to bob",
        |m| {
            let mut site = ALL_NODES;
            site[1] = 5;
            [to6([0x33, 0x33, 0, 0, 0, 1], &[ALL_NODES, site], m), to6(BOB, &[ALL_NODES, site], m)].concat()
        },
        Dropped(DropReason::Multicast),
    ),
    by_frame(
        DESTINATION,
        "broadcast, and the network's own broadcast address in a broadcast frame",
        |m| [to(BROADCAST, &[[255; 4], ip4(255)], m), to(BOB, &[[255; 4]], m)].concat(),
        Dropped(DropReason::Broadcast),
    ),
    by_frame(
        DESTINATION,
        "a broadcast ping",
        |m| {
            vec![ethernet(
                BROADCAST,
                EVE,
                0x0800,
                &V4::new(ip4(1), [255; 4], 1).packet(&icmp(8, 0, [0; 4], m)),
            )]
        },
        Dropped(DropReason::Broadcast),
    ),
    by_frame(
        DESTINATION,
        "carol's address, which in eve's network is nobody's, and the network's first and last",
        |m| {
            [to(CAROL, &[ip4(3)], m), to(BOB, &[ip4(3)], m), to(ROUTER, &[ip4(3), ip4(0), ip4(255)], m)]
                .concat()
        },
        Dropped(DropReason::DirectoryMiss),
    ),
    by_frame(
        DESTINATION,
        "addresses beyond the network, class E",
        |m| to(ROUTER, &[[8, 8, 8, 8], [10, 0, 1, 1], [240, 0, 0, 1]], m),
        Dropped(DropReason::NoRoute),
    ),
    by_frame(
        DESTINATION,
        "her own address",
        |m| [to(ROUTER, &[ip4(1)], m), to(EVE, &[ip4(1)], m)].concat(),
        Dropped(DropReason::HairpinToSender),
    ),
    by_frame(
        HEADER,
        "a version that is not 4, a header of 4 bytes, a header beyond the packet",
        |m| {
            vec![
                bent(m, |packet| packet[0] = 0x65),
                bent(m, |packet| packet[0] = 0x41),
                bent(m, |packet| packet.truncate(40)),
            ]
        },
        Dropped(DropReason::Ipv4Malformed),
    ),
    by_frame(
        HEADER,
        "a total length beyond the frame, below the header, of zero",
        |m| {
            vec![
                bent(m, |packet| packet[2] = 0x40),
                bent(m, |packet| packet[3] = 19),
                bent(m, |packet| packet[3] = 0),
            ]
        },
        Dropped(DropReason::Ipv4Malformed),
    ),
    by_frame(
        HEADER,
        "a wrong header checksum",
        |m| vec![bent(m, |packet| packet[10] ^= 0xff), bent(m, |packet| packet[8] = 63)],
        Dropped(DropReason::Ipv4Checksum),
    ),
    by_frame(
        HEADER,
        "a loose and a strict source route, also behind other options",
        |m| {
            vec![
                with_options(&[131, 7, 4, 10, 0, 0, 4, 0], m),
                with_options(&[137, 7, 4, 10, 0, 0, 4, 0], m),
                with_options(&[1, 1, 1, 131, 3, 4, 0, 0], m),
                with_options(&[148, 4, 0, 0, 137, 3, 4, 0], m),
            ]
        },
        Dropped(DropReason::Ipv4SourceRoute),
    ),
    by_frame(
        HEADER,
        "options that overrun the header or have no length",
        |m| {
            vec![
                with_options(&[7, 9, 4, 0], m),
                with_options(&[7, 0, 4, 0], m),
                with_options(&[7, 1, 4, 0], m),
                with_options(&[1, 1, 1, 68], m),
            ]
        },
        Dropped(DropReason::Ipv4Malformed),
    ),
    by_frame(
        HEADER,
        "record route, timestamp, router alert: they prescribe nothing",
        |m| {
            vec![
                with_options(&[7, 7, 4, 0, 0, 0, 0, 0], m),
                with_options(&[68, 8, 5, 0, 0, 0, 0, 0], m),
                with_options(&[148, 4, 0, 0], m),
            ]
        },
        Reaches("bob"),
    ),
    by_frame(
        HEADER,
        "a time to live of 1 or 0 to the router",
        |m| vec![with_ttl(ROUTER, 1, m), with_ttl(ROUTER, 0, m)],
        Answered(Trap::TimeExceeded),
    ),
    by_frame(
        HEADER,
        "an ICMP error with a time to live of 1, which may cause none",
        |m| {
            let quoted = V4::new(ip4(2), ip4(1), 17).packet(&udp((7, 7), m));
            let ip = V4 { ttl: 1, ..V4::new(ip4(1), ip4(2), 1) };
            vec![ethernet(ROUTER, EVE, 0x0800, &ip.packet(&icmp(3, 3, [0; 4], &quoted)))]
        },
        Dropped(DropReason::TtlExceeded),
    ),
    by_frame(
        HEADER,
        "a time to live of 1 or 0 to a neighbour: no router is passed",
        |m| vec![with_ttl(BOB, 1, m), with_ttl(BOB, 0, m)],
        Reaches("bob"),
    ),
    by_frame(
        HEADER,
        "a packet longer than the network's MTU, with and without don't-fragment",
        |m| {
            let may = long(17, &udp((7, 7), &[0; 1473]), 1501, m);
            let mut may_not = may.clone();
            may_not[20] = 0x40;
            mend(&mut may_not[14..]);
            vec![may, may_not, long(17, &udp((7, 7), &[0; 8000]), 8028, m)]
        },
        Answered(Trap::TooBig),
    ),
    by_frame(
        HEADER,
        "a longer ICMP error, which may cause none",
        |m| vec![long(1, &icmp(3, 3, [0; 4], &[]), 1501, m)],
        Dropped(DropReason::TooBig),
    ),
    by_frame(
        FRAGMENTS,
        "a first piece without a whole TCP header (RFC 1858)",
        |m| {
            vec![
                piece(6, 0, true, &tcp((7, 22), 2, 5, m)[..16]),
                piece(6, 0, true, &tcp((7, 22), 2, 8, m)[..24]),
            ]
        },
        Dropped(DropReason::FragmentTiny),
    ),
    by_frame(
        FRAGMENTS,
        "a second piece that overwrites TCP's flags (RFC 3128)",
        |m| vec![piece(6, 1, false, m), piece(6, 1, true, m)],
        Dropped(DropReason::FragmentTiny),
    ),
    by_frame(
        FRAGMENTS,
        "a first piece without a whole UDP or ICMP header",
        |m| vec![piece(17, 0, true, &udp((7, 7), m)[..7]), piece(1, 0, true, &icmp(8, 0, [0; 4], m)[..4])],
        Dropped(DropReason::FragmentTiny),
    ),
    by_frame(
        FRAGMENTS,
        "a last piece beyond 65,535 bytes (the ping of death)",
        |m| vec![piece(1, 8191, false, m), piece(17, 8190, false, m)],
        Dropped(DropReason::Ipv4Malformed),
    ),
    by_frame(
        FRAGMENTS,
        "pieces that overlap (teardrop), twice the same, a middle without ends: their receiver puts them together or not",
        |m| {
            let first = piece(17, 0, true, &udp((7, 7), m));
            vec![first.clone(), first, piece(17, 3, false, m), piece(17, 2, true, m), piece(17, 100, true, m)]
        },
        Reaches("bob"),
    ),
    by_frame(
        FRAGMENTS,
        "IPv6: a first piece without a whole header",
        |m| vec![piece6(17, 0, true, &udp_to_bob6(m)[..7]), piece6(6, 0, true, &tcp((7, 22), 2, 5, m)[..16])],
        Dropped(DropReason::FragmentTiny),
    ),
    by_frame(
        FRAGMENTS,
        "IPv6: a first piece whose chain goes on in the next, two fragment headers, a last piece beyond 65,535 bytes",
        |m| {
            vec![
                piece6(60, 0, true, &[]),
                piece6(44, 0, true, &[fragment_header(17, 0, true), udp_to_bob6(m)].concat()),
                piece6(17, 8191, false, m),
            ]
        },
        Dropped(DropReason::Ipv6ExtensionHeaders),
    ),
    by_frame(
        FRAGMENTS,
        "IPv6: pieces that overlap: their receiver drops them (RFC 5722)",
        |m| vec![piece6(17, 0, true, &udp_to_bob6(m)), piece6(17, 2, false, m)],
        Reaches("bob"),
    ),
    by_frame(
        EXTENSIONS,
        "a type 0 routing header (RFC 5095), also behind others",
        |m| {
            let routing = |next: u8| [&[next, 2, 0, 1, 0, 0, 0, 0], &ip6(4)[..]].concat();
            vec![
                chain(43, &[routing(17), udp_to_bob6(m)].concat()),
                chain(0, &[padding_header(43), routing(17), udp_to_bob6(m)].concat()),
            ]
        },
        Dropped(DropReason::Ipv6ExtensionHeaders),
    ),
    by_frame(
        EXTENSIONS,
        "ten headers, one of 2 KiB, one that overruns, hop-by-hop options not first",
        |m| {
            let many: Vec<u8> =
                (0..10).flat_map(|number| padding_header(if number < 9 { 60 } else { 17 })).collect();
            let mut large = vec![17, 254, 1, 4, 0, 0, 0, 0];
            large.resize(2040, 0);
            vec![
                chain(60, &[many, udp_to_bob6(m)].concat()),
                // A piece of it: the whole would be longer than the MTU.
                chain(60, &large[..1400]),
                chain(60, &[vec![17, 200, 1, 4, 0, 0, 0, 0], udp_to_bob6(m)].concat()),
                chain(60, &[padding_header(0), padding_header(17), udp_to_bob6(m)].concat()),
            ]
        },
        Dropped(DropReason::Ipv6ExtensionHeaders),
    ),
    by_frame(
        EXTENSIONS,
        "a payload length beyond the packet",
        |m| {
            let mut frame = chain(17, &udp_to_bob6(m));
            frame[18] = 0xff;
            vec![frame]
        },
        Dropped(DropReason::Ipv6Malformed),
    ),
    by_frame(
        EXTENSIONS,
        "one of each that is lawful, segment routing that ends at bob",
        |m| {
            let segments = [&[17, 2, 4, 0, 0, 0, 0, 0], &ip6(2)[..]].concat();
            vec![
                chain(0, &[padding_header(60), padding_header(17), udp_to_bob6(m)].concat()),
                chain(43, &[segments, udp_to_bob6(m)].concat()),
            ]
        },
        Reaches("bob"),
    ),
    by_frame(
        TRANSPORT,
        "a UDP length below 8, a UDP length beyond the packet",
        |m| {
            let bent = |low: u8| {
                let mut datagram = udp((7, 7), m);
                datagram[5] = low;
                transport(17, &datagram)
            };
            vec![bent(7), bent(0), bent(200)]
        },
        Dropped(DropReason::TransportMalformed),
    ),
    by_frame(
        TRANSPORT,
        "a TCP header below 20 bytes, beyond the packet, half a one; half an ICMP header",
        |m| {
            vec![
                transport(6, &tcp((7, 22), 2, 4, m)),
                transport(6, &tcp((7, 22), 2, 15, &m[..8])),
                transport(6, &tcp((7, 22), 2, 5, &[])[..12]),
                transport(1, &[8, 0, 0, 0]),
            ]
        },
        Dropped(DropReason::TransportMalformed),
    ),
    by_frame(
        TRANSPORT,
        "wrong TCP, UDP and ICMP checksums: their receiver drops them",
        |m| {
            let mut ping = icmp(8, 0, [0, 1, 0, 1], m);
            ping[2] ^= 0xff;
            let mut datagram = udp((7, 7), m);
            datagram[6] = 0x55;
            vec![transport(6, &tcp((7, 22), 2, 5, m)), transport(17, &datagram), transport(1, &ping)]
        },
        Reaches("bob"),
    ),
    by_frame(
        TRANSPORT,
        "TCP flags that nobody sends, port 0, unknown protocols: rules may forbid them",
        |m| {
            vec![
                transport(6, &tcp((0, 0), 0, 5, m)),
                transport(6, &tcp((7, 22), 0xff, 5, m)),
                transport(17, &udp((0, 0), m)),
                transport(253, m),
                transport(0, m),
            ]
        },
        Reaches("bob"),
    ),
    by_frame(
        TRANSPORT,
        "forged ICMP errors in her own name: bob's stack asks what they quote (rules will too)",
        |m| {
            let quoted = V4::new(ip4(2), ip4(4), 6).packet(&tcp((22, 7), 2, 5, m));
            vec![
                transport(1, &icmp(3, 4, [0, 0, 2, 40], &quoted)),
                transport(1, &icmp(3, 1, [0; 4], &quoted)),
                {
                    let message = icmpv6(ip6(1), ip6(2), 2, [0, 0, 5, 0], m);
                    chain(58, &message)
                },
            ]
        },
        Reaches("bob"),
    ),
    by_frame(
        TUNNELS,
        "VXLAN and Geneve to both hosts' physical addresses, for carol's network and hers",
        |m| {
            let frames = HOSTS.iter().flat_map(|&host| {
                tunnelled(m).into_iter().flat_map(move |tunnel| {
                    let inner = tunnel[8..].to_vec();
                    let geneve = geneve([0, 0], 0x6558, 200, &[], &inner);
                    [udp((50_000, 4789), &tunnel), udp((50_000, 6081), &geneve)].map(|datagram| {
                        ethernet(ROUTER, EVE, 0x0800, &V4::new(ip4(1), host, 17).packet(&datagram))
                    })
                })
            });
            frames.collect()
        },
        Dropped(DropReason::NoRoute),
    ),
    by_frame(
        TUNNELS,
        "the same in the other host's name",
        |m| {
            tunnelled(m)
                .map(|tunnel| {
                    ethernet(
                        ROUTER,
                        EVE,
                        0x0800,
                        &V4::new(HOSTS[1], HOSTS[0], 17).packet(&udp((50_000, 4789), &tunnel)),
                    )
                })
                .to_vec()
        },
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        TUNNELS,
        "GRE, IP in IP, 6in4, ESP and L2TP to a host's physical address",
        |m| {
            [47, 4, 41, 50, 115]
                .map(|protocol| ethernet(ROUTER, EVE, 0x0800, &V4::new(ip4(1), HOSTS[1], protocol).packet(m)))
                .to_vec()
        },
        Dropped(DropReason::NoRoute),
    ),
    by_frame(
        TUNNELS,
        "VXLAN to the virtual router",
        |m| {
            tunnelled(m)
                .map(|tunnel| {
                    ethernet(
                        ROUTER,
                        EVE,
                        0x0800,
                        &V4::new(ip4(1), ip4(254), 17).packet(&udp((50_000, 4789), &tunnel)),
                    )
                })
                .to_vec()
        },
        Dropped(DropReason::GatewayUnserved),
    ),
    by_frame(
        TUNNELS,
        "VXLAN to bob: payload like any other",
        |m| tunnelled(m).map(|tunnel| transport(17, &udp((50_000, 4789), &tunnel))).to_vec(),
        Reaches("bob"),
    ),
];
