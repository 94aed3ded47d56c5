//! The boundary between two snapshots: which devices to listen to from now on, and what waits in them of before.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::poll::{Poller, Source};
use crate::pipeline::DropReason;
use crate::port::Device;
use crate::types::PortId;
use crate::worker::Plane;

/// One queue that this worker reads.
pub(super) struct Watched {
    pub(super) port: PortId,
    pub(super) queue: usize,
    device: Arc<dyn Device>,
}

/// Follows a change: afterwards this worker listens to its share of `new`'s queues, and to no other.
pub(super) fn listen(
    watched: &mut Vec<Watched>,
    poller: &Poller,
    (worker, workers): (usize, usize),
    new: &Plane,
) {
    watched.retain(|watched| {
        let stays = new.device(watched.port).is_some_and(|device| Arc::ptr_eq(device, &watched.device));
        if !stays {
            ignore(watched, poller);
        }
        stays
    });
    // Built once: with a thousand ports a search for each would cost the packets more than the change itself.
    let known: HashSet<(PortId, usize), FixedState> =
        watched.iter().map(|watched| (watched.port, watched.queue)).collect();
    for port in new.tables.ports() {
        let Some(device) = new.device(port.id) else { continue };
        for queue in (0..device.queues()).filter(|queue| (port.id.index() + queue) % workers.max(1) == worker)
        {
            if known.contains(&(port.id, queue)) {
                continue;
            }
            let source = Source::Port { port: port.id, queue: u16::try_from(queue).unwrap_or(u16::MAX) };
            match device.poll_fd(queue).map(|fd| poller.add(fd, source)) {
                Some(Ok(())) | None => {
                    watched.push(Watched { port: port.id, queue, device: device.clone() });
                }
                Some(Err(error)) => {
                    tracing::error!(port = %port.config.name, %error, "worker {worker} cannot listen to the port's device");
                }
            }
        }
    }
}

/// Throws away what the ports that moved between `old` and `new` had sent before: it was meant for the old network.
pub(super) fn discard_moved(watched: &[Watched], worker: usize, old: &Plane, new: &Plane) {
    for watched in watched {
        let Some(port) = new.tables.port(watched.port) else { continue };
        if old.tables.port(watched.port).is_some_and(|before| before.epoch != port.epoch) {
            let frames = watched.device.discard(watched.queue);
            port.counters
                .of_worker(worker)
                .dropped(DropReason::Moved, u64::try_from(frames).unwrap_or(u64::MAX));
        }
    }
}

/// Stops listening to a queue whose interface is gone; the port stays, in case it comes back under a new device.
pub(super) fn ignore(watched: &Watched, poller: &Poller) {
    if let Some(fd) = watched.device.poll_fd(watched.queue) {
        // Fails only when it was not listened to, and then there is nothing to stop.
        let _ = poller.remove(fd);
    }
}
