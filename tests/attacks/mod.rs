//! What a hostile guest and a hostile neighbour of the hosts may try: one table, and what must become of each row.
//!
//! The table is read three times: by `dataplane/tests/two_hosts` (pure: every counter is held against it), by
//! `tests/hostile.rs` (real TAPs and namespaces: captures are) and by `tests/reference.rs` (docs/reference/attacks.md).
//! Frames are written byte by byte and every one carries a mark, so that a witness knows it in any wrapping.
#![allow(dead_code, reason = "each reader uses its own part of the table")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the table is test code, and right or wrong by itself"
)]

pub(crate) mod bytes;
mod claims;
mod guest;
mod guest_ip;
mod guest_l2;
mod underlay;
mod underlay_inner;

use dataplane::pipeline::{DropReason, Trap};

use self::bytes::{Mac, Mark};

/// Host A's document: `eve`, who misbehaves, `bob` and `ben` of her network, and `carol` of another one with the same
/// prefix.
pub(crate) const HOST_A: &str = r#"{"generation": 1, "networks": [
  {"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.254"}, {"prefix": "fd00::/64", "gateway": "fd00::fe"}]},
  {"vni": 200, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.254"}, {"prefix": "fd00::/64", "gateway": "fd00::fe"}]}],
 "ports": [
  {"name": "eve", "netns": "eve", "network": 100, "mac": "02:00:00:00:00:01", "ips": ["10.0.0.1", "fd00::1"]},
  {"name": "bob", "netns": "bob", "network": 100, "mac": "02:00:00:00:00:02", "ips": ["10.0.0.2", "fd00::2"]},
  {"name": "ben", "netns": "ben", "network": 100, "mac": "02:00:00:00:00:05", "ips": ["10.0.0.5", "fd00::5"]},
  {"name": "carol", "netns": "carol", "network": 200, "mac": "02:00:00:00:00:03", "ips": ["10.0.0.3", "fd00::3"]}]}"#;

/// Host B's: `dave` of eve's network.
pub(crate) const HOST_B: &str = r#"{"generation": 1, "networks": [
  {"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.254"}, {"prefix": "fd00::/64", "gateway": "fd00::fe"}]}],
 "ports": [{"name": "dave", "netns": "dave", "network": 100, "mac": "02:00:00:00:00:04", "ips": ["10.0.0.4", "fd00::4"]}]}"#;

/// Where everybody is: network, address, MAC address, host.
pub(crate) const DIRECTORY: &[(u32, &str, &str, &str)] = &[
    (100, "10.0.0.1", "02:00:00:00:00:01", "192.0.2.1"),
    (100, "fd00::1", "02:00:00:00:00:01", "192.0.2.1"),
    (100, "10.0.0.2", "02:00:00:00:00:02", "192.0.2.1"),
    (100, "fd00::2", "02:00:00:00:00:02", "192.0.2.1"),
    (100, "10.0.0.5", "02:00:00:00:00:05", "192.0.2.1"),
    (200, "10.0.0.3", "02:00:00:00:00:03", "192.0.2.1"),
    (100, "10.0.0.4", "02:00:00:00:00:04", "192.0.2.2"),
    (100, "fd00::4", "02:00:00:00:00:04", "192.0.2.2"),
];

pub(crate) const EVE: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const BOB: Mac = [2, 0, 0, 0, 0, 2];
pub(crate) const CAROL: Mac = [2, 0, 0, 0, 0, 3];
pub(crate) const DAVE: Mac = [2, 0, 0, 0, 0, 4];

/// The host part of everybody's address, in both families.
pub(crate) const fn ip4(last: u8) -> [u8; 4] {
    [10, 0, 0, last]
}

pub(crate) const fn ip6(last: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// fe80::…, as everybody's MAC address implies it.
pub(crate) const fn link_local(mac: Mac) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

pub(crate) const GATEWAY: u8 = 254;
pub(crate) const HOSTS: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];

/// What must become of every frame of an attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It ends in the switch, counted once under this name, and nobody sees it.
    Dropped(DropReason),
    /// It is answered to its sender alone, counted once, and nobody else sees it.
    Answered(Trap),
    /// It ends in a trap that says nothing.
    Absorbed(Trap),
    /// It is no attack on the network, or none that the network could tell: this port alone sees it.
    Reaches(&'static str),
}

/// What a hostile guest needs for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    /// A packet socket on its interface.
    Frame,
    /// A ring of its own: the kernel in front of a TAP would not send it. Says why not.
    Ring(&'static str),
    /// A ring of its own, for the virtio header in front of the frame.
    Header([u8; 12]),
}

/// What eve sends.
pub(crate) struct Attack {
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) means: Means,
    pub(crate) frames: fn(&Mark) -> Vec<Vec<u8>>,
    pub(crate) end: End,
}

/// Who sends tunnel packets to host A.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// An address of the physical network that is no host's.
    Stranger,
    /// A host of the directory, or who forges its address.
    HostB,
}

impl From {
    pub(crate) const fn address(self) -> [u8; 4] {
        match self {
            Self::Stranger => [192, 0, 2, 66],
            Self::HostB => HOSTS[1],
        }
    }
}

/// Which tunnels the attacked host speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Vxlan,
    Geneve,
}

/// What a neighbour of the hosts sends to host A's tunnel port.
pub(crate) struct Arrival {
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) format: Format,
    pub(crate) from: From,
    /// The outer traffic class.
    pub(crate) tos: u8,
    pub(crate) payloads: fn(&Mark) -> Vec<Vec<u8>>,
    pub(crate) end: End,
    /// Whose counter: a port's name, or none for the underlay's.
    pub(crate) counted: Option<&'static str>,
}

/// Everything that a guest tries.
pub(crate) fn of_a_guest() -> impl Iterator<Item = &'static Attack> {
    [guest_l2::ROWS, guest::ROWS, guest_ip::ROWS, claims::ROWS].into_iter().flatten()
}

/// Everything that a neighbour of the hosts tries.
pub(crate) fn of_the_underlay() -> impl Iterator<Item = &'static Arrival> {
    [underlay::ROWS, underlay_inner::ROWS].into_iter().flatten()
}

/// The mark of row number `row`.
pub(crate) fn mark(row: usize) -> Mark {
    format!("-attack-{row:04}-that-must-not-pass-").into_bytes().try_into().expect("32 bytes")
}

/// A row whose frames any guest can send.
const fn by_frame(
    section: &'static str,
    name: &'static str,
    frames: fn(&Mark) -> Vec<Vec<u8>>,
    end: End,
) -> Attack {
    Attack { section, name, means: Means::Frame, frames, end }
}
