//! What can go wrong with state on disk, each with its place and its remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why the state cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory cannot be made or entered.
    #[error("cannot use the state directory: {source}")]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another switch runs on this directory.
    #[error("another switch{} uses this state directory", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Its process id, if known.
        holder: Option<u32>,
    },
    /// The kernel does not let us at the file.
    #[error("cannot open the state file: {source}")]
    Open {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Content that cannot be trusted. The file is left as it is.
    #[error("the state file is corrupt: {detail}")]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Written by another version of the switch. The file is left as it is.
    #[error("the state file has schema {found}, and this switch knows schema {known}")]
    Schema {
        /// The file.
        file: PathBuf,
        /// The file's.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// A read failed while the switch ran.
    #[error("cannot read the state file: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A write failed; nothing was changed.
    #[error("cannot write the state file: {source}")]
    Write {
        /// The file.
        file: PathBuf,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
}

impl StateError {
    /// The file or directory.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Dir { dir, .. } | Self::Locked { dir, .. } => dir.display().to_string(),
            Self::Open { file, .. }
            | Self::Corrupt { file, .. }
            | Self::Schema { file, .. }
            | Self::Read { file, .. }
            | Self::Write { file, .. } => file.display().to_string(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Dir { .. } => "name another directory with `state_dir`, or run as a user who may write there".into(),
            Self::Locked { .. } => "stop it first, or give this switch a `state_dir` of its own".into(),
            Self::Open { .. } => "run as the user who owns the file".into(),
            Self::Corrupt { .. } => {
                "restore it from a backup, or start once with --discard-state, which keeps it aside and starts empty"
                    .into()
            }
            Self::Schema { .. } => "start the version of shunt that wrote it, or start once with --discard-state, \
                                    which keeps it aside and starts empty"
                .into(),
            Self::Read { .. } => "restart the switch, and check the disk".into(),
            Self::Write { .. } => "check the disk's free space and health, then try again".into(),
        }
    }
}

/// An error of opening the database file.
pub(super) fn opening(file: &Path, error: redb::DatabaseError) -> StateError {
    match redb::Error::from(error) {
        redb::Error::Io(source) if !means_corrupt(&source) => StateError::Open { file: file.into(), source },
        other => corrupt_or(file, other, |file, source| StateError::Read { file, source: Box::new(source) }),
    }
}

/// An error of reading rows of an open database.
pub(super) fn reading(file: &Path, error: redb::Error) -> StateError {
    corrupt_or(file, error, |file, source| StateError::Read { file, source: Box::new(source) })
}

/// An error of writing.
pub(super) fn writing(file: &Path, error: redb::Error) -> StateError {
    StateError::Write { file: file.into(), source: Box::new(error) }
}

/// A row that is no value of its type.
pub(super) fn bad_row(file: &Path, detail: String) -> StateError {
    StateError::Corrupt { file: file.into(), detail }
}

fn corrupt_or(
    file: &Path,
    error: redb::Error,
    otherwise: impl FnOnce(PathBuf, redb::Error) -> StateError,
) -> StateError {
    let file = file.to_path_buf();
    match error {
        redb::Error::Corrupted(detail) => StateError::Corrupt { file, detail },
        redb::Error::Io(source) if means_corrupt(&source) => {
            StateError::Corrupt { file, detail: source.to_string() }
        }
        redb::Error::UpgradeRequired(format) => {
            StateError::Corrupt { file, detail: format!("it has the old database format {format}") }
        }
        redb::Error::TableDoesNotExist(table) => {
            StateError::Corrupt { file, detail: format!("its table `{table}` is missing") }
        }
        other @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => {
            StateError::Corrupt { file, detail: other.to_string() }
        }
        other => otherwise(file, other),
    }
}

/// The database tells foreign and truncated files by these kinds of I/O error.
fn means_corrupt(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
    )
}
