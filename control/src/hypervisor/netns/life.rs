//! The life of a guest: its first process, told apart from any other by start time and the machine's boot, watched by a
//! descriptor that becomes readable when it ends.

use super::{
    super::{Running, VmEvent},
    directory::Directory,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    fs,
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

/// A guest that runs, or ran until a moment ago.
#[derive(Debug)]
pub(super) struct Life {
    running: Running,
    process: Arc<OwnedFd>,
    over: watch::Receiver<bool>,
    /// Somebody here asked for its end.
    expected: Arc<AtomicBool>,
}

impl Life {
    /// The life that a guest's note speaks of, if it goes on; its end will be told to `events`.
    pub(super) fn find(directory: &Directory, events: &broadcast::Sender<VmEvent>) -> Option<Self> {
        let note = directory.note()?;
        let pid = Pid::from_raw(i32::try_from(note.pid).ok()?)?;
        // First the descriptor, then the look at who it is: afterwards it can't become another one.
        let process = Arc::new(pidfd_open(pid, PidfdFlags::empty()).ok()?);
        let machine = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        if machine.trim() != note.machine_boot_id || started_at(note.pid)? != note.started {
            return None;
        }
        let running = Running { vm: directory.vm(), boot_id: note.boot_id, pid: note.pid };
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

/// When a process was started, in clock ticks since boot.
fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    // A process that only waits to be waited for has ended.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Field 22 (proc(5)); one was taken.
    fields.nth(18)?.parse().ok()
}
