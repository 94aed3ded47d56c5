//! What a guest tries on the others' configuration and on the switch's own services: DHCP, neighbour discovery, router
//! advertisements and redirects, the virtual router, the link-local services.

use dataplane::pipeline::{DropReason, Trap};

use super::End::{Absorbed, Answered, Dropped};
use super::bytes::{
    BROADCAST, Mac, Mark, ROUTER, V4, bootp, ethernet, fragment_header, icmp, icmpv6, nd_option,
    padding_header, tcp, udp, udp6, v6,
};
use super::{Attack, BOB, EVE, GATEWAY, HOSTS, by_frame, ip4, ip6, link_local};

const DHCP: &str = "DHCP";
const ND: &str = "Neighbour and router discovery";
const SERVICES: &str = "The switch's own services";

/// A DHCP message between two ports.
fn dhcp(from: [u8; 4], to: ([u8; 4], Mac), ports: (u16, u16), message: &[u8]) -> Vec<u8> {
    ethernet(to.1, EVE, 0x0800, &V4::new(from, to.0, 17).packet(&udp(ports, message)))
}

const EVERYBODY: ([u8; 4], Mac) = ([255; 4], BROADCAST);

fn as_client(operation: u8, client: Mac, options: &[u8], mark: &Mark) -> Vec<u8> {
    dhcp([0; 4], EVERYBODY, (68, 67), &bootp(operation, client, options, mark))
}

/// A DHCP request whose bytes were changed.
fn bent(mark: &Mark, bend: fn(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    let mut message = bootp(1, EVE, &[53, 1, 1], mark);
    bend(&mut message);
    vec![dhcp([0; 4], EVERYBODY, (68, 67), &message)]
}

const ALL_NODES: ([u8; 16], Mac) =
    ([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]);

/// A neighbour discovery message as RFC 4861 wants it: hop limit 255, right checksum.
fn nd(from: [u8; 16], to: ([u8; 16], Mac), kind: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    ethernet(to.1, EVE, 0x86dd, &v6(from, to.0, 58, 255, &icmpv6(from, to.0, kind, rest, body)))
}

/// To bob alone and to everybody.
fn nd_to_all(from: [u8; 16], kind: u8, rest: [u8; 4], body: &[u8]) -> Vec<Vec<u8>> {
    [(ip6(2), BOB), ALL_NODES].map(|to| nd(from, to, kind, rest, body)).to_vec()
}

fn claims(target: [u8; 16], mac: Mac, mark: &Mark) -> Vec<u8> {
    [&target[..], &[2, 1], &mac, &nd_option(mark)].concat()
}

fn asks(target: [u8; 16], mac: Mac, mark: &Mark) -> Vec<u8> {
    [&target[..], &[1, 1], &mac, &nd_option(mark)].concat()
}

/// A router advertisement that makes its sender everybody's default router and name server.
fn advertisement(mark: &Mark) -> Vec<u8> {
    let prefix = [&[3, 4, 64, 0xc0][..], &[0xff; 8], &[0; 4], &ip6(0)].concat();
    let dns = [&[25, 3, 0, 0][..], &[0xff; 4], &ip6(1)].concat();
    [&[0; 8][..], &[1, 1], &EVE, &prefix, &dns, &nd_option(mark)].concat()
}

const ROUTER_FLAGS: [u8; 4] = [64, 0, 0xff, 0xff];

/// To the virtual router or a link-local service.
fn to_service(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(ROUTER, EVE, 0x0800, &V4::new(ip4(1), to, protocol).packet(payload))
}

fn to_service6(to: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(ROUTER, EVE, 0x86dd, &v6(ip6(1), to, next, 64, payload))
}

pub(super) const ROWS: &[Attack] = &[
    by_frame(
        DHCP,
        "an offer and an acknowledgement to everybody, in the gateway's, nobody's and her own name",
        |m| {
            let answers = [2_u8, 5].map(|kind| bootp(2, BOB, &[53, 1, kind, 3, 4, 10, 0, 0, 1], m));
            let froms = [ip4(GATEWAY), [0; 4], ip4(1)];
            answers
                .iter()
                .flat_map(|answer| froms.map(|from| dhcp(from, EVERYBODY, (67, 68), answer)))
                .collect()
        },
        Dropped(DropReason::DhcpServerForged),
    ),
    by_frame(
        DHCP,
        "an acknowledgement to bob alone, from any port",
        |m| {
            let answer = bootp(2, BOB, &[53, 1, 5, 3, 4, 10, 0, 0, 1], m);
            [67, 68, 1067].map(|port| dhcp(ip4(1), (ip4(2), BOB), (port, 68), &answer)).to_vec()
        },
        Dropped(DropReason::DhcpServerForged),
    ),
    by_frame(
        DHCP,
        "a refusal to bob, so that he gives up his address",
        |m| vec![dhcp(ip4(1), (ip4(2), BOB), (67, 68), &bootp(2, BOB, &[53, 1, 6], m))],
        Dropped(DropReason::DhcpServerForged),
    ),
    by_frame(
        DHCP,
        "an offer in fragments",
        |m| {
            let whole = udp((67, 68), &bootp(2, BOB, &[53, 1, 2], m));
            let first = V4 { fragment: 0x2000, ..V4::new(ip4(1), ip4(2), 17) };
            vec![ethernet(BOB, EVE, 0x0800, &first.packet(&whole[..240]))]
        },
        Dropped(DropReason::DhcpServerForged),
    ),
    by_frame(
        DHCP,
        "server's messages to the server's port",
        |m| {
            vec![
                as_client(2, EVE, &[53, 1, 1], m),
                as_client(1, EVE, &[53, 1, 2], m),
                as_client(1, EVE, &[53, 1, 5], m),
                as_client(1, EVE, &[53, 1, 6], m),
            ]
        },
        Dropped(DropReason::DhcpServerForged),
    ),
    by_frame(
        DHCP,
        "DHCPv6 advertisements and replies",
        |m| {
            let message = [&[7, 0, 0, 1, 0, 99, 0, 32][..], m].concat();
            [(link_local(EVE), ALL_NODES), (ip6(1), (ip6(2), BOB))]
                .map(|(from, to)| {
                    ethernet(
                        to.1,
                        EVE,
                        0x86dd,
                        &v6(from, to.0, 17, 64, &udp6(from, to.0, (547, 546), &message)),
                    )
                })
                .to_vec()
        },
        Dropped(DropReason::DhcpServerForged),
    ),
    by_frame(
        DHCP,
        "a request, a decline and a release for bob's hardware address",
        |m| [3, 4, 7].map(|kind| as_client(1, BOB, &[53, 1, kind, 50, 4, 10, 0, 0, 2], m)).to_vec(),
        Dropped(DropReason::DhcpForeignClient),
    ),
    by_frame(
        DHCP,
        "a request through a relay that does not exist",
        |m| bent(m, |message| message[24..28].copy_from_slice(&[10, 0, 0, 1])),
        Dropped(DropReason::DhcpRelayed),
    ),
    by_frame(
        DHCP,
        "a message that is cut, without a cookie, with an option that overruns, in fragments",
        |m| {
            let whole = udp((68, 67), &bootp(1, EVE, &[53, 1, 1], m));
            let first = V4 { fragment: 0x2000, ..V4::new([0; 4], [255; 4], 17) };
            [
                bent(m, |message| message.truncate(200)),
                bent(m, |message| message[236] = 0),
                bent(m, |message| {
                    message.truncate(243);
                    message.extend([50, 200, 1]);
                }),
                vec![ethernet(BROADCAST, EVE, 0x0800, &first.packet(&whole[..240]))],
            ]
            .concat()
        },
        Dropped(DropReason::DhcpMalformed),
    ),
    by_frame(
        DHCP,
        "a message without a type, and of types that no server answers",
        |m| vec![as_client(1, EVE, &[], m), as_client(1, EVE, &[53, 1, 8], m)],
        Dropped(DropReason::DhcpIgnored),
    ),
    by_frame(
        DHCP,
        "requests for bob's and for carol's address",
        |m| [2, 3].map(|last| as_client(1, EVE, &[53, 1, 3, 50, 4, 10, 0, 0, last], m)).to_vec(),
        Answered(Trap::DhcpNak),
    ),
    by_frame(
        DHCP,
        "a discovery with bob's address as a wish and bob's client identifier",
        |m| vec![as_client(1, EVE, &[53, 1, 1, 50, 4, 10, 0, 0, 2, 61, 7, 1, 2, 0, 0, 0, 0, 2], m)],
        Answered(Trap::DhcpOffer),
    ),
    by_frame(
        DHCP,
        "a release of her own lease, again and again",
        |m| vec![dhcp(ip4(1), (ip4(GATEWAY), ROUTER), (68, 67), &bootp(1, EVE, &[53, 1, 7], m)); 5],
        Absorbed(Trap::DhcpRelease),
    ),
    by_frame(
        ND,
        "router advertisements, from her own, the router's and bob's address",
        |m| {
            [link_local(EVE), link_local(ROUTER), ip6(2)]
                .iter()
                .flat_map(|&from| nd_to_all(from, 134, ROUTER_FLAGS, &advertisement(m)))
                .collect()
        },
        Dropped(DropReason::RouterAdvertisementForged),
    ),
    by_frame(
        ND,
        "a router advertisement behind destination options and in an atomic fragment",
        |m| {
            let (from, to) = (link_local(EVE), ALL_NODES);
            let message = icmpv6(from, to.0, 134, ROUTER_FLAGS, &advertisement(m));
            [(60, padding_header(58)), (44, fragment_header(58, 0, false))]
                .map(|(next, header)| {
                    ethernet(
                        to.1,
                        EVE,
                        0x86dd,
                        &v6(from, to.0, next, 255, &[header, message.clone()].concat()),
                    )
                })
                .to_vec()
        },
        Dropped(DropReason::RouterAdvertisementForged),
    ),
    by_frame(
        ND,
        "a router advertisement and a solicitation in fragments",
        |m| {
            let (from, to) = (link_local(EVE), ALL_NODES);
            [
                icmpv6(from, to.0, 134, ROUTER_FLAGS, &advertisement(m)),
                icmpv6(from, to.0, 135, [0; 4], &asks(ip6(2), EVE, m)),
            ]
            .map(|message| {
                ethernet(
                    to.1,
                    EVE,
                    0x86dd,
                    &v6(from, to.0, 44, 255, &[fragment_header(58, 0, true), message].concat()),
                )
            })
            .to_vec()
        },
        Dropped(DropReason::NdMalformed),
    ),
    by_frame(
        ND,
        "ICMPv6 redirects, in the router's and her own name",
        |m| {
            let body = [&ip6(1)[..], &ip6(4), &nd_option(m)].concat();
            [link_local(ROUTER), link_local(EVE)]
                .iter()
                .flat_map(|&from| nd_to_all(from, 137, [0; 4], &body))
                .collect()
        },
        Dropped(DropReason::RouterAdvertisementForged),
    ),
    by_frame(
        ND,
        "ICMP redirects and router advertisements (IPv4)",
        |m| {
            let quoted = V4::new(ip4(2), ip4(4), 17).packet(&udp((7, 7), m));
            [icmp(5, 1, ip4(1), &quoted), icmp(9, 0, [1, 2, 7, 8], &[&ip4(1)[..], &[0; 4], m].concat())]
                .iter()
                .flat_map(|message| {
                    [ip4(1), ip4(GATEWAY)]
                        .map(|from| ethernet(BOB, EVE, 0x0800, &V4::new(from, ip4(2), 1).packet(message)))
                })
                .collect()
        },
        Dropped(DropReason::RouterAdvertisementForged),
    ),
    by_frame(
        ND,
        "neighbour advertisements for bob's and the gateway's address",
        |m| {
            [ip6(2), ip6(GATEWAY), link_local(ROUTER)]
                .iter()
                .flat_map(|&target| nd_to_all(ip6(1), 136, [0x60, 0, 0, 0], &claims(target, EVE, m)))
                .collect()
        },
        Dropped(DropReason::NdSpoofed),
    ),
    by_frame(
        ND,
        "neighbour advertisements of her own address, which nobody asked for",
        |m| {
            [ip6(1), link_local(EVE)]
                .iter()
                .flat_map(|&target| nd_to_all(ip6(1), 136, [0x20, 0, 0, 0], &claims(target, EVE, m)))
                .collect()
        },
        Dropped(DropReason::NdUnasked),
    ),
    by_frame(
        ND,
        "a neighbour solicitation in bob's name, or with his MAC address as hers",
        |m| {
            vec![
                nd(ip6(2), ALL_NODES, 135, [0; 4], &asks(ip6(4), EVE, m)),
                nd(ip6(1), ALL_NODES, 135, [0; 4], &asks(ip6(4), BOB, m)),
            ]
        },
        Dropped(DropReason::NdSpoofed),
    ),
    by_frame(
        ND,
        "a solicitation from afar (hop limit 64), with a wrong checksum, for a group, cut, with an option of no bytes",
        |m| {
            let (from, to) = (ip6(1), ALL_NODES);
            let far = v6(from, to.0, 58, 64, &icmpv6(from, to.0, 135, [0; 4], &asks(ip6(2), EVE, m)));
            let mut wrong = nd(from, to, 135, [0; 4], &asks(ip6(2), EVE, m));
            wrong[56] ^= 1;
            vec![
                ethernet(to.1, EVE, 0x86dd, &far),
                wrong,
                nd(from, to, 135, [0; 4], &asks(to.0, EVE, m)),
                nd(from, to, 135, [0; 4], &ip6(2)[..8]),
                nd(from, to, 135, [0; 4], &[&ip6(2)[..], &[1, 0], &EVE].concat()),
            ]
        },
        Dropped(DropReason::NdMalformed),
    ),
    by_frame(
        ND,
        "a solicitation for carol, who is in another network, and for nobody",
        |m| [3, 77].map(|last| nd(ip6(1), ALL_NODES, 135, [0; 4], &asks(ip6(last), EVE, m))).to_vec(),
        Dropped(DropReason::NdUnknownTarget),
    ),
    by_frame(
        ND,
        "a solicitation for dave",
        |m| vec![nd(ip6(1), ALL_NODES, 135, [0; 4], &asks(ip6(4), EVE, m))],
        Answered(Trap::NeighborSolicitation),
    ),
    by_frame(
        SERVICES,
        "TCP and UDP to the virtual router, and every protocol but ICMP",
        |m| {
            vec![
                to_service(ip4(GATEWAY), 6, &tcp((7, 22), 2, 5, m)),
                to_service(ip4(GATEWAY), 17, &udp((7, 53), m)),
                to_service(ip4(GATEWAY), 17, &udp((7, 4789), m)),
                to_service(ip4(GATEWAY), 47, m),
                to_service(ip4(GATEWAY), 89, m),
                to_service6(ip6(GATEWAY), 6, &tcp((7, 22), 2, 5, m)),
                to_service6(ip6(GATEWAY), 59, m),
            ]
        },
        Dropped(DropReason::GatewayUnserved),
    ),
    by_frame(
        SERVICES,
        "ICMP to the virtual router that asks for no echo: timestamp, mask, unreachable, an echo reply, half an echo",
        |m| {
            let half = V4 { fragment: 0x2000, ..V4::new(ip4(1), ip4(GATEWAY), 1) }.packet(&icmp(
                8,
                0,
                [0, 1, 0, 1],
                m,
            ));
            let kinds = [(13, 0), (17, 0), (3, 4), (0, 0), (11, 0)]
                .map(|(kind, code)| to_service(ip4(GATEWAY), 1, &icmp(kind, code, [0; 4], m)));
            [&kinds[..], &[ethernet(ROUTER, EVE, 0x0800, &half)]].concat()
        },
        Dropped(DropReason::GatewayUnserved),
    ),
    by_frame(
        SERVICES,
        "echoes to the virtual router",
        |m| {
            vec![
                to_service(ip4(GATEWAY), 1, &icmp(8, 0, [0, 1, 0, 1], m)),
                to_service6(ip6(GATEWAY), 58, &icmpv6(ip6(1), ip6(GATEWAY), 128, [0, 1, 0, 1], m)),
            ]
        },
        Answered(Trap::Echo),
    ),
    by_frame(
        SERVICES,
        "an echo to the virtual router in bob's name",
        |m| {
            let packet = V4::new(ip4(2), ip4(GATEWAY), 1).packet(&icmp(8, 0, [0, 1, 0, 1], m));
            vec![ethernet(ROUTER, EVE, 0x0800, &packet)]
        },
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        SERVICES,
        "the metadata service in bob's name",
        |m| {
            [[169, 254, 169, 254], [168, 63, 129, 16]]
                .iter()
                .map(|&to| {
                    ethernet(ROUTER, EVE, 0x0800, &V4::new(ip4(2), to, 6).packet(&tcp((7, 80), 2, 5, m)))
                })
                .collect()
        },
        Dropped(DropReason::SourceIpSpoofed),
    ),
    by_frame(
        SERVICES,
        "TCP and UDP to the metadata addresses 169.254.169.254 and 168.63.129.16, on a host without `metadata`",
        |m| {
            [[169, 254, 169, 254], [168, 63, 129, 16]]
                .iter()
                .flat_map(|&to| {
                    [
                        to_service(to, 6, &tcp((7, 80), 2, 5, m)),
                        to_service(to, 6, &tcp((7, 32526), 2, 5, m)),
                        to_service(to, 17, &udp((7, 53), m)),
                    ]
                })
                .collect()
        },
        Dropped(DropReason::GatewayUnserved),
    ),
    by_frame(
        SERVICES,
        "the hosts' physical addresses: control, tunnels, ICMP",
        |m| {
            HOSTS
                .iter()
                .flat_map(|&host| {
                    [
                        to_service(host, 6, &tcp((7, 22), 2, 5, m)),
                        to_service(host, 6, &tcp((7, 9477), 2, 5, m)),
                        to_service(host, 17, &udp((7, 4789), m)),
                        to_service(host, 17, &udp((7, 6081), m)),
                        to_service(host, 1, &icmp(8, 0, [0, 1, 0, 1], m)),
                    ]
                })
                .collect()
        },
        Dropped(DropReason::NoRoute),
    ),
];
