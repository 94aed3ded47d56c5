//! A worker that nobody sends anything to.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Parts, Poll, Workers};
use super::{Queue, Wire, host_ip};
use crate::clock::Clock;
use crate::desired::{Encapsulation, UnderlayConfig};
use crate::directory::DirectoryWriter;
use crate::publish::Publisher;
use crate::tables::Tables;
use crate::types::Mtu;
use crate::worker::Plane;

#[test]
fn a_change_settles_without_a_packet_to_carry_it() {
    let underlay = Arc::new(UnderlayConfig {
        physical_ips: vec![host_ip(1)],
        encapsulation: Encapsulation::Vxlan,
        mtu: Mtu::new(1600).unwrap(),
    });
    let plane = || Arc::new(Plane::new(Tables::empty(underlay.clone(), 1, 7), Vec::new()));
    for poll in [Poll::Busy, Poll::Adaptive, Poll::Sleep] {
        let (publisher, readers) = Publisher::new(plane(), 1);
        let (_directory, directory_readers) = DirectoryWriter::new(1, 1);
        let parts = readers.into_iter().zip(directory_readers).map(|(plane, directory)| {
            let wire = Wire { arrivals: Queue::new(1), exit: Arc::new(|_, _| {}) };
            Parts::new(plane, directory, Box::new(wire), None)
        });
        let workers = Workers::start(parts.collect(), poll, Clock::start()).unwrap();
        // One behind the other: a change may also meet the worker on its way to sleep.
        for number in 0..200 {
            let version = publisher.publish(plane());
            workers.wake();
            let begun = Instant::now();
            let is_settled = publisher.wait_settled(version, |_| {
                thread::yield_now();
                begun.elapsed() < Duration::from_secs(5)
            });
            assert!(is_settled, "{poll:?}: change {number} did not settle");
        }
    }
}
