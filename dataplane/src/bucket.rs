//! How often a port is answered: a token bucket for each kind of asker, so that whoever floods a trap starves nobody but
//! itself. What a guest asks by ARP, neighbour discovery and ICMP has one, DHCP another (else a guest's own ARP flood
//! would cost it its lease), and what peers ask through tunnels a third (else they would cost the guest its answers).
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm), so taking from
//! it is one compare-and-swap. It is looked at only when an answer is about to be written: packets that go on never come
//! by, and what is refused keeps the name of its own refusal.
//!
//! Never here: clocks, what becomes of a packet that may not be answered.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Nanos;

/// How many answers, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: u64,
    burst: u64,
}

/// ARP, neighbour discovery, echoes and ICMP errors. A guest with an empty neighbour table that talks to a whole /24 at
/// once is within the burst.
pub(crate) const ANSWERS: Rate = Rate { per_second: 1000, burst: 256 };
/// A client sends two messages for a lease and repeats each after seconds.
pub(crate) const DHCP: Rate = Rate { per_second: 50, burst: 64 };
/// What tunnel peers that are no switches of ours ask for a port's address.
pub(crate) const PEERS: Rate = Rate { per_second: 1000, burst: 256 };

/// New connections to the metadata service: each makes the host agent accept one.
#[cfg(feature = "io")]
pub(crate) const CONNECTIONS: Rate = Rate { per_second: 1000, burst: 512 };

/// The buckets of one port. They outlive changes of its configuration: a change refills nothing.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) answers: Bucket,
    pub(crate) dhcp: Bucket,
    pub(crate) peers: Bucket,
    #[cfg(feature = "io")]
    pub(crate) connections: Bucket,
    /// Segments that wait for the metadata service's endpoint: no rate, but a share of its queues.
    #[cfg(feature = "io")]
    pub(crate) waiting: std::sync::atomic::AtomicU32,
}

/// A token bucket that any worker may take from.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes one token; false when there is none.
    pub(crate) fn take(&self, rate: Rate, now: Nanos) -> bool {
        let interval = 1_000_000_000 / rate.per_second;
        let latest = now.0.saturating_add(rate.burst * interval);
        let take = |full_at: u64| {
            let after = full_at.max(now.0).saturating_add(interval);
            (after <= latest).then_some(after)
        };
        // Two workers that race for one port's bucket: one of them always succeeds.
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };
    const INTERVAL: u64 = 100_000_000;

    fn taken(bucket: &Bucket, tries: usize, now: u64) -> usize {
        (0..tries).filter(|_| bucket.take(RATE, Nanos(now))).count()
    }

    #[test]
    fn a_burst_then_one_per_interval() {
        let bucket = Bucket::default();
        assert_eq!(taken(&bucket, 10, 1), 3, "full at first");
        assert_eq!(taken(&bucket, 10, INTERVAL), 0);
        assert_eq!(taken(&bucket, 10, INTERVAL + 1), 1);
        assert_eq!(taken(&bucket, 10, 3 * INTERVAL + 1), 2);
        assert_eq!(taken(&bucket, 10, 1_000 * INTERVAL), 3, "never more than full");
    }

    #[test]
    fn a_worker_whose_time_is_a_little_behind_takes_no_more() {
        let bucket = Bucket::default();
        assert_eq!(taken(&bucket, 10, 5 * INTERVAL), 3);
        assert_eq!(taken(&bucket, 10, 4 * INTERVAL), 0);
    }

    #[test]
    fn time_without_end_is_no_overflow() {
        let bucket = Bucket::default();
        assert!(bucket.take(RATE, Nanos(u64::MAX)));
    }

    #[test]
    fn racing_workers_share_one_burst() {
        let bucket = Bucket::default();
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| bucket.take(ANSWERS, Nanos(1))).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, usize::try_from(ANSWERS.burst).unwrap());
    }

    proptest! {
        /// Whatever the pattern: no more than the burst and what the time that passed allows.
        #[test]
        fn never_more_than_promised(steps in prop::collection::vec(0..INTERVAL * 2, 1..200)) {
            let bucket = Bucket::default();
            let (mut now, mut taken) = (1, 0);
            for step in &steps {
                now += step;
                taken += u64::from(bucket.take(RATE, Nanos(now)));
            }
            prop_assert!(taken <= RATE.burst + now / INTERVAL + 1);
        }
    }
}
