//! Rows of the state file: how mappings become bytes, and which rows a new document changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Mapping;
use crate::types::{CustomerIp, MacAddr, PhysicalIp, Vni};

/// VNI, family, address: big-endian, so that rows of a network lie together and in order.
pub(super) type MappingKey = [u8; 21];
/// MAC address, family, physical address.
pub(super) type MappingValue = [u8; 23];

const V4: u8 = 4;
const V6: u8 = 6;

pub(super) fn key(network: Vni, ip: CustomerIp) -> MappingKey {
    let mut key = [0; 21];
    let (vni, address) = key.split_at_mut(4);
    vni.copy_from_slice(&network.value().to_be_bytes());
    address.copy_from_slice(&address_bytes(ip.0));
    key
}

pub(super) fn value(mapping: &Mapping) -> MappingValue {
    let mut value = [0; 23];
    let (mac, address) = value.split_at_mut(6);
    mac.copy_from_slice(&mapping.mac.0);
    address.copy_from_slice(&address_bytes(mapping.physical_ip.0));
    value
}

/// The first and last key that rows of a network, or of all, can have.
pub(super) fn range(network: Option<Vni>) -> (MappingKey, MappingKey) {
    let mut first = [0; 21];
    let mut last = [0xff; 21];
    if let Some(network) = network {
        for key in [&mut first, &mut last] {
            key.split_at_mut(4).0.copy_from_slice(&network.value().to_be_bytes());
        }
    }
    (first, last)
}

/// The mapping of a row.
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

fn address_bytes(ip: IpAddr) -> [u8; 17] {
    let mut bytes = [0; 17];
    let [family, address @ ..] = &mut bytes;
    match ip {
        IpAddr::V4(ip) => {
            *family = V4;
            address.split_at_mut(4).0.copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            *family = V6;
            *address = ip.octets();
        }
    }
    bytes
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
