//! Why a store file is not opened, each with its place and its remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot be opened. The file is left byte for byte as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process{} uses this store", holder.map(|pid| format!(" ({pid})")).unwrap_or_default())]
    Locked {
        /// The file.
        file: PathBuf,
        /// Its process id, if known.
        holder: Option<u32>,
    },
    /// The kernel does not let us at the file or its directory.
    #[error("cannot open the store: {source}")]
    Open {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Content that cannot be trusted.
    #[error("the store is corrupt: {detail}")]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Written by a newer version.
    #[error("the store has schema {found}, and this program knows schema {known}")]
    Schema {
        /// The file.
        file: PathBuf,
        /// The file's.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// A new file cannot be made, or an accepted one cannot be written.
    #[error("cannot write the store: {detail}")]
    Write {
        /// The file.
        file: PathBuf,
        /// What the database said.
        detail: String,
    },
}

impl OpenError {
    /// The file.
    #[must_use]
    pub fn place(&self) -> &Path {
        match self {
            Self::Locked { file, .. }
            | Self::Open { file, .. }
            | Self::Corrupt { file, .. }
            | Self::Schema { file, .. }
            | Self::Write { file, .. } => file,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "stop the other controller first, or name another file",
            Self::Open { .. } => "run as the user who owns the file, and check that its directory exists",
            Self::Corrupt { .. } => "restore it from a backup, or move it away to start with an empty store",
            Self::Schema { .. } => "start the version of shunt that wrote it, or restore an older backup",
            Self::Write { .. } => "check the disk's free space and health, then start again",
        }
    }
}

/// What an error of the database means while the file is opened.
pub(super) fn opening(file: &Path, error: redb::Error) -> OpenError {
    let file = file.to_path_buf();
    match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::Locked { file, holder: None },
        redb::Error::Io(source) if means_corrupt(&source) => {
            OpenError::Corrupt { file, detail: source.to_string() }
        }
        redb::Error::Io(source) => OpenError::Open { file, source },
        redb::Error::Corrupted(detail) => OpenError::Corrupt { file, detail },
        redb::Error::UpgradeRequired(format) => {
            OpenError::Corrupt { file, detail: format!("it has the old database format {format}") }
        }
        redb::Error::TableDoesNotExist(table) => {
            OpenError::Corrupt { file, detail: format!("its table `{table}` is missing") }
        }
        other => OpenError::Corrupt { file, detail: other.to_string() },
    }
}

/// The database tells foreign and truncated files by these kinds of I/O error.
fn means_corrupt(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
    )
}
