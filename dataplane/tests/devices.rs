//! TAPs and sockets against the real kernel. Every test runs in a network namespace of its own thread, which vanishes
//! with it; nothing outside is touched.
#![cfg(feature = "io")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, reason = "tests")]

use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dataplane::desired::PortKind;
use dataplane::offload::checksum;
use dataplane::offload::coalesce::{Arrived, Coalescer};
use dataplane::offload::segment::{Cut, MAX_HEADERS};
use dataplane::packet::{Buffer, Checksum, Offload, SegmentKind, Segmentation};
use dataplane::port::open::{Direct, OpenError, TapSpec};
use dataplane::port::tap::Tap;
use dataplane::port::{Device, DeviceError, Interface};
use dataplane::types::{Mtu, PhysicalIp, PortId};
use dataplane::underlay::udp::{self, Udp};
use dataplane::underlay::{Outgoing, SendError, Underlay};

mod netdev;

/// How long a test waits for its other half before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in a thread with a fresh network namespace.
fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = || {
            #[expect(
                deprecated,
                reason = "the namespace flag alone is safe; the replacement is `unsafe` for FILES"
            )]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect(
                "this test needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN, to make a network namespace",
            );
            ip("link set lo up");
            test()
        };
        match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Held while a process is started: between fork and exec it holds copies of all descriptors, other tests' too.
static FORKING: Mutex<()> = Mutex::new(());

/// Closes a TAP for good.
fn close(tap: Tap) {
    let _guard = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    drop(tap);
}

/// `ip` in the calling thread's namespace; returns what it prints.
fn ip(arguments: &str) -> String {
    let _guard = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn spec(name: &str) -> TapSpec {
    TapSpec {
        name: name.parse().unwrap(),
        kind: PortKind::Tap,
        netns: None,
        mac: "02:00:00:00:00:0a".parse().unwrap(),
        mtu: Mtu::ETHERNET,
        queues: 1,
        persistent: false,
    }
}

/// Two guests with a TAP each, and between them a wire that hands each frame to `carry` on its way from the first to
/// the second. Sends `bytes` by TCP and compares what arrives.
fn tcp_across(ipv6: bool, bytes: usize, carry: impl Fn(&Tap, &mut Buffer, usize, Offload) + Sync) {
    let (taps, ends) = (channel(), channel::<()>());
    let stop = AtomicBool::new(false);
    let (address, listen) = if ipv6 { ("fd00::2", "[fd00::2]:7000") } else { ("10.9.0.2", "10.9.0.2:7000") };
    let prefix = if ipv6 { ("fd00::1/64", "fd00::2/64") } else { ("10.9.0.1/24", "10.9.0.2/24") };
    let content: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
    thread::scope(|scope| {
        let (taps_tx, stop, content) = (taps.0.clone(), &stop, &content);
        let server = scope.spawn(move || {
            isolated(|| {
                let tap = Tap::open(
                    &Direct,
                    &TapSpec { mac: "02:00:00:00:00:0b".parse().unwrap(), ..spec("tap-b") },
                )
                .unwrap();
                ip("link set dev tap-b up");
                ip(&format!("address add {} dev tap-b{}", prefix.1, if ipv6 { " nodad" } else { "" }));
                let listener = TcpListener::bind(listen).unwrap();
                taps_tx.send((1, tap)).unwrap();
                let mut got = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
                got
            })
        });
        let taps_tx = taps.0.clone();
        let client = scope.spawn(move || {
            isolated(move || {
                let tap = Tap::open(&Direct, &spec("tap-a")).unwrap();
                ip("link set dev tap-a up");
                ip(&format!("address add {} dev tap-a{}", prefix.0, if ipv6 { " nodad" } else { "" }));
                taps_tx.send((0, tap)).unwrap();
                ends.1.recv_timeout(PATIENCE).unwrap();
                let mut stream = TcpStream::connect((address.parse::<IpAddr>().unwrap(), 7000)).unwrap();
                stream.write_all(content).unwrap();
            })
        });
        let mut both = [taps.1.recv_timeout(PATIENCE).unwrap(), taps.1.recv_timeout(PATIENCE).unwrap()];
        both.sort_by_key(|(end, _)| *end);
        let [(_, a), (_, b)] = both;
        let carry = &carry;
        scope.spawn(move || {
            let mut buffer = Buffer::new();
            while !stop.load(Ordering::Relaxed) {
                let mut idle = true;
                if let Some(frame) = a.receive(0, &mut buffer).unwrap() {
                    carry(&b, &mut buffer, frame.length, frame.offload.unwrap());
                    idle = false;
                }
                if let Some(frame) = b.receive(0, &mut buffer).unwrap() {
                    let offload = frame.offload.unwrap();
                    let _ = a.send(0, &[IoSlice::new(buffer.packet(frame.length, offload).frame())], offload);
                    idle = false;
                }
                if idle {
                    thread::sleep(Duration::from_micros(50));
                }
            }
        });
        ends.0.send(()).unwrap();
        client.join().unwrap();
        let got = server.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(got.len(), content.len());
        assert!(got == *content, "the bytes arrived changed");
    });
}

fn segmented(ipv6: bool) {
    let supers = AtomicUsize::new(0);
    tcp_across(ipv6, 4 << 20, |to, buffer, length, offload| {
        let mut packet = buffer.packet(length, offload);
        let Some(asked) = offload.segmentation else {
            checksum::complete(packet.frame_mut(), offload.checksum).unwrap();
            let _ = to.send(0, &[IoSlice::new(packet.frame())], Offload::NONE);
            return;
        };
        supers.fetch_add(1, Ordering::Relaxed);
        let cut = Cut::plan(packet.frame(), 0, asked).unwrap();
        let mut headers = [0; MAX_HEADERS];
        for index in 0..cut.count() {
            let payload = cut.write(packet.frame(), index, &mut headers).unwrap();
            let pieces =
                [IoSlice::new(&headers[..cut.header_bytes()]), IoSlice::new(&packet.frame()[payload])];
            assert_eq!(cut.segment_len(index), pieces[0].len() + pieces[1].len());
            // Complete, not verified: the receiving kernel checks every checksum.
            let _ = to.send(0, &pieces, Offload::NONE);
        }
    });
    assert!(supers.into_inner() > 20, "the kernel sent super-packets");
}

#[test]
fn tcp_v4_survives_segmentation() {
    segmented(false);
}

#[test]
fn tcp_v6_survives_segmentation() {
    segmented(true);
}

#[test]
fn what_was_cut_arrives_joined() {
    let (frames, deliveries) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for ipv6 in [false, true] {
        tcp_across(ipv6, 4 << 20, |to, buffer, length, offload| {
            let mut packet = buffer.packet(length, offload);
            let mut segments = Vec::new();
            if let Some(asked) = offload.segmentation {
                let cut = Cut::plan(packet.frame(), 0, asked).unwrap();
                let mut headers = [0; MAX_HEADERS];
                for index in 0..cut.count() {
                    let payload = cut.write(packet.frame(), index, &mut headers).unwrap();
                    segments.push([&headers[..cut.header_bytes()], &packet.frame()[payload]].concat());
                }
            } else {
                checksum::complete(packet.frame_mut(), offload.checksum).unwrap();
                segments.push(packet.frame().to_vec());
            }
            let arrived =
                |frame| Arrived { port: PortId(0), udp_trains: true, frame, offload: Offload::NONE };
            let batch: Vec<_> = segments.iter().map(|frame| arrived(frame)).collect();
            for joined in Coalescer::new().join(&batch) {
                frames.fetch_add(joined.frames, Ordering::Relaxed);
                deliveries.fetch_add(1, Ordering::Relaxed);
                let _ = to.send(0, &joined.pieces, joined.offload);
            }
        });
    }
    let (frames, deliveries) = (frames.into_inner(), deliveries.into_inner());
    assert!(frames > 5 * deliveries, "{frames} frames in {deliveries} deliveries");
}

#[test]
fn tcp_passes_whole_between_taps() {
    tcp_across(false, 4 << 20, |to, buffer, length, offload| {
        let _ = to.send(0, &[IoSlice::new(buffer.packet(length, offload).frame())], offload);
    });
}

#[test]
fn a_guest_leaves_checksums_to_the_switch() {
    isolated(|| {
        let tap = Tap::open(&Direct, &spec("tap-a")).unwrap();
        ip("link set dev tap-a up");
        ip("address add 10.9.0.1/24 dev tap-a");
        ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:0b dev tap-a");
        assert!(tap.takes_udp_trains());
        let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
        socket.send_to(&[7; 1000], "10.9.0.2:5001").unwrap();
        let mut buffer = Buffer::new();
        let frame = loop {
            let Some(got) = tap.receive(0, &mut buffer).unwrap() else { continue };
            let packet = buffer.packet(got.length, got.offload.unwrap());
            if packet.frame()[12..14] == [8, 0]
                && packet.frame()[23] == 17
                && packet.len() == 14 + 20 + 8 + 1000
            {
                break (packet.frame().to_vec(), packet.offload);
            }
        };
        assert_eq!(
            frame.1,
            Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, segmentation: None }
        );
    });
}

#[test]
fn a_udp_super_packet_reaches_a_plain_socket_as_datagrams() {
    isolated(|| {
        let tap = Tap::open(&Direct, &spec("tap-a")).unwrap();
        ip("link set dev tap-a up");
        ip("address add 10.9.0.1/24 dev tap-a");
        let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let payload: Vec<u8> = (0..1000_u32).map(|i| i as u8).collect();
        let mut header = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xa])
            .ipv4([10, 9, 0, 2], [10, 9, 0, 1], 64)
            .udp(6000, 5000)
            .write(&mut header, &payload)
            .unwrap();
        header.truncate(42);
        // The field of a partial checksum holds the sum of the pseudo-header.
        let pseudo: u32 = 0x0a09 + 0x0002 + 0x0a09 + 0x0001 + 17 + 1008;
        header[40..42].copy_from_slice(&(pseudo as u16).to_be_bytes());
        let offload = Offload {
            checksum: Checksum::Partial { start: 34, offset: 6 },
            segmentation: Some(Segmentation { kind: SegmentKind::Udp, segment_bytes: 300, header_bytes: 42 }),
        };
        tap.send(0, &[IoSlice::new(&header), IoSlice::new(&payload)], offload).unwrap();
        let mut got = [0; 2000];
        for expected in payload.chunks(300) {
            let length = socket.recv(&mut got).unwrap();
            assert_eq!(&got[..length], expected);
        }
    });
}

#[test]
fn a_persistent_tap_is_found_again_with_its_addresses() {
    isolated(|| {
        let wanted = TapSpec { persistent: true, mtu: Mtu::new(1400).unwrap(), ..spec("keep") };
        let tap = Tap::open(&Direct, &wanted).unwrap();
        assert!(!tap.existed());
        ip("address add 10.9.0.1/24 dev keep");
        let shown = ip("-o link show dev keep");
        assert!(shown.contains("mtu 1400") && shown.contains("02:00:00:00:00:0a"), "{shown}");
        let index = shown.split(':').next().unwrap().to_owned();
        close(tap);
        let tap = Tap::open(&Direct, &wanted).unwrap();
        assert!(tap.existed());
        assert!(ip("-o -4 address show dev keep").contains("10.9.0.1/24"));
        assert!(ip("-o link show dev keep").starts_with(&format!("{index}:")));
        tap.set_persistent(false).unwrap();
        close(tap);
        assert!(!ip("-o link show").contains("keep"));
    });
}

#[test]
fn a_tap_is_opened_in_another_namespace() {
    let (ready_tx, ready) = channel();
    let (done_tx, done) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            isolated(move || {
                let tid = rustix::thread::gettid().as_raw_nonzero();
                ready_tx.send(format!("/proc/{}/task/{tid}/ns/net", std::process::id())).unwrap();
                done.recv().unwrap();
                assert!(ip("-o link show").contains("there"), "the TAP stands in the named namespace");
            });
        });
        let netns = ready.recv().unwrap();
        isolated(|| {
            let tap = Tap::open(&Direct, &TapSpec { netns: Some(netns), ..spec("there") }).unwrap();
            assert!(!ip("-o link show").contains("there"), "and not in that of the caller");
            let smaller = TapSpec { mtu: Mtu::new(1300).unwrap(), ..spec("there") };
            tap.configure(&Direct, &smaller).unwrap();
            done_tx.send(()).unwrap();
            thread::sleep(Duration::from_millis(100));
        });
    });
}

#[test]
fn the_link_bounces_and_a_queue_is_discarded() {
    isolated(|| {
        let tap = Tap::open(&Direct, &spec("tap-a")).unwrap();
        ip("link set dev tap-a up");
        let carrier = || ip("-o link show dev tap-a").contains("LOWER_UP");
        assert!(carrier());
        tap.set_link(false).unwrap();
        assert!(!carrier());
        tap.set_link(true).unwrap();
        assert!(carrier());

        ip("address add 10.9.0.1/24 dev tap-a");
        ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:0b dev tap-a");
        tap.discard(0);
        let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
        for _ in 0..10 {
            socket.send_to(&[1; 1200], "10.9.0.2:9").unwrap();
        }
        let discarded = tap.discard(0);
        assert!((10..20).contains(&discarded), "{discarded} frames, ten of ours and perhaps some of IPv6's");
        assert_eq!(tap.receive(0, &mut Buffer::new()), Ok(None));
        assert!(tap.queue_frames() >= 100);

        ip("link set dev tap-a down");
        assert_eq!(tap.send(0, &[IoSlice::new(&[0; 60])], Offload::NONE), Err(DeviceError::Down));
        ip("link delete dev tap-a");
        assert_eq!(tap.receive(0, &mut Buffer::new()), Err(DeviceError::Gone));
    });
}

#[test]
fn what_cannot_be_opened_is_said_with_its_remedy() {
    isolated(|| {
        let refused = |spec: &TapSpec| Tap::open(&Direct, spec).unwrap_err();
        let missing = refused(&TapSpec { netns: Some("no-such".into()), ..spec("tap-a") });
        assert_eq!(
            (missing.to_string().as_str(), missing.remedy().as_str()),
            (
                "interface `tap-a`: network namespace `no-such` does not exist at /run/netns/no-such",
                "create it with `ip netns add no-such`"
            )
        );
        let invalid = refused(&TapSpec { netns: Some("/proc/self/status".into()), ..spec("tap-a") });
        assert!(matches!(invalid, OpenError::NamespaceInvalid { .. }), "{invalid}");

        let _held = Tap::open(&Direct, &spec("held")).unwrap();
        assert!(matches!(refused(&spec("held")), OpenError::InterfaceInUse { .. }));
        let many = TapSpec { queues: 2, ..spec("many") };
        let held = Tap::open(&Direct, &many).unwrap();
        assert_eq!(held.queues(), 2);
        ip("link set dev many up");
        assert!(matches!(refused(&many), OpenError::InterfaceInUse { .. }));
        ip("link add bridge type bridge");
        let kind = refused(&spec("bridge"));
        assert!(matches!(kind, OpenError::InterfaceKind { .. }), "{kind}");
        // It may be what the host itself needs: nobody is told to delete it.
        assert_eq!(kind.remedy(), "give the port another name");
        ip("tuntap add dev single mode tap");
        let queues = refused(&TapSpec { queues: 2, ..spec("single") }).remedy();
        assert!(
            queues.starts_with("give the port another name") && queues.contains("ip link delete single"),
            "{queues}"
        );
        // What failed late leaves nothing behind.
        let group = TapSpec { mac: dataplane::types::MacAddr::BROADCAST, persistent: true, ..spec("late") };
        assert!(matches!(refused(&group), OpenError::Interface { act: "set its MAC address", .. }));
        assert!(!ip("-o link show").contains("late"));
    });
}

const A: PhysicalIp = PhysicalIp(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)));
const B: PhysicalIp = PhysicalIp(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));

fn underlay(local: PhysicalIp) -> Udp {
    Udp::open(&Direct, &udp::Config { local: vec![local], port: 4789 }, 0).unwrap()
}

fn outgoing(to: PhysicalIp, packet: &mut [u8]) -> Outgoing<'_> {
    Outgoing {
        to,
        entropy: 7,
        traffic_class: 0xb9,
        tunnel_bytes: 8,
        packet,
        offload: Offload::NONE,
        result: Err(SendError::Refused),
    }
}

/// Receives until `count` datagrams came.
fn receive(from: &mut Udp, count: usize) -> Vec<(PhysicalIp, u8, Vec<u8>)> {
    let mut buffer = Buffer::new();
    let mut got = Vec::new();
    for _ in 0..2000 {
        while let Some(arrival) = from.receive(0, &mut buffer) {
            let tail = (arrival.from, arrival.traffic_class);
            got.extend(arrival.datagrams(&mut buffer).map(|bytes| (tail.0, tail.1, bytes.to_vec())));
        }
        if got.len() >= count {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    got
}

#[test]
fn packets_of_one_flow_travel_as_a_train() {
    isolated(|| {
        let (mut a, mut b) = (underlay(A), underlay(B));
        let mut packets: Vec<Vec<u8>> =
            (0..40_u8).map(|n| vec![n; if n == 39 { 500 } else { 1450 }]).collect();
        let mut batch: Vec<_> = packets.iter_mut().map(|packet| outgoing(B, packet)).collect();
        a.send(&mut batch);
        assert!(batch.iter().all(|outgoing| outgoing.result == Ok(())));
        assert_eq!((a.counters().sends, a.counters().sent_datagrams), (1, 40));
        let got = receive(&mut b, 40);
        assert_eq!(b.counters().receives, 1);
        assert!(got.iter().all(|(from, class, _)| (*from, *class) == (A, 0xb9)));
        assert!(got.into_iter().map(|(_, _, bytes)| bytes).eq(packets));
    });
}

#[test]
fn flows_are_told_apart_and_keep_their_order() {
    isolated(|| {
        let (mut a, mut b) = (underlay(A), underlay(B));
        // Two flows interleaved; within each, sizes grow and shrink, so no train holds all of one.
        let mut packets: Vec<Vec<u8>> = (0..60_u8).map(|n| vec![n; 200 + usize::from(n % 7) * 100]).collect();
        let mut batch: Vec<_> = packets.iter_mut().map(|packet| outgoing(B, packet)).collect();
        for (n, outgoing) in batch.iter_mut().enumerate() {
            outgoing.entropy = (n % 2) as u16;
            outgoing.traffic_class = 0;
        }
        a.send(&mut batch);
        let got = receive(&mut b, 60);
        for flow in 0..2 {
            let of_flow = |bytes: &&Vec<u8>| bytes[0] % 2 == flow;
            let arrived = got.iter().map(|(_, _, bytes)| bytes).filter(of_flow);
            assert!(arrived.eq(packets.iter().filter(of_flow)));
        }
        assert!(a.counters().sends < 60, "{:?}", a.counters());
    });
}

#[test]
fn a_super_packet_is_cut_behind_its_tunnel_header() {
    isolated(|| {
        let (mut a, mut b) = (underlay(A), underlay(B));
        let payload: Vec<u8> = (0..65_000_u32).map(|i| (i / 3) as u8).collect();
        let mut packet = b"VXLAN---".to_vec();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xa])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1000, 2000, 5_000, 6_000)
            .psh()
            .ack(1)
            .write(&mut packet, &payload)
            .unwrap();
        let asked = Segmentation { kind: SegmentKind::TcpV4, segment_bytes: 1400, header_bytes: 54 };
        let mut batch = [outgoing(B, &mut packet)];
        batch[0].offload =
            Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segmentation: Some(asked) };
        a.send(&mut batch);
        assert_eq!(batch[0].result, Ok(()));
        let got = receive(&mut b, 47);
        // 47 segments of up to 1462 bytes exceed one datagram's 65,507: two sends.
        assert_eq!((got.len(), a.counters().sends), (47, 2));
        let mut arrived = Vec::new();
        for (_, _, bytes) in &got {
            assert_eq!(&bytes[..8], b"VXLAN---");
            let parsed = etherparse::PacketHeaders::from_ethernet_slice(&bytes[8..]).unwrap();
            let Some(etherparse::TransportHeader::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
            assert_eq!(usize::try_from(tcp.sequence_number).unwrap(), 5_000 + arrived.len());
            arrived.extend_from_slice(parsed.payload.slice());
        }
        assert!(arrived == payload);
        // A lie about the headers is refused, alone.
        let mut good = b"VXLAN---plain".to_vec();
        let mut batch = [outgoing(B, &mut packet), outgoing(B, &mut good)];
        batch[0].offload.segmentation = Some(Segmentation { header_bytes: 66, ..asked });
        a.send(&mut batch);
        assert_eq!((batch[0].result, batch[1].result), (Err(SendError::Offload), Ok(())));
    });
}

#[test]
fn an_oversize_packet_is_refused_and_its_neighbours_arrive() {
    isolated(|| {
        ip("link set lo mtu 1500");
        let (mut a, mut b) = (underlay(A), underlay(B));
        let mut packets = [vec![1; 1480], vec![2; 1480], vec![3; 100]];
        let mut batch: Vec<_> = packets.iter_mut().map(|packet| outgoing(B, packet)).collect();
        a.send(&mut batch);
        let results: Vec<_> = batch.iter().map(|outgoing| outgoing.result).collect();
        assert_eq!(results, [Err(SendError::TooBig), Err(SendError::TooBig), Ok(())]);
        assert_eq!(receive(&mut b, 1).len(), 1);
        let mut six = vec![0; 100];
        let mut batch = [outgoing("fd00::1".parse().unwrap(), &mut six)];
        a.send(&mut batch);
        assert_eq!(batch[0].result, Err(SendError::Family));
        assert_eq!((a.counters().broken_trains, a.counters().refused_datagrams), (1, 3));
    });
}

#[test]
fn trains_travel_over_ipv6_too() {
    isolated(|| {
        ip("address add fd00::1/128 dev lo nodad");
        ip("address add fd00::2/128 dev lo nodad");
        // The kernel installs the addresses' routes a moment later.
        while ip("-6 route show table local").matches("fd00::").count() < 2 {
            thread::sleep(Duration::from_millis(1));
        }
        let (a_ip, b_ip): (PhysicalIp, PhysicalIp) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let (mut a, mut b) = (underlay(a_ip), underlay(b_ip));
        let mut packets: Vec<Vec<u8>> = (0..10_u8).map(|n| vec![n; 1000]).collect();
        let mut batch: Vec<_> = packets.iter_mut().map(|packet| outgoing(b_ip, packet)).collect();
        a.send(&mut batch);
        let got = receive(&mut b, 10);
        assert_eq!((a.counters().sends, b.counters().receives), (1, 1));
        assert!(got.iter().all(|(from, class, _)| (*from, *class) == (a_ip, 0xb9)));
        assert!(got.into_iter().map(|(_, _, bytes)| bytes).eq(packets));
    });
}

#[test]
fn a_second_switch_and_a_foreign_address_are_noticed() {
    isolated(|| {
        let config = |local: &str| udp::Config { local: vec![local.parse().unwrap()], port: 4789 };
        udp::probe(&Direct, &config("127.0.0.1")).unwrap();
        let _first = underlay(A);
        let _second_worker = underlay(A);
        let refused = udp::probe(&Direct, &config("127.0.0.1")).unwrap_err().to_string();
        assert!(refused.starts_with("UDP port 4789 on 127.0.0.1 is already in use"), "{refused}");
        let absent = udp::probe(&Direct, &config("192.0.2.1")).unwrap_err().to_string();
        assert!(absent.starts_with("192.0.2.1 is not an address of this host"), "{absent}");
    });
}
