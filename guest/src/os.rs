//! What the agent does to a system, as a trait: Linux is the first, an extension for systems that are set up only once
//! is to be another. Never here: when it is done.

use crate::config::{FileConfig, UserConfig};
use std::{io, time::Duration};
use thiserror::Error;

/// Why a system would not be changed.
#[derive(Debug, Error)]
pub enum OsError {
    /// A file or directory.
    #[error("cannot {act} {path}: {source}")]
    File {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A call of the kernel.
    #[error("cannot {act}: {source}")]
    Call {
        /// What was tried.
        act: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Something that is not as it has to be.
    #[error("{0}")]
    Unfit(String),
}

impl OsError {
    pub(crate) fn file(act: &'static str, path: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_string();
        move |source| Self::File { act, path, source }
    }

    pub(crate) fn call(act: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Call { act, source: errno.into() }
    }
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptEnd {
    /// With status 0.
    Well,
    /// With something else; its last words.
    Badly {
        /// Exit status or signal, in words.
        how: String,
        /// The end of what it printed.
        output: String,
    },
    /// Not at all within its time; it and its process group were killed.
    Late {
        /// The end of what it printed.
        output: String,
    },
}

/// A system that can be configured. Each act may be repeated: the second time changes nothing.
pub trait Os: Send + Sync {
    /// One life of the machine.
    ///
    /// # Errors
    /// `File` when the system does not tell.
    fn boot_id(&self) -> Result<String, OsError>;

    /// The machine name in force.
    fn hostname(&self) -> Option<String>;

    /// Gives the machine its name, at once and for later.
    ///
    /// # Errors
    /// `File`, `Call`.
    fn set_hostname(&self, name: &str) -> Result<(), OsError>;

    /// Makes a user, or sets the password and adds the keys of one that is there.
    ///
    /// # Errors
    /// `File`; `Unfit` when what is there is not a user's.
    fn set_user(&self, user: &UserConfig) -> Result<(), OsError>;

    /// Sets the time zone.
    ///
    /// # Errors
    /// `Unfit` when the system does not know the zone; `File`.
    fn set_time_zone(&self, zone: &str) -> Result<(), OsError>;

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// `File`; `Unfit` for what [`crate::config::GuestConfig::check`] would have refused.
    fn write_file(&self, file: &FileConfig) -> Result<(), OsError>;

    /// Runs the customer's script to its end or to the end of its time.
    ///
    /// # Errors
    /// `File`, `Call` when it could not be started.
    fn run_script(&self, script: &str, generation: u64, limit: Duration) -> Result<ScriptEnd, OsError>;

    /// The link went down: whatever the lease said is over.
    fn release_lease(&self);

    /// The link came up: ask for a lease, where the system does not by itself.
    fn renew_lease(&self);
}
