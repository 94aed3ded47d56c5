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
pub mod drops;
mod ecn;
mod egress;
mod encap;
mod ingress;
pub(crate) mod refusal;
mod rewrite;
mod route;
mod rules;
mod source;
pub mod verdict;

use arrayvec::ArrayVec;

pub use drops::DropReason;
pub use egress::egress;
pub use ingress::{Outer, ingress};
pub use verdict::{Trap, Tunnel, Verdict};

use crate::directory::DirectoryReader;
use crate::stats::Cells;
use crate::tables::Tables;
use crate::types::Nanos;

/// Packets that are handled at once, at most.
pub const BATCH: usize = 64;

/// One verdict per packet of a batch, in its order.
pub type Verdicts = ArrayVec<Verdict, BATCH>;

/// What a batch is handled by.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The configuration: one snapshot for the whole batch.
    pub tables: &'a Tables,
    /// Where the stations of the networks are.
    pub directory: &'a DirectoryReader,
    /// The time of the batch.
    pub now: Nanos,
    /// Which worker asks: the only one to write its counter cells.
    pub worker: usize,
}

/// Counts what the pipeline itself ended; what goes on is counted by whoever sends it.
#[inline]
fn count(cells: &Cells, verdict: &Verdict) {
    match *verdict {
        Verdict::Deliver(_) | Verdict::Underlay(_) => {}
        Verdict::Reply(trap) | Verdict::Absorbed(trap) => cells.trapped(trap),
        Verdict::Drop(reason) => cells.dropped(reason, 1),
    }
}
