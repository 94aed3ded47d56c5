//! `shunt vswitch`: one host's switch.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Subcommand};
use dataplane::ctl::Client;
use dataplane::switch::DEFAULT_SOCKET;

use super::failure::Failure;
use super::output::Out;
use super::{directory, document, keeper, network, port, route, rule, run, traffic};

/// `shunt vswitch …`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The switch's control socket [default: /run/shunt/vswitch.sock]
    #[arg(
        long,
        global = true,
        env = "SHUNT_VSWITCH_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        display_order = 901
    )]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Stop(keeper::Stop),
    #[command(hide = true)]
    Keeper(keeper::Keep),
    Apply(document::Apply),
    Export(document::Export),
    /// Virtual networks on this host
    #[command(subcommand)]
    Network(network::Verb),
    /// Guests' NICs on this host
    #[command(subcommand)]
    Port(port::Verb),
    /// Routes beyond the networks' own prefixes
    #[command(subcommand)]
    Route(route::Verb),
    /// Which of a port's packets may pass: stateful rules
    #[command(subcommand)]
    Rule(rule::Verb),
    /// Where the guests of other hosts are
    #[command(subcommand)]
    Directory(directory::Verb),
    /// Traffic of each port: received from its guest, sent to it
    Stats,
    /// What was dropped, where and why
    Drops,
}

impl Args {
    pub(super) fn run(self, matches: &ArgMatches, out: &mut Out) -> Result<(), Failure> {
        let Self { socket, verb } = self;
        // A variable that tells clients where to ask must not move a server away from its configuration.
        let told = matches.subcommand().and_then(|(_, vswitch)| vswitch.value_source("socket"));
        let is_told = told == Some(ValueSource::CommandLine);
        if let Verb::Run(args) = verb {
            return args.run(socket.filter(|_| is_told));
        }
        if is_told && matches!(verb, Verb::Stop(_)) {
            return Err(Failure::usage(
                "`stop` does not ask at a socket",
                "--socket",
                "leave it out: --config names the switch",
            ));
        }
        let verb = match verb {
            Verb::Stop(args) => return args.run(out),
            Verb::Keeper(args) => return args.run(),
            other => other,
        };
        let connect = || Client::connect(&socket.unwrap_or_else(|| DEFAULT_SOCKET.into()));
        match verb {
            // These have returned above.
            Verb::Run(_) | Verb::Stop(_) | Verb::Keeper(_) => Ok(()),
            Verb::Apply(args) => args.run(connect, out),
            Verb::Export(args) => args.run(&mut connect()?, out),
            Verb::Network(verb) => verb.run(connect, out),
            Verb::Port(verb) => verb.run(connect, out),
            Verb::Route(verb) => verb.run(&mut connect()?, out),
            Verb::Rule(verb) => verb.run(connect, out),
            Verb::Directory(verb) => verb.run(connect, out),
            Verb::Stats => traffic::stats(&mut connect()?, out),
            Verb::Drops => traffic::drops(&mut connect()?, out),
        }
    }
}
