//! What a step of a journey is.
//!
//! A step acts on the outside by rows alone: it says what is to be written, and the engine commits that together with the
//! journal, so that no step is ever done without its record nor recorded without being done. What hosts and guests then do
//! is waited for by another step, which looks at rows too. So every step may be begun again at any time.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::model::{JourneyKind, Operation, Problem};
use crate::network::NetworkError;
use crate::store::{CommitError, Draft, DraftError, KeyError, Prefix, ReadError, rows::RowError};

use super::World;

/// A step's view: the world, and the operation that it belongs to.
pub struct Context<'a> {
    /// Store, time, limits.
    pub world: &'a World,
    /// The operation, as it was read last. A step may change its `memory` and `vm`; the engine writes it.
    pub operation: &'a mut Operation,
    /// When this step began, for those that wait.
    pub began: Timestamp,
}

impl Context<'_> {
    /// What is left of a step's time; `None` when it is over.
    #[must_use]
    pub fn left(&self, limit: Duration) -> Option<Duration> {
        let passed = self.world.now().duration_since(self.began).unsigned_abs();
        limit.checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// Until when the use of a machine is watched that is handed over now.
    #[must_use]
    pub fn watched_until(&self) -> Option<Timestamp> {
        self.world.now().checked_add(self.world.limits().watch).ok()
    }
}

/// What has come of a step.
#[derive(Debug)]
pub enum Outcome {
    /// Commit this, and the step is done.
    Done(Draft),
    /// Commit this, and begin the step again: it has tried something and looks what comes of it.
    Again(Draft),
    /// It is not yet as the step wants it: look again when something changes below one of these prefixes, and at the latest
    /// after so long.
    Wait(Vec<Prefix>, Duration),
    /// Commit this, and go on with another journey from its first step.
    Instead(JourneyKind, Draft),
}

/// Why a step is not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It cannot be done; what was done before it is to be undone.
    #[error("{0}")]
    Refused(Problem),
    /// The store did not do its part; the step is tried again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// As above.
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

impl From<NetworkError> for StepError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Read(error) => Self::Read(error),
            NetworkError::Commit(error) => Self::Commit(error),
            NetworkError::Row(error) => Self::Row(error),
            NetworkError::Draft(error) => Self::Draft(error),
            NetworkError::Key(error) => Self::Key(error),
            other => Self::Refused(other.problem()),
        }
    }
}

impl StepError {
    /// Somebody else was faster: the step is put together anew.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Commit(error) => error.is_conflict(),
            Self::Row(error) => error.is_conflict(),
            _ => false,
        }
    }

    /// A refusal of these sentences.
    pub fn refused(what: impl Into<String>, place: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused(Problem::new(what, place, remedy))
    }
}

/// One step of a journey.
#[async_trait]
pub trait Step: Send + Sync {
    /// Its name in journal, timeline and fail points; unique in its journey.
    fn name(&self) -> &'static str;

    /// Does it, or says what it waits for.
    ///
    /// # Errors
    /// When it cannot be done.
    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError>;

    /// Takes it back: `None` where there is nothing to take back.
    ///
    /// # Errors
    /// When the store fails; it is tried again.
    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError>;

    /// True for the step from which on a journey goes only forward.
    fn is_point_of_no_return(&self) -> bool {
        false
    }
}
