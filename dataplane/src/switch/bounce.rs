//! Link bounces: a port's link goes down before its network changes and up again after a hold, so that the guest asks
//! DHCP anew. The hold outlives the request that began it; a thread of its own ends it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::desired::PortName;
use crate::port::Device;

/// Whether and how a change of network drops the port's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounce {
    /// The link stays up; the guest learns of the change when it renews its lease.
    No,
    /// Down for this long.
    Hold(Duration),
    /// Down for as long as the guest's kernel needs to notice, see [`hold_for`].
    Adaptive,
}

/// What a stock Linux guest notices when its link has been quiet for [`QUIET`].
pub const SHORT_HOLD: Duration = Duration::from_millis(100);
/// Linux passes on about one link event a second: after a recent one, a down and up within that second are merged into
/// nothing. This is long enough to be seen all the same.
pub const LONG_HOLD: Duration = Duration::from_millis(1200);
/// How long a link must have been quiet for the short hold to do.
pub const QUIET: Duration = Duration::from_secs(1);

/// The hold of an adaptive bounce, given how long ago the link last changed.
#[must_use]
pub fn hold_for(last_event: Option<Duration>) -> Duration {
    match last_event {
        Some(ago) if ago <= QUIET => LONG_HOLD,
        _ => SHORT_HOLD,
    }
}

/// The links that are held down, and the thread that lifts them.
pub(super) struct Bouncer {
    links: Arc<Mutex<HashMap<PortName, Link>>>,
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

struct Link {
    last_event: Instant,
    /// Set while the link is held down.
    up_at: Option<Instant>,
}

enum Order {
    Raise(Raise),
    /// The port is gone, and its device must be given up.
    Forget(PortName),
}

struct Raise {
    port: PortName,
    device: Arc<dyn Device>,
    up_at: Instant,
}

impl Bouncer {
    pub(super) fn start() -> std::io::Result<Self> {
        let links = Arc::new(Mutex::new(HashMap::new()));
        let (orders, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new().name("shunt-links".into()).spawn({
            let links = links.clone();
            move || lift(&inbox, &links)
        })?;
        Ok(Self { links, orders: Some(orders), thread: Some(thread) })
    }

    /// The port's interface has just appeared, or its link was changed by somebody else.
    pub(super) fn event(&self, port: &PortName) {
        lock(&self.links).insert(port.clone(), Link { last_event: Instant::now(), up_at: None });
    }

    pub(super) fn forget(&self, port: &PortName) {
        lock(&self.links).remove(port);
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order::Forget(port.clone()));
        }
    }

    /// True while the port's link is held down.
    pub(super) fn is_down(&self, port: &PortName) -> bool {
        lock(&self.links).get(port).is_some_and(|link| link.up_at.is_some())
    }

    /// Takes the link down now; answers how long to hold it from the moment the change is settled.
    pub(super) fn down(
        &self,
        port: &PortName,
        device: &dyn Device,
        bounce: Bounce,
    ) -> std::io::Result<Option<Duration>> {
        let now = Instant::now();
        let mut links = lock(&self.links);
        let last_event = links.get(port).map(|link| now.saturating_duration_since(link.last_event));
        let hold = match bounce {
            Bounce::No => return Ok(None),
            Bounce::Hold(hold) => hold,
            Bounce::Adaptive => hold_for(last_event),
        };
        device.set_link(false)?;
        // Until `up_after` says otherwise the link stays down; an hour stands for "not yet known".
        links.insert(port.clone(), Link { last_event: now, up_at: Some(now + Duration::from_secs(3600)) });
        Ok(Some(hold))
    }

    /// Lifts the link after `hold`. A later call for the same port replaces an earlier one.
    pub(super) fn up_after(&self, port: &PortName, device: Arc<dyn Device>, hold: Duration) {
        let up_at = Instant::now() + hold;
        if let Some(link) = lock(&self.links).get_mut(port) {
            link.up_at = Some(up_at);
        }
        if let Some(orders) = &self.orders {
            // The thread lives as long as `orders`: it cannot be gone.
            let _ = orders.send(Order::Raise(Raise { port: port.clone(), device, up_at }));
        }
    }
}

impl Drop for Bouncer {
    /// Lifts every link that is still held, then ends the thread.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lift(inbox: &mpsc::Receiver<Order>, links: &Mutex<HashMap<PortName, Link>>) {
    let mut heap: BinaryHeap<(Reverse<Instant>, usize)> = BinaryHeap::new();
    let mut waiting: HashMap<usize, Raise> = HashMap::new();
    let mut number = 0;
    loop {
        let next = heap.peek().map(|(Reverse(at), _)| at.saturating_duration_since(Instant::now()));
        match inbox.recv_timeout(next.unwrap_or(Duration::from_secs(60))) {
            Ok(Order::Forget(port)) => waiting.retain(|_, order| order.port != port),
            Ok(Order::Raise(order)) => {
                heap.push((Reverse(order.up_at), number));
                waiting.insert(number, order);
                number += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                waiting.into_values().for_each(|order| raise(&order, links));
                return;
            }
        }
        while let Some(&(Reverse(at), number)) = heap.peek()
            && at <= Instant::now()
        {
            heap.pop();
            if let Some(order) = waiting.remove(&number) {
                raise(&order, links);
            }
        }
    }
}

/// Raises the link, unless a later order has taken its place or the port is gone.
fn raise(order: &Raise, links: &Mutex<HashMap<PortName, Link>>) {
    let mut links = lock(links);
    let Some(link) = links.get_mut(&order.port).filter(|link| link.up_at == Some(order.up_at)) else {
        return;
    };
    link.up_at = None;
    link.last_event = Instant::now();
    if let Err(error) = order.device.set_link(true) {
        tracing::error!(port = %order.port, %error, "could not raise the link after a change of network");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding it leaves whole entries behind: the map is usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_busy_within_the_last_second_is_held_longer() {
        assert_eq!(hold_for(None), SHORT_HOLD);
        assert_eq!(hold_for(Some(Duration::from_millis(1001))), SHORT_HOLD);
        assert_eq!(hold_for(Some(Duration::from_millis(999))), LONG_HOLD);
    }
}
