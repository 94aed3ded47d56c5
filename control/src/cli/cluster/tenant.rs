//! `shunt tenant …`.

use clap::Subcommand;

use super::client::{Client, path};
use crate::api::{ChangeTenant, NewTenant, QuotaForm, TenantView};
use crate::cli::failure::Failure;
use crate::cli::output::{Out, table};
use crate::model::Name;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List tenants
    List,
    /// Show a tenant: what it has and may have
    Show {
        /// Its name or id
        tenant: String,
    },
    /// Make a tenant
    Create {
        /// Its name
        name: Name,
        #[command(flatten)]
        quota: Limits,
    },
    /// Change how much a tenant may have
    Quota {
        /// Its name or id
        tenant: String,
        #[command(flatten)]
        quota: Limits,
    },
    /// Remove a tenant that has nothing any more
    Delete {
        /// Its name or id
        tenant: String,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Limits {
    /// Most virtual machines
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    vms: u32,
    /// Most networks
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    networks: u32,
    /// Most disks
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    disks: u32,
}

impl From<Limits> for QuotaForm {
    fn from(Limits { vms, networks, disks }: Limits) -> Self {
        Self { vms, networks, disks }
    }
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::List => {
                let page = client.list::<TenantView>(&path(&["tenants"]))?;
                out.value(&page, |page| show(&page.items))
            }
            Self::Show { tenant } => one(&client.get(&path(&["tenants", &tenant]))?, out),
            Self::Create { name, quota } => {
                let new = NewTenant { name, quota: Some(quota.into()) };
                one(&client.post(&path(&["tenants"]), &new)?, out)
            }
            Self::Quota { tenant, quota } => {
                let change = ChangeTenant { quota: quota.into() };
                one(&client.patch(&path(&["tenants", &tenant]), &change)?, out)
            }
            Self::Delete { tenant } => {
                client.remove(&path(&["tenants", &tenant]))?;
                super::gone("tenant", &tenant, out)
            }
        }
    }
}

fn one(tenant: &TenantView, out: &mut Out) -> Result<(), Failure> {
    out.value(tenant, |tenant| show(std::slice::from_ref(tenant)))
}

fn show(tenants: &[TenantView]) -> String {
    let rows = tenants.iter().map(|tenant| {
        let used = |used: Option<u32>, most: u32| match used {
            Some(used) => format!("{used} of {most}"),
            None => most.to_string(),
        };
        let TenantView { quota, usage, .. } = tenant;
        vec![
            tenant.name.clone(),
            tenant.id.clone(),
            used(usage.map(|usage| usage.vms), quota.vms),
            used(usage.map(|usage| usage.networks), quota.networks),
            used(usage.map(|usage| usage.disks), quota.disks),
        ]
    });
    table(&["NAME", "ID", "VMS", "NETWORKS", "DISKS"], &[2, 3, 4], rows)
}
