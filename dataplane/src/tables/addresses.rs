//! What is asked of the addresses of every packet: is it one of these few ([`AddressSet`]), and which port of this host
//! has it in one network ([`Addresses`]; mostly none).
//!
//! For the latter IPv4 has a table of its own: open addressing over eight-byte slots, at most half full, so that an address that is not
//! there costs one multiplication and one load. The addresses are chosen by the network's own tenant, who can make
//! nobody's but its own searches long.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;

use crate::types::{CustomerIp, PortId};

/// A handful of addresses, by family, so that a look compares numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressSet {
    v4: Box<[Ipv4Addr]>,
    v6: Box<[Ipv6Addr]>,
}

impl AddressSet {
    #[inline(always)]
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(&ip),
            IpAddr::V6(ip) => self.v6.contains(&ip),
        }
    }

    /// True when an address of the family of `ip` is in it.
    #[inline(always)]
    pub(super) fn has_family_of(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => !self.v4.is_empty(),
            IpAddr::V6(_) => !self.v6.is_empty(),
        }
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(ips: T) -> Self {
        let (mut v4, mut v6) = (vec![], vec![]);
        for ip in ips {
            match ip {
                IpAddr::V4(ip) => v4.push(ip),
                IpAddr::V6(ip) => v6.push(ip),
            }
        }
        Self { v4: v4.into(), v6: v6.into() }
    }
}

/// The ports' addresses in one network.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Addresses {
    v4: Slots,
    v6: HashMap<Ipv6Addr, PortId, FixedState>,
}

impl Addresses {
    #[inline(always)]
    pub(super) fn get(&self, ip: CustomerIp) -> Option<PortId> {
        match ip.0 {
            IpAddr::V4(ip) => self.v4.get(ip),
            IpAddr::V6(ip) => self.v6.get(&ip).copied(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.v4.used == 0 && self.v6.is_empty()
    }

    pub(super) fn insert(&mut self, ip: CustomerIp, port: PortId) {
        match ip.0 {
            IpAddr::V4(ip) => self.v4.insert(ip, port),
            IpAddr::V6(ip) => drop(self.v6.insert(ip, port)),
        }
    }
}

/// A slot without an address holds this one, which no station has.
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const EMPTY: (Ipv4Addr, PortId) = (NOBODY, PortId(0));
const FEWEST_SLOTS: usize = 8;

/// A power of two of slots, of which at least half are empty. An address stands in its home slot or, where that is
/// taken, in the next free one.
#[derive(Debug, Clone)]
struct Slots {
    slots: Box<[(Ipv4Addr, PortId)]>,
    used: usize,
    /// Leaves as many of a hash's 32 bits as number the slots.
    shift: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self::with_slots(FEWEST_SLOTS)
    }
}

/// The same addresses, wherever they stand.
impl PartialEq for Slots {
    fn eq(&self, other: &Self) -> bool {
        let mut taken = self.slots.iter().filter(|(ip, _)| *ip != NOBODY);
        self.used == other.used && taken.all(|&(ip, port)| other.get(ip) == Some(port))
    }
}

impl Slots {
    /// `slots` is a power of two, and not one.
    fn with_slots(slots: usize) -> Self {
        Self { slots: vec![EMPTY; slots].into_boxed_slice(), used: 0, shift: 32 - slots.ilog2() }
    }

    #[inline(always)]
    fn get(&self, ip: Ipv4Addr) -> Option<PortId> {
        let mut at = self.home(ip);
        // Ends at an empty slot, of which there is always one.
        while let Some(&(other, port)) = self.slots.get(at & (self.slots.len() - 1)) {
            if other == NOBODY {
                return None;
            }
            if other == ip {
                return Some(port);
            }
            at += 1;
        }
        None
    }

    fn insert(&mut self, ip: Ipv4Addr, port: PortId) {
        if ip == NOBODY {
            return;
        }
        if (self.used + 1) * 2 > self.slots.len() {
            let grown = Self::with_slots(self.slots.len() * 2);
            for (ip, port) in std::mem::replace(self, grown).slots {
                self.insert(ip, port);
            }
        }
        let mut at = self.home(ip);
        while let Some(slot) = self.slots.get_mut(at & (self.slots.len() - 1)) {
            if slot.0 == NOBODY {
                self.used += 1;
            } else if slot.0 != ip {
                at += 1;
                continue;
            }
            *slot = (ip, port);
            return;
        }
    }

    /// The high bits of a product (Fibonacci hashing), which spreads neighbours as well as strangers.
    #[inline]
    fn home(&self, ip: Ipv4Addr) -> usize {
        (ip.to_bits().wrapping_mul(0x9e37_79b9) >> self.shift) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_unspecified_address_is_nobodys() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.get(NOBODY.into()), None);
        addresses.insert(NOBODY.into(), PortId(1));
        assert_eq!(addresses.get(NOBODY.into()), None);
        assert!(addresses.is_empty());
    }

    fn address(number: u8) -> CustomerIp {
        match number {
            0..8 => Ipv6Addr::from_bits(number.into()).into(),
            // Many of them far apart, so that some share a home slot.
            _ => Ipv4Addr::new(number & 63, 0, 0, 1 + (number >> 6)).into(),
        }
    }

    proptest! {
        /// Whatever is put in, it says what a plain map says.
        #[test]
        fn equals_a_plain_map(steps in prop::collection::vec((any::<u8>(), 0_u32..3), 0..300)) {
            let mut addresses = Addresses::default();
            let mut plain = HashMap::new();
            for (number, port) in steps {
                let (ip, port) = (address(number), PortId(port));
                addresses.insert(ip, port);
                plain.insert(ip, port);
                prop_assert_eq!(addresses.is_empty(), plain.is_empty());
            }
            for number in 0..=u8::MAX {
                prop_assert_eq!(addresses.get(address(number)), plain.get(&address(number)).copied());
            }
        }
    }
}
