//! The scene of the pipeline's truth: two hosts with ports in four networks, two of which have the very same addresses.

use std::cell::Cell;

use dataplane::desired::{Encapsulation, HostConfig, UnderlayConfig};
use dataplane::directory::{DirectoryReader, DirectoryWriter, Location};
use dataplane::pipeline::Context;
use dataplane::stats::Totals;
use dataplane::tables::Tables;
use dataplane::types::{MacAddr, Mtu, Nanos, PhysicalIp, PortId, Vni};
use serde_json::{Value, json};

/// The sending host, whose guests are the fuzzer's.
pub(crate) const HOST_A: &str = "192.0.2.1";
/// The receiving host.
pub(crate) const HOST_B: &str = "192.0.2.2";
/// A host of the directory that is not in the scene.
pub(crate) const HOST_C: &str = "192.0.2.3";
/// The largest outer packet.
const UNDERLAY_MTU: u16 = 1600;

/// Name, network, last octet of the MAC address, addresses.
pub(crate) type Guest = (&'static str, u32, u8, &'static [&'static str]);

pub(crate) const ON_A: [Guest; 6] = [
    ("a1", 100, 0xa1, &["10.0.0.5", "fd00:0:0:a::5"]),
    ("a2", 100, 0xa2, &["10.0.1.6", "fd00:0:0:b::6"]),
    ("a3", 200, 0xa3, &["10.2.0.7"]),
    ("a4", 100, 0xa4, &["fd00:0:0:a::8"]),
    ("a5", 400, 0xa5, &["10.0.0.5", "fd00:0:0:a::5"]),
    ("a6", 100, 0xa6, &["10.0.0.9", "fd00:0:0:a::9"]),
];
pub(crate) const ON_B: [Guest; 4] = [
    ("b1", 100, 0xb1, &["10.0.0.15", "fd00:0:0:a::15"]),
    ("b2", 100, 0xb2, &["10.0.1.16", "fd00:0:0:b::16"]),
    ("b3", 200, 0xb3, &["10.2.0.17"]),
    ("b5", 400, 0xb5, &["10.0.0.15", "fd00:0:0:a::15"]),
];
/// Entries that lead nowhere: an absent host, this very host, a host of the other family, host B, which has no such port,
/// and an address behind two peers, which nobody should look up.
const ELSEWHERE: [(u32, &str, &str); 5] = [
    (100, "10.0.0.77", HOST_C),
    (100, "10.0.0.78", HOST_A),
    (100, "10.0.0.79", "2001:db8::9"),
    (100, "10.0.0.80", HOST_B),
    (200, "10.4.0.1", HOST_B),
];

fn networks() -> Value {
    json!([
        {"vni": 100, "dns": ["10.0.0.53", "fd00:0:0:a::53"], "domain": "red.example", "subnets": [
            {"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"},
            {"prefix": "10.0.1.0/24", "gateway": "10.0.1.1"},
            {"prefix": "fd00:0:0:a::/64", "gateway": "fd00:0:0:a::1"},
            {"prefix": "fd00:0:0:b::/64", "gateway": "fd00:0:0:b::1"}],
         "routes": [
            {"prefix": "172.16.0.0/12", "via": "drop"},
            {"prefix": "192.168.0.0/16", "via": "gateway"},
            {"prefix": "10.9.0.0/16", "via": "10.0.0.9"},
            {"prefix": "10.10.0.0/16", "via": "10.0.0.15"},
            {"prefix": "10.2.0.0/24", "via": "network:200"},
            {"prefix": "10.4.0.0/16", "via": "network:200"}]},
        {"vni": 200, "mtu": 1400, "subnets": [{"prefix": "10.2.0.0/24", "gateway": "10.2.0.1"}],
         "routes": [
            {"prefix": "10.0.0.0/24", "via": "network:100"},
            {"prefix": "10.4.0.0/16", "via": "network:300"}]},
        {"vni": 300, "subnets": [{"prefix": "10.3.0.0/24", "gateway": "10.3.0.1"}]},
        {"vni": 400, "subnets": [
            {"prefix": "10.0.0.0/24", "gateway": "10.0.0.2"},
            {"prefix": "fd00:0:0:a::/64", "gateway": "fd00:0:0:a::2"}]}
    ])
}

/// One host of the scene.
pub(crate) struct Host {
    pub(crate) ip: PhysicalIp,
    pub(crate) tables: Tables,
    pub(crate) writer: DirectoryWriter,
    reader: DirectoryReader,
    now: Cell<u64>,
}

impl Host {
    fn new(ip: &str, guests: &[Guest], encapsulation: Encapsulation) -> Self {
        let ip = ip.parse().unwrap();
        let mtu = Mtu::new(UNDERLAY_MTU).unwrap();
        let underlay = UnderlayConfig { physical_ips: vec![ip], encapsulation, mtu };
        let ports: Vec<_> =
            guests.iter().map(|(name, network, last, ips)| port(name, *network, mac(*last), ips)).collect();
        let tables = Tables::empty(underlay.into(), 1, 7).succeed(&document(1, &ports), 1).unwrap();
        let (writer, mut readers) = DirectoryWriter::new(7, 1);
        let located =
            ON_A.iter().map(|guest| (guest, HOST_A)).chain(ON_B.iter().map(|guest| (guest, HOST_B)));
        for ((_, network, last, ips), host) in located {
            for ip in *ips {
                let location = Location { physical_ip: host.parse().unwrap(), mac: mac(*last), version: 1 };
                writer.set(vni(*network), ip.parse().unwrap(), location).unwrap();
            }
        }
        for (network, ip, host) in ELSEWHERE {
            let location = Location { physical_ip: host.parse().unwrap(), mac: mac(0xc1), version: 1 };
            writer.set(vni(network), ip.parse().unwrap(), location).unwrap();
        }
        let mut reader = readers.pop().unwrap();
        reader.refresh();
        Self { ip, tables, writer, reader, now: Cell::new(0) }
    }

    /// Each batch comes ten seconds after the one before, so that no port ever has had its share of answers.
    pub(crate) fn context(&self) -> Context<'_> {
        self.now.set(self.now.get() + 10_000_000_000);
        Context { tables: &self.tables, directory: &self.reader, now: Nanos(self.now.get()), worker: 0 }
    }

    /// Puts other ports in force, as the next generation; false, and nothing has changed, if they cannot be.
    pub(crate) fn change(&mut self, ports: &[Value]) -> bool {
        let next = self.tables.succeed(&document(self.tables.generation.next().0, ports), 1);
        next.map(|next| self.tables = next).is_ok()
    }

    /// Says where a station is, or that nobody knows.
    pub(crate) fn tell(&mut self, network: u32, ip: &str, found: Option<(&str, MacAddr)>) {
        let (network, ip) = (vni(network), ip.parse().unwrap());
        match found {
            Some((host, mac)) => {
                let location = Location { physical_ip: host.parse().unwrap(), mac, version: 1 };
                self.writer.set(network, ip, location).unwrap();
            }
            None => drop(self.writer.remove(network, ip)),
        }
        self.reader.refresh();
    }

    pub(crate) fn pass_time(&mut self, nanos: u64) {
        self.now.set(self.now.get() + nanos);
    }

    /// All counters, by owner; no port's are the underlay's.
    pub(crate) fn counters(&self) -> Vec<(Option<PortId>, Totals)> {
        let ports = self.tables.ports().map(|port| (Some(port.id), port.counters.sum()));
        ports.chain([(None, self.tables.underlay_counters.sum())]).collect()
    }

    /// Bytes of the largest inner packet of a tunnel.
    pub(crate) fn largest_inner(&self) -> usize {
        usize::from(UNDERLAY_MTU) - 50
    }
}

/// A port of a document.
pub(crate) fn port(name: &str, network: u32, mac: MacAddr, ips: &[&str]) -> Value {
    json!({"name": name, "network": network, "mac": mac.to_string(), "ips": ips, "hostname": name})
}

fn document(generation: u64, ports: &[Value]) -> HostConfig {
    let document = json!({"generation": generation, "networks": networks(), "ports": ports});
    serde_json::from_value(document).unwrap()
}

fn vni(value: u32) -> Vni {
    Vni::new(value).unwrap()
}

pub(crate) const fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

/// Both hosts, each knowing where everybody is.
pub(crate) struct World {
    pub(crate) a: Host,
    pub(crate) b: Host,
}

impl World {
    pub(crate) fn new(encapsulation: Encapsulation) -> Self {
        Self { a: Host::new(HOST_A, &ON_A, encapsulation), b: Host::new(HOST_B, &ON_B, encapsulation) }
    }
}
