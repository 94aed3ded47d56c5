//! Packet in, verdict out. Pure: tables, directory, time and the packet are arguments; every exit is a [`Verdict`].
//!
//! [`egress`] takes what a guest sent, [`ingress`] what came through a tunnel. What is counted here: drops and traps, of
//! the port concerned, or of the underlay where no port is; and a port's progress. What the caller counts: packets
//! and bytes received and sent.
//!
//! Never here: allocation, locks, clocks, I/O, a panic on any byte.

#![deny(clippy::indexing_slicing)]

mod claims;
mod destination;
mod ecn;
mod egress;
mod encap;
mod ingress;
mod rewrite;
mod route;
mod rules;
mod source;

use arrayvec::ArrayVec;

pub use crate::context::Context;
pub use crate::drops::DropReason;
pub use crate::verdict::{Trap, Tunnel, Verdict};
pub use egress::egress;
pub use ingress::{Outer, ingress};

use crate::stats::Cells;

/// Packets that are handled at once, at most.
pub const BATCH: usize = 64;

/// One verdict per packet of a batch, in its order.
pub type Verdicts = ArrayVec<Verdict, BATCH>;

/// Counts what the pipeline itself ended; what goes on is counted by whoever sends it.
#[inline]
fn count(cells: &Cells, verdict: &Verdict) {
    match *verdict {
        Verdict::Deliver(_) | Verdict::Underlay(_) | Verdict::Detour => {}
        Verdict::Reply(trap) | Verdict::Absorbed(trap) => cells.trapped(trap),
        Verdict::Drop(reason) => cells.dropped(reason, 1),
    }
}
