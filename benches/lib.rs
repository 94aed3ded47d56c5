//! Shared fixtures of the benchmarks: one network of ports, the frames that its guests send, and random numbers that are
//! the same in every run.

#![expect(clippy::print_stdout, reason = "the median is a result")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should say so loudly")]

pub mod walk;

use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use dataplane::desired::{
    Encapsulation, HostConfig, NetworkConfig, PortConfig, PortKind, Subnet, UnderlayConfig,
};
use dataplane::tables::Tables;
use dataplane::types::{CustomerIp, Generation, MacAddr, Mtu, Vni};
use dataplane::wire::checksum::{self, Sum};
use dataplane::wire::ethernet::{EtherType, Ethernet};
use dataplane::wire::ipv4::Ipv4;
use dataplane::wire::{Protocol, udp};

/// The network that most of the traffic is in.
pub static NETWORK: LazyLock<Vni> = LazyLock::new(|| Vni::new(100).unwrap());

/// Port p0's MAC address; its IP address is 10.0.0.10.
pub const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0]);

/// xorshift64*: good enough to defeat caches and prefetchers.
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from((high * u64::from(limit)) >> 32).unwrap()
    }
}

/// A station of the network on another host: every second address from 10.16.0.0 on.
#[must_use]
pub fn stranger(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((10 << 24) + (16 << 16) + number * 2)
}

/// A host with two networks of the same addresses and `ports` ports in the first, p0 first.
#[must_use]
pub fn document(generation: u64, ports: u32) -> HostConfig {
    let network = |vni| {
        Arc::new(NetworkConfig {
            vni: Vni::new(vni).unwrap(),
            subnets: vec![Subnet::with_first_gateway("10.0.0.0/8".parse().unwrap())],
            dns: vec!["10.0.0.53".parse().unwrap()],
            domain: Some("red.example".parse().unwrap()),
            mtu: None,
            lease_seconds: 3600,
            routes: vec![],
        })
    };
    let ports = (0..ports).map(|number| Arc::new(port(number, 100))).collect();
    HostConfig { generation: Generation(generation), networks: vec![network(100), network(200)], ports }
}

/// Port number `number`, in a network.
#[must_use]
pub fn port(number: u32, vni: u32) -> PortConfig {
    let [a, b, c, d] = number.to_be_bytes();
    PortConfig {
        name: format!("p{number}").parse().unwrap(),
        network: Vni::new(vni).unwrap(),
        mac: MacAddr([2, 0, a, b, c, d]),
        ips: vec![CustomerIp::from(Ipv4Addr::from_bits((10 << 24) + 10 + number))],
        kind: PortKind::default(),
        netns: None,
        queues: 1,
        hostname: Some(format!("guest-{number}").parse().unwrap()),
        label: None,
        rules: Vec::new(),
    }
}

/// This host's underlay.
#[must_use]
pub fn underlay() -> Arc<UnderlayConfig> {
    Arc::new(UnderlayConfig {
        physical_ips: vec!["192.0.2.1".parse().unwrap()],
        encapsulation: Encapsulation::Vxlan,
        mtu: Mtu::new(1600).unwrap(),
    })
}

/// The tables of a document.
#[must_use]
pub fn tables(document: &HostConfig) -> Arc<Tables> {
    Arc::new(Tables::empty(underlay(), 1, 7).succeed(document, 1).unwrap())
}

/// A UDP datagram in an Ethernet frame; its destination is still to be chosen.
#[must_use]
pub fn frame(from_mac: MacAddr, to_mac: MacAddr, from: Ipv4Addr, payload_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; 42 + payload_bytes];
    Ethernet { destination: to_mac, source: from_mac, ethertype: EtherType::IPV4 }.emit(&mut frame).unwrap();
    let ip = Ipv4 {
        header_bytes: 20,
        tos: 0,
        total_bytes: u16::try_from(28 + payload_bytes).unwrap(),
        identification: 1,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: Protocol::UDP,
        source: from,
        destination: Ipv4Addr::UNSPECIFIED,
        source_routed: false,
    };
    ip.emit(&mut frame[14..]).unwrap();
    udp::emit_v4(&mut frame[34..], (from, 1000), (Ipv4Addr::UNSPECIFIED, 2000)).unwrap();
    frame
}

/// An address of an IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Where from.
    Source = 12,
    /// Where to.
    Destination = 16,
}

/// Writes another address into the IPv4 header at `ip_at`, both checksums mended.
pub fn with_address(frame: &mut [u8], ip_at: usize, field: Field, ip: Ipv4Addr) {
    let at = ip_at + field as usize;
    let old: [u8; 4] = frame[at..at + 4].try_into().unwrap();
    frame[at..at + 4].copy_from_slice(&ip.octets());
    frame[ip_at + 10..ip_at + 12].copy_from_slice(&[0, 0]);
    let header = Sum::ZERO.add_bytes(&frame[ip_at..ip_at + 20]).checksum();
    frame[ip_at + 10..ip_at + 12].copy_from_slice(&header.to_be_bytes());
    let sum = u16::from_be_bytes([frame[ip_at + 26], frame[ip_at + 27]]);
    let sum = checksum::update_chunk(sum, old, ip.octets());
    frame[ip_at + 26..ip_at + 28].copy_from_slice(&sum.to_be_bytes());
}

/// Prints the median and the tenth percentile of the times of single batches of 64, in nanoseconds per packet.
pub fn print_median(group: &str, name: &str, mut batches_ns: Vec<u32>) {
    batches_ns.sort_unstable();
    let at = |percent: usize| batches_ns.get(batches_ns.len() * percent / 100).map_or(0, |ns| ns / 64);
    let (tenth, median) = (at(10), at(50));
    println!("{group}/{name}: {median} ns/packet in the median batch, {tenth} in the tenth percentile");
}
