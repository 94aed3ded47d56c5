//! What packets are handled by: the same for a whole batch, and all that its handling may depend on besides the packets.

use crate::directory::DirectoryReader;
use crate::tables::Tables;
use crate::types::Nanos;

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
