//! `shunt demo`, in two acts: two switches, two networks with the same addresses, one guest that changes from one to the other
//! while it and its neighbours talk; then a cluster, whose pool gives a customer a machine that later changes networks. What
//! was seen is judged.
//!
//! It drives switches and cluster by their command lines only, as a person would, and lives in a [`World`](crate::lab::World): it
//! changes nothing on the machine and leaves nothing behind, however it ends.

mod chatter;
mod cluster;
mod report;
mod scenario;
mod stream;
mod verdicts;

use crate::format::Format;
use crate::lab::{CliFailure, ClientKind, LabError, Tool, require};
use clap::{Args, ValueEnum};
use dataplane::ctl::{Refusal, Response};
use std::{
    io::{self, Write as _},
    net::Ipv4Addr,
    process::ExitCode,
};

/// Arguments of `shunt demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// What the guests are
    #[arg(long, value_enum, default_value_t = Guests::Netns)]
    guests: Guests,
    /// Plays a talking program inside a guest: NAME, then the addresses to talk to
    #[arg(long, hide = true, num_args = 1.., value_name = "NAME")]
    chatter: Option<Vec<String>>,
    /// Plays an end of a TCP connection inside a guest: the sender to ADDRESS, or the one that gives back
    #[arg(long, hide = true, num_args = 0..=1, value_name = "ADDRESS")]
    stream: Option<Option<Ipv4Addr>>,
}

/// Kinds of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Guests {
    /// Network namespaces with an init process and a DHCP client
    Netns,
}

/// Why the demonstration could not be carried out (a check that fails is no such error).
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Switch(#[from] CliFailure),
    #[error("{act}: {source}")]
    Io { act: &'static str, source: io::Error },
    #[error("`shunt vswitch {verb}` answered without `{member}`")]
    Answer { verb: &'static str, member: &'static str },
}

/// Runs the demonstration; exit code 0 only when each check holds, 1 otherwise.
#[must_use]
pub fn run(args: &DemoArgs, output: Format) -> ExitCode {
    let played = match (&args.chatter, args.stream) {
        (Some(words), _) => Some(chatter::run(words)),
        (None, Some(other)) => Some(stream::run(other)),
        (None, None) => None,
    };
    match played {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(error)) => return fail(output, &error),
        None => {}
    }
    let Guests::Netns = args.guests;
    let said = ClientKind::find().and_then(|client| {
        require(&[Tool::PING, Tool::TCPDUMP])?;
        Ok(client)
    });
    let narrator = report::Narrator::new(output == Format::Table);
    let report = said.map_err(DemoError::from).and_then(|client| {
        let mut report = scenario::play(client, &narrator)?;
        // Guests of a cluster have user ids of their own, which only root can give.
        if rustix::process::geteuid().is_root() {
            let (checks, operations) = cluster::play(&scenario::own_binary()?, &narrator)?;
            report.checks.extend(checks);
            report.operations.extend(operations);
        } else {
            narrator.headline("\nThe second act, a cluster with a warm pool, needs root and is left out.");
        }
        Ok(report)
    });
    let report = match report {
        Ok(report) => report,
        Err(error) => return fail(output, &error),
    };
    let text = if output == Format::Json { report.json() } else { report.table() };
    // A reader that has gone away is no reason to fail.
    let _ = writeln!(io::stdout(), "{text}");
    if report.all_hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(output: Format, error: &DemoError) -> ExitCode {
    let remedy = match error {
        DemoError::Lab(LabError::MissingTool { .. }) => "`make demo` installs what is missing",
        DemoError::Lab(LabError::NoNamespaces { .. } | LabError::NoTun { .. }) => "run it as root",
        _ => "this is a fault of the demonstration or of the switch: please report it with this output",
    };
    let refusal =
        Refusal { what: error.to_string(), place: "shunt demo".to_owned(), remedy: remedy.to_owned() };
    let text = match output {
        // Three strings: this cannot fail.
        Format::Json => serde_json::to_string(&Response::<()>::Error(refusal)).unwrap_or_default(),
        Format::Table => format!("error: {refusal}"),
    };
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::FAILURE
}
