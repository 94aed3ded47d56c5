//! Join tokens: what an operator carries from the controller to a new host, by hand.
//!
//! `shunt-join-` + base64url (no padding) of `{"ca": …, "secret": …, "addresses": […]}`: the authority's certificate (DER,
//! base64url), so that the host verifies the controller before it says the secret; 32 random bytes (base64url); where the
//! controller listens. The controller keeps the secret's SHA-256 only.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::IdentityError;
use super::tls::random;
use crate::model::Problem;

/// What each token begins with, so that it is known for what it is wherever it is found.
pub const PREFIX: &str = "shunt-join-";
/// The longest token, in bytes.
const LONGEST: usize = 16 << 10;
/// The most addresses in a token.
const MOST_ADDRESSES: usize = 16;

/// A token's secret: 256 bits of chance.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// `Crypto` when the machine has no random numbers.
    pub fn new() -> Result<Self, IdentityError> {
        Ok(Self(random()?))
    }

    /// From its bytes; none when there are not 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For the message that redeems it.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The SHA-256 of a [`Secret`]. Comparing takes the same time whatever differs.
#[derive(Debug, Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash([u8; 32]);

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for SecretHash {
    type Error = TokenError;
    fn try_from(text: String) -> Result<Self, TokenError> {
        let refused = || TokenError("a hash has 64 hexadecimal digits".to_owned());
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(refused());
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            let digits = text.get(at..at + 2).ok_or_else(refused)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
        }
        Ok(Self(bytes))
    }
}

/// A text that is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: {0}")]
pub struct TokenError(String);

impl TokenError {
    /// What, where, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(
            self.to_string(),
            "join token",
            "copy the whole line that the controller printed, beginning with `shunt-join-`, or ask for a new token",
        )
    }
}

/// All that a new host needs to join.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// The authority's certificate.
    pub authority: CertificateDer<'static>,
    /// What lets the host in.
    pub secret: Secret,
    /// Where the controller listens: `HOST:PORT`, tried in order.
    pub addresses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    ca: String,
    secret: String,
    addresses: Vec<String>,
}

impl JoinToken {
    /// The text that the operator carries. Whoever has it can join until it is used or expires.
    #[must_use]
    pub fn reveal(&self) -> String {
        let content = Content {
            ca: URL_SAFE_NO_PAD.encode(&self.authority),
            secret: URL_SAFE_NO_PAD.encode(self.secret.0),
            addresses: self.addresses.clone(),
        };
        // Strings always have a JSON form.
        let json = serde_json::to_vec(&content).unwrap_or_default();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        // The text itself is in no error: errors are logged.
        let refused = |why: &str| TokenError(why.to_owned());
        if text.len() > LONGEST {
            return Err(refused("it is too long"));
        }
        let coded = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or_else(|| refused("it does not begin with `shunt-join-`"))?;
        let json =
            URL_SAFE_NO_PAD.decode(coded).map_err(|_| refused("a part of it is missing or changed"))?;
        let content: Content =
            serde_json::from_slice(&json).map_err(|_| refused("a part of it is missing or changed"))?;
        let ca = URL_SAFE_NO_PAD.decode(content.ca).map_err(|_| refused("its certificate is damaged"))?;
        x509_parser::parse_x509_certificate(&ca).map_err(|_| refused("its certificate is damaged"))?;
        let secret = URL_SAFE_NO_PAD.decode(content.secret).ok().and_then(|bytes| Secret::from_bytes(&bytes));
        if content.addresses.is_empty() || content.addresses.len() > MOST_ADDRESSES {
            return Err(refused("it names no controller, or too many"));
        }
        Ok(Self {
            authority: ca.into(),
            secret: secret.ok_or_else(|| refused("its secret is damaged"))?,
            addresses: content.addresses,
        })
    }
}
