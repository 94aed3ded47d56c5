//! Why the networking manager refuses.

use dataplane::types::CustomerIp;

use crate::model::{Moniker, Problem};
use crate::store::{CommitError, DraftError, KeyError, ReadError, rows::RowError};

/// Why something about networks is not done.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No network has this moniker.
    #[error("there is no network with the moniker {0}")]
    NoSuchNetwork(Moniker),
    /// What was asked for makes no sense, or is taken.
    #[error("{0}")]
    Refused(Problem),
    /// All addresses are claimed.
    #[error("network {0} has no free address")]
    Full(Moniker),
    /// Somebody has the address.
    #[error("{ip} of network {network} is taken")]
    Taken {
        /// The network.
        network: Moniker,
        /// The address.
        ip: CustomerIp,
    },
    /// The store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A row cannot be understood.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A mistake of the program.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// A mistake of the program.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl NetworkError {
    /// As it is told to people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::NoSuchNetwork(_) => {
                Problem::new(self.to_string(), "network", "ask for one that `network list` shows")
            }
            Self::Full(_) => {
                Problem::new(self.to_string(), "network", "remove machines from it, or use a larger prefix")
            }
            Self::Taken { .. } => {
                Problem::new(self.to_string(), "address", "choose another, or none: one is then found")
            }
            other => Problem::new(other.to_string(), "store", "try again"),
        }
    }
}
