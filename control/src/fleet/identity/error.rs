//! Why somebody has no identity.

use std::{io, path::PathBuf};

use crate::model::Problem;

/// Why a key, a certificate or a file of them cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory cannot be read, written or made.
    #[error("cannot {act}: {source}")]
    File {
        /// What was tried.
        act: &'static str,
        /// With which file.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others may read a file with a key in it.
    #[error("its mode is {mode:04o}: others than its owner may read the key in it")]
    Exposed {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("it is not understood: {why}")]
    Garbled {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key could not be made, or something could not be signed.
    #[error("cannot {act}: {why}")]
    Crypto {
        /// What was tried.
        act: &'static str,
        /// What the library said.
        why: String,
    },
    /// The request for a certificate is not one.
    #[error("the certificate request is refused: {why}")]
    Request {
        /// Why.
        why: String,
    },
    /// A certificate does not say which host it is for.
    #[error("the certificate is not a host's: {why}")]
    Certificate {
        /// What is wrong with it.
        why: String,
    },
}

impl IdentityError {
    /// What, where, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (place, remedy) = match self {
            Self::File { file, .. } => {
                (file.display().to_string(), "let the program's user read and write its state directory")
            }
            Self::Exposed { file, .. } => (
                file.display().to_string(),
                "run `chmod 600` on it; if somebody may have read it, replace it and let the hosts join anew",
            ),
            Self::Garbled { file, .. } => (file.display().to_string(), "put it back from a backup"),
            Self::Crypto { .. } => ("process".to_owned(), "look at the machine's random numbers and clock"),
            Self::Request { .. } => ("certificate request".to_owned(), "let the host make a new one"),
            Self::Certificate { .. } => ("client certificate".to_owned(), "let the host join anew"),
        };
        Problem::new(self.to_string(), place, remedy)
    }
}

pub(super) fn crypto(act: &'static str) -> impl Fn(rcgen::Error) -> IdentityError {
    move |error| IdentityError::Crypto { act, why: error.to_string() }
}
