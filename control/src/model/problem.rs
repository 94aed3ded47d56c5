//! Why something failed, as it is kept in rows and told to people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, without a full stop.
    pub what: String,
    /// Where: a field, a machine, a host; may be empty.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem of these three sentences.
    pub fn new(what: impl Into<String>, place: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), place: place.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, place, remedy } = self;
        if place.is_empty() { write!(f, "{what}; {remedy}") } else { write!(f, "{place}: {what}; {remedy}") }
    }
}
