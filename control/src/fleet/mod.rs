//! The controller's side of the link to its hosts: who may join, who is there, what each is sent and what came back.
//!
//! Hosts dial; each has one stream. What a host should hold and what its directories are comes from two traits
//! ([`DesiredSource`], [`DirectorySource`]) and is *pulled*: a session keeps a cursor and asks for the next part when there is
//! room to send it, so a host costs the same memory however slow it is, and nobody waits for anybody else.
//! Never here: rows, decisions about machines, the host's side of the work (that is `host`).

pub mod codec;
mod desired_board;
mod dial;
mod directory_board;

pub mod enrolment;
pub mod identity;
mod listener;
mod presence;
pub mod proto;
#[cfg(test)]
pub(crate) mod samples;
mod server;
mod session;
mod source;

pub use desired_board::DesiredBoard;
pub use dial::{DialError, dial, join, renew};
pub use directory_board::DirectoryBoard;
pub use presence::{HostStatus, Presence};
pub use server::{Fleet, FleetServer};
pub use session::{IN_FLIGHT, MOST_NETWORKS, Pace};
pub use source::{
    Changes, DesiredChange, DesiredSource, DirectoryEntry, DirectorySource, HostSink, Page, SourceError,
};

#[cfg(test)]
mod tests;
