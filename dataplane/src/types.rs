//! The words that are types: network ids, addresses, generations, sizes, times.
//!
//! Parse at the border, trust inside: each type has one checked constructor, and swapping a customer address for a
//! physical one does not compile. Never here: I/O, clocks, policy.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a value of one of these types. Display names the value and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// A VXLAN/Geneve network identifier has 24 bits, and zero is reserved for "none".
    #[error("VNI {0} is out of range: expected 1 to {max}", max = Vni::MAX)]
    VniRange(u64),
    /// Text that is no number where a VNI was expected.
    #[error("`{0}` is not a VNI: expected a whole number from 1 to {max}", max = Vni::MAX)]
    VniText(String),
    /// Text that is not six hex octets.
    #[error("`{0}` is not a MAC address: expected six hex octets such as 02:00:00:00:00:01")]
    MacText(String),
    /// A group or null address where one station's address is needed.
    #[error("{0} is not a unicast MAC address: expected an even first octet, and not all zeros")]
    MacNotUnicast(MacAddr),
    /// Text that is no IP address.
    #[error("`{0}` is not an IP address: expected one such as 10.0.0.5 or fd00::5")]
    IpText(String),
    /// An address that no single station can have.
    #[error("{0} is not a unicast host address")]
    IpNotUnicast(IpAddr),
    /// An MTU outside of what IP allows on a link.
    #[error("MTU {0} is out of range: expected {min} to {max} bytes", min = Mtu::MIN.0, max = Mtu::MAX.0)]
    MtuRange(u64),
}

/// A virtual network's identifier on the wire: 24 bits, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The largest VNI, 2²⁴ − 1.
    pub const MAX: u32 = 0x00ff_ffff;

    /// Checks the range.
    ///
    /// # Errors
    /// [`TypeError::VniRange`] for zero and for more than 24 bits.
    pub const fn new(value: u32) -> Result<Self, TypeError> {
        if value == 0 || value > Self::MAX { Err(TypeError::VniRange(value as u64)) } else { Ok(Self(value)) }
    }

    /// The three octets of a tunnel header; `None` for zero.
    #[must_use]
    pub const fn from_be_bytes([a, b, c]: [u8; 3]) -> Option<Self> {
        match u32::from_be_bytes([0, a, b, c]) {
            0 => None,
            value => Some(Self(value)),
        }
    }

    /// The three octets of a tunnel header.
    #[must_use]
    pub const fn to_be_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// The plain number, 1 to [`Vni::MAX`].
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for Vni {
    type Error = TypeError;
    fn try_from(value: u64) -> Result<Self, TypeError> {
        u32::try_from(value).ok().and_then(|v| Self::new(v).ok()).ok_or(TypeError::VniRange(value))
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl FromStr for Vni {
    type Err = TypeError;
    fn from_str(text: &str) -> Result<Self, TypeError> {
        text.parse::<u64>().map_err(|_| TypeError::VniText(text.into())).and_then(Self::try_from)
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vni({})", self.0)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The virtual router's address: the same in every virtual network, so that a guest's neighbour entry for the
    /// gateway stays true after a network change. Locally administered.
    pub const ROUTER: Self = Self([0x0e, 0x53, 0x48, 0x55, 0x4e, 0x54]);

    /// True for the address of one station: no group bit, not all zeros.
    #[must_use]
    #[inline]
    pub const fn is_unicast(self) -> bool {
        // The first octet is the number's lowest, and the group bit that octet's lowest.
        let number = self.to_number();
        number & 1 == 0 && number != 0
    }

    /// All octets in one number, to be compared at once.
    #[must_use]
    #[inline]
    pub(crate) const fn to_number(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Refuses what no NIC can have.
    ///
    /// # Errors
    /// [`TypeError::MacNotUnicast`].
    pub const fn require_unicast(self) -> Result<Self, TypeError> {
        if self.is_unicast() { Ok(self) } else { Err(TypeError::MacNotUnicast(self)) }
    }

    /// The IPv6 link-local address that this MAC implies (RFC 4291 appendix A, modified EUI-64).
    #[must_use]
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl FromStr for MacAddr {
    type Err = TypeError;
    fn from_str(text: &str) -> Result<Self, TypeError> {
        let refuse = || TypeError::MacText(text.into());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| matches!(p.len(), 1 | 2)).ok_or_else(refuse)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() { Err(refuse()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = TypeError;
    fn try_from(text: String) -> Result<Self, TypeError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub IpAddr);

        impl $name {
            /// Refuses what no single station can have: unspecified, loopback, multicast, broadcast.
            ///
            /// # Errors
            /// [`TypeError::IpNotUnicast`].
            pub fn require_unicast(self) -> Result<Self, TypeError> {
                let refused = match self.0 {
                    IpAddr::V4(ip) => {
                        ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast()
                    }
                    IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback() || ip.is_multicast(),
                };
                if refused { Err(TypeError::IpNotUnicast(self.0)) } else { Ok(self) }
            }
        }

        impl From<Ipv4Addr> for $name {
            fn from(ip: Ipv4Addr) -> Self {
                Self(IpAddr::V4(ip))
            }
        }

        impl From<Ipv6Addr> for $name {
            fn from(ip: Ipv6Addr) -> Self {
                Self(IpAddr::V6(ip))
            }
        }

        impl FromStr for $name {
            type Err = TypeError;
            fn from_str(text: &str) -> Result<Self, TypeError> {
                text.parse().map(Self).map_err(|_| TypeError::IpText(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

address! {
    /// The address a guest believes it has: meaningful only inside its virtual network, and chosen freely by each
    /// tenant.
    CustomerIp
}

address! {
    /// An address that is routable between hosts: where packets for a customer IP are really sent.
    PhysicalIp
}

/// A port's slot in this switch: small, dense, reused after removal. Names, not ids, identify a port to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortId(pub u32);

impl PortId {
    /// As an index into per-port arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The version of a host's configuration document. Never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest IP packet of a link, in bytes, without the Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u16")]
pub struct Mtu(u16);

impl Mtu {
    /// RFC 791: every host must take a datagram of 576 bytes.
    pub const MIN: Self = Self(576);
    /// A TAP's largest.
    pub const MAX: Self = Self(65_521);
    /// Ethernet's ordinary payload.
    pub const ETHERNET: Self = Self(1500);

    /// Checks the range.
    ///
    /// # Errors
    /// [`TypeError::MtuRange`].
    pub const fn new(bytes: u16) -> Result<Self, TypeError> {
        if bytes < Self::MIN.0 || bytes > Self::MAX.0 {
            Err(TypeError::MtuRange(bytes as u64))
        } else {
            Ok(Self(bytes))
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for Mtu {
    type Error = TypeError;
    fn try_from(value: u64) -> Result<Self, TypeError> {
        u16::try_from(value).ok().and_then(|v| Self::new(v).ok()).ok_or(TypeError::MtuRange(value))
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl FromStr for Mtu {
    type Err = TypeError;
    fn from_str(text: &str) -> Result<Self, TypeError> {
        text.parse::<u64>().map_err(|_| TypeError::MtuRange(0)).and_then(Self::try_from)
    }
}

/// A point of monotonic time, in nanoseconds since an origin that the caller chooses. The core never reads a clock:
/// whoever calls it brings the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Nanos(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vni_refuses_zero_and_more_than_24_bits() {
        assert_eq!(Vni::new(0), Err(TypeError::VniRange(0)));
        assert_eq!(Vni::new(1 << 24), Err(TypeError::VniRange(1 << 24)));
        assert_eq!(Vni::new(Vni::MAX).map(Vni::to_be_bytes), Ok([0xff; 3]));
        assert_eq!(Vni::from_be_bytes([0, 0, 0]), None);
        assert_eq!(
            "16777216".parse::<Vni>().unwrap_err().to_string(),
            "VNI 16777216 is out of range: expected 1 to 16777215"
        );
    }

    #[test]
    fn mac_text_is_strict_and_round_trips() {
        let mac: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:01",
            "02:00:5e:10:00:fg",
            "+2:00:5e:10:00:01",
            "0200.5e10.00ff",
        ] {
            assert_eq!(wrong.parse::<MacAddr>(), Err(TypeError::MacText(wrong.into())));
        }
    }

    #[test]
    fn link_local_follows_modified_eui_64() {
        let mac: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.link_local(), "fe80::5eff:fe10:ff".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn group_and_null_addresses_are_no_hosts() {
        assert!(!MacAddr::BROADCAST.is_unicast());
        assert!(!MacAddr([0; 6]).is_unicast());
        assert!(MacAddr::ROUTER.is_unicast());
        for wrong in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"] {
            assert!(wrong.parse::<CustomerIp>().unwrap().require_unicast().is_err(), "{wrong}");
        }
    }
}
