//! Every interleaving, and every value that a weakly ordered load may return, of small histories. Each model has a
//! twin with one hole opened on purpose, which must fail.

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::*;
use crate::sync::FENCES_LEFT_OUT;

/// Set in the log by the publisher once it believes version 2 to be settled.
const CLOSED: usize = 1 << 8;

/// What the readers did, as the outside world would see it.
#[derive(Default)]
struct Log {
    /// Deeds done by version 1, and [`CLOSED`]. Only changed by read-modify-write, so its order is real time's order.
    old_deeds: AtomicUsize,
    /// Written plainly by the reader: seen by the publisher only if something orders it.
    last_deed: AtomicUsize,
}

impl Log {
    fn act(&self, by: Version) {
        if by == Version::FIRST {
            assert!(self.old_deeds.fetch_add(1, Ordering::Relaxed) < CLOSED, "acted by a settled snapshot");
        }
        self.last_deed.store(1, Ordering::Relaxed);
    }

    fn close_if_settled(&self, publisher: &Publisher<u64>, version: Version) {
        if publisher.settled(version) {
            let deeds = self.old_deeds.fetch_add(CLOSED, Ordering::Relaxed);
            assert!(
                deeds == 0 || self.last_deed.load(Ordering::Relaxed) == 1,
                "settled, but a deed is not visible"
            );
        }
    }
}

fn worker_and_publisher(worker: fn(&Log, &mut Reader<u64>)) {
    loom::model(move || {
        let (publisher, mut readers) = Publisher::new(Arc::new(1), 1);
        let mut reader = readers.pop().unwrap();
        let log = Arc::new(Log::default());
        let theirs = log.clone();
        let worker = thread::spawn(move || worker(&theirs, &mut reader));
        let version = publisher.publish(Arc::new(2));
        log.close_if_settled(&publisher, version);
        worker.join().unwrap();
    });
}

fn busy(log: &Log, reader: &mut Reader<u64>) {
    for _ in 0..2 {
        log.act(reader.version());
        if reader.refresh() {
            reader.pass();
        }
    }
    log.act(reader.version());
}

fn sleepy(log: &Log, reader: &mut Reader<u64>) {
    for _ in 0..2 {
        log.act(reader.version());
        if reader.refresh() {
            reader.pass();
        }
        drop(reader.park());
    }
    log.act(reader.version());
}

#[test]
fn loom_settled_means_no_deed_by_an_older_snapshot() {
    worker_and_publisher(busy);
}

#[test]
#[should_panic(expected = "settled")]
fn loom_catches_a_worker_that_passes_before_it_flushes() {
    worker_and_publisher(|log, reader| {
        let old = reader.version();
        if reader.refresh() {
            reader.pass();
            log.act(old);
        }
    });
}

#[test]
#[should_panic(expected = "settled, but a deed is not visible")]
fn loom_catches_a_pass_that_orders_nothing() {
    worker_and_publisher(|log, reader| {
        log.act(reader.version());
        if reader.refresh() {
            reader.seat().unwrap().passed.store(reader.version().0, Ordering::Relaxed);
        }
    });
}

#[test]
fn loom_a_worker_seen_parked_wakes_to_the_new_snapshot() {
    worker_and_publisher(sleepy);
}

#[test]
#[should_panic(expected = "acted by a settled snapshot")]
fn loom_catches_sleep_without_fences() {
    FENCES_LEFT_OUT.set(true);
    worker_and_publisher(sleepy);
}

#[test]
fn loom_a_worker_that_sleeps_is_seen_parked_or_has_the_new_snapshot() {
    loom::model(|| {
        let (publisher, mut readers) = Publisher::new(Arc::new(1), 1);
        let mut reader = readers.pop().unwrap();
        let worker = thread::spawn(move || {
            if let Some(parked) = reader.park() {
                std::mem::forget(parked); // asleep for good: nobody would wake it
            } else {
                assert!(reader.refresh());
                reader.pass();
            }
            std::mem::forget(reader); // its drop would count as parked
        });
        let version = publisher.publish(Arc::new(2));
        worker.join().unwrap();
        assert!(publisher.settled(version), "a sleeping worker is waited for");
    });
}

fn number_implies_snapshot(publish: fn(&Publisher<u64>, u64)) {
    loom::model(move || {
        let (publisher, readers) = Publisher::new(Arc::new(1), 2);
        let readers: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                thread::spawn(move || {
                    let seen = reader.shared.version.load(Ordering::Acquire);
                    let _ = reader.refresh();
                    assert!(reader.version().0 >= seen, "saw a number without its snapshot");
                    assert_eq!(reader.version().0, **reader.current());
                })
            })
            .collect();
        publish(&publisher, 2);
        publish(&publisher, 3);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_who_sees_a_number_has_its_snapshot() {
    number_implies_snapshot(|publisher, value| {
        publisher.publish(Arc::new(value));
    });
}

#[test]
#[should_panic(expected = "saw a number without its snapshot")]
fn loom_catches_a_number_published_before_its_snapshot() {
    number_implies_snapshot(|publisher, value| {
        publisher.shared.version.store(value, Ordering::Release);
        publisher.publish(Arc::new(value));
    });
}
