//! What a guest with a ring of its own tries in the virtio header in front of a frame (virtio 1.2 section 5.1.6). A
//! guest behind a TAP cannot: there the kernel writes that header.

use dataplane::pipeline::DropReason;

use super::End::{Dropped, Reaches};
use super::bytes::{Mark, ROUTER, V4, ethernet, icmp, tcp, udp, udp6, v6};
use super::{Attack, BOB, EVE, End, GATEWAY, Means, ip4, ip6};

const SECTION: &str = "Virtio headers";

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const COALESCED: u8 = 4;
const TCP4: u8 = 1;
const UFO: u8 = 3;
const TCP6: u8 = 4;
const UDP_L4: u8 = 5;
const ECN: u8 = 0x80;

/// Where the transport header begins without options.
const L4: u16 = 34;
const L4_V6: u16 = 54;

/// Flags, type, header length, segment length, start and offset of the checksum.
const fn header(flags: u8, kind: u8, header: u16, segment: u16, start: u16, offset: u16) -> [u8; 12] {
    let ([h0, h1], [s0, s1]) = (header.to_le_bytes(), segment.to_le_bytes());
    let ([c0, c1], [o0, o1]) = (start.to_le_bytes(), offset.to_le_bytes());
    [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1, 0, 0]
}

const fn row(name: &'static str, header: [u8; 12], frames: fn(&Mark) -> Vec<Vec<u8>>, end: End) -> Attack {
    Attack { section: SECTION, name, means: Means::Header(header), frames, end }
}

const REFUSED: End = Dropped(DropReason::OffloadInvalid);

fn v4(protocol: u8, payload: &[u8]) -> Vec<Vec<u8>> {
    vec![ethernet(BOB, EVE, 0x0800, &V4::new(ip4(1), ip4(2), protocol).packet(payload))]
}

fn small_udp(mark: &Mark) -> Vec<Vec<u8>> {
    v4(17, &udp((7, 7), mark))
}

fn large_udp(mark: &Mark) -> Vec<Vec<u8>> {
    v4(17, &udp((7, 7), &mark.repeat(100)))
}

fn small_tcp(mark: &Mark) -> Vec<Vec<u8>> {
    v4(6, &tcp((7, 22), 0x10, 5, mark))
}

fn large_tcp(mark: &Mark) -> Vec<Vec<u8>> {
    v4(6, &tcp((7, 22), 0x10, 5, &mark.repeat(100)))
}

fn large_tcp6(mark: &Mark) -> Vec<Vec<u8>> {
    let payload = tcp((7, 22), 0x10, 5, &mark.repeat(100));
    vec![ethernet(BOB, EVE, 0x86dd, &v6(ip6(1), ip6(2), 6, 64, &payload))]
}

fn ping(mark: &Mark) -> Vec<Vec<u8>> {
    v4(1, &icmp(8, 0, [0, 1, 0, 1], &mark.repeat(100)))
}

fn fragment(mark: &Mark) -> Vec<Vec<u8>> {
    let ip = V4 { fragment: 0x2000, ..V4::new(ip4(1), ip4(2), 17) };
    vec![ethernet(BOB, EVE, 0x0800, &ip.packet(&udp((7, 7), &mark.repeat(40))))]
}

pub(super) const ROWS: &[Attack] = &[
    row("segments of no bytes", header(NEEDS_CHECKSUM, TCP4, 54, 0, L4, 16), large_tcp, REFUSED),
    row(
        "segments of one byte: 64 Ki packets of one frame",
        header(NEEDS_CHECKSUM, TCP4, 54, 1, L4, 16),
        large_tcp,
        REFUSED,
    ),
    row("UDP segments of one byte", header(NEEDS_CHECKSUM, UDP_L4, 42, 1, L4, 6), large_udp, REFUSED),
    row("TCP segmentation of UDP", header(NEEDS_CHECKSUM, TCP4, 54, 1000, L4, 16), large_udp, REFUSED),
    row("UDP segmentation of TCP", header(NEEDS_CHECKSUM, UDP_L4, 42, 1000, L4, 6), large_tcp, REFUSED),
    row("TCP segmentation of ICMP", header(NEEDS_CHECKSUM, TCP4, 54, 1000, L4, 16), ping, REFUSED),
    row("IPv6 segmentation of IPv4", header(NEEDS_CHECKSUM, TCP6, 54, 1000, L4, 16), large_tcp, REFUSED),
    row("IPv4 segmentation of IPv6", header(NEEDS_CHECKSUM, TCP4, 74, 1000, L4_V6, 16), large_tcp6, REFUSED),
    row("segmentation of a fragment", header(NEEDS_CHECKSUM, UDP_L4, 42, 500, L4, 6), fragment, REFUSED),
    row("segmentation without a checksum to be made", header(0, TCP4, 54, 1000, 0, 0), large_tcp, REFUSED),
    row(
        "the old fragmentation of UDP (UFO)",
        header(NEEDS_CHECKSUM, UFO, 42, 1000, L4, 6),
        large_udp,
        REFUSED,
    ),
    row(
        "UDP segmentation with TCP's ECN bit",
        header(NEEDS_CHECKSUM, UDP_L4 | ECN, 42, 1000, L4, 6),
        large_udp,
        REFUSED,
    ),
    row("a type that does not exist", header(NEEDS_CHECKSUM, 2, 54, 1000, L4, 16), large_tcp, REFUSED),
    row("a type of all bits", header(NEEDS_CHECKSUM, 0xff, 54, 1000, L4, 16), large_tcp, REFUSED),
    row(
        "segmentation inside of a UDP tunnel (virtio 1.3)",
        header(NEEDS_CHECKSUM, TCP4 | 0x20, 54, 1000, L4, 16),
        large_tcp,
        REFUSED,
    ),
    row("the same over IPv6", header(NEEDS_CHECKSUM, TCP4 | 0x40, 54, 1000, L4, 16), large_tcp, REFUSED),
    row("a checksum over the Ethernet header", header(NEEDS_CHECKSUM, 0, 0, 0, 0, 6), small_udp, REFUSED),
    row("a checksum over the IP header", header(NEEDS_CHECKSUM, 0, 0, 0, 14, 10), small_udp, REFUSED),
    row("a checksum written into a UDP port", header(NEEDS_CHECKSUM, 0, 0, 0, L4, 0), small_udp, REFUSED),
    row("a checksum written into TCP's flags", header(NEEDS_CHECKSUM, 0, 0, 0, L4, 12), small_tcp, REFUSED),
    row("a checksum beyond the frame", header(NEEDS_CHECKSUM, 0, 0, 0, 1000, 6), small_udp, REFUSED),
    row(
        "a checksum whose field is beyond the frame",
        header(NEEDS_CHECKSUM, 0, 0, 0, L4, 40),
        small_udp,
        REFUSED,
    ),
    row(
        "a checksum whose place overflows",
        header(NEEDS_CHECKSUM, 0, 0, 0, 0xffff, 0xffff),
        small_udp,
        REFUSED,
    ),
    row(
        "a checksum of ICMP, whose header has none to be made",
        header(NEEDS_CHECKSUM, 0, 0, 0, L4, 2),
        ping,
        REFUSED,
    ),
    row("a checksum of a fragment", header(NEEDS_CHECKSUM, 0, 0, 0, L4, 6), fragment, REFUSED),
    row(
        "a TCP header longer than the frame",
        header(NEEDS_CHECKSUM, TCP4, 54, 1000, L4, 16),
        |m| v4(6, &tcp((7, 22), 0x10, 15, &m[..8])),
        Dropped(DropReason::OffloadInvalid),
    ),
    row(
        "super-packets to the virtual router",
        header(NEEDS_CHECKSUM, TCP4, 54, 1000, L4, 16),
        |m| {
            let payload = tcp((7, 22), 0x10, 5, &m.repeat(100));
            vec![ethernet(ROUTER, EVE, 0x0800, &V4::new(ip4(1), ip4(GATEWAY), 6).packet(&payload))]
        },
        Dropped(DropReason::GatewayUnserved),
    ),
    row(
        "super-packets in bob's name",
        header(NEEDS_CHECKSUM, TCP4, 54, 1000, L4, 16),
        |m| {
            let payload = tcp((7, 22), 0x10, 5, &m.repeat(100));
            vec![ethernet(BOB, EVE, 0x0800, &V4::new(ip4(2), ip4(4), 6).packet(&payload))]
        },
        Dropped(DropReason::SourceIpSpoofed),
    ),
    row(
        "a header length of nonsense: it is a hint, and replaced",
        header(NEEDS_CHECKSUM, TCP4, 0xffff, 1000, L4, 16),
        large_tcp,
        Reaches("bob"),
    ),
    row(
        "segments longer than the payload: no super-packet",
        header(NEEDS_CHECKSUM, TCP4, 54, 0xffff, L4, 16),
        small_tcp,
        Reaches("bob"),
    ),
    row(
        "TCP segmentation with the ECN bit, which is lawful",
        header(NEEDS_CHECKSUM, TCP4 | ECN, 54, 1000, L4, 16),
        large_tcp,
        Reaches("bob"),
    ),
    row(
        "\"the checksum is valid\", said by a guest: bob's kernel believes his own host",
        header(DATA_VALID, 0, 0, 0, 0, 0),
        small_udp,
        Reaches("bob"),
    ),
    row("flags that mean nothing", header(COALESCED | 0xf8, 0, 0, 0, 0, 0), small_udp, Reaches("bob")),
    row(
        "a checksum of an inner header of her own tunnel",
        header(NEEDS_CHECKSUM, 0, 0, 0, 76, 6),
        |m| {
            let inner = ethernet(BOB, EVE, 0x0800, &V4::new(ip4(1), ip4(2), 17).packet(&udp((7, 7), m)));
            v4(17, &udp((50_000, 4789), &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat()))
        },
        Reaches("bob"),
    ),
    row(
        "UDP over IPv6 without a checksum to be made",
        header(0, 0, 0, 0, 0, 0),
        |m| vec![ethernet(BOB, EVE, 0x86dd, &v6(ip6(1), ip6(2), 17, 64, &udp6(ip6(1), ip6(2), (7, 7), m)))],
        Reaches("bob"),
    ),
];
