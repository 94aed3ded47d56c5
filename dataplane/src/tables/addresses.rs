//! What is asked of the addresses of every packet: is it one of these few ([`AddressSet`]), and which port of this host
//! has it in one network ([`Addresses`]; mostly none).
//!
//! For the latter IPv4 has a table of its own: open addressing over eight-byte slots, at most half full, so that an address that is not
//! there costs one multiplication and one load. The addresses are chosen by the network's own tenant, who can make
//! nobody's but its own searches long.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;

use crate::desired::PortConfig;
use crate::types::{CustomerIp, MacAddr, PortId};

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

/// The ports' addresses in one network. Each has one owner.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Addresses {
    v4: Slots,
    v6: HashMap<Ipv6Addr, PortId, FixedState>,
    macs: HashMap<MacAddr, PortId, FixedState>,
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
        self.macs.is_empty()
    }

    /// Adds a port's addresses; false when one of them has an owner.
    #[must_use]
    pub(super) fn insert(&mut self, port: &PortConfig, id: PortId) -> bool {
        let is_free = self.macs.insert(port.mac, id).is_none();
        port.ips.iter().fold(is_free, |is_free, ip| match ip.0 {
            IpAddr::V4(ip) => self.v4.insert(ip, id).is_none() && is_free,
            IpAddr::V6(ip) => self.v6.insert(ip, id).is_none() && is_free,
        })
    }

    /// Removes a port's addresses.
    pub(super) fn remove(&mut self, port: &PortConfig) {
        self.macs.remove(&port.mac);
        for ip in &port.ips {
            match ip.0 {
                IpAddr::V4(ip) => self.v4.remove(ip),
                IpAddr::V6(ip) => drop(self.v6.remove(&ip)),
            }
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
    /// A bit for each address that is here, and for some that were: most packets are for stations of other hosts, and one bit
    /// says so without a branch that cannot be foretold.
    seen: Box<[u64]>,
    used: usize,
    /// How many have been removed since `seen` was made.
    removed: usize,
    /// Leaves as many of a hash's bits as number the slots.
    shift: u32,
}

/// Bits of `seen` for each slot, as a power of two: of addresses that are not here at most one in 32 finds its bit set, or one
/// in 16 when as many were removed as are left.
const BITS_PER_SLOT_LOG: u32 = 4;

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
        let words = (slots << BITS_PER_SLOT_LOG) / 64;
        Self {
            slots: vec![EMPTY; slots].into_boxed_slice(),
            seen: vec![0; words].into_boxed_slice(),
            used: 0,
            removed: 0,
            shift: 64 - slots.ilog2(),
        }
    }

    #[inline(always)]
    fn get(&self, ip: Ipv4Addr) -> Option<PortId> {
        let (word, bit) = self.bit(ip);
        if self.seen.get(word).is_some_and(|word| word & bit == 0) {
            return None;
        }
        self.search(ip)
    }

    #[inline(never)]
    fn search(&self, ip: Ipv4Addr) -> Option<PortId> {
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

    /// Gives the owner before, if there was one.
    fn insert(&mut self, ip: Ipv4Addr, port: PortId) -> Option<PortId> {
        if (self.used + 1) * 2 > self.slots.len() {
            let grown = Self::with_slots(self.slots.len() * 2);
            let before = std::mem::replace(self, grown);
            for (ip, port) in before.slots {
                self.insert(ip, port);
            }
        }
        let mut at = self.home(ip);
        while let Some(slot) = self.slots.get_mut(at & (self.slots.len() - 1)) {
            if slot.0 == ip || slot.0 == NOBODY {
                let (owner, before) = std::mem::replace(slot, (ip, port));
                self.used += usize::from(owner == NOBODY && ip != NOBODY);
                self.see(ip);
                return (owner != NOBODY).then_some(before);
            }
            at += 1;
        }
        None
    }

    /// Takes the address out, and puts those behind it in anew: a search ends at an empty slot.
    fn remove(&mut self, ip: Ipv4Addr) {
        let mask = self.slots.len() - 1;
        let mut at = self.home(ip);
        loop {
            match self.slots[at & mask].0 {
                NOBODY => return,
                other if other == ip => break,
                _ => at += 1,
            }
        }
        self.slots[at & mask] = EMPTY;
        self.used -= 1;
        loop {
            at += 1;
            let (ip, port) = std::mem::replace(&mut self.slots[at & mask], EMPTY);
            if ip == NOBODY {
                break;
            }
            self.used -= 1;
            self.insert(ip, port);
        }
        self.forget();
    }

    /// Makes `seen` anew when most of it may be about addresses that have gone.
    fn forget(&mut self) {
        self.removed += 1;
        if self.removed <= self.used {
            return;
        }
        self.removed = 0;
        self.seen.fill(0);
        for at in 0..self.slots.len() {
            self.see(self.slots[at].0);
        }
    }

    fn see(&mut self, ip: Ipv4Addr) {
        let (word, bit) = self.bit(ip);
        self.seen[word] |= bit;
    }

    #[inline]
    fn bit(&self, ip: Ipv4Addr) -> (usize, u64) {
        let number = self.place(ip, BITS_PER_SLOT_LOG);
        (number / 64, 1 << (number % 64))
    }

    #[inline]
    fn home(&self, ip: Ipv4Addr) -> usize {
        self.place(ip, 0)
    }

    /// One of as many places as there are slots, or `finer` powers of two more: the high bits of a product (Fibonacci
    /// hashing), which spread neighbours as well as strangers.
    #[inline]
    fn place(&self, ip: Ipv4Addr, finer: u32) -> usize {
        let hash = u64::from(ip.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(hash >> (self.shift - finer)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::desired::PortKind;
    use crate::types::Vni;

    #[test]
    fn the_unspecified_address_is_nobodys() {
        let mut slots = Slots::default();
        assert_eq!(
            (slots.get(NOBODY), slots.insert(NOBODY, PortId(1)), slots.get(NOBODY)),
            (None, None, None)
        );
        slots.remove(NOBODY);
        assert_eq!(slots, Slots::default());
    }

    fn address(number: u8) -> Ipv4Addr {
        // Many of them far apart, so that some share a home slot.
        Ipv4Addr::new(number & 63, 0, 0, 1 + (number >> 6))
    }

    #[test]
    fn a_ports_addresses_come_and_go_together() {
        let port = |mac, ips: &[&str]| PortConfig {
            name: "p".parse().unwrap(),
            network: Vni::new(1).unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, mac]),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            kind: PortKind::Tap,
            netns: None,
            queues: 1,
            hostname: None,
            label: None,
            rules: Vec::new(),
        };
        let (one, two) = (port(1, &["10.0.0.1", "fd00::1"]), port(2, &["10.0.0.2", "fd00::2"]));
        let mut addresses = Addresses::default();
        assert!(addresses.insert(&one, PortId(1)));
        let alone = addresses.clone();
        assert!(addresses.insert(&two, PortId(2)) && addresses != alone);
        assert_eq!(addresses.get("fd00::2".parse().unwrap()), Some(PortId(2)));
        addresses.remove(&two);
        assert_eq!(addresses, alone);
        for taken in [port(1, &["10.0.0.3"]), port(3, &["10.0.0.1"]), port(3, &["10.0.0.3", "fd00::1"])] {
            assert!(!alone.clone().insert(&taken, PortId(3)), "{taken:?}");
        }
        addresses.remove(&one);
        assert!(addresses.is_empty() && addresses == Addresses::default());
    }

    proptest! {
        /// Whatever is put in and taken out, it says what a plain map says.
        #[test]
        fn equals_a_plain_map(steps in prop::collection::vec((any::<u8>(), 0_u32..3, any::<bool>()), 0..300)) {
            let mut slots = Slots::default();
            let mut plain = HashMap::new();
            for (number, port, is_in) in steps {
                let (ip, port) = (address(number), PortId(port));
                if ip == NOBODY {
                    continue;
                }
                if is_in {
                    prop_assert_eq!(slots.insert(ip, port), plain.insert(ip, port));
                } else {
                    slots.remove(ip);
                    plain.remove(&ip);
                }
                prop_assert_eq!(slots.used, plain.len());
            }
            for number in 0..=u8::MAX {
                prop_assert_eq!(slots.get(address(number)), plain.get(&address(number)).copied());
            }
        }
    }
}
