//! A whole switch, with devices that are half of a pair of sockets: no privilege is needed, and the other half tells
//! whether the switch still holds the device.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{Switch, SwitchConfig, SwitchError};
use crate::desired::{HostConfig, PortName};
use crate::port::open::{OpenError, OpenTap, Opener, TapSpec, UdpUse};

#[derive(Default)]
struct Pairs {
    guests: Mutex<HashMap<PortName, UnixDatagram>>,
    refuses: AtomicBool,
    /// Devices are such that a worker waits in them for the guest's next frame. These are the switch's ends.
    stuck: Option<Mutex<HashMap<PortName, UnixDatagram>>>,
    /// What a guest has sent before the switch opens its device.
    sent_before: Option<Vec<u8>>,
    marks: Mutex<HashMap<PortName, u64>>,
}

impl Opener for Pairs {
    fn open_tap(&self, spec: &TapSpec) -> Result<OpenTap, OpenError> {
        if self.refuses.load(Relaxed) {
            return Err(OpenError::NoTun { interface: spec.name.clone() });
        }
        let (queue, guest) = UnixDatagram::pair().unwrap();
        queue.set_nonblocking(self.stuck.is_none()).unwrap();
        if let Some(stuck) = &self.stuck {
            stuck.lock().unwrap().insert(spec.name.clone(), queue.try_clone().unwrap());
        }
        if let Some(frame) = &self.sent_before {
            guest.send(frame).unwrap();
        }
        self.guests.lock().unwrap().insert(spec.name.clone(), guest);
        let control = UnixDatagram::unbound().unwrap().into();
        let queues = vec![OwnedFd::from(queue)];
        Ok(OpenTap { queues, control, queue_frames: 8, udp_trains: true, existed: false })
    }

    fn open_udp(&self, _address: SocketAddr, _purpose: UdpUse) -> Result<OwnedFd, OpenError> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Ok(socket.into())
    }

    fn mark_of(&self, spec: &TapSpec) -> Option<u64> {
        self.marks.lock().unwrap().get(&spec.name).copied()
    }

    fn mark_tap(&self, spec: &TapSpec, binding: u64) {
        self.marks.lock().unwrap().insert(spec.name.clone(), binding);
    }
}

fn config(dir: &Path) -> SwitchConfig {
    let place = dir.display();
    let text = format!(
        "state_dir = \"{place}/state\"\nsocket = \"{place}/sock\"\nunderlay.physical_ip = \"192.0.2.1\"\nworkers.poll = \"sleep\""
    );
    SwitchConfig::parse(&text, Path::new("test.toml")).unwrap()
}

fn document(generation: u64, ports: &[&str]) -> HostConfig {
    let port = |(host, name): (u8, &&str)| json!({"name": name, "network": 100, "mac": format!("02:00:00:00:00:{host:02x}"), "ips": [Ipv4Addr::new(10, 0, 0, host)]});
    let ports: Vec<_> = (5..).zip(ports).map(port).collect();
    let networks = json!([{"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}]}]);
    serde_json::from_value(json!({"generation": generation, "networks": networks, "ports": ports})).unwrap()
}

/// The device of a port that is removed while all workers sleep would else live on in the snapshot that they slept with,
/// and nobody could make an interface of that name.
#[test]
fn a_removed_port_leaves_no_device_behind() {
    let dir = tempfile::tempdir().unwrap();
    let opener = Arc::new(Pairs::default());
    let switch = Switch::start(config(dir.path()), opener.clone()).unwrap();
    for round in 0..20 {
        switch.apply(document(2 * round + 1, &["web-1"])).unwrap();
        // Until the workers sleep.
        thread::sleep(Duration::from_millis(5));
        switch.apply(document(2 * round + 2, &[])).unwrap();
        let guest = opener.guests.lock().unwrap().remove(&"web-1".parse().unwrap()).unwrap();
        guest.send(b"is anybody there?").expect_err("the switch still holds the removed port's device");
    }
    switch.stop();
}

#[test]
fn a_port_without_an_interface_is_shown_as_down() {
    let dir = tempfile::tempdir().unwrap();
    let name = "web-1".parse().unwrap();
    let switch = Switch::start(config(dir.path()), Arc::new(Pairs::default())).unwrap();
    switch.apply(document(1, &["web-1"])).unwrap();
    assert!(switch.port_status(&name).unwrap().link_up);
    switch.stop();
    drop(switch);
    let refusing = Arc::new(Pairs { refuses: true.into(), ..Pairs::default() });
    let switch = Switch::start(config(dir.path()), refusing).unwrap();
    assert!(!switch.port_status(&name).unwrap().link_up);
    switch.stop();
}

/// A switch dies between making a move durable and throwing away what the guest had sent before it, and its keeper has kept
/// the queue: the next one must not send that into the new network. Where nothing was on its way nothing is lost.
#[test]
fn what_waits_from_before_an_unsettled_move_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let name: PortName = "web-1".parse().unwrap();
    let opener = Arc::new(Pairs::default());
    let switch = Switch::start(config(dir.path()), opener.clone()).unwrap();
    switch.apply(document(1, &["web-1"])).unwrap();
    switch.stop();
    drop(switch);
    let marks = opener.marks.lock().unwrap().clone();
    assert!(marks.contains_key(&name), "a new port is marked");
    let received = |marks: HashMap<PortName, u64>| {
        let frame = [[0; 12].as_slice(), &[0xff; 60]].concat();
        let opener = Pairs { sent_before: Some(frame), marks: Mutex::new(marks), ..Pairs::default() };
        let opener = Arc::new(opener);
        let switch = Switch::start(config(dir.path()), opener.clone()).unwrap();
        // A second frame tells that the worker has read whatever was there before it.
        let frame = [[0; 12].as_slice(), &[0xfe; 60]].concat();
        opener.guests.lock().unwrap()[&name].send(&frame).unwrap();
        let received = || switch.port_status(&name).unwrap().totals.received_packets;
        while received() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        let received = received();
        switch.stop();
        (received, opener.marks.lock().unwrap().clone())
    };
    assert_eq!(received(marks.clone()), (2, marks.clone()));
    let before_the_move: HashMap<_, _> = marks.iter().map(|(name, mark)| (name.clone(), mark ^ 1)).collect();
    assert_eq!(received(before_the_move), (1, marks));
}

#[test]
fn a_device_that_could_not_be_had_at_the_start_is_marked_when_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let opener = Arc::new(Pairs::default());
    let marks = || opener.marks.lock().unwrap().clone();
    let switch = Switch::start(config(dir.path()), opener.clone()).unwrap();
    switch.apply(document(1, &["web-1"])).unwrap();
    switch.stop();
    drop(switch);
    let marked = marks();
    opener.marks.lock().unwrap().clear();
    opener.refuses.store(true, Relaxed);
    let switch = Switch::start(config(dir.path()), opener.clone()).unwrap();
    assert!(marks().is_empty());
    opener.refuses.store(false, Relaxed);
    // Any change has it tried again.
    switch.apply(document(2, &["web-1"])).unwrap();
    assert_eq!(marks(), marked);
    switch.stop();
}

/// While a worker has not confirmed a change, frames of both bindings may wait: were the mark the first one's, and a second
/// change went back to it, a switch that died then would have its successor send the frames of the other one.
#[test]
fn the_mark_of_a_change_that_is_not_settled_is_no_bindings() {
    let dir = tempfile::tempdir().unwrap();
    let name: PortName = "web-1".parse().unwrap();
    let opener = Arc::new(Pairs { stuck: Some(Mutex::default()), ..Pairs::default() });
    let mark = || opener.marks.lock().unwrap()[&name];
    let queue = || opener.stuck.as_ref().unwrap().lock().unwrap()[&name].try_clone().unwrap();
    let send = || opener.guests.lock().unwrap()[&name].send(&[0xff; 72]).unwrap();
    let switch = Switch::start(config(dir.path()), opener.clone()).unwrap();
    switch.apply(document(1, &["web-1"])).unwrap();
    let first = mark();
    send();
    // When the frame is taken the worker is in the middle of a batch, and waits there for the next one.
    let waits = || {
        let mut byte = [0];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        rustix::net::recv(queue(), &mut byte, flags).is_ok()
    };
    while waits() {
        thread::sleep(Duration::from_millis(1));
    }
    // The port's address is another one behind another port.
    let moved = switch.apply(document(2, &["db-1", "web-1"]));
    let between = mark();
    // Free again before anything is judged: a worker that waits is waited for at the end.
    queue().set_nonblocking(true).unwrap();
    send();
    assert!(matches!(moved, Err(SwitchError::NotSettled(_))), "{moved:?}");
    assert_ne!(between, first);
    // The next change is settled, and with it the one before.
    switch.apply(document(3, &["db-1", "web-1", "db-2"])).unwrap();
    let second = mark();
    assert!(second != first && second != between);
    switch.apply(document(4, &["web-1"])).unwrap();
    assert_eq!(mark(), first);
    switch.stop();
}
