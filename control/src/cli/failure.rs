//! How a command fails: a refusal with its exit code, told as one sentence or as JSON.

use std::io::{self, Write};
use std::process::ExitCode;

use dataplane::ctl::{ClientError, Refusal, Response};

use crate::format::Format;

/// Understood, but refused or failed.
pub(super) const FAILED: u8 = 1;
/// Not understood; nothing was asked.
pub(super) const USAGE: u8 = 2;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// With its exit code.
    Told { code: u8, refusal: Refusal },
    /// Whoever read our output has gone, and has what they wanted: `shunt … | head` is no failure.
    NobodyReads,
}

impl Failure {
    pub(super) const fn failed(refusal: Refusal) -> Self {
        Self::Told { code: FAILED, refusal }
    }

    pub(super) fn usage(
        what: impl Into<String>,
        place: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let refusal = Refusal { what: what.into(), place: place.into(), remedy: remedy.into() };
        Self::Told { code: USAGE, refusal }
    }

    /// What the parser of the command line says, in one sentence.
    pub(super) fn of_arguments(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let what: Vec<&str> = what.trim_start_matches("error: ").split_whitespace().collect();
        let tip = rest.lines().find_map(|line| line.trim().strip_prefix("tip: "));
        Self::usage(what.join(" "), "command line", tip.unwrap_or("see `--help` of the command"))
    }

    pub(super) fn writing(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::NobodyReads;
        }
        Self::failed(Refusal {
            what: format!("cannot write the output: {error}"),
            place: "standard output".into(),
            remedy: "send it elsewhere".into(),
        })
    }

    /// Tells the user, and returns the exit code.
    pub(super) fn tell(&self, format: Format) -> ExitCode {
        let Self::Told { code, refusal } = self else { return ExitCode::SUCCESS };
        let line = match format {
            Format::Table => format!("error: {refusal}"),
            // Three strings: this cannot fail.
            Format::Json => {
                serde_json::to_string(&Response::<()>::Error(refusal.clone())).unwrap_or_default()
            }
        };
        // Standard error may be closed: the exit code still tells.
        let _ = writeln!(io::stderr().lock(), "{line}");
        ExitCode::from(*code)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::failed(error.refusal())
    }
}
