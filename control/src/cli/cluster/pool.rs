//! `shunt pool …`.

use clap::{Subcommand, ValueEnum};

use super::client::{Client, path};
use crate::api::{ChangePool, CombinationForm, IpRouting, NewPool, PoolView, SizingForm};
use crate::cli::failure::Failure;
use crate::cli::output::{Out, or_dash, table};
use crate::model::Name;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List pools
    List,
    /// Show a pool
    Show {
        /// Its name or id
        pool: String,
    },
    /// Make a pool
    #[command(after_help = "Example: shunt pool create small --image tiny --min 2 --max 8")]
    Create {
        /// Its name
        name: Name,
        #[command(flatten)]
        combination: Combination,
        #[command(flatten)]
        sizing: Sizing,
    },
    /// Change how large a pool is kept
    Resize {
        /// Its name or id
        pool: String,
        #[command(flatten)]
        sizing: Sizing,
    },
    /// Empty a pool: nobody may claim from it, and its machines go
    Drain {
        /// Its name or id
        pool: String,
        /// Fill it again instead
        #[arg(long)]
        undo: bool,
    },
    /// Remove a pool that was emptied
    Delete {
        /// Its name or id
        pool: String,
    },
}

/// What cannot change without a reboot but a customer may choose.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct Combination {
    /// What runs it
    #[arg(long, value_name = "NAME", default_value = "netns")]
    hypervisor: Name,
    /// What it boots
    #[arg(long, value_name = "NAME")]
    image: Name,
    /// Virtual processors
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    vcpus: u16,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    memory_mib: u32,
    /// The kind of its OS disk: local or none
    #[arg(long, value_name = "NAME", default_value = "local")]
    storage: Name,
    /// IP families that its network needs
    #[arg(long, value_enum, default_value_t = Families::Ipv4)]
    ip_routing: Families,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Families {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
    /// Both
    Dual,
}

impl Combination {
    pub(super) fn form(self) -> CombinationForm {
        let Self { hypervisor, image, vcpus, memory_mib, storage, ip_routing } = self;
        let ip_routing = match ip_routing {
            Families::Ipv4 => IpRouting::Ipv4,
            Families::Ipv6 => IpRouting::Ipv6,
            Families::Dual => IpRouting::Dual,
        };
        CombinationForm { hypervisor, image, vcpus, memory_mib, storage, ip_routing }
    }
}

/// How large a pool is kept.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(in crate::cli) struct Sizing {
    /// Never fewer ready machines than this
    #[arg(long, value_name = "NUMBER")]
    min: u32,
    /// Never more than this
    #[arg(long, value_name = "NUMBER")]
    max: u32,
    /// The share of requests that shall find a ready machine
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    hit_rate: f64,
    /// Idle machine-hours a day at most [default: no bound but --max]
    #[arg(long, value_name = "HOURS")]
    budget_hours: Option<f64>,
}

impl From<Sizing> for SizingForm {
    fn from(Sizing { min, max, hit_rate, budget_hours }: Sizing) -> Self {
        Self { min, max, hit_rate, budget_hours }
    }
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::List => {
                let page = client.list::<PoolView>(&path(&["pools"]))?;
                out.value(&page, |page| show(&page.items))
            }
            Self::Show { pool } => one(&client.get(&path(&["pools", &pool]))?, out),
            Self::Create { name, combination, sizing } => {
                let new = NewPool { name, combination: combination.form(), sizing: sizing.into() };
                one(&client.post(&path(&["pools"]), &new)?, out)
            }
            Self::Resize { pool, sizing } => {
                let change = ChangePool { sizing: Some(sizing.into()), draining: None };
                one(&client.patch(&path(&["pools", &pool]), &change)?, out)
            }
            Self::Drain { pool, undo } => {
                let change = ChangePool { sizing: None, draining: Some(!undo) };
                one(&client.patch(&path(&["pools", &pool]), &change)?, out)
            }
            Self::Delete { pool } => {
                client.remove(&path(&["pools", &pool]))?;
                super::gone("pool", &pool, out)
            }
        }
    }
}

fn one(pool: &PoolView, out: &mut Out) -> Result<(), Failure> {
    out.value(pool, |pool| show(std::slice::from_ref(pool)))
}

fn show(pools: &[PoolView]) -> String {
    let rows = pools.iter().map(|pool| {
        let CombinationForm { hypervisor, image, vcpus, memory_mib, .. } = &pool.combination;
        vec![
            pool.name.clone(),
            format!("{hypervisor} {image} {vcpus} CPU {memory_mib} MiB"),
            if pool.draining { format!("{}, draining", pool.ready) } else { pool.ready.to_string() },
            format!("{} to {}", pool.sizing.min, pool.sizing.max),
            pool.sizing.hit_rate.to_string(),
            or_dash(pool.sizing.budget_hours),
            pool.id.clone(),
        ]
    });
    table(&["NAME", "COMBINATION", "READY", "SIZE", "HIT RATE", "HOURS A DAY", "ID"], &[2], rows)
}
