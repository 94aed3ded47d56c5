//! The metadata service of a host: HTTP over the connections that the switch hands over on a Unix socket.
//!
//! Who asks is told by the switch in one line before the guest's first byte: the port, and the label that the port had when
//! its configuration became valid. Documents are kept by both, so what a guest reads changes with its network, in one step.
//! A guest cannot say who it is, only what it wants.
//!
//! Rooms: `documents` (what is published, and who waits for it), `preamble` (the switch's line), `limits` (what one port
//! may use), `routes` (requests and answers), `report` (what guests say, field by field), `instance` (the other document),
//! `server` (the socket). Never here: what a configuration contains, or what a report leads to.

mod documents;
mod instance;
mod limits;
mod preamble;
mod report;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use documents::{Document, Documents};
pub use instance::{Interface, instance};
pub use limits::Limits;
pub use report::Received;
pub use server::{Imds, ImdsError};
