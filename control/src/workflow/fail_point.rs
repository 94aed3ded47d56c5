//! Fail points: where tests have an engine stop, wait, or be refused. Their steps come from the journeys' own tables.
//!
//! An engine of the test's own process is stopped by a list in memory. One in a controller that is a process waits as long
//! as a file of the point's name is in a directory, so that somebody can be killed exactly there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::JourneyKind;

/// The environment variable that names the directory; builds without debug assertions do not look at it.
pub const DIRECTORY_VARIABLE: &str = "SHUNT_FAIL_POINTS";
/// Between two looks whether a file is still there.
const LOOK: Duration = Duration::from_millis(2);

/// A place in a journey's transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailPoint {
    /// The step.
    pub step: String,
    /// In which direction it is taken.
    pub backward: bool,
    /// Before its transaction is committed, or right after.
    pub after: bool,
}

impl FailPoint {
    /// The file that has engines of these journeys wait here. While one does, there is another beside it, with the
    /// extension `reached`.
    #[must_use]
    pub fn file(&self, kind: JourneyKind) -> String {
        let direction = if self.backward { "backward" } else { "forward" };
        let side = if self.after { "after" } else { "before" };
        format!("{kind}-{}-{direction}-{side}", self.step)
    }

    /// The file that has this step refused, once.
    #[must_use]
    pub fn refusal_file(kind: JourneyKind, step: &str) -> String {
        format!("{kind}-{step}-refuse")
    }
}

/// What tests have set.
#[derive(Debug, Clone, Default)]
pub(super) struct FailPoints {
    stops: Arc<Mutex<Vec<FailPoint>>>,
    refusals: Arc<Mutex<Vec<String>>>,
    directory: Option<Arc<Path>>,
}

impl FailPoints {
    pub(super) fn look_in(&mut self, directory: PathBuf) {
        self.directory = Some(directory.into());
    }

    pub(super) fn stop_at(&self, point: FailPoint) {
        lock(&self.stops).push(point);
    }

    pub(super) fn refuse_at(&self, step: &str) {
        lock(&self.refusals).push(step.to_owned());
    }

    /// True while there is any: engines then commit each step by itself.
    pub(super) fn are_set(&self) -> bool {
        let has_files = |directory: &Arc<Path>| {
            std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
        };
        !lock(&self.stops).is_empty() || self.directory.as_ref().is_some_and(has_files)
    }

    /// True, once, when this step shall not be done.
    pub(super) fn refuses(&self, kind: JourneyKind, step: &str) -> bool {
        let taken = |directory: &Arc<Path>| {
            std::fs::remove_file(directory.join(FailPoint::refusal_file(kind, step))).is_ok()
        };
        take(&self.refusals, |name| name == step) || self.directory.as_ref().is_some_and(taken)
    }

    /// True, once, when an engine shall stop at this point.
    pub(super) fn stops(&self, point: &FailPoint) -> bool {
        take(&self.stops, |stop| stop == point)
    }

    /// Returns when no file has engines wait at this point.
    pub(super) async fn pass(&self, kind: JourneyKind, point: &FailPoint) {
        let Some(directory) = &self.directory else { return };
        let file = directory.join(point.file(kind));
        if !file.exists() {
            return;
        }
        let reached = file.with_extension("reached");
        if let Err(error) = std::fs::write(&reached, "") {
            tracing::error!(file = %reached.display(), %error, "nobody learns that a fail point is reached");
        }
        while file.exists() {
            tokio::time::sleep(LOOK).await;
        }
        match std::fs::remove_file(&reached) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(file = %reached.display(), %error, "a fail point stays reached");
            }
            _ => {}
        }
    }
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T>(set: &Mutex<Vec<T>>, is: impl Fn(&T) -> bool) -> bool {
    let mut set = lock(set);
    let place = set.iter().position(is);
    place.map(|place| set.remove(place)).is_some()
}
