//! The life of a machine: its process, or its first one, watched by a descriptor that becomes readable when it ends.

use super::{Running, VmEvent};
use rustix::process::{Signal, pidfd_send_signal};
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{broadcast, watch},
};

/// A machine that runs, or ran until a moment ago.
#[derive(Debug)]
pub(super) struct Life {
    running: Running,
    process: Arc<OwnedFd>,
    over: watch::Receiver<bool>,
    /// Somebody here asked for its end.
    expected: Arc<AtomicBool>,
}

impl Life {
    /// The life of `running`, which is `process`; its end will be told to `events`. `None`: no watch is to be had.
    pub(super) fn watch(
        running: Running,
        process: OwnedFd,
        events: &broadcast::Sender<VmEvent>,
    ) -> Option<Self> {
        let process = Arc::new(process);
        let (over, expected) = (watch::Sender::new(false), Arc::new(AtomicBool::new(false)));
        let life = Self {
            running: running.clone(),
            process: Arc::clone(&process),
            over: over.subscribe(),
            expected: Arc::clone(&expected),
        };
        #[expect(
            deprecated,
            reason = "sound here: an OwnedFd stays open as long as the AsyncFd has it; the successor \
            is an unsafe function, and this crate has no unsafe code"
        )]
        let watched = AsyncFd::with_interest(process, Interest::READABLE).ok()?;
        let events = events.clone();
        tokio::spawn(async move {
            let _ = watched.readable().await;
            over.send_replace(true);
            if !expected.load(Ordering::Acquire) {
                // Nobody may be listening.
                let _ = events.send(VmEvent::Died(running));
            }
        });
        Some(life)
    }

    pub(super) fn running(&self) -> &Running {
        &self.running
    }

    /// Has its end not been seen?
    pub(super) fn goes_on(&self) -> bool {
        // A task that is gone will never tell.
        !*self.over.borrow() && self.over.has_changed().is_ok()
    }

    /// From now on its end is no news.
    pub(super) fn expect_end(&self) {
        self.expected.store(true, Ordering::Release);
    }

    /// Kills it, and with it all its processes.
    pub(super) fn kill(&self) {
        // One that has just ended is no error.
        let _ = pidfd_send_signal(&*self.process, Signal::KILL);
    }

    /// Waits for its end; false when it did not come.
    pub(super) async fn ended_within(&self, limit: Duration) -> bool {
        let mut over = self.over.clone();
        tokio::time::timeout(limit, over.wait_for(|over| *over)).await.is_ok()
    }
}
