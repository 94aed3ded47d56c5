//! The one clock. Workers and changes read it here and hand the time on as an argument.

use std::time::Instant;

use crate::types::Nanos;

/// Monotonic time since the switch started.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since then; 584 years fit.
    #[must_use]
    pub fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
