//! The command line: arguments in, one question to a switch, a table or JSON out, an exit code.
//!
//! Exit codes: 0 done; 1 understood, but refused or failed; 2 the command line, or a file that it names, cannot be
//! understood, and nothing was asked. Never here: decisions that belong to the switch.

mod cluster;
mod controller;
mod directory;
mod document;
mod failure;
mod host;
mod import;
mod keeper;
mod network;
mod output;
mod port;
mod role;
mod route;
mod rule;
mod run;
mod traffic;
mod values;
mod vswitch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::demo::{self, DemoArgs};
use crate::dev::DevArgs;
use crate::format::Format;
use failure::Failure;
use output::Out;

/// Shunt gives a running VM another virtual network without a reboot.
#[derive(Debug, Parser)]
#[command(
    name = "shunt",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done; 1 refused or failed; 2 the command line or a file that it names is not understood."
)]
struct Cli {
    /// How to print results, and errors
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", display_order = 900)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// This host's switch: run it, change it, look into it
    Vswitch(vswitch::Args),
    Controller(controller::Args),
    /// Run a whole cluster on this machine, to try it
    #[command(
        long_about = "Run a whole cluster on this machine, to try it.\n\nA controller and hosts, each with a switch and an agent, in namespaces of their own that vanish with this process. Machines are of kind netns (network namespaces with an init process, a DHCP client and an agent), or virtual machines (--images). It needs root."
    )]
    Dev(DevArgs),
    #[command(flatten)]
    Cluster(cluster::Noun),
    /// Show the main job: a guest changes networks while it talks
    #[command(
        long_about = "Show the main job: a guest changes networks while it and its neighbours talk.\n\nTwo hosts, two networks with the same addresses, real traffic and real DHCP clients, in namespaces of its own; it prints what was verified and leaves nothing behind. It needs root."
    )]
    Demo(DemoArgs),
    /// Print a script that completes `shunt` commands in your shell
    #[command(after_help = "Example: shunt completions bash > /etc/bash_completion.d/shunt")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Runs one command line, program name first, and says how it ended.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let (cli, matches) = match parse(&args) {
        Ok(parsed) => parsed,
        Err(error) => return complain(&error, asks_for_json(&args)),
    };
    let command = match cli.command {
        // It judges for itself how it ended.
        Command::Demo(args) => return demo::run(&args, cli.output),
        other => other,
    };
    let mut out = Out::new(cli.output);
    match dispatch(command, &matches, &mut out).and_then(|()| out.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(cli.output),
    }
}

/// The whole grammar, for its reference page.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

fn parse(args: &[OsString]) -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli, matches))
}

fn dispatch(command: Command, matches: &ArgMatches, out: &mut Out) -> Result<(), Failure> {
    match command {
        Command::Vswitch(args) => args.run(matches, out),
        Command::Controller(args) => args.run(),
        Command::Dev(args) => role::dev(&args),
        Command::Cluster(noun) => noun.run(out),
        // `main` has run it.
        Command::Demo(_) => Ok(()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut shown(), "shunt", &mut script);
            out.bytes(&script)
        }
    }
}

/// The grammar without the verb that no person says: the makers of completions do not know that it is hidden.
fn shown() -> clap::Command {
    Cli::command().mut_subcommand("vswitch", |whole| {
        let verbs = whole.get_subcommands().filter(|verb| !verb.is_hide_set());
        let shown = clap::Command::new("vswitch").about(whole.get_about().cloned().unwrap_or_default());
        shown.args(whole.get_arguments()).subcommands(verbs)
    })
}

/// True if errors should be JSON, although the command line is not understood.
fn asks_for_json(args: &[OsString]) -> bool {
    let pairs = args.iter().zip(args.iter().skip(1));
    args.iter().any(|arg| arg == "--output=json")
        || pairs.into_iter().any(|(flag, value)| flag == "--output" && value == "json")
}

fn complain(error: &clap::Error, json: bool) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let mut out = Out::new(Format::Table);
            match out.bytes(error.render().to_string().as_bytes()).and_then(|()| out.finish()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.tell(Format::Table),
            }
        }
        _ if json => Failure::of_arguments(error).tell(Format::Json),
        _ => {
            // Colours, usage and suggestions are clap's. Standard error may be closed: then there is nobody to tell.
            let _ = error.print();
            ExitCode::from(failure::USAGE)
        }
    }
}
