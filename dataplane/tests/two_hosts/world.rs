//! The scene: two hosts, the networks and ports that they have, and their directories.

use std::sync::Arc;

use dataplane::desired::{Encapsulation, UnderlayConfig};
use dataplane::directory::{DirectoryReader, DirectoryWriter, Location};
use dataplane::packet::{Buffer, Offload, Packet};
use dataplane::pipeline::{Context, DropReason, Outer, Trap, Tunnel, Verdict, Verdicts, egress, ingress};
use dataplane::stats::Totals;
use dataplane::tables::{Port, Tables};
use dataplane::types::{MacAddr, Mtu, Nanos, Vni};
use serde_json::{Value, json};

pub(crate) const HOST_A: &str = "192.0.2.1";
pub(crate) const HOST_B: &str = "192.0.2.2";

/// A guest as the other tests speak of it.
#[derive(Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) port: &'static str,
    pub(crate) network: u32,
    pub(crate) mac: MacAddr,
    pub(crate) ips: &'static [&'static str],
}

impl Guest {
    const fn new(port: &'static str, network: u32, last: u8, ips: &'static [&'static str]) -> Self {
        Self { port, network, mac: MacAddr([2, 0, 0, 0, 0, last]), ips }
    }

    pub(crate) fn v4(&self) -> std::net::Ipv4Addr {
        self.ips[0].parse().unwrap()
    }

    pub(crate) fn v6(&self) -> std::net::Ipv6Addr {
        self.ips.last().unwrap().parse().unwrap()
    }
}

pub(crate) const A1: Guest = Guest::new("a1", 100, 0xa1, &["10.0.0.5", "fd00:0:0:a::5"]);
/// In the other prefix of A1's network.
pub(crate) const A2: Guest = Guest::new("a2", 100, 0xa2, &["10.0.1.6", "fd00:0:0:b::6"]);
/// In the peer network.
pub(crate) const A3: Guest = Guest::new("a3", 200, 0xa3, &["10.2.0.7"]);
/// Has no IPv4 address.
pub(crate) const A4: Guest = Guest::new("a4", 100, 0xa4, &["fd00:0:0:a::8"]);
/// Another tenant with A1's very addresses.
pub(crate) const A5: Guest = Guest::new("a5", 400, 0xa5, &["10.0.0.5", "fd00:0:0:a::5"]);
/// In A1's prefix on the same host.
pub(crate) const A6: Guest = Guest::new("a6", 100, 0xa6, &["10.0.0.9", "fd00:0:0:a::9"]);
pub(crate) const B1: Guest = Guest::new("b1", 100, 0xb1, &["10.0.0.15", "fd00:0:0:a::15"]);
pub(crate) const B2: Guest = Guest::new("b2", 100, 0xb2, &["10.0.1.16", "fd00:0:0:b::16"]);
pub(crate) const B3: Guest = Guest::new("b3", 200, 0xb3, &["10.2.0.17"]);
/// Another tenant, with B1's very addresses.
pub(crate) const B5: Guest = Guest::new("b5", 400, 0xb5, &["10.0.0.15", "fd00:0:0:a::15"]);

pub(crate) const ON_A: [Guest; 6] = [A1, A2, A3, A4, A5, A6];
pub(crate) const ON_B: [Guest; 4] = [B1, B2, B3, B5];

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

pub(crate) fn document(generation: u64, guests: &[Guest]) -> Value {
    let port = |guest: &Guest| {
        json!({"name": guest.port, "network": guest.network, "mac": guest.mac.to_string(), "ips": guest.ips,
               "hostname": format!("guest-{}", guest.port)})
    };
    json!({"generation": generation, "networks": networks(), "ports": guests.iter().map(port).collect::<Vec<_>>()})
}

/// What became of one packet.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// The packet as it was left.
    pub(crate) frame: Vec<u8>,
    pub(crate) offload: Offload,
    /// Whose counter moved: a port's name, or "underlay".
    pub(crate) counted: Option<String>,
}

impl Outcome {
    pub(crate) fn tunnel(&self) -> Tunnel {
        match self.verdict {
            Verdict::Underlay(tunnel) => tunnel,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn is_drop(&self, reason: DropReason, counted: &str) {
        assert_eq!(self.verdict, Verdict::Drop(reason));
        assert_eq!(self.counted.as_deref(), Some(counted));
    }

    #[track_caller]
    pub(crate) fn is_reply(&self, trap: Trap) -> &Self {
        assert_eq!(self.verdict, Verdict::Reply(trap));
        assert_eq!(self.offload, Offload::NONE, "answers are complete");
        self
    }
}

/// One host: its tables and its own directory.
pub(crate) struct Host {
    pub(crate) tables: Arc<Tables>,
    pub(crate) writer: DirectoryWriter,
    pub(crate) reader: DirectoryReader,
    pub(crate) now: Nanos,
}

impl Host {
    pub(crate) fn new(ip: &str, guests: &[Guest], encapsulation: Encapsulation) -> Self {
        let underlay = Arc::new(UnderlayConfig {
            physical_ips: vec![ip.parse().unwrap()],
            encapsulation,
            mtu: Mtu::new(1600).unwrap(),
        });
        let (writer, mut readers) = DirectoryWriter::new(7, 1);
        let reader = readers.pop().unwrap();
        let tables = Arc::new(Tables::empty(underlay, 1, 7));
        let mut host = Self { tables, writer, reader, now: Nanos(1) };
        host.apply(&document(1, guests));
        host
    }

    /// A new snapshot, as the switch would publish it.
    pub(crate) fn apply(&mut self, document: &Value) {
        let config = serde_json::from_value(document.clone()).unwrap();
        self.tables = Arc::new(self.tables.succeed(&config, 1).unwrap());
    }

    pub(crate) fn know(&mut self, guest: &Guest, at: &str) {
        for ip in guest.ips {
            let location = Location { physical_ip: at.parse().unwrap(), mac: guest.mac, version: 1 };
            self.writer.set(vni(guest.network), ip.parse().unwrap(), location).unwrap();
        }
        self.reader.refresh();
    }

    pub(crate) fn know_ip(&mut self, network: u32, ip: &str, mac: MacAddr, at: &str) {
        let location = Location { physical_ip: at.parse().unwrap(), mac, version: 1 };
        self.writer.set(vni(network), ip.parse().unwrap(), location).unwrap();
        self.reader.refresh();
    }

    pub(crate) fn port(&self, name: &str) -> Arc<Port> {
        self.tables.port_named(&name.parse().unwrap()).unwrap().clone()
    }

    fn context(&self) -> Context<'_> {
        Context { tables: &self.tables, directory: &self.reader, now: self.now, worker: 0 }
    }

    /// All counters of this host, by owner.
    fn counters(&self) -> Vec<(String, Totals)> {
        let ports = self.tables.ports().map(|port| (port.config.name.to_string(), port.counters.sum()));
        ports.chain([("underlay".to_owned(), self.tables.underlay_counters.sum())]).collect()
    }

    /// What a guest sends, alone in its batch.
    pub(crate) fn send(&self, guest: &Guest, frame: &[u8]) -> Outcome {
        self.send_with(guest, frame, Offload::NONE)
    }

    pub(crate) fn send_with(&self, guest: &Guest, frame: &[u8], offload: Offload) -> Outcome {
        let mut buffer = Buffer::new();
        let mut packet = buffer.load(frame);
        packet.offload = offload;
        self.handle(packet, |context, packets, verdicts| {
            egress(context, &self.port(guest.port), packets, verdicts);
        })
    }

    pub(crate) fn send_packet(&self, guest: &Guest, packet: Packet<'_>) -> Outcome {
        self.handle(packet, |context, packets, verdicts| {
            egress(context, &self.port(guest.port), packets, verdicts);
        })
    }

    /// A frame of a port that the caller holds, of whatever tables.
    pub(crate) fn send_as(&self, port: &Port, frame: &[u8]) -> Outcome {
        let mut buffer = Buffer::new();
        self.handle(buffer.load(frame), |context, packets, verdicts| egress(context, port, packets, verdicts))
    }

    /// What comes from another host.
    pub(crate) fn receive(&self, source: &str, frame: &[u8]) -> Outcome {
        self.receive_with(source, frame, 0, Offload::NONE)
    }

    pub(crate) fn receive_with(
        &self,
        source: &str,
        frame: &[u8],
        traffic_class: u8,
        offload: Offload,
    ) -> Outcome {
        let mut buffer = Buffer::new();
        let mut packet = buffer.load(frame);
        packet.offload = offload;
        let outer = Outer { source: source.parse().unwrap(), traffic_class };
        self.handle(packet, |context, packets, verdicts| ingress(context, &outer, packets, verdicts))
    }

    /// Runs one packet and holds every counter of the host against its verdict.
    fn handle(
        &self,
        packet: Packet<'_>,
        act: impl FnOnce(&Context<'_>, &mut [Packet<'_>], &mut Verdicts),
    ) -> Outcome {
        let before = self.counters();
        let mut packets = [packet];
        let mut verdicts = Verdicts::new();
        act(&self.context(), &mut packets, &mut verdicts);
        assert_eq!(verdicts.len(), 1, "one verdict per packet");
        let [packet] = packets;
        let verdict = verdicts[0];
        let counted = self.judge_counters(verdict, &before);
        Outcome { verdict, frame: packet.frame().to_vec(), offload: packet.offload, counted }
    }

    /// Exactly one counter has moved for what ended here, by one; none for what goes on.
    fn judge_counters(&self, verdict: Verdict, before: &[(String, Totals)]) -> Option<String> {
        let after = self.counters();
        let mut moved: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b.1 != a.1).collect();
        let expected = match verdict {
            Verdict::Deliver(_) | Verdict::Underlay(_) | Verdict::Detour => {
                assert!(moved.is_empty(), "{verdict:?} moved {moved:?}");
                return None;
            }
            Verdict::Drop(reason) => reason.name(),
            Verdict::Reply(trap) | Verdict::Absorbed(trap) => trap.name(),
        };
        let ((owner, before), (_, after)) = moved.pop().expect("no verdict without a counter");
        assert!(moved.is_empty(), "{verdict:?} also moved {moved:?}");
        let mut wanted = before.clone();
        match verdict {
            Verdict::Drop(reason) => bump(&mut wanted.drops, reason, DropReason::ALL),
            Verdict::Reply(trap) | Verdict::Absorbed(trap) => bump(&mut wanted.traps, trap, Trap::ALL),
            _ => {}
        }
        assert_eq!(&wanted, after, "{expected} of {owner}");
        Some(owner.clone())
    }
}

fn bump<T: Copy + PartialEq>(counts: &mut Vec<(T, u64)>, what: T, order: &[T]) {
    match counts.iter_mut().find(|(other, _)| *other == what) {
        Some((_, count)) => *count += 1,
        None => counts.push((what, 1)),
    }
    counts.sort_by_key(|(what, _)| order.iter().position(|other| other == what));
}

/// Both hosts, each knowing where everybody is.
pub(crate) struct World {
    pub(crate) a: Host,
    pub(crate) b: Host,
}

impl World {
    pub(crate) fn new(encapsulation: Encapsulation) -> Self {
        let mut world =
            Self { a: Host::new(HOST_A, &ON_A, encapsulation), b: Host::new(HOST_B, &ON_B, encapsulation) };
        for host in [&mut world.a, &mut world.b] {
            ON_A.iter().for_each(|guest| host.know(guest, HOST_A));
            ON_B.iter().for_each(|guest| host.know(guest, HOST_B));
        }
        world
    }

    pub(crate) fn vxlan() -> Self {
        Self::new(Encapsulation::Vxlan)
    }

    /// From a guest on A through the tunnel to B.
    #[track_caller]
    pub(crate) fn pass(&self, from: &Guest, frame: &[u8]) -> (Outcome, Outcome) {
        let sent = self.a.send(from, frame);
        let tunnel = sent.tunnel();
        assert_eq!(tunnel.to, HOST_B.parse().unwrap());
        let arrived = self.b.receive_with(HOST_A, &sent.frame, tunnel.traffic_class, sent.offload);
        (sent, arrived)
    }

    #[track_caller]
    pub(crate) fn is_delivered(&self, outcome: &Outcome, to: &Guest) {
        assert_eq!(outcome.verdict, Verdict::Deliver(self.b.port(to.port).id), "to {}", to.port);
    }
}

pub(crate) fn vni(value: u32) -> Vni {
    Vni::new(value).unwrap()
}
