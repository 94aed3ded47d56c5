//! Making a thing once, however often the request arrives: the idempotency key is a row of the transaction that makes it.
//!
//! (Operations have the same in their own submission.)

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ApiError;
use crate::model::TenantId;
use crate::store::rows::{self, Row};
use crate::store::{Draft, Key, Prefix, Store};

/// How long a key is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// How many other keys are looked at when one is noted: more than one, so that they become fewer.
const SWEPT: usize = 4;

/// What a key became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    request: String,
    id: Uuid,
    at: jiff::Timestamp,
}

impl Row for Made {
    const KIND: &'static str = "made";
    const SCHEMA: u32 = 1;
}

/// A request that came with a key.
pub(super) struct Once {
    owner: TenantId,
    place: Option<Key>,
    request: String,
}

impl Once {
    /// What came: whose key, for which kind of thing, with which body.
    ///
    /// # Errors
    /// Never with real ids.
    pub(super) fn new(
        owner: TenantId,
        key: Option<&str>,
        kind: &str,
        body: &impl Serialize,
    ) -> Result<Self, ApiError> {
        // Keys are the callers' words: only their hash becomes part of a name.
        let print = |text: &str| format!("{:x}", Sha256::digest(text));
        let place = key.map(|key| Key::of([Made::KIND, &owner.to_string(), &print(key)])).transpose()?;
        let body = serde_json::to_string(body).map_err(|error| ApiError::internal(&error))?;
        Ok(Self { owner, place, request: print(&format!("{kind} {body}")) })
    }

    /// The thing that this request has made before.
    ///
    /// # Errors
    /// `key-reused` when the key came with another request, or the store's.
    pub(super) async fn before(&self, store: &dyn Store) -> Result<Option<Uuid>, ApiError> {
        let Some(place) = &self.place else { return Ok(None) };
        match rows::load::<Made>(store, place).await? {
            None => Ok(None),
            Some(made) if made.row.request == self.request => Ok(Some(made.row.id)),
            Some(_) => Err(ApiError::key_reused()),
        }
    }

    /// Adds to the transaction that makes the thing that this request has made it, and forgets some keys of long ago:
    /// whoever uses many pays for their removal.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn note(
        &self,
        store: &dyn Store,
        draft: &mut Draft,
        id: Uuid,
        now: jiff::Timestamp,
    ) -> Result<(), ApiError> {
        let Some(place) = &self.place else { return Ok(()) };
        draft.create(place, &Made { request: self.request.clone(), id, at: now });
        let owner = self.owner.to_string();
        // Keys lie in the order of their hashes: any place among them is as good as another.
        let after = Key::of([Made::KIND, &owner, &Uuid::new_v4().simple().to_string()])?;
        let prefix = Prefix::of([Made::KIND, &owner])?;
        for made in rows::list::<Made>(store, &prefix, Some(&after), SWEPT).await?.rows {
            if made.key != *place && now.duration_since(made.row.at).unsigned_abs() > REMEMBERED {
                draft.remove(&made);
            }
        }
        Ok(())
    }
}
