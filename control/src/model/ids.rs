//! Ids: UUIDs of version 7, so that rows of one kind lie in the order in which they were made; one type for each noun, so
//! that mixing them up does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the id of a {kind}: a UUID is expected")]
pub struct IdError {
    kind: &'static str,
    text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])+ $name:ident, $kind:literal;)+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one: time first, then chance.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "each call makes another one")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The one that is always the same: for the platform's own rows.
            #[must_use]
            pub const fn fixed(number: u128) -> Self {
                Self(Uuid::from_u128(number))
            }

            /// As a UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, "/{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let id = Uuid::try_parse(text);
                id.map(Self).map_err(|_| IdError { kind: $kind, text: text.chars().take(64).collect() })
            }
        }
    )+};
}

ids! {
    /// A tenant.
    TenantId, "tenant";
    /// A bearer token's row; never the secret.
    TokenId, "token";
    /// A virtual network.
    NetworkId, "network";
    /// A pool.
    PoolId, "pool";
    /// A virtual machine; the same over its whole life, in the pool and at the customer's.
    VmId, "vm";
    /// A virtual machine's interface.
    NicId, "nic";
    /// A disk.
    DiskId, "disk";
    /// A host.
    HostId, "host";
    /// An operation.
    OperationId, "operation";
}
