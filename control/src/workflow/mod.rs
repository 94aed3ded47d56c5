//! Journeys: operations made of steps, each with an undo, journaled in the transaction that does it.
//!
//! Managers own their nouns and never call each other; the journeys here compose them. A step acts by rows alone; hosts
//! are driven by what the rows say (`crate::reconcile`). See docs/JOURNEYS.md. Never here: connections, HTTP.

mod engine;
pub mod fail_point;
mod journal;
mod journeys;
mod runner;
mod step;
pub mod tend;
mod world;

pub use engine::{EngineError, run};
pub use fail_point::FailPoint;
pub use journal::{key as operation_key, new as new_operation, prefix as operation_prefix};
pub use journeys::{requests, steps};
pub use runner::{Runner, SubmitError};
pub use step::{Context, Outcome, Step, StepError};
pub use world::{Limits, World};

#[cfg(test)]
mod tests;
