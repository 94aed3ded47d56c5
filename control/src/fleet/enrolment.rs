//! Who may join, and who still belongs: the rules as pure functions over one row per token, the trait that a session asks,
//! and an implementation in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::identity::SecretHash;
use crate::model::{HostId, Name, Problem};

/// What is kept of a join token; never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The SHA-256 of its secret.
    pub hash: SecretHash,
    /// The only name that a host can join under with it; absent: any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// From then on it lets nobody in.
    pub expires_at: Timestamp,
    /// Who has joined with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
}

/// Who has joined with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The host.
    pub host: HostId,
    /// Under which name.
    pub name: Name,
    /// The SHA-256 of its certificate request's public key.
    pub key: KeyHash,
}

/// The SHA-256 of a public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHash(String);

impl KeyHash {
    /// Of a public key's bytes.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What a host says when it wants to join.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The hash of the secret that it has.
    pub secret: SecretHash,
    /// What it wants to be called.
    pub name: Name,
    /// Its key.
    pub key: KeyHash,
    /// When.
    pub at: Timestamp,
}

/// What a token gives to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// A new host, or an old one of that name anew.
    Join,
    /// The answer that this very host was given already and did not get.
    Again(HostId),
}

/// Why a host is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// No token has that secret.
    #[error("the join token is not known")]
    Unknown,
    /// The token's time is over.
    #[error("the join token has expired")]
    Expired,
    /// Another key has joined with it.
    #[error("the join token was used already")]
    Used,
    /// The token is for a host of another name.
    #[error("the join token is for a host of another name")]
    OtherName,
    /// A host of that name is there, and the token is not for it.
    #[error("a host named {0} has joined already")]
    NameTaken(Name),
    /// It could not be looked up or written down.
    #[error("the controller cannot keep the host: {0}")]
    Store(String),
}

impl EnrolmentError {
    /// What, where, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (place, remedy) = match self {
            Self::Unknown | Self::Expired | Self::Used => {
                ("join token", "ask the controller for a new token")
            }
            Self::OtherName => {
                ("name", "use the name that the token was made for, or ask for a token for this one")
            }
            Self::NameTaken(_) => {
                ("name", "choose another name, or ask for a token that is made for this one")
            }
            Self::Store(_) => ("controller", "look at the controller's log, and try again"),
        };
        Problem::new(self.to_string(), place, remedy)
    }
}

impl TokenRow {
    /// Judges a claim whose secret has this token's hash. Whether the name is free is another question.
    ///
    /// # Errors
    /// `Expired`, `Used`, `OtherName`.
    pub fn judge(&self, claim: &Claim) -> Result<Admission, EnrolmentError> {
        if claim.at >= self.expires_at {
            return Err(EnrolmentError::Expired);
        }
        if let Some(used) = &self.used {
            // An answer that got lost is given again, to the same key and nobody else.
            let again = used.key == claim.key && used.name == claim.name;
            return if again { Ok(Admission::Again(used.host)) } else { Err(EnrolmentError::Used) };
        }
        match &self.name {
            Some(name) if *name != claim.name => Err(EnrolmentError::OtherName),
            _ => Ok(Admission::Join),
        }
    }
}

/// What a session asks about hosts.
#[async_trait]
pub trait Enrolment: Send + Sync + 'static {
    /// Lets a host in once: durable when this returns. A host that joins anew under a name that it has, with a token made
    /// for that name, keeps its id.
    ///
    /// # Errors
    /// Why not.
    async fn redeem(&self, claim: Claim) -> Result<HostId, EnrolmentError>;

    /// Whether a host with a certificate that still holds belongs to the cluster: one that was removed does not.
    ///
    /// # Errors
    /// `Store`.
    async fn admits(&self, host: HostId) -> Result<bool, EnrolmentError>;
}

/// An [`Enrolment`] that forgets with its process.
#[derive(Debug, Default)]
pub struct MemoryEnrolment(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    tokens: Vec<TokenRow>,
    hosts: BTreeMap<Name, HostId>,
}

impl MemoryEnrolment {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a token.
    pub fn issue(&self, token: TokenRow) {
        self.book().tokens.push(token);
    }

    /// Removes a host: its certificate is worth nothing from then on.
    pub fn remove(&self, name: &Name) {
        self.book().hosts.remove(name);
    }
}

#[async_trait]
impl Enrolment for MemoryEnrolment {
    async fn redeem(&self, claim: Claim) -> Result<HostId, EnrolmentError> {
        let book = &mut *self.book();
        let token = book.tokens.iter_mut().find(|token| token.hash == claim.secret);
        let token = token.ok_or(EnrolmentError::Unknown)?;
        if let Admission::Again(host) = token.judge(&claim)? {
            return Ok(host);
        }
        let host = match book.hosts.get(&claim.name) {
            Some(_) if token.name.is_none() => return Err(EnrolmentError::NameTaken(claim.name)),
            Some(host) => *host,
            None => HostId::new(),
        };
        book.hosts.insert(claim.name.clone(), host);
        token.used = Some(Used { host, name: claim.name, key: claim.key });
        Ok(host)
    }

    async fn admits(&self, host: HostId) -> Result<bool, EnrolmentError> {
        Ok(self.book().hosts.values().any(|known| *known == host))
    }
}
