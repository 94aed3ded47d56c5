//! Virtual networks: made, found, removed. Here a moniker meets its VNI.

use std::net::IpAddr;

use dataplane::desired::{DomainName, Subnet};
use dataplane::types::{Mtu, Vni};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{NetworkError, keys};
use crate::model::{Moniker, Name, Network, NetworkId, Problem, Tenant, TenantId};
use crate::store::rows::{self, Row, Versioned};
use crate::store::{Draft, Key, Prefix, Store};

/// Where partially provisioned machines wait. Machines here reach nobody but their metadata service.
pub const PLACEHOLDER: &str = "placeholder";
/// Where machines are cut off.
pub const QUARANTINE: &str = "quarantine";

/// The first VNI that is given to customers; smaller ones are left to people who run switches by hand.
const FIRST_VNI: u32 = 4096;
/// One more than the largest VNI.
const VNIS: u32 = 1 << 24;
/// A lease in the pool is short, so that a machine that overlooks a change of its link asks again soon.
const PLACEHOLDER_LEASE_SECONDS: u32 = 60;

impl Row for Network {
    const KIND: &'static str = "network";
    const SCHEMA: u32 = 1;
}

/// A moniker's VNI, and the network that has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vnet {
    /// On the wire.
    pub vni: Vni,
    /// Whose.
    pub network: NetworkId,
}

impl Row for Vnet {
    const KIND: &'static str = "vnet";
    const SCHEMA: u32 = 1;
}

/// Which moniker has a VNI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    moniker: Moniker,
}

impl Row for Taken {
    const KIND: &'static str = "vni";
    const SCHEMA: u32 = 1;
}

/// What a new network shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its prefixes; the first address of each is the virtual router's.
    pub prefixes: Vec<IpNet>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// DNS domain.
    pub domain: Option<DomainName>,
    /// MTU in bytes; absent: what fits.
    pub mtu: Option<Mtu>,
    /// How long a lease lasts, in seconds.
    pub lease_seconds: u32,
}

/// Makes a network. Its name is the caller's business.
///
/// # Errors
/// `Refused` names what makes no sense.
pub async fn create(
    store: &dyn Store,
    draft: &mut Draft,
    tenant: TenantId,
    name: &Name,
    spec: &NetworkSpec,
    now: Timestamp,
) -> Result<Network, NetworkError> {
    check(spec)?;
    let id = NetworkId::new();
    // The random half of the id: enough to be unique, and it says nothing.
    let text = id.uuid().simple().to_string();
    let moniker: Moniker = format!("vn-{}", text.get(16..).unwrap_or(&text)).parse().map_err(|error| {
        NetworkError::Refused(Problem::new(format!("no moniker: {error}"), "moniker", "report this"))
    })?;
    put(
        store,
        draft,
        Network {
            id,
            tenant,
            name: name.clone(),
            moniker,
            subnets: spec.prefixes.iter().copied().map(Subnet::with_first_gateway).collect(),
            dns: spec.dns.clone(),
            domain: spec.domain.clone(),
            mtu: spec.mtu,
            lease_seconds: spec.lease_seconds,
            isolated: false,
            created_at: now,
        },
    )
    .await
}

async fn put(store: &dyn Store, draft: &mut Draft, network: Network) -> Result<Network, NetworkError> {
    let vni = free_vni(store).await?;
    let number = keys::vni(vni)?;
    draft.require_absent(&number).put_row(&number, &Taken { moniker: network.moniker.clone() });
    let vnet = keys::vnet(&network.moniker)?;
    draft.require_absent(&vnet).put_row(&vnet, &Vnet { vni, network: network.id });
    let key = keys::network(network.id)?;
    draft.require_absent(&key).put_row(&key, &network);
    Ok(network)
}

/// Makes the networks of the platform that are not there yet: where pools wait, and where machines are cut off.
///
/// # Errors
/// The store's.
pub async fn ensure_platform_networks(store: &dyn Store, now: Timestamp) -> Result<(), NetworkError> {
    for (name, prefix, number) in [(PLACEHOLDER, "100.64.0.0/14", 1_u128), (QUARANTINE, "100.68.0.0/14", 2)] {
        let wrong = |what: String| NetworkError::Refused(Problem::new(what, name, "report this"));
        let moniker: Moniker = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let prefix: IpNet = prefix.parse().map_err(|error| wrong(format!("{error}")))?;
        let mut draft = Draft::new();
        put(
            store,
            &mut draft,
            Network {
                id: NetworkId::fixed(0x0000_0000_0000_7000_8000_0000_0001_0000 + number),
                tenant: Tenant::PLATFORM,
                name: name.parse().map_err(|error| wrong(format!("{error}")))?,
                moniker,
                subnets: vec![Subnet::with_first_gateway(prefix)],
                dns: Vec::new(),
                domain: None,
                mtu: None,
                lease_seconds: PLACEHOLDER_LEASE_SECONDS,
                isolated: true,
                created_at: now,
            },
        )
        .await?;
        match store.commit(draft.finish()?).await {
            // It is there already, or another controller makes it right now.
            Err(error) if !error.is_conflict() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn check(spec: &NetworkSpec) -> Result<(), NetworkError> {
    let no = |what: String, field: &str, remedy: &str| {
        Err(NetworkError::Refused(Problem::new(what, field, remedy)))
    };
    if spec.prefixes.is_empty() || spec.prefixes.len() > 8 {
        let what = format!("{} prefixes", spec.prefixes.len());
        return no(what, "prefixes", "give one to eight");
    }
    for (place, prefix) in spec.prefixes.iter().enumerate() {
        let room = prefix.max_prefix_len() - prefix.prefix_len();
        if prefix.addr() != prefix.network() {
            return no(format!("{prefix} has host bits"), "prefixes", &format!("write {}", prefix.trunc()));
        }
        if room < 2 || prefix.prefix_len() < 8 {
            return no(
                format!("{prefix} is too small or too large"),
                "prefixes",
                "use one from /8 to /30, or to /126 of IPv6",
            );
        }
        let before = spec.prefixes.iter().take(place);
        if let Some(other) =
            before.into_iter().find(|other| other.contains(prefix) || prefix.contains(*other))
        {
            return no(
                format!("{prefix} and {other} overlap"),
                "prefixes",
                "use prefixes apart from each other",
            );
        }
        if special(prefix.network()) || special(prefix.broadcast()) {
            return no(
                format!("{prefix} is no prefix for machines"),
                "prefixes",
                "use unicast addresses other than loopback and link-local ones",
            );
        }
    }
    if !(30..=604_800).contains(&spec.lease_seconds) {
        let what = format!("a lease of {} seconds", spec.lease_seconds);
        return no(what, "lease_seconds", "give 30 to 604800");
    }
    if spec.dns.len() > 8 {
        return no(format!("{} name servers", spec.dns.len()), "dns", "give eight at most");
    }
    Ok(())
}

fn special(ip: IpAddr) -> bool {
    ip.is_multicast()
        || ip.is_loopback()
        || ip.is_unspecified()
        || match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}

async fn free_vni(store: &dyn Store) -> Result<Vni, NetworkError> {
    // With 16 million of them the first try nearly always finds one; a clash is found out by the transaction.
    for _ in 0..64 {
        let chance = uuid::Uuid::new_v4().as_u128() % u128::from(VNIS - FIRST_VNI);
        #[expect(clippy::cast_possible_truncation, reason = "less than 2^24")]
        let number = FIRST_VNI + chance as u32;
        let Ok(vni) = Vni::new(number) else { continue };
        if store.get(&keys::vni(vni)?).await?.is_none() {
            return Ok(vni);
        }
    }
    let remedy = "remove networks that nobody needs";
    Err(NetworkError::Refused(Problem::new("nearly all VNIs are taken", "network", remedy)))
}

/// A moniker's VNI.
///
/// # Errors
/// `NoSuchNetwork`, or the store's.
pub async fn vnet(store: &dyn Store, moniker: &Moniker) -> Result<Versioned<Vnet>, NetworkError> {
    let found = rows::load::<Vnet>(store, &keys::vnet(moniker)?).await?;
    found.ok_or_else(|| NetworkError::NoSuchNetwork(moniker.clone()))
}

/// The network with this moniker.
///
/// # Errors
/// `NoSuchNetwork`, or the store's.
pub async fn by_moniker(store: &dyn Store, moniker: &Moniker) -> Result<Network, NetworkError> {
    let vnet = vnet(store, moniker).await?;
    let network = rows::load::<Network>(store, &keys::network(vnet.row.network)?).await?;
    network.map(|network| network.row).ok_or_else(|| NetworkError::NoSuchNetwork(moniker.clone()))
}

/// The moniker of a VNI, if it has one.
///
/// # Errors
/// The store's.
pub async fn by_vni(store: &dyn Store, vni: Vni) -> Result<Option<Moniker>, NetworkError> {
    let taken = rows::load::<Taken>(store, &keys::vni(vni)?).await?;
    Ok(taken.map(|taken| taken.row.moniker))
}

/// Removes a network that nobody has an address in.
///
/// # Errors
/// `Refused` while somebody has, `NoSuchNetwork`, or the store's.
pub async fn remove(
    store: &dyn Store,
    draft: &mut Draft,
    network: &Versioned<Network>,
) -> Result<(), NetworkError> {
    let moniker = &network.row.moniker;
    let claims = store.list(&keys::address_prefix(moniker)?, None, 1).await?;
    let holders = store.list(&keys::holder_prefix(moniker)?, None, 1).await?;
    if let Some(claim) = claims.entries.first().or(holders.entries.first()) {
        let place: &Key = &claim.key;
        let what = format!("network {} is in use ({place})", network.row.name);
        return Err(NetworkError::Refused(Problem::new(
            what,
            "network",
            "move or delete its machines first",
        )));
    }
    let found = vnet(store, moniker).await?;
    let key = keys::network(network.row.id)?;
    draft.require(&key, network.revision).delete(&key);
    draft.delete(&keys::vnet(moniker)?);
    draft.delete(&keys::vni(found.row.vni)?);
    Ok(())
}

/// All networks.
///
/// # Errors
/// The store's.
pub async fn all(store: &dyn Store) -> Result<Vec<Versioned<Network>>, NetworkError> {
    Ok(rows::list_all::<Network>(store, &Prefix::of(["network"])?).await?.rows)
}
