//! `shunt tenant|token|network|pool|vm|rule|disk|host|operation …`: the client of a cluster's API.
//!
//! One file per noun: arguments in, requests out, a table or JSON. Never here: anything that the API does not offer to
//! everybody.

mod client;
mod disk;
mod host;
mod network;
mod operation;
mod pool;
mod rule;
mod tenant;
mod timeline;
mod token;
mod vm;

use std::path::PathBuf;

use clap::Subcommand;

use super::failure::Failure;
use super::output::Out;
use client::Client;

/// Where the cluster is, and who asks.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Server {
    /// The controller's address; the token comes from --token-file or the variable SHUNT_TOKEN
    #[arg(
        long,
        global = true,
        env = "SHUNT_SERVER",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:9480",
        display_order = 901
    )]
    server: String,
    /// A file with the token, instead of the variable SHUNT_TOKEN
    #[arg(long, global = true, value_name = "PATH", display_order = 902)]
    token_file: Option<PathBuf>,
    /// For administrators: the tenant to act for, by name or id
    #[arg(
        id = "for_tenant",
        long = "tenant",
        global = true,
        env = "SHUNT_TENANT",
        hide_env_values = true,
        value_name = "NAME",
        display_order = 903
    )]
    tenant: Option<String>,
}

/// What a cluster has.
#[derive(Debug, Subcommand)]
pub(super) enum Noun {
    /// Tenants of the cluster, and their quotas
    Tenant(Of<tenant::Verb>),
    /// Bearer tokens of a tenant
    Token(Of<token::Verb>),
    /// Virtual networks
    Network(Of<network::Verb>),
    /// Pools of machines that are ready for customers
    Pool(Of<pool::Verb>),
    /// Virtual machines
    Vm(Of<vm::Verb>),
    /// Which of a machine's packets may pass: stateful rules
    Rule(Of<rule::Verb>),
    /// Disks
    Disk(Of<disk::Verb>),
    /// The machines that run others
    Host(Of<host::Verb>),
    /// What was asked for, and how far it has come
    Operation(Of<operation::Verb>),
}

/// A noun's verbs, with the cluster that they are for.
#[derive(Debug, clap::Args)]
pub(super) struct Of<V: Subcommand> {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    verb: V,
}

impl<V: Subcommand> Of<V> {
    fn open(self) -> Result<(Client, V), Failure> {
        Ok((Client::new(&self.server)?, self.verb))
    }
}

impl Noun {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Failure> {
        macro_rules! run {
            ($of:expr) => {{
                let (client, verb) = $of.open()?;
                verb.run(&client, out)
            }};
        }
        match self {
            Self::Tenant(of) => run!(of),
            Self::Token(of) => run!(of),
            Self::Network(of) => run!(of),
            Self::Pool(of) => run!(of),
            Self::Vm(of) => run!(of),
            Self::Rule(of) => run!(of),
            Self::Disk(of) => run!(of),
            Self::Host(Of { verb: host::Verb::Run(args), .. }) => args.run(),
            Self::Host(Of { verb: host::Verb::Join(args), .. }) => args.run(out),
            Self::Host(of) => run!(of),
            Self::Operation(of) => run!(of),
        }
    }
}

/// Says that a thing is no more.
fn gone(noun: &str, text: &str, out: &mut Out) -> Result<(), Failure> {
    let json = serde_json::json!({ "removed": { "kind": noun, "name": text } });
    out.value(&json, |_| format!("{noun} {text} is gone"))
}

#[cfg(test)]
mod tests;
