//! Between rows and hosts: what rows mean for each host is put onto the boards that sessions are served from, and what hosts
//! say becomes rows.
//!
//! Never here: decisions about machines (those are journeys'), connections (those are `fleet`'s).

mod enrol;
mod feeder;
mod hearing;
mod render;

pub use enrol::{StoredEnrolment, expiry};
pub use feeder::{FeedError, Feeder};
pub use hearing::{Hearing, follow_progress};
pub use render::{RenderError, machine};

#[cfg(test)]
mod tests;
