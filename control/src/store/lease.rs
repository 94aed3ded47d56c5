//! Leases: who may act for a while, decided by compare-and-set, with the time as an argument.
//!
//! Clocks of several machines differ, so a lease alone protects nothing: whoever writes under one adds
//! [`Lease::guard`] to the transaction, and the store then refuses it once anybody else has taken over. Renewing does
//! not disturb transactions that are under way, because the guard is a row that only a change of holder writes. Never
//! here: a clock, a timer, etcd's own leases (which expire by etcd's clock, and would not run on the other engines).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rows::{self, Row, RowError, Versioned};
use super::{Draft, Key, KeyError, Revision, Store};

/// Who holds it, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holding {
    holder: String,
    until: Timestamp,
    term: u64,
}

impl Row for Holding {
    const KIND: &'static str = "lease";
    const SCHEMA: u32 = 1;
}

/// Written only when the holder changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Term {
    holder: String,
    term: u64,
}

impl Row for Term {
    const KIND: &'static str = "lease-term";
    const SCHEMA: u32 = 1;
}

/// A lease that is held, as of the last acquiring or renewing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    name: String,
    holder: String,
    until: Timestamp,
    term: u64,
    guard: (Key, Revision),
}

/// What came of asking for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Held(Lease),
    /// It is somebody else's.
    Taken {
        /// Whose.
        holder: String,
        /// When asking again may help.
        until: Timestamp,
    },
}

/// Why nothing is known about a lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The name is no segment of a key.
    #[error("a lease cannot have this name: {0}")]
    Name(#[from] KeyError),
    /// The store or a row could not be read or written.
    #[error(transparent)]
    Rows(#[from] RowError),
}

impl Lease {
    /// When it ends unless it is renewed.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// How often the holder has changed, this time included: grows, so it can fence things outside of the store.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Makes a transaction fail once somebody else has the lease.
    pub fn guard(&self, draft: &mut Draft) {
        draft.require(&self.guard.0, self.guard.1);
    }
}

/// Takes the lease for `ttl` if it is free, expired at `now`, or ours already (then it is renewed).
///
/// `holder` must be another one for each process, and after each restart: it is what tells "ours" from "theirs".
///
/// # Errors
/// When the name is no segment of a key, or the store fails.
pub async fn acquire(
    store: &dyn Store,
    name: &str,
    holder: &str,
    now: Timestamp,
    ttl: Duration,
) -> Result<Acquired, LeaseError> {
    let keys = Keys::of(name)?;
    loop {
        let holding = rows::load::<Holding>(store, &keys.holding).await?;
        let term = rows::load::<Term>(store, &keys.term).await?;
        match (&holding, &term) {
            (Some(held), Some(term)) if held.row.holder == holder && term.row.term == held.row.term => {
                let until = held.row.until.max(after(now, ttl));
                let mut draft = Draft::new();
                draft.unchanged(term).replace(held, &Holding { until, ..held.row.clone() });
                if committed(store, draft).await?.is_some() {
                    return Ok(Acquired::Held(keys.lease(name, holder, until, term)));
                }
            }
            (Some(held), _) if now < held.row.until => {
                let Holding { holder, until, .. } = held.row.clone();
                return Ok(Acquired::Taken { holder, until });
            }
            _ => {
                let (number, until) = (term.as_ref().map_or(0, |term| term.row.term) + 1, after(now, ttl));
                let next = Term { holder: holder.into(), term: number };
                let mut draft = Draft::new();
                put(
                    &mut draft,
                    &keys.holding,
                    holding.as_ref(),
                    &Holding { holder: holder.into(), until, term: number },
                );
                put(&mut draft, &keys.term, term.as_ref(), &next);
                if let Some(revision) = committed(store, draft).await? {
                    let term = Versioned { key: keys.term.clone(), row: next, revision };
                    return Ok(Acquired::Held(keys.lease(name, holder, until, &term)));
                }
            }
        }
        // Somebody was faster, and has therefore got on: this ends.
    }
}

/// Makes the lease last until `ttl` after `now`, never shorter than it does; `None` when it is somebody else's by now.
/// An expired lease that nobody has taken is still ours.
///
/// # Errors
/// When the store fails.
pub async fn renew(
    store: &dyn Store,
    lease: &Lease,
    now: Timestamp,
    ttl: Duration,
) -> Result<Option<Lease>, LeaseError> {
    let keys = Keys::of(&lease.name)?;
    loop {
        let Some(held) = rows::load::<Holding>(store, &keys.holding).await? else { return Ok(None) };
        if held.row.holder != lease.holder || held.row.term != lease.term {
            return Ok(None);
        }
        let until = held.row.until.max(after(now, ttl));
        let mut draft = Draft::new();
        lease.guard(&mut draft);
        draft.replace(&held, &Holding { until, ..held.row.clone() });
        if committed(store, draft).await?.is_some() {
            return Ok(Some(Lease { until, ..lease.clone() }));
        }
    }
}

/// Gives the lease back, so that nobody has to wait for its end. Nothing happens when it is somebody else's by now.
///
/// # Errors
/// When the store fails.
pub async fn release(store: &dyn Store, lease: &Lease) -> Result<(), LeaseError> {
    let keys = Keys::of(&lease.name)?;
    loop {
        let Some(held) = rows::load::<Holding>(store, &keys.holding).await? else { return Ok(()) };
        let Some(term) = rows::load::<Term>(store, &keys.term).await? else { return Ok(()) };
        if held.row.term != lease.term || held.row.holder != lease.holder {
            return Ok(());
        }
        let mut draft = Draft::new();
        // The term stays, so that it never counts down, but is written: what is under way under the lease must not
        // happen after it was given back.
        draft.remove(&held).replace(&term, &term.row);
        if committed(store, draft).await?.is_some() {
            return Ok(());
        }
    }
}

struct Keys {
    holding: Key,
    term: Key,
}

impl Keys {
    fn of(name: &str) -> Result<Self, KeyError> {
        Ok(Self { holding: Key::of([Holding::KIND, name])?, term: Key::of([Term::KIND, name])? })
    }

    fn lease(self, name: &str, holder: &str, until: Timestamp, term: &Versioned<Term>) -> Lease {
        let guard = (self.term, term.revision);
        Lease { name: name.into(), holder: holder.into(), until, term: term.row.term, guard }
    }
}

fn put<T: Row>(draft: &mut Draft, key: &Key, read: Option<&Versioned<T>>, row: &T) {
    match read {
        Some(read) => draft.replace(read, row),
        None => draft.create(key, row),
    };
}

/// The revision; `None` for a conflict.
async fn committed(store: &dyn Store, draft: Draft) -> Result<Option<Revision>, LeaseError> {
    match draft.commit(store).await {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.is_conflict() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Far times are as good as the last one there is.
fn after(now: Timestamp, ttl: Duration) -> Timestamp {
    now.checked_add(ttl).unwrap_or(Timestamp::MAX)
}
