//! The switch's doors: the local socket's protocol, its server and its client, and the metrics page.
//!
//! One line of JSON asks, one line answers, in order; `docs/PROTOCOLS.md` tells the same in prose. Everything that a
//! client may ask is one method of [`Switch`](crate::switch::Switch). Never here: decisions about packets or documents.

pub mod client;
pub mod metrics;
mod packed;
pub mod protocol;
mod rules;
pub mod server;
mod session;
mod timestamp;

pub use client::{Client, ClientError};
pub use protocol::{Refusal, Request, Response};
pub use server::{DoorError, Server};
