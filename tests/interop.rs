//! The switch with others: the kernel's bridge and VXLAN device behind the same wire, judged by tshark; and Geneve
//! between two switches.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod scene;

use control::lab::{
    Capture, FABRIC, Frame, Guest, KernelPeer, Process, SwitchOptions, Tool, World, set_checksum_offload,
};
use scene::{PATIENCE, Scene, say, until};
use std::net::Ipv4Addr;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OUR_MAC: &str = "02:00:00:00:00:01";
const THEIR_MAC: &str = "02:00:00:00:00:02";

/// TCP between two guests for two seconds, both directions; megabits per second each.
fn iperf3(client: &Guest, server: &Guest, to: Ipv4Addr) -> [f64; 2] {
    let _server: Process = server.spawn("iperf3", &["-s"]).unwrap();
    let to = to.to_string();
    [&[][..], &["-R"][..]].map(|direction| {
        let mut arguments = vec!["-c", &to, "-t", "2", "-J", "--connect-timeout", "5000"];
        arguments.extend(direction);
        let mut speed = None;
        // The server may not listen yet, or still be busy with the one before: then the report has no sum.
        until("iperf3", || {
            let report = client.run("iperf3", &arguments).unwrap_or_default();
            let report: serde_json::Value = serde_json::from_str(&report).unwrap_or_default();
            speed = report["end"]["sum_received"]["bits_per_second"].as_f64();
            speed.is_some()
        });
        speed.unwrap() / 1e6
    })
}

/// Pings whose 10,000 bytes travel as fragments; and UDP of the same size, echoed byte by byte.
fn ten_kilobytes(world: &std::sync::Arc<World>, from: &Guest, to: &Guest, address: Ipv4Addr) {
    let target = address.to_string();
    until("pings of 10 kB", || {
        from.run("ping", &["-n", "-c", "1", "-W", "2", "-s", "10000", &target]).is_ok()
    });
    let in_guest = |guest: &Guest, act: Box<dyn FnOnce() + Send>| {
        let (world, name) = (std::sync::Arc::clone(world), guest.name().to_owned());
        std::thread::spawn(move || {
            control::lab::enter_netns(&world, &name).unwrap();
            act();
        })
    };
    let (ready, is_ready) = std::sync::mpsc::channel();
    let echo = in_guest(
        to,
        Box::new(move || {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 7777)).unwrap();
            ready.send(()).unwrap();
            let mut buffer = vec![0; 20_000];
            for _ in 0..20 {
                let (length, peer) = socket.recv_from(&mut buffer).unwrap();
                socket.send_to(&buffer[..length], peer).unwrap();
            }
        }),
    );
    is_ready.recv().unwrap();
    let client = in_guest(
        from,
        Box::new(move || {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = vec![0; 20_000];
            for round in 0..20u8 {
                let datagram: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8 ^ round).collect();
                socket.send_to(&datagram, (address, 7777)).unwrap();
                let (length, _) = socket.recv_from(&mut buffer).unwrap();
                assert!(buffer[..length] == datagram, "datagram {round} came back changed");
            }
        }),
    );
    client.join().unwrap();
    echo.join().unwrap();
}

/// Has tshark look at a capture: every packet towards the tunnel port has right lengths and checksums, outer and inner.
fn judge(world: &World, capture: &mut Capture, protocol: &str) {
    let records = capture.stop().unwrap();
    assert!(records.len() > 100, "only {} packets were captured", records.len());
    for record in &records {
        let outer = Frame::parse(&record.bytes).unwrap();
        assert!(outer.inner().is_some_and(|(vni, _)| vni == 100), "not of VNI 100: {outer:?}");
    }
    let tshark = |filter: &str| {
        let mut arguments = vec!["-r", capture.inside(), "-n", "-o", "ip.check_checksum:TRUE"];
        arguments.extend(["-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-Y", filter]);
        world.run(None, "tshark", &arguments).unwrap()
    };
    let count = |text: &str| text.lines().count();
    assert_eq!(count(&tshark(protocol)), records.len(), "tshark sees {protocol} in every packet");
    // Where Linux itself completes a TCP checksum of zero (a guest or peer without offloads) it writes zero's twin 0xffff, which
    // verifies but is no zero to tshark. That the switch writes zero is tested beside its code.
    let bad = "ip.checksum.status == 0 || udp.checksum.status == 0 || _ws.malformed || udp.length.bad || \
               ip.bogus_ip_length || udp.checksum.zero || (tcp.checksum.status == 0 && tcp.checksum != 0xffff)";
    let found = tshark(bad);
    assert_eq!(
        count(&found),
        0,
        "tshark objects to:\n{}",
        found.lines().take(5).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn a_guest_behind_the_kernels_vxlan_device() {
    let scene =
        Scene::new(&[Tool::TCPDUMP, Tool::TSHARK, Tool::IPERF3, Tool::ETHTOOL, Tool::BRIDGE, Tool::PING]);
    let world = &scene.world;
    let (host, switch) = scene.switch("host-a", 1, &SwitchOptions::default());
    let kernel_host = scene.host("host-k", 2);
    let peer = KernelPeer::new(world, &kernel_host, 100, ("theirs", THEIR_MAC, THEIRS)).unwrap();
    peer.learn(OURS, OUR_MAC, &host).unwrap();
    say(&switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    say(
        &switch,
        &format!("directory set --network 100 --ip {THEIRS} --mac {THEIR_MAC} --physical-ip 192.0.2.2"),
    );
    let guest = scene.static_guest(&switch, "ours", 100, OUR_MAC, "10.0.0.1");
    // Without this the capture would show packets whose checksums a NIC has yet to finish.
    set_checksum_offload(world, "host-a", "underlay", false).unwrap();
    let mut capture = Capture::start(world, FABRIC, "to-host-a", "udp port 4789").unwrap();
    guest.wait_for_ping(THEIRS, PATIENCE).unwrap();
    peer.guest().wait_for_ping(OURS, PATIENCE).unwrap();
    ten_kilobytes(world, &guest, peer.guest(), THEIRS);
    ten_kilobytes(world, peer.guest(), &guest, OURS);
    judge(world, &mut capture, "vxlan");

    // A second capture of a second of TCP: the whole of a fast stream would be too much to judge.
    let mut capture = Capture::start(world, FABRIC, "to-host-a", "udp port 4789").unwrap();
    let short =
        |to: Ipv4Addr| ["-c".to_owned(), to.to_string(), "-n".to_owned(), "4M".to_owned(), "-J".to_owned()];
    {
        let _server = peer.guest().spawn("iperf3", &["-s"]).unwrap();
        for extra in [None, Some("-R")] {
            let arguments = short(THEIRS);
            let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            arguments.extend(extra);
            until("iperf3", || guest.run("iperf3", &arguments).is_ok());
        }
    }
    judge(world, &mut capture, "vxlan");

    let [out, back] = iperf3(&guest, peer.guest(), THEIRS);
    println!("TCP to the kernel's peer: {out:.0} Mbit/s, from it: {back:.0} Mbit/s");
    assert!(out > 1.0 && back > 1.0);
}

#[test]
fn geneve_between_two_switches() {
    let scene = Scene::new(&[Tool::TCPDUMP, Tool::TSHARK, Tool::IPERF3, Tool::ETHTOOL, Tool::PING]);
    let world = &scene.world;
    let options = SwitchOptions { encapsulation: "geneve", ..SwitchOptions::default() };
    let (_, a) = scene.switch("host-a", 1, &options);
    let (_, b) = scene.switch("host-b", 2, &options);
    for switch in [&a, &b] {
        say(switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    }
    let one = scene.static_guest(&a, "one", 100, OUR_MAC, "10.0.0.1");
    let two = scene.static_guest(&b, "two", 100, THEIR_MAC, "10.0.0.2");
    say(&a, &format!("directory set --network 100 --ip {THEIRS} --mac {THEIR_MAC} --physical-ip 192.0.2.2"));
    say(&b, &format!("directory set --network 100 --ip {OURS} --mac {OUR_MAC} --physical-ip 192.0.2.1"));
    for host in ["host-a", "host-b"] {
        set_checksum_offload(world, host, "underlay", false).unwrap();
    }
    let mut capture = Capture::start(world, FABRIC, "to-host-a", "udp port 6081").unwrap();
    one.wait_for_ping(THEIRS, PATIENCE).unwrap();
    ten_kilobytes(world, &one, &two, THEIRS);
    judge(world, &mut capture, "geneve");
    let [out, back] = iperf3(&one, &two, THEIRS);
    println!("TCP over Geneve: {out:.0} Mbit/s, the other way: {back:.0} Mbit/s");
}
