//! Counters: per port, per worker, per drop reason and trap. Each cell has one writer (its worker), so counting is a
//! plain load and store; sums are made when somebody reads.
//!
//! A reader may see a cell of one worker a few packets before another's: totals are exact once traffic stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::drops::DropReason;
use crate::verdict::Trap;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the counter's one writer may call this: two writers would lose each other's counts.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counts for one port. "Received" is from the guest, "sent" is to the guest. A super-packet counts as
/// one packet.
#[derive(Debug)]
pub struct Cells {
    /// Frames read from the device.
    pub received_packets: Counter,
    /// Their bytes.
    pub received_bytes: Counter,
    /// Frames written to the device.
    pub sent_packets: Counter,
    /// Their bytes.
    pub sent_bytes: Counter,
    drops: [Counter; DropReason::COUNT],
    traps: [Counter; Trap::COUNT],
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            received_packets: Counter::default(),
            received_bytes: Counter::default(),
            sent_packets: Counter::default(),
            sent_bytes: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            traps: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Cells {
    /// Counts `packets` dropped for one reason.
    pub fn dropped(&self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.drops.get(reason.index()) {
            counter.add(packets);
        }
    }

    /// Counts one packet handled by a trap.
    pub fn trapped(&self, trap: Trap) {
        if let Some(counter) = self.traps.get(trap.index()) {
            counter.add(1);
        }
    }
}

/// The counters of one port (or of the underlay), over all workers.
#[derive(Debug)]
pub struct Counters(Box<[CachePadded<Cells>]>);

impl Counters {
    /// Counters for so many workers, all zero.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers.max(1)).map(|_| CachePadded::default()).collect()))
    }

    /// The cells that worker number `worker` writes. A number beyond the last shares the first worker's cells.
    #[must_use]
    pub fn of_worker(&self, worker: usize) -> &Cells {
        // `new` makes at least one.
        self.0.get(worker).unwrap_or_else(|| &self.0[0])
    }

    /// The sum over all workers.
    #[must_use]
    pub fn sum(&self) -> Totals {
        let total = |cell: fn(&Cells) -> &Counter| self.0.iter().map(|cells| cell(cells).value()).sum();
        Totals {
            received_packets: total(|cells| &cells.received_packets),
            received_bytes: total(|cells| &cells.received_bytes),
            sent_packets: total(|cells| &cells.sent_packets),
            sent_bytes: total(|cells| &cells.sent_bytes),
            drops: DropReason::ALL
                .iter()
                .map(|&reason| (reason, self.0.iter().map(|cells| cells.drops[reason.index()].value()).sum()))
                .filter(|&(_, packets)| packets > 0)
                .collect(),
            traps: Trap::ALL
                .iter()
                .map(|&trap| (trap, self.0.iter().map(|cells| cells.traps[trap.index()].value()).sum()))
                .filter(|&(_, packets)| packets > 0)
                .collect(),
        }
    }
}

/// A port's counters, summed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Frames read from the device.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames written to the device.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Drops that happened, in the table's order.
    pub drops: Vec<(DropReason, u64)>,
    /// Traps that happened, in the table's order.
    pub traps: Vec<(Trap, u64)>,
}

impl Totals {
    /// Packets dropped for one reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().find(|(other, _)| *other == reason).map_or(0, |&(_, packets)| packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_workers_and_name_only_what_happened() {
        let counters = Counters::new(2);
        counters.of_worker(0).dropped(DropReason::NoRoute, 2);
        counters.of_worker(1).dropped(DropReason::NoRoute, 3);
        counters.of_worker(1).trapped(Trap::DhcpAck);
        counters.of_worker(1).received_packets.add(7);
        let totals = counters.sum();
        assert_eq!(totals.drops, [(DropReason::NoRoute, 5)]);
        assert_eq!(totals.traps, [(Trap::DhcpAck, 1)]);
        assert_eq!((totals.received_packets, totals.sent_packets), (7, 0));
        assert_eq!(totals.dropped(DropReason::Moved), 0);
    }
}
