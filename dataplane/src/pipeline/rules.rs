//! The rules' stage: may this packet of this port pass?
//!
//! There are no rules yet, so everything passes. The stage already stands at every place where a packet enters or
//! leaves a port, with what stateful rules need: the port (whose rules and connections they are), the direction, all
//! headers (addresses, ports, TCP flags, fragment state) and the time, and it may refuse by name. A packet between two
//! ports of one host is judged twice: as the sender's outgoing and as the receiver's incoming one.

use super::Context;
use super::drops::DropReason;
use crate::tables::Port;
use crate::wire::flow::Headers;

/// Seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the guest.
    Out,
    /// To the guest.
    In,
}

/// Lets a packet pass, or says why not.
#[expect(clippy::unnecessary_wraps, reason = "the signature that rules need")]
pub(super) const fn judge(
    _context: &Context<'_>,
    _port: &Port,
    _direction: Direction,
    _headers: &Headers,
) -> Result<(), DropReason> {
    Ok(())
}
