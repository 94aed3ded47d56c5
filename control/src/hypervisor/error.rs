//! What can go wrong with machines, each with the act that failed, and what people are told about it.

use crate::model::{Name, Problem, VmId};
use std::{io, path::Path};
use thiserror::Error;

/// Why a hypervisor did not do what it was asked.
#[derive(Debug, Error)]
pub enum HypervisorError {
    /// There is no such machine here.
    #[error("machine {0} is not on this host")]
    Absent(VmId),
    /// A program is not installed.
    #[error("`{program}` is missing")]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// A program ended badly.
    #[error("`{command}` failed: {output}")]
    Program {
        /// Its command line.
        command: String,
        /// What it printed, or why it could not be started.
        output: String,
    },
    /// A file.
    #[error("cannot {act} {path}: {source}")]
    File {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing to boot.
    #[error("there is no image {image}: {path} holds no `kernel` and `initramfs`")]
    NoImage {
        /// What was asked for.
        image: Name,
        /// Where it was looked for.
        path: String,
    },
    /// A machine's monitor.
    #[error("the monitor of machine {vm} does not do it: {source}")]
    Monitor {
        /// Which.
        vm: VmId,
        /// Why not.
        source: io::Error,
    },
    /// A machine did not come up.
    #[error("machine {vm} did not start: {log}")]
    NotStarted {
        /// Which.
        vm: VmId,
        /// The end of its log.
        log: String,
    },
    /// A machine would not end.
    #[error("machine {0} does not end, not even when killed")]
    Undead(VmId),
    /// The name of the port is in use.
    #[error("the network namespace {0} is there already and is no guest's")]
    NamespaceTaken(String),
    /// A specification that cannot be.
    #[error("{0}")]
    Unfit(String),
}

impl HypervisorError {
    pub(super) fn file(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::File { act, path, source }
    }

    /// What people are told.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let remedy = match self {
            Self::Absent(_) => "make it first".to_owned(),
            Self::MissingProgram { package, .. } => format!("install Debian's package {package}"),
            Self::Program { .. } => {
                "see what the program says; the host agent needs root's rights".to_owned()
            }
            Self::File { .. } => "see that the directory is the host agent's own and not full".to_owned(),
            Self::NoImage { image, .. } => {
                format!("build it (images/{image}/build) into the directory that `images` in host.toml names")
            }
            Self::Monitor { .. } => "look at the machine's log; it may hang, and can be stopped".to_owned(),
            Self::NotStarted { .. } => {
                "see what its log says; guests of kind netns need a kernel that allows user namespaces (user.max_user_namespaces)"
                    .to_owned()
            }
            Self::Undead(_) => "look at the process in /proc: it hangs in the kernel".to_owned(),
            Self::NamespaceTaken(name) => format!("remove it (ip netns delete {name}) or use another name"),
            Self::Unfit(_) => "correct it".to_owned(),
        };
        Problem::new(self.to_string(), "hypervisor", remedy)
    }
}
