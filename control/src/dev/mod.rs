//! `shunt dev`: a cluster on one machine, to try it.

mod stage;

pub use stage::{API, Stage, StageHost};
