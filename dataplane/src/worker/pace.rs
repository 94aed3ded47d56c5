//! When a worker that found nothing to do looks again at once, and when it sleeps.

use serde::{Deserialize, Serialize};

use crate::types::Nanos;

/// How a worker waits for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Looks again for a short while after work, then sleeps: nearly the latency of `Busy` under load, no processor time
    /// when idle.
    #[default]
    Adaptive,
    /// Never sleeps: lowest latency, one whole processor.
    Busy,
    /// Sleeps at once: least processor time.
    Sleep,
}

/// How long an adaptive worker goes on looking: about what a wake-up from sleep costs, so that looking in vain costs at
/// most as much as it can save.
const LOOK_AGAIN: u64 = 30_000;

/// Decides between looking again and sleeping.
pub(super) struct Pace {
    poll: Poll,
    last_work: Nanos,
}

impl Pace {
    pub(super) fn new(poll: Poll) -> Self {
        Self { poll, last_work: Nanos(0) }
    }

    pub(super) fn worked(&mut self, now: Nanos) {
        self.last_work = now;
    }

    /// True when it is time to sleep.
    pub(super) fn tired(&self, now: Nanos) -> bool {
        match self.poll {
            Poll::Busy => false,
            Poll::Sleep => true,
            Poll::Adaptive => now.0.saturating_sub(self.last_work.0) > LOOK_AGAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adaptive_worker_looks_for_a_while_and_then_sleeps() {
        let mut pace = Pace::new(Poll::Adaptive);
        pace.worked(Nanos(1_000_000));
        assert!(!pace.tired(Nanos(1_000_000 + LOOK_AGAIN)));
        assert!(pace.tired(Nanos(1_000_001 + LOOK_AGAIN)));
        assert!(!Pace::new(Poll::Busy).tired(Nanos(u64::MAX)));
        assert!(Pace::new(Poll::Sleep).tired(Nanos(0)));
    }
}
