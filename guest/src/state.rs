//! What the agent remembers over a restart: one small file, replaced as a whole.
//!
//! A file that cannot be read counts as absent: then a configuration is applied once more, its script included. That is better
//! than an agent that never starts again.

use crate::{linux::Tree, os::OsError};
use serde::{Deserialize, Serialize};

/// Where it is kept, below the root.
pub const PATH: &str = "/var/lib/shunt-guest/state.json";

/// What was done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The VM that this is about.
    pub vm_id: String,
    /// The last generation that was applied, well or badly.
    pub applied: Option<Applied>,
    /// The last generation whose script was started.
    pub script_started: Option<u64>,
}

/// A generation that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Which.
    pub generation: u64,
    /// Was it the placeholder's?
    pub partial: bool,
    /// What failed, if something did.
    pub failure: Option<String>,
    /// Has the host taken the report?
    pub reported: bool,
}

impl State {
    /// Reads what is kept.
    #[must_use]
    pub fn load(tree: &Tree) -> Self {
        tree.read(PATH, 1 << 16)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Keeps it.
    ///
    /// # Errors
    /// `File`.
    pub fn save(&self, tree: &Tree) -> Result<(), OsError> {
        let bytes = serde_json::to_vec(self).map_err(|error| OsError::Unfit(error.to_string()))?;
        tree.replace(PATH, &bytes, 0o600)
    }
}
