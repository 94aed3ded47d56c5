//! Packet in, verdict out. Pure: tables, directory, time and the packet are arguments; every exit is a
//! [`verdict::Verdict`] and is counted.

pub mod drops;
pub mod verdict;

pub use drops::DropReason;
pub use verdict::{Trap, Tunnel, Verdict};
