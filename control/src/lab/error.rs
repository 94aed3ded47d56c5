//! What can go wrong in the laboratory, each with the act that failed.

use std::{io, path::PathBuf, process::ExitStatus};

/// A failure of the laboratory itself (not of what is examined in it).
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program is not installed.
    #[error("`{program}` is missing: install Debian's package {package} (apt-get install {package})")]
    MissingTool {
        /// The program that was looked for in `PATH`.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// The kernel, or our rights, do not allow private namespaces.
    #[error("cannot make private namespaces ({reason}): run as root, or allow user namespaces to this user")]
    NoNamespaces {
        /// What `unshare` or the set-up inside said.
        reason: String,
    },
    /// TAP devices cannot be made here.
    #[error(
        "cannot open /dev/net/tun ({source}): run as root, or give this user read and write access to it"
    )]
    NoTun {
        /// Why.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Spawn {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("`{command}` failed ({status}): {output}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed, standard error last.
        output: String,
    },
    /// A command line of this program refused or failed.
    #[error("{0}")]
    Cli(String),
    /// A condition did not come true.
    #[error("waited {seconds} s in vain for {what}")]
    TimedOut {
        /// The condition.
        what: String,
        /// How long, in seconds.
        seconds: u64,
    },
    /// A file of the laboratory could not be read or written.
    #[error("cannot {act} {}: {source}", path.display())]
    File {
        /// `read`, `write`, `create`…
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program's output has another shape than expected.
    #[error("cannot understand what `{command}` printed ({why}): {output}")]
    Unreadable {
        /// The command line.
        command: String,
        /// What is missing or wrong.
        why: String,
        /// What it printed.
        output: String,
    },
}

impl LabError {
    /// Turns an I/O error at `path` into a sentence.
    pub(crate) fn file(act: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { act, path: path.to_owned(), source }
    }
}
