//! What a guest's first process noted about itself: process id, start time and the machine's boot tell it apart from any
//! other process for ever.

use super::{
    super::{Running, VmEvent, life::Life},
    directory::Directory,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use tokio::sync::broadcast;

/// The life that a guest's note speaks of, if it goes on; its end will be told to `events`.
pub(super) fn life_of(directory: &Directory, events: &broadcast::Sender<VmEvent>) -> Option<Life> {
    let note = directory.note()?;
    let pid = Pid::from_raw(i32::try_from(note.pid).ok()?)?;
    // First the descriptor, then the look at who it is: afterwards it can't become another one.
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let machine = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    if machine.trim() != note.machine_boot_id || started_at(note.pid)? != note.started {
        return None;
    }
    let running = Running { vm: directory.vm(), boot_id: note.boot_id, pid: note.pid };
    Life::watch(running, process, events)
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
