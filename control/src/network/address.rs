//! Addresses: each has one owner, from the moment that it is claimed until every host has forgotten where it was.

use std::collections::HashSet;
use std::net::IpAddr;

use dataplane::types::CustomerIp;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Absent, NetworkError, everyone_knows, keys, vnet};
use crate::model::{Moniker, Network, NicId, Problem};
use crate::store::rows::{self, Row};
use crate::store::{Draft, Key, Prefix, Store};

/// How often chance is asked for a free address before all of them are looked at.
const TRIES: usize = 32;
/// A prefix with more addresses than this is never looked at as a whole.
const LOOKED_AT: u128 = 1 << 16;

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressClaim {
    /// The interface that has it or had it last.
    pub nic: NicId,
    /// True when nobody has it any more, but hosts may still send there: it is free when all of them have seen the
    /// revision of this row.
    #[serde(default)]
    pub draining: bool,
}

impl Row for AddressClaim {
    const KIND: &'static str = "address";
    const SCHEMA: u32 = 1;
}

/// Claims an address of `network` for `nic`: `wanted`, or one that is free.
///
/// # Errors
/// `Refused` for an address that the network does not have, `Taken`, `Full`, `NoSuchNetwork`, or the store's.
pub async fn claim_address(
    store: &dyn Store,
    draft: &mut Draft,
    network: &Moniker,
    wanted: Option<CustomerIp>,
    nic: NicId,
) -> Result<CustomerIp, NetworkError> {
    let known = vnet::by_moniker(store, network).await?;
    let ip = match wanted {
        Some(ip) => {
            usable(&known, ip)?;
            ip
        }
        None => find_free(store, &known).await?,
    };
    let key = keys::address(network, ip)?;
    match rows::load::<AddressClaim>(store, &key).await? {
        // Begun again after it was done.
        Some(claim) if claim.row.nic == nic => draft.require(&key, claim.revision),
        Some(_) => return Err(NetworkError::Taken { network: network.clone(), ip }),
        None => draft.require_absent(&key),
    };
    draft.put_row(&key, &AddressClaim { nic, draining: false });
    Ok(ip)
}

/// Gives an address up. It is free for others when no host sends there any more: see [`free_addresses`].
///
/// # Errors
/// Never with a real moniker.
pub fn release_address(
    draft: &mut Draft,
    network: &Moniker,
    ip: CustomerIp,
    nic: NicId,
) -> Result<(), NetworkError> {
    draft.put_row(&keys::address(network, ip)?, &AddressClaim { nic, draining: true });
    Ok(())
}

/// Gives an address from one interface to another.
///
/// # Errors
/// Never with a real moniker.
pub fn take_over_address(
    draft: &mut Draft,
    network: &Moniker,
    ip: CustomerIp,
    nic: NicId,
) -> Result<(), NetworkError> {
    draft.put_row(&keys::address(network, ip)?, &AddressClaim { nic, draining: false });
    Ok(())
}

/// Frees the addresses that were given up and that every host has forgotten. Returns how many.
///
/// # Errors
/// The store's.
pub async fn free_addresses(store: &dyn Store) -> Result<usize, NetworkError> {
    let mut freed = 0;
    for claim in rows::list_all::<AddressClaim>(store, &Prefix::of(["address"])?).await?.rows {
        if !claim.row.draining {
            continue;
        }
        let network = claim.key.segments().nth(1).and_then(|text| text.parse::<Moniker>().ok());
        let Some(network) = network else { continue };
        if everyone_knows(store, &network, claim.revision, None, Absent::Wait).await? {
            let mut draft = Draft::new();
            draft.require(&claim.key, claim.revision).delete(&claim.key);
            match store.commit(draft.finish()?).await {
                Ok(_) => freed += 1,
                // Somebody has taken it meanwhile: as good.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(freed)
}

/// Refuses an address that no machine of the network can have.
fn usable(network: &Network, ip: CustomerIp) -> Result<(), NetworkError> {
    let no = |what: String| {
        let remedy = "choose another, or none: one is then found";
        Err(NetworkError::Refused(Problem::new(what, "address", remedy)))
    };
    let Some(subnet) = network.subnets.iter().find(|subnet| subnet.contains(ip)) else {
        return no(format!("{ip} is in no prefix of network {}", network.name));
    };
    if subnet.gateway == ip {
        return no(format!("{ip} is the gateway of network {}", network.name));
    }
    if is_reserved(subnet.prefix, ip.0) {
        return no(format!("{ip} is the first or last address of {}", subnet.prefix));
    }
    Ok(())
}

/// Network and broadcast address of IPv4; the subnet-router anycast address of IPv6 (RFC 4291 section 2.6.1).
fn is_reserved(prefix: IpNet, ip: IpAddr) -> bool {
    match prefix {
        IpNet::V4(net) if net.prefix_len() >= 31 => false,
        IpNet::V4(_) => ip == prefix.network() || ip == prefix.broadcast(),
        IpNet::V6(net) if net.prefix_len() >= 127 => false,
        IpNet::V6(_) => ip == prefix.network(),
    }
}

async fn find_free(store: &dyn Store, network: &Network) -> Result<CustomerIp, NetworkError> {
    // Of the first family that the network has.
    let Some(subnet) = network.subnets.first() else {
        return Err(NetworkError::Full(network.moniker.clone()));
    };
    let count = size(subnet.prefix);
    for _ in 0..TRIES {
        let ip = nth(subnet.prefix, chance() % count);
        if usable(network, ip).is_ok() && store.get(&keys::address(&network.moniker, ip)?).await?.is_none() {
            return Ok(ip);
        }
    }
    let taken = taken(store, &network.moniker).await?;
    let start = chance() % count;
    let all = (0..count.min(LOOKED_AT)).map(|n| nth(subnet.prefix, (start + n) % count));
    let mut free = all.filter(|ip| usable(network, *ip).is_ok());
    free.find(|ip| !taken.contains(ip.to_string().as_str()))
        .ok_or_else(|| NetworkError::Full(network.moniker.clone()))
}

async fn taken(store: &dyn Store, network: &Moniker) -> Result<HashSet<String>, NetworkError> {
    let prefix = keys::address_prefix(network)?;
    let (mut taken, mut after): (HashSet<String>, Option<Key>) = (HashSet::new(), None);
    loop {
        let page = store.list(&prefix, after.as_ref(), usize::MAX).await?;
        after = page.entries.last().map(|entry| entry.key.clone());
        taken.extend(
            page.entries.iter().filter_map(|entry| entry.key.segments().next_back().map(String::from)),
        );
        if !page.more {
            return Ok(taken);
        }
    }
}

/// How many addresses a prefix has; those of /0 in IPv6 less one.
fn size(prefix: IpNet) -> u128 {
    let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    1_u128.checked_shl(bits).unwrap_or(u128::MAX)
}

fn nth(prefix: IpNet, n: u128) -> CustomerIp {
    CustomerIp(match prefix {
        #[expect(clippy::cast_possible_truncation, reason = "n is less than the prefix has addresses")]
        IpNet::V4(net) => IpAddr::V4((u32::from(net.network()).wrapping_add(n as u32)).into()),
        IpNet::V6(net) => IpAddr::V6((u128::from(net.network()).wrapping_add(n)).into()),
    })
}

/// 122 bits of chance; the rest is fixed, which does not matter for choosing among fewer.
fn chance() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}
