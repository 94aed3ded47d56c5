//! Waiting for a condition instead of sleeping and hoping.

use super::LabError;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Asks `ready` every 5 ms until it gives a value; `what` names the condition in the error.
///
/// # Errors
/// `TimedOut` after `limit`; whatever `ready` returns as an error, at once.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            return Err(LabError::TimedOut { what: what.to_owned(), seconds: limit.as_secs() });
        }
        thread::sleep(Duration::from_millis(5));
    }
}
