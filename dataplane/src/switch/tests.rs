//! A whole switch, with devices that are half of a pair of sockets: no privilege is needed, and the other half tells
//! whether the switch still holds the device.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{Switch, SwitchConfig};
use crate::desired::{HostConfig, PortName};
use crate::port::open::{OpenError, OpenTap, Opener, TapSpec, UdpUse};

#[derive(Default)]
struct Pairs {
    guests: Mutex<HashMap<PortName, UnixDatagram>>,
    refuses: bool,
}

impl Opener for Pairs {
    fn open_tap(&self, spec: &TapSpec) -> Result<OpenTap, OpenError> {
        if self.refuses {
            return Err(OpenError::NoTun { interface: spec.name.clone() });
        }
        let (queue, guest) = UnixDatagram::pair().unwrap();
        queue.set_nonblocking(true).unwrap();
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
    let refusing = Arc::new(Pairs { refuses: true, ..Pairs::default() });
    let switch = Switch::start(config(dir.path()), refusing).unwrap();
    assert!(!switch.port_status(&name).unwrap().link_up);
    switch.stop();
}
