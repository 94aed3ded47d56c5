//! A port on somebody else's interface: the test is the hypervisor and holds a real TAP, the switch's side attaches to it.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use dataplane::desired::PortKind;
use dataplane::packet::{Buffer, Checksum, Offload, SegmentKind, Segmentation};
use dataplane::port::netdev::Netdev;
use dataplane::port::open::{Direct, TapSpec};
use dataplane::port::tap::Tap;
use dataplane::port::{Device, DeviceError, Interface};
use dataplane::types::Mtu;

use super::{PATIENCE, close, ip, isolated, spec};

/// What the hypervisor holds, and what the switch asks for.
fn tap() -> Tap {
    let tap = Tap::open(&Direct, &spec("vm0")).unwrap();
    quiet();
    tap
}

fn netdev_spec() -> TapSpec {
    TapSpec { kind: PortKind::Netdev, mac: "02:00:00:00:00:99".parse().unwrap(), ..spec("vm0") }
}

/// The machine's own stack says nothing there.
fn quiet() {
    std::fs::write("/proc/sys/net/ipv6/conf/vm0/disable_ipv6", "1").unwrap();
    ip("link set dev vm0 arp off up");
}

/// The next frame, as bytes.
fn next(device: &dyn Device, buffer: &mut Buffer) -> (Vec<u8>, Offload) {
    let begun = Instant::now();
    loop {
        if let Some(got) = device.receive(0, buffer).unwrap() {
            let offload = got.offload.unwrap();
            return (buffer.packet(got.length, offload).frame().to_vec(), offload);
        }
        assert!(begun.elapsed() < PATIENCE, "no frame came");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn frame(mark: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0x4a];
    frame.extend([mark; 60]);
    frame
}

fn give(device: &dyn Device, frame: &[u8], offload: Offload) {
    device.send(0, &[IoSlice::new(frame)], offload).unwrap();
}

#[test]
fn frames_pass_both_ways_and_none_is_read_back() {
    isolated(|| {
        let guest = tap();
        let port = Netdev::open(&Direct, &netdev_spec()).unwrap();
        let mut buffer = Buffer::new();
        give(&port, &frame(1), Offload::NONE);
        give(&guest, &frame(2), Offload::NONE);
        assert_eq!(next(&guest, &mut buffer).0, frame(1));
        // What the switch sent came first and would be here first.
        assert_eq!(next(&port, &mut buffer).0, frame(2));
        assert_eq!(port.receive(0, &mut buffer).unwrap(), None);
        assert!(port.set_link(false).is_err(), "the link is the hypervisor's");
    });
}

#[test]
fn what_the_machine_itself_says_there_is_not_the_guests() {
    isolated(|| {
        let guest = tap();
        let port = Netdev::open(&Direct, &netdev_spec()).unwrap();
        ip("address add 10.9.0.1/24 dev vm0");
        let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
        socket.send_to(b"hello", "10.9.0.2:5001").unwrap();
        let mut buffer = Buffer::new();
        assert!(next(&guest, &mut buffer).0.ends_with(b"hello"));
        assert_eq!(port.receive(0, &mut buffer).unwrap(), None);
    });
}

#[test]
fn super_packets_stay_whole_both_ways() {
    isolated(|| {
        let guest = tap();
        let port = Netdev::open(&Direct, &netdev_spec()).unwrap();
        let payload: Vec<u8> = (0..40_000_u32).map(|i| (i % 251) as u8).collect();
        let mut whole = Vec::new();
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64)
            .tcp(1000, 2000, 5000, 6000)
            .write(&mut whole, &payload)
            .unwrap();
        let offload = Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            segmentation: Some(Segmentation {
                kind: SegmentKind::TcpV4,
                segment_bytes: 1400,
                header_bytes: 54,
            }),
        };
        let mut buffer = Buffer::new();
        for (from, to) in [(&guest as &dyn Device, &port as &dyn Device), (&port, &guest)] {
            give(from, &whole, offload);
            let (got, told) = next(to, &mut buffer);
            assert!(got == whole, "{} bytes came instead of {}", got.len(), whole.len());
            assert_eq!(told, offload);
        }
    });
}

#[test]
fn a_tag_that_the_kernel_took_off_is_seen_all_the_same() {
    isolated(|| {
        let guest = tap();
        let port = Netdev::open(&Direct, &netdev_spec()).unwrap();
        let mut tagged = frame(3);
        tagged.splice(12..12, [0x81, 0, 0x20, 7]);
        give(&guest, &tagged, Offload::NONE);
        assert_eq!(next(&port, &mut Buffer::new()).0, tagged);
    });
}

#[test]
fn what_waits_is_discarded_and_what_is_removed_is_gone() {
    isolated(|| {
        let guest = tap();
        let port = Netdev::open(&Direct, &netdev_spec()).unwrap();
        for mark in 0..50 {
            give(&guest, &frame(mark), Offload::NONE);
        }
        assert_eq!(port.discard(0), 50);
        assert_eq!(port.discard(0), 0);
        let mut buffer = Buffer::new();
        ip("link set dev vm0 down");
        assert_eq!(port.receive(0, &mut buffer), Err(DeviceError::Down));
        assert_eq!(port.send(0, &[IoSlice::new(&frame(0))], Offload::NONE), Err(DeviceError::Down));
        ip("link set dev vm0 up");
        give(&guest, &frame(9), Offload::NONE);
        assert_eq!(next(&port, &mut buffer).0, frame(9));
        assert!(!port.is_gone());
        close(guest);
        assert_eq!(port.receive(0, &mut buffer), Err(DeviceError::Gone));
        assert!(port.is_gone());
    });
}

#[test]
fn an_interface_keeps_its_address_and_gets_the_networks_mtu() {
    isolated(|| {
        let missing = Netdev::open(&Direct, &netdev_spec()).unwrap_err();
        assert!(missing.to_string().contains("`vm0`") && missing.remedy().contains("netdev"), "{missing}");
        let _guest = tap();
        let port = Netdev::open(&Direct, &TapSpec { mtu: Mtu::new(1400).unwrap(), ..netdev_spec() }).unwrap();
        let shown = ip("-o link show dev vm0");
        assert!(shown.contains("mtu 1400") && shown.contains("02:00:00:00:00:0a"), "{shown}");
        let mut long = frame(0);
        long.resize(1415, 0);
        assert_eq!(port.send(0, &[IoSlice::new(&long)], Offload::NONE), Err(DeviceError::Refused));
        port.configure(&Direct, &netdev_spec()).unwrap();
        assert!(ip("-o link show dev vm0").contains("mtu 1500"));
        give(&port, &long, Offload::NONE);
    });
}
