//! Every interleaving, and every value that a load may return by its ordering, of workers at one port's table. The twin
//! of a model has a hole opened on purpose, and must fail.

use std::net::Ipv4Addr;
use std::sync::Arc;

use loom::thread;

use super::*;
use crate::sync::FENCES_LEFT_OUT;
use crate::wire::Protocol;

const NOW: Nanos = Nanos(1);

/// Keys of which every word differs, and a generation that tells whose it is.
fn key(number: u16) -> (Key, Generation) {
    let ends = Ends {
        local: Ipv4Addr::new(10, 0, 0, 1).into(),
        remote: Ipv4Addr::from_bits(u32::from(number) << 16 | 0x0a00_0000).into(),
    };
    (Key::flow(Protocol::UDP, ends, (number, number)), Generation(number.into()))
}

fn admit(connections: &Connections, number: u16) {
    admit_under(connections, number, key(number).1);
}

fn admit_under(connections: &Connections, number: u16, epoch: Generation) {
    let (key, _) = key(number);
    let _ = connections.admit(&key, Direction::In, State::Started, epoch, NOW);
}

/// Nobody may find one connection under another's key.
fn look(connections: &Connections, number: u16) -> bool {
    let (key, epoch) = key(number);
    let found = connections.find(&key, NOW);
    assert!(found.is_none_or(|known| known.epoch() == epoch), "one connection for another");
    found.is_some()
}

/// A table of one slot: every connection takes it from the one before.
fn one_slot() -> Arc<Connections> {
    Arc::new(Connections::with_capacity(7, 1))
}

#[test]
fn loom_a_slot_that_changes_hands_is_never_found_for_another() {
    loom::model(|| {
        let connections = one_slot();
        admit(&connections, 1);
        let theirs = connections.clone();
        let other = thread::spawn(move || admit(&theirs, 2));
        look(&connections, 1);
        look(&connections, 2);
        other.join().unwrap();
        assert!(look(&connections, 2), "admitted, and not there");
    });
}

#[test]
#[should_panic(expected = "one connection for another")]
fn loom_without_fences_a_slot_is_found_for_another() {
    FENCES_LEFT_OUT.set(true);
    loom::model(|| {
        let connections = one_slot();
        admit(&connections, 1);
        let theirs = connections.clone();
        let other = thread::spawn(move || {
            admit(&theirs, 2);
            admit(&theirs, 1);
        });
        look(&connections, 1);
        look(&connections, 2);
        other.join().unwrap();
    });
}

#[test]
fn loom_two_writers_never_mix_their_entries() {
    loom::model(|| {
        let connections = one_slot();
        let theirs = connections.clone();
        let other = thread::spawn(move || admit(&theirs, 1));
        admit(&connections, 2);
        other.join().unwrap();
        assert!(look(&connections, 1) != look(&connections, 2), "one of them has the slot");
    });
}

#[test]
fn loom_a_known_connection_is_followed_while_its_slot_changes_hands() {
    loom::model(|| {
        let epoch = Generation(5);
        let connections = one_slot();
        admit_under(&connections, 1, epoch);
        let theirs = connections.clone();
        let other = thread::spawn(move || admit_under(&theirs, 2, epoch));
        if let Some(known) = connections.find(&key(1).0, NOW) {
            connections.follow(&known, Direction::Out, Segment::Datagram, NOW);
            connections.confirm(&known, Generation(9));
        }
        other.join().unwrap();
        let found = connections.find(&key(2).0, NOW).expect("admitted, and not there");
        // Judged by its own rules, or to be judged again.
        assert!(
            found.epoch() == epoch || found.epoch() == slots::NEVER,
            "confirmed for another: {:?}",
            found.epoch()
        );
    });
}
