//! `shunt vm …`.

use std::path::PathBuf;

use clap::Subcommand;
use dataplane::types::CustomerIp;
use serde_json::Value;

use super::client::{Client, path};
use super::pool::Combination;
use super::timeline::{self, Wait};
use crate::api::{MoveVm, NewVm, Reason, SettingsForm, VmView};
use crate::cli::failure::Failure;
use crate::cli::output::{Out, list, or_dash, table};
use crate::model::Name;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// List machines
    List,
    /// Show a machine
    Show {
        /// Its name or id
        vm: String,
    },
    /// Ask for a machine: out of a pool where one is ready, else made
    #[command(after_help = "Example: shunt vm create web-1 --network blue --image tiny --wait")]
    Create(Box<Create>),
    /// Give a running machine another network, other addresses or another name, without a reboot
    #[command(after_help = "Example: shunt vm move web-1 --network blue --wait")]
    Move {
        /// Its name or id
        vm: String,
        /// Where to [default: it stays in its network]
        #[arg(long, value_name = "NETWORK", required_unless_present_any = ["ip", "name"])]
        network: Option<String>,
        /// An address there; repeat for the other family [default: one is found]
        #[arg(long, value_name = "IP")]
        ip: Vec<CustomerIp>,
        /// Its name from then on
        #[arg(long, value_name = "NAME")]
        name: Option<Name>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Cut a machine off, its memory and processes untouched
    Quarantine {
        /// Its name or id
        vm: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Bring a machine back from quarantine
    Release {
        /// Its name or id
        vm: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete a machine, its OS disk included
    Delete {
        /// Its name or id
        vm: String,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Create {
    /// Its name
    name: Name,
    /// The network that it is in
    #[arg(long, value_name = "NETWORK")]
    network: String,
    #[command(flatten)]
    combination: Combination,
    /// An address there; repeat for the other family [default: one is found]
    #[arg(long, value_name = "IP")]
    ip: Vec<CustomerIp>,
    /// What shall be in it: a file of JSON with user, time_zone, files, script, as the API has it
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    wait: Wait,
}

impl Verb {
    pub(super) fn run(self, client: &Client, out: &mut Out) -> Result<(), Failure> {
        let one = |vm: &str, verb: &str| path(&["vms", vm, verb]);
        match self {
            Self::List => {
                let page = client.list::<VmView>(&path(&["vms"]))?;
                out.value(&page, |page| summary(&page.items))
            }
            Self::Show { vm } => {
                let vm: VmView = client.get(&path(&["vms", &vm]))?;
                out.value(&vm, show)
            }
            Self::Create(create) => {
                let Create { name, network, combination, ip, settings, wait } = *create;
                let settings = settings.map_or_else(|| Ok(SettingsForm::default()), read)?;
                let combination = combination.form();
                let new = NewVm { name, combination, network, addresses: ip, settings, rules: Vec::new() };
                timeline::tell(client, client.post(&path(&["vms"]), &new)?, wait, out)
            }
            Self::Move { vm, network, ip, name, wait } => {
                let change = MoveVm { network, addresses: ip, name };
                timeline::tell(client, client.post(&one(&vm, "network-change"), &change)?, wait, out)
            }
            Self::Quarantine { vm, reason, wait } => {
                timeline::tell(client, client.post(&one(&vm, "quarantine"), &Reason { reason })?, wait, out)
            }
            Self::Release { vm, wait } => {
                timeline::tell(client, client.post(&one(&vm, "release"), &Reason::default())?, wait, out)
            }
            Self::Delete { vm, wait } => {
                timeline::tell(client, client.delete(&path(&["vms", &vm]))?, wait, out)
            }
        }
    }
}

fn read(file: PathBuf) -> Result<SettingsForm, Failure> {
    let place = file.display().to_string();
    let wrong =
        |what: String| Failure::usage(what, place.clone(), "see SettingsForm in docs/reference/openapi.json");
    let text = std::fs::read(&file).map_err(|error| wrong(format!("cannot read the settings: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| wrong(format!("the settings make no sense: {error}")))
}

/// A word of the API's JSON.
fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default()
}

fn summary(vms: &[VmView]) -> String {
    let rows = vms.iter().map(|vm| {
        vec![
            vm.name.clone(),
            word(vm.state),
            vm.network.clone(),
            list(&vm.addresses),
            or_dash(vm.guest.as_ref().map(|guest| word(guest.phase))),
            or_dash(vm.host.as_ref()),
            vm.id.clone(),
        ]
    });
    table(&["NAME", "STATE", "NETWORK", "ADDRESSES", "GUEST", "HOST", "ID"], &[], rows)
}

/// Every field on a line of its own.
fn show(vm: &VmView) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(vm) else { return String::new() };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Array(items) => list(items.iter().map(|item| item.as_str().unwrap_or_default())),
        other => other.to_string(),
    };
    let rows = fields.iter().map(|(name, value)| vec![name.clone(), text(value)]);
    table(&["FIELD", "VALUE"], &[], rows)
}
