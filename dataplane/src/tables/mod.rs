//! What the packet path reads: one immutable [`Tables`] per configuration, built from a [`HostConfig`] and the tables
//! before it. What did not change is shared with them.
//!
//! Never here: I/O, locks, interior change (except counters and a port's [`Progress`], which are statistics, and its
//! [`Bounds`], which are no configuration).

mod addresses;
mod build;
mod lease;
mod routes;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use addresses::{AddressSet, Addresses};
use foldhash::fast::FixedState;

pub use lease::{Lease, METADATA, RouterAdvertisement, WIRESERVER};
pub use routes::{Hop, Routes};
pub use rules::{Hits, RuleSet, Subject};

use crate::bucket::Bounds;
use crate::conntrack::Connections;
#[cfg(doc)]
use crate::desired::HostConfig;
use crate::desired::{NetworkConfig, PortConfig, PortName, Subnet, UnderlayConfig};
use crate::stats::Counters;
use crate::types::{CustomerIp, Generation, MacAddr, Mtu, Nanos, PhysicalIp, PortId, Vni};

/// The switch's configuration in the form that packets are handled by.
#[derive(Debug)]
pub struct Tables {
    /// The document's.
    pub generation: Generation,
    /// This host's side of the network between hosts.
    pub underlay: Arc<UnderlayConfig>,
    /// What is counted for packets that belong to no port.
    pub underlay_counters: Arc<Counters>,
    /// Whether TCP to the metadata service is ended here.
    has_endpoint: bool,
    /// The process's own: hashes of what guests choose are made with it.
    secret: u64,
    /// The underlay's own addresses.
    own: AddressSet,
    ports: Vec<Option<Arc<Port>>>,
    /// Dense; a port holds its network's index.
    vnets: Vec<Option<Arc<Vnet>>>,
    /// Keys are this host's networks, not chosen by guests: a fixed seed is safe, and keeps building deterministic.
    by_vni: Arc<HashMap<Vni, VnetIndex, FixedState>>,
    by_name: Arc<HashMap<PortName, PortId, FixedState>>,
    /// The ports' slots in the document's order.
    order: Arc<[PortId]>,
}

/// A virtual network's slot in one [`Tables`] and its successors, for as long as the network exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnetIndex(u32);

impl Tables {
    /// The same, and all successors, with a metadata service: TCP to it is a
    /// [`Detour`](crate::verdict::Verdict::Detour) from then on.
    #[must_use]
    pub fn with_endpoint(self) -> Self {
        Self { has_endpoint: true, ..self }
    }

    /// True when TCP to the metadata service is ended here.
    #[must_use]
    #[inline]
    pub const fn has_endpoint(&self) -> bool {
        self.has_endpoint
    }

    /// The port in this slot.
    #[must_use]
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Arc<Port>> {
        self.ports.get(id.index())?.as_ref()
    }

    /// The port with this name.
    #[must_use]
    pub fn port_named(&self, name: &PortName) -> Option<&Arc<Port>> {
        self.port(*self.by_name.get(name)?)
    }

    /// All ports, in slot order.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.iter().flatten()
    }

    /// The network that a port is in. Always there for a port of these tables.
    #[must_use]
    #[inline]
    pub fn vnet(&self, index: VnetIndex) -> Option<&Arc<Vnet>> {
        self.vnets.get(usize::try_from(index.0).ok()?)?.as_ref()
    }

    /// The network with this VNI, if this host has it.
    #[must_use]
    #[inline]
    pub fn vnet_of(&self, vni: Vni) -> Option<&Arc<Vnet>> {
        self.vnet(*self.by_vni.get(&vni)?)
    }

    /// All networks.
    pub fn vnets(&self) -> impl Iterator<Item = &Arc<Vnet>> {
        self.vnets.iter().flatten()
    }

    /// True when `ip` is one of this host's own physical addresses.
    #[must_use]
    #[inline]
    pub fn is_own_physical_ip(&self, ip: PhysicalIp) -> bool {
        self.own.contains(ip.0)
    }

    /// True when this host has a physical address of the family of `ip`: without one it can send nothing there.
    #[must_use]
    #[inline]
    pub fn has_family_of(&self, ip: PhysicalIp) -> bool {
        self.own.has_family_of(ip.0)
    }
}

/// A virtual network on this host.
#[derive(Debug)]
pub struct Vnet {
    /// As desired.
    pub config: Arc<NetworkConfig>,
    /// Its identifier on the wire.
    pub vni: Vni,
    /// The guests' MTU.
    pub mtu: Mtu,
    /// Its own prefixes and the routes beyond them.
    pub routes: Routes,
    /// What routers of this network tell IPv6 guests; absent without an IPv6 prefix.
    pub router_advertisement: Option<RouterAdvertisement>,
    /// The ports' addresses: this host's part of the network.
    addresses: Addresses,
    /// The virtual router's: each subnet's gateway, and its link-local address.
    gateways: AddressSet,
}

impl Vnet {
    /// The port on this host that has the address.
    #[must_use]
    #[inline]
    pub fn local_port(&self, ip: CustomerIp) -> Option<PortId> {
        self.addresses.get(ip)
    }

    /// True when the address is the virtual router's: a subnet's gateway, or its link-local address.
    #[must_use]
    #[inline]
    pub fn is_gateway(&self, ip: CustomerIp) -> bool {
        self.gateways.contains(ip.0)
    }

    /// The prefix that the address lies in.
    #[must_use]
    pub fn subnet_of(&self, ip: CustomerIp) -> Option<&Subnet> {
        self.config.subnets.iter().find(|subnet| subnet.contains(ip))
    }

    /// True when some port on this host is in the network.
    #[must_use]
    #[inline]
    pub fn has_ports(&self) -> bool {
        !self.addresses.is_empty()
    }
}

/// A guest's NIC.
#[derive(Debug)]
pub struct Port {
    /// Its slot.
    pub id: PortId,
    /// As desired.
    pub config: Arc<PortConfig>,
    /// Its network.
    pub vnet: VnetIndex,
    /// Its network's VNI.
    pub vni: Vni,
    /// The only source MAC address it may use.
    pub mac: MacAddr,
    /// The only source addresses it may use.
    ips: AddressSet,
    /// The generation in which its binding (network, MAC, addresses) last changed: frames and answers of an earlier
    /// epoch are dropped, never handled.
    pub epoch: Generation,
    /// What DHCP tells it; absent without an IPv4 address.
    pub lease: Option<Lease>,
    /// Which of its packets may pass, and what its rules have let begin; absent without rules.
    pub guard: Option<Guard>,
    /// Kept over changes.
    pub counters: Arc<Counters>,
    /// How often it is still answered; kept over changes.
    pub(crate) bounds: Arc<Bounds>,
    /// How far the guest has followed the change that began [`Port::epoch`].
    pub progress: Arc<Progress>,
}

impl Port {
    /// True when the guest may send from this address.
    #[must_use]
    #[inline]
    pub fn owns(&self, ip: CustomerIp) -> bool {
        self.ips.contains(ip.0)
    }
}

/// A port's rules and the connections that they go by.
#[derive(Debug, Clone)]
pub struct Guard {
    /// As desired, compiled.
    pub rules: Arc<RuleSet>,
    /// Kept when the rules change, new when the binding does: nothing that was let begin in one network goes on in
    /// another.
    pub connections: Arc<Connections>,
}

/// When a guest followed a change: each time is written once, by whichever worker sees the event first.
#[derive(Debug)]
pub struct Progress {
    lease: AtomicU64,
    first_packet: AtomicU64,
}

const NOT_YET: u64 = u64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Self { lease: AtomicU64::new(NOT_YET), first_packet: AtomicU64::new(NOT_YET) }
    }
}

impl Progress {
    /// The guest was sent its lease.
    pub fn leased(&self, now: Nanos) {
        note(&self.lease, now);
    }

    /// A packet from the guest's own address passed the address check.
    #[inline]
    pub fn sent_packet(&self, now: Nanos) {
        note(&self.first_packet, now);
    }

    /// When the guest was first sent its lease.
    #[must_use]
    pub fn lease_at(&self) -> Option<Nanos> {
        read(&self.lease)
    }

    /// When the guest's first packet from its new address passed.
    #[must_use]
    pub fn first_packet_at(&self) -> Option<Nanos> {
        read(&self.first_packet)
    }
}

#[inline]
fn note(cell: &AtomicU64, now: Nanos) {
    // The usual case is one relaxed load. Two workers that race write nearly the same time.
    if cell.load(Ordering::Relaxed) == NOT_YET {
        cell.store(now.0, Ordering::Relaxed);
    }
}

fn read(cell: &AtomicU64) -> Option<Nanos> {
    Some(cell.load(Ordering::Relaxed)).filter(|&at| at != NOT_YET).map(Nanos)
}
