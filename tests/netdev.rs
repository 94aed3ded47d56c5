//! A port of kind netdev from end to end: the interface is somebody else's (here one end of a veth pair whose other end is
//! the guest's), the switch that has no privilege attaches to it through its keeper.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

mod blackout;
mod scene;

use std::net::Ipv4Addr;

use blackout::Load;
use control::lab::{Guest, SwitchOptions, Tool};
use scene::{PATIENCE, Scene, say, until};

const DAVE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);

#[test]
fn a_guest_behind_somebody_elses_interface_talks_moves_and_outlives_the_switch() {
    let scene = Scene::new(&[Tool::PING]);
    let (_host, mut a) = scene.switch("host-a", 1, &SwitchOptions::default());
    let (_, b) = scene.switch("host-b", 2, &SwitchOptions::default());
    for switch in [&a, &b] {
        say(switch, "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    }
    let eve = Guest::new(&scene.world, "eve").unwrap();
    scene.world.add_netns("hold").unwrap();
    let make = "ip link add eve type veth peer name eve netns eve address 02:00:00:00:00:01\n\
        echo 1 > /proc/sys/net/ipv6/conf/eve/disable_ipv6\n\
        ip link set eve arp off up\n";
    scene.world.script(Some("hold"), make).unwrap();
    let add = "port add eve --network 100 --mac 02:00:00:00:00:01 --ip 10.0.0.1 --kind netdev";
    let exposed = a.say(add).unwrap_err().to_string();
    assert!(exposed.contains("names no namespace"), "{exposed}");
    let missing = a.say(&format!("{add} --netns eve-is-not-here")).unwrap_err().to_string();
    assert!(missing.contains("does not exist"), "{missing}");
    say(&a, &format!("{add} --netns hold"));
    eve.set_address([10, 0, 0, 1].into(), 24).unwrap();
    let dave = scene.static_guest(&b, "dave", 100, "02:00:00:00:00:04", "10.0.0.4");
    say(&a, "directory set --network 100 --ip 10.0.0.4 --mac 02:00:00:00:00:04 --physical-ip 192.0.2.2");
    say(&b, "directory set --network 100 --ip 10.0.0.1 --mac 02:00:00:00:00:01 --physical-ip 192.0.2.1");
    eve.wait_for_ping(DAVE, PATIENCE).unwrap();

    // The keeper has the socket while there is no switch, and the next one goes on with it.
    let load = Load::start(&scene.world, (&eve, &dave), DAVE, 2000);
    for _ in 0..2 {
        load.wait_for_progress();
        a.kill();
        a.start().unwrap_or_else(|error| panic!("{error}"));
    }
    load.wait_for_progress();
    let report = load.end();
    println!("{report}");
    assert!(report.tcp_alive && report.tcp_bytes > 0, "the TCP connection lives on");

    // A move is a move; the link is not the switch's, and that is said.
    say(&a, "network add 200 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    say(&a, "port move eve --network 200 --ip 10.0.0.9");
    until("the old neighbour to be out of reach", || !eve.ping(DAVE, 1).unwrap());
    assert!(a.log().contains("the link is that of its hypervisor"), "{}", a.log());
    say(&a, "port move eve --network 100 --ip 10.0.0.1 --no-bounce");
    eve.wait_for_ping(DAVE, PATIENCE).unwrap();

    // Its maker takes it away; the port can be removed all the same.
    scene.world.script(Some("hold"), "ip link delete eve").unwrap();
    until("the interface to be missed", || say(&a, "port show eve")["link"] == "missing");
    say(&a, "port remove eve");
}
