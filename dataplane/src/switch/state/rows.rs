//! Rows of the state file: how mappings become bytes, and which rows a new document changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Mapping;
use crate::types::{CustomerIp, MacAddr, PhysicalIp, Vni};

/// VNI, family, address without its last byte: big-endian, so that rows of a network lie together and in order. A row holds
/// the entries of all addresses that differ in their last byte only (an IPv4 /24, an IPv6 /120).
pub(super) type BlockKey = [u8; 20];
/// What schema 1 had: a row for each entry, by VNI, family, address.
pub(super) type MappingKey = [u8; 21];
/// MAC address, family, physical address.
pub(super) type MappingValue = [u8; 23];

const V4: u8 = 4;
const V6: u8 = 6;

/// The key of an entry's row, and its place in it.
pub(super) fn key(network: Vni, ip: CustomerIp) -> (BlockKey, u8) {
    let mut key = [0; 20];
    let (vni, address) = key.split_at_mut(4);
    vni.copy_from_slice(&network.value().to_be_bytes());
    let [family, first @ ..] = address else { return (key, 0) };
    let last = match ip.0 {
        IpAddr::V4(ip) => {
            let [a, b, c, last] = ip.octets();
            *family = V4;
            first.split_at_mut(3).0.copy_from_slice(&[a, b, c]);
            last
        }
        IpAddr::V6(ip) => {
            let [octets @ .., last] = ip.octets();
            *family = V6;
            first.copy_from_slice(&octets);
            last
        }
    };
    (key, last)
}

/// The first and last key that rows of a network, or of all, can have.
pub(super) fn range(network: Option<Vni>) -> (BlockKey, BlockKey) {
    let mut first = [0; 20];
    let mut last = [0xff; 20];
    if let Some(network) = network {
        for key in [&mut first, &mut last] {
            key.split_at_mut(4).0.copy_from_slice(&network.value().to_be_bytes());
        }
    }
    (first, last)
}

/// A row's entries in the order of their last bytes.
#[derive(Default)]
pub(super) struct Block(Vec<(u8, MacAddr, PhysicalIp)>);

impl Block {
    /// Reads a row's value: last byte of the customer address, MAC address, family, physical address, and so on.
    ///
    /// # Errors
    /// A sentence about what is wrong with the row.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let malformed = || "a row of its directory is malformed".to_owned();
        let mut entries: Vec<(u8, MacAddr, PhysicalIp)> = Vec::with_capacity(bytes.len() / 12);
        while let Some((&[last, m0, m1, m2, m3, m4, m5, family], rest)) = bytes.split_first_chunk::<8>() {
            let (host, rest) = match family {
                V4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest)),
                V6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest)),
                _ => None,
            }
            .ok_or_else(malformed)?;
            if entries.last().is_some_and(|(before, ..)| *before >= last) {
                return Err(malformed());
            }
            entries.push((last, MacAddr([m0, m1, m2, m3, m4, m5]), PhysicalIp(host)));
            bytes = rest;
        }
        if bytes.is_empty() { Ok(Self(entries)) } else { Err(malformed()) }
    }

    /// The row's value.
    pub(super) fn to_bytes(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        for (last, mac, host) in &self.0 {
            bytes.push(*last);
            bytes.extend(mac.0);
            match host.0 {
                IpAddr::V4(ip) => {
                    bytes.push(V4);
                    bytes.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(V6);
                    bytes.extend(ip.octets());
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds or replaces the entry of `last`.
    pub(super) fn set(&mut self, last: u8, mac: MacAddr, host: PhysicalIp) {
        // Nearly always behind the last one: an import is sorted.
        if self.0.last().is_none_or(|(before, ..)| *before < last) {
            return self.0.push((last, mac, host));
        }
        match self.0.binary_search_by_key(&last, |(last, ..)| *last) {
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    *entry = (last, mac, host);
                }
            }
            Err(at) => self.0.insert(at, (last, mac, host)),
        }
    }

    /// Removes the entry of `last`; false when there is none.
    pub(super) fn remove(&mut self, last: u8) -> bool {
        let at = self.0.binary_search_by_key(&last, |(last, ..)| *last);
        at.map(|at| self.0.remove(at)).is_ok()
    }

    /// The entries of the row with this key.
    ///
    /// # Errors
    /// A sentence about what is wrong with the key.
    pub(super) fn mappings(&self, key: &BlockKey) -> Result<impl Iterator<Item = Mapping>, String> {
        let [v0, v1, v2, v3, family, first @ ..] = *key;
        // What stands behind an IPv4 address is zero: an entry has one row.
        let is_address = match first {
            [_, _, _, behind @ ..] if family == V4 => behind == [0; 12],
            _ => family == V6,
        };
        let network = Vni::new(u32::from_be_bytes([v0, v1, v2, v3])).ok().filter(|_| is_address);
        let network = network.ok_or("a row of its directory is malformed")?;
        Ok(self.0.iter().map(move |&(last, mac, physical_ip)| {
            let [a, b, c, ..] = first;
            let mut octets = [0; 16];
            let (start, end) = octets.split_at_mut(15);
            start.copy_from_slice(&first);
            end.fill(last);
            let ip = if family == V4 { IpAddr::from([a, b, c, last]) } else { IpAddr::from(octets) };
            Mapping { network, ip: CustomerIp(ip), mac, physical_ip }
        }))
    }
}

/// The mapping of a row of schema 1.
///
/// # Errors
/// A sentence about what is wrong with the row.
pub(super) fn mapping(key: &MappingKey, value: &MappingValue) -> Result<Mapping, String> {
    let [v0, v1, v2, v3, ip @ ..] = *key;
    let [m0, m1, m2, m3, m4, m5, physical_ip @ ..] = *value;
    let network = Vni::new(u32::from_be_bytes([v0, v1, v2, v3]));
    let (Ok(network), Some(ip), Some(physical_ip)) = (network, address(ip), address(physical_ip)) else {
        return Err("a row of its directory is malformed".into());
    };
    let mac = MacAddr([m0, m1, m2, m3, m4, m5]);
    Ok(Mapping { network, ip: CustomerIp(ip), mac, physical_ip: PhysicalIp(physical_ip) })
}

fn address([family, octets @ ..]: [u8; 17]) -> Option<IpAddr> {
    match family {
        // What stands behind an IPv4 address is zero: an entry has one row.
        V4 => octets
            .split_first_chunk::<4>()
            .filter(|(_, rest)| *rest == [0; 12])
            .map(|(ip, _)| IpAddr::from(*ip)),
        V6 => Some(IpAddr::from(octets)),
        _ => None,
    }
}

pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(error.into()))
}

/// Rows of one table on their way back into the document's order.
pub(super) struct Ordered<T>(Vec<(u64, Arc<T>)>);

impl<T: DeserializeOwned> Ordered<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes one row. A row that stands under another key than its own would outlive what it holds.
    ///
    /// # Errors
    /// A sentence about what is wrong with the row.
    pub(super) fn push(
        &mut self,
        order: u64,
        json: &[u8],
        has_its_key: impl FnOnce(&T) -> bool,
    ) -> Result<(), String> {
        let value = serde_json::from_slice(json).map_err(|error| format!("a row is malformed: {error}"))?;
        if !has_its_key(&value) {
            return Err("a row stands under another key than its own".into());
        }
        self.0.push((order, Arc::new(value)));
        Ok(())
    }

    pub(super) fn sorted(mut self) -> (Vec<u64>, Vec<Arc<T>>) {
        self.0.sort_by_key(|(order, _)| *order);
        self.0.into_iter().unzip()
    }
}

/// What a new list of networks or ports changes in its table.
pub(super) struct Difference<'a, K, T> {
    pub(super) gone: Vec<K>,
    pub(super) put: Vec<(u64, &'a Arc<T>)>,
    /// The new list's order numbers: strictly increasing.
    pub(super) orders: Vec<u64>,
}

/// Finds the rows that `after` adds, changes or removes. Rows keep their order number wherever they can, so that one
/// added, changed or removed item costs one row, not the list.
pub(super) fn difference<'a, K: Hash + Eq, T: PartialEq>(
    before: &[Arc<T>],
    orders: &[u64],
    after: &'a [Arc<T>],
    key: impl Fn(&T) -> K,
) -> Difference<'a, K, T> {
    let same = |(old, new): &(&Arc<T>, &Arc<T>)| Arc::ptr_eq(old, new) || old == new;
    // Nearly every change touches one place of a long list: what precedes it is compared, and otherwise left alone.
    let head = before.iter().zip(after).take_while(same).count();
    let mut result = Difference {
        gone: Vec::new(),
        put: Vec::new(),
        orders: orders.get(..head).unwrap_or_default().to_vec(),
    };
    let mut rest: HashMap<K, (u64, &Arc<T>)> = before
        .iter()
        .zip(orders)
        .skip(head)
        .map(|(item, order)| (key(item.as_ref()), (*order, item)))
        .collect();
    let mut next = result.orders.last().map_or(0, |last| last + 1);
    for item in after.iter().skip(head) {
        match rest.remove(&key(item.as_ref())) {
            Some((order, old)) if order >= next => {
                next = order;
                if !same(&(old, item)) {
                    result.put.push((order, item));
                }
            }
            _ => result.put.push((next, item)),
        }
        result.orders.push(next);
        next += 1;
    }
    result.gone = rest.into_keys().collect();
    result
}
