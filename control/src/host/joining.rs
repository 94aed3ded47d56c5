//! How a host becomes a member of a cluster, and how it knows that it is one.

use std::io;
use std::path::{Path, PathBuf};

use crate::fleet::identity::{Credentials, HostKey, IdentityError, JoinToken};
use crate::fleet::{self, DialError};
use crate::model::{HostId, Name, Problem};

/// Where controllers listen, as the token said: a line each.
const CONTROLLERS: &str = "controllers";

/// What makes a host a member.
#[derive(Debug)]
pub struct Membership {
    /// What it proves itself with.
    pub credentials: Credentials,
    /// Whom it dials.
    pub controllers: Vec<String>,
}

/// Why a host is no member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// It has not joined.
    #[error("this host has not joined a cluster")]
    NotJoined {
        /// Where its identity would be.
        directory: PathBuf,
    },
    /// It has joined before.
    #[error("this host has joined already, as host {0}")]
    Joined(HostId),
    /// It does not know whom to dial.
    #[error("no controller is known")]
    NoController,
    /// Its identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The controller does not let it in.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The addresses cannot be read or written.
    #[error("cannot keep the controllers' addresses: {0}")]
    Addresses(#[from] io::Error),
}

impl MembershipError {
    /// What, where, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (place, remedy) = match self {
            Self::NotJoined { directory } => (
                directory.display().to_string(),
                "get a token from the controller and run `shunt host join --config FILE`",
            ),
            Self::Joined(_) => (
                "identity".to_owned(),
                "leave it as it is; to join another cluster, move the host's state directory away",
            ),
            Self::NoController => ("controllers".to_owned(), "name one in host.toml"),
            Self::Identity(error) => return error.problem(),
            Self::Dial(error) => return error.problem(),
            Self::Addresses(_) => (
                "state directory".to_owned(),
                "let the agent's user write there, and look at the disk's space",
            ),
        };
        Problem::new(self.to_string(), place, remedy)
    }
}

impl Membership {
    /// Reads what joining left in the state directory; `controllers` of the configuration go before the token's.
    ///
    /// # Errors
    /// `NotJoined`; when files cannot be read.
    pub fn load(state_dir: &Path, controllers: Vec<String>) -> Result<Self, MembershipError> {
        let credentials = Credentials::load(state_dir)?
            .ok_or_else(|| MembershipError::NotJoined { directory: state_dir.into() })?;
        let controllers = if controllers.is_empty() {
            match std::fs::read_to_string(state_dir.join(CONTROLLERS)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(MembershipError::NoController);
                }
                text => text?.lines().map(str::to_owned).collect(),
            }
        } else {
            controllers
        };
        Ok(Self { credentials, controllers })
    }
}

/// Joins with a token, and keeps what comes of it in the state directory. An attempt that was cut short may be made again.
///
/// # Errors
/// `Joined` when there is an identity already; why the controller does not let the host in; when files cannot be written.
pub async fn join(state_dir: &Path, token: &JoinToken, name: &Name) -> Result<HostId, MembershipError> {
    if let Some(credentials) = Credentials::load(state_dir)? {
        return Err(MembershipError::Joined(credentials.says().host));
    }
    let key = HostKey::for_joining(state_dir)?;
    // Before the identity: who has that knows whom to dial.
    std::fs::write(state_dir.join(CONTROLLERS), token.addresses.join("\n"))?;
    let credentials = fleet::join(token, name, key).await?;
    credentials.save(state_dir)?;
    Ok(credentials.says().host)
}
