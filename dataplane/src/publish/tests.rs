use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;

use super::*;

fn one() -> (Publisher<u64>, Reader<u64>) {
    let (publisher, mut readers) = Publisher::new(Arc::new(1), 1);
    (publisher, readers.pop().unwrap())
}

#[test]
fn a_reader_keeps_its_snapshot_until_it_refreshes() {
    let (publisher, mut reader) = one();
    assert!(!reader.refresh());
    let version = publisher.publish(Arc::new(2));
    assert_eq!((**reader.current(), reader.previous()), (1, None));
    assert!(reader.refresh());
    assert_eq!((**reader.current(), reader.previous().map(|v| **v)), (2, Some(1)));
    assert_eq!((reader.version(), publisher.version(), *publisher.current()), (version, version, 2));
}

#[test]
fn a_change_settles_when_passed_and_not_when_merely_taken() {
    let (publisher, mut reader) = one();
    let version = publisher.publish(Arc::new(2));
    assert!(!publisher.settled(version));
    assert!(reader.refresh());
    assert!(!publisher.settled(version));
    assert_eq!(publisher.lagging(version).collect::<Vec<_>>(), [0]);
    reader.pass();
    assert!(publisher.settled(version));
    assert!(!reader.refresh());
    assert_eq!(reader.previous(), None);
}

#[test]
fn a_version_that_is_not_there_yet_is_not_settled_though_all_are_parked() {
    let (publisher, mut reader) = one();
    let _parked = reader.park().unwrap();
    assert!(!publisher.settled(Version(2)));
    let version = publisher.publish(Arc::new(2));
    assert_eq!(version, Version(2));
    assert!(publisher.settled(version));
}

#[test]
fn several_changes_between_passes_are_one_change_from_the_last_passed_snapshot() {
    let (publisher, mut reader) = one();
    publisher.publish(Arc::new(2));
    assert!(reader.refresh());
    publisher.publish(Arc::new(3));
    let version = publisher.publish(Arc::new(4));
    assert!(reader.refresh());
    assert_eq!((**reader.current(), reader.previous().map(|v| **v)), (4, Some(1)));
    reader.pass();
    assert!(publisher.settled(version));
}

#[test]
fn a_parked_reader_is_not_waited_for_and_wakes_to_the_newest_snapshot() {
    let (publisher, mut reader) = one();
    let parked = reader.park().unwrap();
    publisher.publish(Arc::new(2));
    let version = publisher.publish(Arc::new(3));
    assert!(publisher.settled(version));
    drop(parked);
    assert_eq!(**reader.current(), 3);
    assert!(publisher.settled(version), "settled is for ever");
    assert!(reader.refresh(), "the new snapshot is still to be passed");
    assert!(reader.park().is_none(), "not before it is passed");
    reader.pass();
    assert!(reader.park().is_some());
}

#[test]
fn a_reader_that_missed_a_change_does_not_sleep() {
    let (publisher, mut reader) = one();
    let version = publisher.publish(Arc::new(2));
    assert!(reader.park().is_none());
    assert!(!publisher.settled(version));
    assert!(reader.refresh());
    assert_eq!(**reader.current(), 2);
}

#[test]
fn a_dropped_reader_is_never_waited_for() {
    let (publisher, reader) = one();
    drop(reader);
    assert!(publisher.settled(publisher.publish(Arc::new(2))));
}

#[test]
fn waiting_ends_when_settled_or_when_the_caller_has_enough() {
    let (publisher, mut reader) = one();
    let version = publisher.publish(Arc::new(2));
    assert!(!publisher.wait_settled(version, |asked| asked < 3));
    let settled = publisher.wait_settled(version, |asked| {
        if asked == 2 {
            assert!(reader.refresh());
            reader.pass();
        }
        asked < 5
    });
    assert!(settled);
}

/// Counts itself, and knows which thread freed it.
struct Counted<'a> {
    freed_by_worker: &'a AtomicUsize,
    worker: thread::ThreadId,
    alive: &'a AtomicUsize,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
        if thread::current().id() == self.worker {
            self.freed_by_worker.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn snapshots_are_freed_by_the_publisher_and_never_pile_up() {
    let (alive, freed_by_worker, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (to_worker, worker_receives) = std::sync::mpsc::channel::<Reader<Counted<'_>>>();
        let stop = &stop;
        let worker = scope.spawn(move || {
            let mut reader = worker_receives.recv().unwrap();
            while !stop.load(Ordering::Relaxed) {
                if reader.refresh() {
                    reader.pass();
                }
                drop(reader.park());
            }
            reader
        });
        let make = || {
            alive.fetch_add(1, Ordering::Relaxed);
            let worker = worker.thread().id();
            Arc::new(Counted { freed_by_worker: &freed_by_worker, worker, alive: &alive })
        };
        let (publisher, mut readers) = Publisher::new(make(), 1);
        to_worker.send(readers.pop().unwrap()).unwrap();
        for _ in 0..20_000 {
            let version = publisher.publish(make());
            assert!(publisher.wait_settled(version, |asked| {
                thread::yield_now();
                asked < 10_000_000
            }));
            assert!(alive.load(Ordering::Relaxed) <= 4);
        }
        stop.store(true, Ordering::Relaxed);
        let mut reader = worker.join().unwrap();
        if reader.refresh() {
            reader.pass();
        }
        assert_eq!(publisher.collect(), 0);
        assert_eq!(alive.load(Ordering::Relaxed), 1);
    });
    assert_eq!(freed_by_worker.into_inner(), 0);
}
