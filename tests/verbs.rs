//! The verbs that need a device: what they print, and when `--wait` returns.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what broke by panicking")]

mod scene;

use std::time::{Duration, Instant};

use control::lab::{CliFailure, ClientKind, Guest, Switch, SwitchOptions};
use dataplane::ctl::protocol::{BounceOrder, Changed, Moved};
use dataplane::ctl::{Client, Request};
use scene::{PATIENCE, Scene, say};
use serde_json::{Value, json};

const MAC: &str = "02:00:00:00:00:05";

/// A host with two networks that use the same prefix.
fn stage(scene: &Scene) -> Switch {
    let (_, switch) = scene.switch("host", 1, &SwitchOptions::default());
    for vni in [100, 200] {
        say(&switch, &format!("network add {vni} --prefix 10.0.0.0/24"));
    }
    switch
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn of_two_ports_the_one_that_moves_is_to_blame() {
    let scene = Scene::new(&[]);
    let switch = stage(&scene);
    let _first = scene.static_guest(&switch, "first", 100, MAC, "10.0.0.5");
    let _second = scene.static_guest(&switch, "second", 200, "02:00:00:00:00:06", "10.0.0.6");
    let _third = scene.static_guest(&switch, "third", 200, MAC, "10.0.0.7");
    let before = say(&switch, "export");
    // The one that moves stands first in the document.
    let [what, place, _] = refused(switch.say("port move first --network 100 --ip 10.0.0.5,10.0.0.5"));
    assert_eq!((what.as_str(), place.as_str()), ("address 10.0.0.5 is named twice", "port first, ips"));
    let [what, place, _] = refused(switch.say("port move first --network 200 --ip 10.0.0.9"));
    assert_eq!(what, format!("MAC address {MAC} is already port third's in network 200"));
    assert_eq!(place, "port first, mac");
    say(&switch, "port remove third");
    let [what, place, _] = refused(switch.say("port move first --network 200 --ip 10.0.0.6"));
    assert_eq!(what, "address 10.0.0.6 is already port second's in network 200");
    assert_eq!(place, "port first, ips");
    assert_eq!(say(&switch, "export")["ports"][0], before["ports"][0]);
}

fn refused(said: Result<Value, CliFailure>) -> [String; 3] {
    let failure = said.unwrap_err();
    assert_eq!(failure.code, Some(1), "{failure}");
    ["what", "where", "remedy"].map(|part| failure.part(part).unwrap_or_else(|| panic!("{failure}")))
}

#[test]
fn ports_come_move_and_go_with_their_interfaces() {
    let scene = Scene::new(&[]);
    let switch = stage(&scene);
    let guest = Guest::new(&scene.world, "web").unwrap();
    let added = say(
        &switch,
        &format!("port add web --network 100 --mac {MAC} --ip 10.0.0.5 --netns web --hostname web-1"),
    );
    assert_eq!((&added["port"], &added["generation"]), (&json!("web"), &json!(3)));
    assert_eq!(guest.mac().unwrap(), MAC);

    let listed = say(&switch, "port list");
    let shown = json!({"name": "web", "network": 100, "mac": MAC, "ips": ["10.0.0.5"], "kind": "tap", "netns": "web",
        "hostname": "web-1", "link": "up", "generation": 3});
    assert_eq!(listed, json!({"generation": 3, "ports": [shown]}));
    assert_eq!(say(&switch, "network list")["networks"][0]["ports"], 1);

    // Exactly the documented fields: the times of the guest only for those who wait for them.
    let moved = say(&switch, "port move web --network 200 --ip 10.0.0.6 --no-bounce");
    assert_eq!(keys(&moved), ["generation", "port", "settled_ns", "swap_ns"]);
    assert_eq!(moved["generation"], 4);
    let shown = say(&switch, "port show web");
    assert_eq!(
        (&shown["network"], &shown["ips"], &shown["generation"]),
        (&json!(200), &json!(["10.0.0.6"]), &json!(4))
    );
    let change = &shown["last_change"];
    assert_eq!(keys(change), ["at", "first_packet_ms", "generation", "lease_ms", "settled_ns", "swap_ns"]);
    for field in ["generation", "swap_ns", "settled_ns"] {
        assert_eq!(change[field], moved[field], "{field}");
    }
    assert!(change["lease_ms"].is_null() && change["at"].as_str().unwrap().ends_with('Z'));

    // A bounce holds the link down without holding the answer back.
    say(&switch, "port move web --network 100 --ip 10.0.0.5 --hold-ms 60000");
    assert_eq!(say(&switch, "port list")["ports"][0]["link"], "down");

    let [what, ..] = refused(switch.say("network remove 100"));
    assert_eq!(what, "network 100 still has ports: web");
    say(&switch, "port remove web");
    assert_eq!(say(&switch, "port list")["ports"], json!([]));
    assert!(guest.mac().is_err(), "the interface of a removed port is still there");
    // The name is free at once, although the link was to be held down for another minute.
    say(&switch, &format!("port add web --network 100 --mac {MAC} --ip 10.0.0.5 --netns web"));
    assert_eq!(say(&switch, "port list")["ports"][0]["link"], "up");
    say(&switch, "port remove web");
    say(&switch, "network remove 100");
}

#[test]
fn a_port_whose_interface_was_removed_says_so() {
    let scene = Scene::new(&[]);
    let switch = stage(&scene);
    let guest = scene.static_guest(&switch, "web", 100, MAC, "10.0.0.5");
    assert_eq!(say(&switch, "port show web")["link"], "up");
    guest.run("ip", &["link", "delete", "web"]).unwrap();
    scene::until("the loss to be noticed", || say(&switch, "port list")["ports"][0]["link"] == "missing");
    assert_eq!(say(&switch, "port show web")["link"], "missing");
    scene::until("it to be logged by name", || switch.log().contains("port=\"web\""));
    say(&switch, "port remove web");
    let _guest = scene.static_guest(&switch, "web2", 100, MAC, "10.0.0.5");
    assert_eq!(say(&switch, "port show web2")["link"], "up");
}

#[test]
fn a_move_waits_for_the_guest_as_told() {
    let scene = Scene::new(&[]);
    let switch = stage(&scene);
    let guest = scene.static_guest(&switch, "web", 100, MAC, "10.0.0.5");

    // Nobody renews anything in this guest.
    let begun = Instant::now();
    let [what, place, _] = refused(
        switch.say("port move web --network 200 --ip 10.0.0.5 --no-bounce --wait lease --timeout-seconds 1"),
    );
    assert!(
        what.contains("in its new network since generation") && what.contains("within 1000 ms"),
        "{what}"
    );
    assert_eq!(place, "port web");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(say(&switch, "port show web")["network"], 200);

    // It talks to the gateway all the time, and the address stays: the next packet counts.
    let _talk = guest.spawn("ping", &["-q", "-i", "0.2", "10.0.0.1"]).unwrap();
    let moved = say(&switch, "port move web --network 100 --ip 10.0.0.5 --no-bounce --wait traffic");
    assert!(moved["first_packet_ms"].as_f64().unwrap() > 0.0 && moved["lease_ms"].is_null(), "{moved}");
    assert_eq!(say(&switch, "port show web")["last_change"]["first_packet_ms"], moved["first_packet_ms"]);

    // Where the port is already, its guest has nothing to follow, and its link nothing to tell.
    let changes = || guest.run("cat", &["/sys/class/net/web/carrier_changes"]).unwrap();
    let before = changes();
    let stays = say(&switch, "port move web --network 100 --ip 10.0.0.5 --wait traffic");
    assert!(stays["lease_ms"].is_null() && stays["first_packet_ms"].is_null(), "{stays}");
    assert_eq!(changes(), before);

    // A second change ends the wait of the first.
    let waiting = {
        let (socket, port) = (switch.socket(), "web".parse().unwrap());
        std::thread::spawn(move || {
            let bounce = BounceOrder::No;
            let (network, ips) = ("200".parse().unwrap(), vec!["10.0.0.9".parse().unwrap()]);
            let wait = Some(dataplane::ctl::protocol::Wait::Lease);
            let request = Request::PortMove {
                port,
                network,
                ips,
                rules: None,
                label: None,
                bounce,
                wait,
                timeout_ms: 30_000,
            };
            Client::connect(&socket).unwrap().call::<Moved>(&request)
        })
    };
    scene::until("the first move", || say(&switch, "port show web")["network"] == 200);
    say(&switch, "port move web --network 100 --ip 10.0.0.5 --no-bounce");
    let refusal = waiting.join().unwrap().unwrap_err().refusal();
    assert!(refusal.what.contains("was changed again"), "{refusal}");
}

#[test]
fn a_guest_with_dhcp_is_waited_for_until_it_has_its_lease() {
    let client = ClientKind::find().unwrap_or_else(|error| panic!("{error}"));
    let scene = Scene::new(&[client.tool()]);
    let switch = stage(&scene);
    let guest = scene.guest(&switch, "web", 100, MAC, "10.0.0.5");
    guest.start_dhcp(client).unwrap();
    guest.wait_for_address([10, 0, 0, 5].into(), PATIENCE).unwrap();
    assert!(say(&switch, "port show web")["last_change"]["lease_ms"].as_f64().unwrap() > 0.0);
    // The client ignores the link; its program is told to begin again, as a carrier watcher would.
    let talk = std::thread::scope(|scope| {
        let moving = scope
            .spawn(|| say(&switch, "port move web --network 200 --ip 10.0.0.6 --no-bounce --wait lease"));
        scene::until("the move", || say(&switch, "port show web")["network"] == 200);
        guest.signal_dhcp(rustix::process::Signal::HUP);
        guest.start_dhcp(client).unwrap();
        moving.join().unwrap()
    });
    assert!(talk["lease_ms"].as_f64().unwrap() > 0.0, "{talk}");
    guest.wait_for_address([10, 0, 0, 6].into(), PATIENCE).unwrap();
}

#[test]
fn a_connection_moves_a_port_thousands_of_times() {
    let scene = Scene::new(&[]);
    let switch = stage(&scene);
    let _guest = scene.static_guest(&switch, "web", 100, MAC, "10.0.0.5");
    let mut client = Client::connect(&switch.socket()).unwrap();
    let begun = Instant::now();
    let mut last = 0;
    for round in 0_u32..1000 {
        let vni = if round % 2 == 0 { 200 } else { 100 };
        let request = Request::PortMove {
            port: "web".parse().unwrap(),
            network: vni.to_string().parse().unwrap(),
            ips: vec!["10.0.0.5".parse().unwrap()],
            rules: None,
            label: None,
            bounce: BounceOrder::No,
            wait: None,
            timeout_ms: 0,
        };
        let moved: Moved = client.call(&request).unwrap();
        assert!(moved.generation.0 > last && moved.followed.is_none());
        last = moved.generation.0;
    }
    let each = begun.elapsed() / 1000;
    assert!(each < Duration::from_millis(50), "{each:?} a move");
    let removed: Changed = client.call(&Request::PortRemove { port: "web".parse().unwrap() }).unwrap();
    assert_eq!(removed.generation.0, last + 1);
}
