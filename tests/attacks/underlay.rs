//! What a neighbour of the hosts tries with the tunnel itself: who sends, for which network, with which header.

use dataplane::pipeline::DropReason;

use super::End::{Dropped, Reaches};
use super::bytes::{Mark, V4, ethernet, geneve, udp, vxlan};
use super::{Arrival, CAROL, DAVE, EVE, End, Format, From, HOSTS, ip4};

const WHO: &str = "Who sends";
const HEADER: &str = "VXLAN headers";
const GENEVE: &str = "Geneve headers";
const NESTED: &str = "Tunnels in tunnels";
const ECN: &str = "Congestion marks";

/// A row of which the underlay's counter tells.
const fn row(
    section: &'static str,
    name: &'static str,
    from: From,
    payloads: fn(&Mark) -> Vec<Vec<u8>>,
    end: End,
) -> Arrival {
    Arrival { section, name, format: Format::Vxlan, from, tos: 0, payloads, end, counted: None }
}

const fn of_geneve(name: &'static str, payloads: fn(&Mark) -> Vec<Vec<u8>>, end: End) -> Arrival {
    Arrival { format: Format::Geneve, ..row(GENEVE, name, From::HostB, payloads, end) }
}

/// From dave to eve.
fn to_eve(mark: &Mark) -> Vec<u8> {
    ethernet(EVE, DAVE, 0x0800, &V4::new(ip4(4), ip4(1), 17).packet(&udp((7, 7), mark)))
}

/// The same with an inner ECN field.
fn marked(tos: u8, mark: &Mark) -> Vec<Vec<u8>> {
    let ip = V4 { tos, ..V4::new(ip4(4), ip4(1), 17) };
    vec![vxlan(8, 100, &ethernet(EVE, DAVE, 0x0800, &ip.packet(&udp((7, 7), mark))))]
}

const fn ecn(name: &'static str, tos: u8, payloads: fn(&Mark) -> Vec<Vec<u8>>, end: End) -> Arrival {
    let counted = if matches!(end, Dropped(_)) { Some("eve") } else { None };
    Arrival { tos, counted, ..row(ECN, name, From::HostB, payloads, end) }
}

/// Geneve with eve's packet in it.
fn with_options(first: [u8; 2], options: &[u8], mark: &Mark) -> Vec<u8> {
    geneve(first, 0x6558, 100, options, &to_eve(mark))
}

pub(super) const ROWS: &[Arrival] = &[
    row(
        WHO,
        "a stranger with everything else right",
        From::Stranger,
        |m| vec![vxlan(8, 100, &to_eve(m)); 3],
        Dropped(DropReason::UnderlaySourceUnknown),
    ),
    row(
        WHO,
        "a stranger with nothing right",
        From::Stranger,
        |m| vec![m.to_vec(), vec![0; 9]],
        Dropped(DropReason::UnderlaySourceUnknown),
    ),
    row(
        WHO,
        "a host of the directory, or who can forge its address: the switch cannot tell",
        From::HostB,
        |m| vec![vxlan(8, 100, &to_eve(m))],
        Reaches("eve"),
    ),
    row(
        WHO,
        "the same into another tenant's network: hosts are trusted with all networks",
        From::HostB,
        |m| {
            vec![vxlan(
                8,
                200,
                &ethernet(CAROL, DAVE, 0x0800, &V4::new(ip4(4), ip4(3), 17).packet(&udp((7, 7), m))),
            )]
        },
        Reaches("carol"),
    ),
    row(
        WHO,
        "one datagram many times: a replay is as good as the packet",
        From::HostB,
        |m| vec![vxlan(8, 100, &to_eve(m)); 64],
        Reaches("eve"),
    ),
    row(
        HEADER,
        "networks that are not on this host",
        From::HostB,
        |m| [999, 101, 0x00ff_ffff].map(|vni| vxlan(8, vni, &to_eve(m))).to_vec(),
        Dropped(DropReason::VniAbsent),
    ),
    row(
        HEADER,
        "network 0, and no network (I flag clear) whatever the other flags",
        From::HostB,
        |m| vec![vxlan(8, 0, &to_eve(m)), vxlan(0, 100, &to_eve(m)), vxlan(0xf7, 100, &to_eve(m))],
        Dropped(DropReason::TunnelNoVni),
    ),
    row(
        HEADER,
        "half a header",
        From::HostB,
        |m| vec![vxlan(8, 100, &[])[..7].to_vec(), m[..3].to_vec()],
        Dropped(DropReason::TunnelMalformed),
    ),
    row(
        HEADER,
        "reserved bits and bytes set, as GBP and GPE do: to be ignored (RFC 7348 section 5)",
        From::HostB,
        |m| {
            let mut all = vxlan(0xff, 100, &to_eve(m));
            all[1..4].fill(0xff);
            all[7] = 0xff;
            vec![vxlan(0x88, 100, &to_eve(m)), all]
        },
        Reaches("eve"),
    ),
    row(
        HEADER,
        "nothing, or half an Ethernet header in the tunnel",
        From::HostB,
        |m| vec![vxlan(8, 100, &[]), vxlan(8, 100, &m[..13])],
        Dropped(DropReason::EthernetTruncated),
    ),
    row(
        NESTED,
        "a tunnel in the tunnel, to this host's physical address",
        From::HostB,
        |m| {
            let inner = udp((50_000, 4789), &vxlan(8, 200, &to_eve(m)));
            let frame = |to| ethernet(EVE, DAVE, 0x0800, &V4::new(ip4(4), to, 17).packet(&inner));
            HOSTS.map(|host| vxlan(8, 100, &frame(host))).to_vec()
        },
        Dropped(DropReason::NotLocal),
    ),
    row(
        NESTED,
        "a tunnel in the tunnel, to eve: payload like any other",
        From::HostB,
        |m| {
            let inner = udp((50_000, 4789), &vxlan(8, 200, &to_eve(m)));
            vec![vxlan(8, 100, &ethernet(EVE, DAVE, 0x0800, &V4::new(ip4(4), ip4(1), 17).packet(&inner)))]
        },
        Reaches("eve"),
    ),
    row(
        NESTED,
        "a tunnel header behind the tunnel header",
        From::HostB,
        |m| vec![vxlan(8, 100, &vxlan(8, 100, &to_eve(m)))],
        Dropped(DropReason::EthertypeUnsupported),
    ),
    ecn(
        "congestion marked for a flow that does not understand it",
        0b11,
        |m| marked(0, m),
        Dropped(DropReason::TunnelEcn),
    ),
    ecn(
        "congestion marked for a flow that does",
        0b11,
        |m| [1, 2, 3].iter().flat_map(|&tos| marked(tos, m)).collect(),
        Reaches("eve"),
    ),
    ecn(
        "outer marks that nobody would make",
        0b10,
        |m| [0, 1, 3].iter().flat_map(|&tos| marked(tos, m)).collect(),
        Reaches("eve"),
    ),
    of_geneve(
        "another version",
        |m| vec![with_options([0x40, 0], &[], m), with_options([0xc0, 0], &[], m)],
        Dropped(DropReason::TunnelMalformed),
    ),
    of_geneve(
        "a control packet, another payload than Ethernet",
        |m| {
            vec![
                with_options([0, 0x80], &[], m),
                geneve([0, 0], 0x0800, 100, &[], &to_eve(m)),
                geneve([0, 0], 0x86dd, 100, &[], &to_eve(m)),
            ]
        },
        Dropped(DropReason::TunnelMalformed),
    ),
    of_geneve(
        "options beyond the packet, options whose lengths do not add up",
        |_| {
            vec![
                geneve([63, 0], 0x6558, 100, &[], &[0; 20]),
                geneve([1, 0], 0x6558, 100, &[1, 2, 5, 1], &[0; 60]),
            ]
        },
        Dropped(DropReason::TunnelMalformed),
    ),
    of_geneve(
        "a critical option, with and without the header's own flag, also behind others",
        |m| {
            vec![
                with_options([1, 0x40], &[1, 2, 0x85, 0], m),
                with_options([1, 0], &[1, 2, 0x85, 0], m),
                with_options([2, 0x40], &[1, 2, 5, 0, 1, 2, 0xff, 0], m),
            ]
        },
        Dropped(DropReason::TunnelCriticalOption),
    ),
    of_geneve(
        "options that nobody must know",
        |m| vec![with_options([2, 0], &[1, 2, 5, 1, 9, 9, 9, 9], m), with_options([0, 0x3f], &[], m)],
        Reaches("eve"),
    ),
    of_geneve(
        "network 0",
        |m| vec![geneve([0, 0], 0x6558, 0, &[], &to_eve(m))],
        Dropped(DropReason::TunnelNoVni),
    ),
    of_geneve(
        "networks that are not on this host",
        |m| vec![geneve([0, 0], 0x6558, 999, &[], &to_eve(m))],
        Dropped(DropReason::VniAbsent),
    ),
    of_geneve("VXLAN", |m| vec![vxlan(8, 100, &to_eve(m))], Dropped(DropReason::TunnelMalformed)),
    of_geneve("an honest packet", |m| vec![with_options([0, 0], &[], m)], Reaches("eve")),
    Arrival {
        from: From::Stranger,
        ..of_geneve(
            "a stranger with everything else right",
            |m| vec![with_options([0, 0], &[], m)],
            Dropped(DropReason::UnderlaySourceUnknown),
        )
    },
];
