//! Connections as rules use them: found in both directions, ended by time, bounded, and fair to the established.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::*;
use crate::wire::Protocol;
use crate::wire::tcp::Flags;

const EPOCH: Generation = Generation(1);
const ACK: Segment = Segment::Tcp(Flags::ACK);

fn at(seconds: u64) -> Nanos {
    Nanos(seconds * 1_000_000_000)
}

fn key(number: u32) -> Key {
    let [a, b, c, d] = number.to_be_bytes();
    let ends =
        Ends { local: Ipv4Addr::new(10, 0, 0, 1).into(), remote: Ipv4Addr::new(10, 1 | a, b, c).into() };
    Key::flow(Protocol::TCP, ends, (80, u16::from(d) + 1))
}

fn knows(connections: &Connections, key: &Key, now: Nanos) -> bool {
    connections.find(key, now).is_some()
}

/// One packet of a connection, if it is known.
fn step(
    connections: &Connections,
    key: &Key,
    direction: Direction,
    segment: Segment,
    now: Nanos,
) -> Option<Known> {
    connections.find(key, now).filter(|known| connections.follow(known, direction, segment, now))
}

fn established(connections: &Connections, key: &Key, now: Nanos) {
    connections.admit(key, Direction::In, State::SynSent, EPOCH, now).unwrap();
    let syn_ack = Segment::Tcp(Flags::SYN.union(Flags::ACK));
    assert!(step(connections, key, Direction::Out, syn_ack, now).is_some());
    assert!(step(connections, key, Direction::In, ACK, now).is_some());
}

#[test]
fn a_connection_is_known_in_both_directions_until_its_time_is_over() {
    let connections = Connections::new(7);
    assert!(step(&connections, &key(1), Direction::In, ACK, at(0)).is_none());
    established(&connections, &key(1), at(0));
    let known = step(&connections, &key(1), Direction::Out, ACK, at(7000)).unwrap();
    assert_eq!((known.epoch(), known.origin()), (EPOCH, Direction::In));
    assert!(step(&connections, &key(1), Direction::In, ACK, at(14_000)).is_some(), "each packet prolongs it");
    assert!(!knows(&connections, &key(2), at(14_000)));
    let end = 14_000 + State::Established.timeout_seconds();
    assert!(knows(&connections, &key(1), at(end)));
    assert!(!knows(&connections, &key(1), at(end + 1)));
}

#[test]
fn a_closed_connection_is_over_after_its_time_whatever_still_comes() {
    let connections = Connections::new(7);
    established(&connections, &key(1), at(0));
    let fin = Segment::Tcp(Flags::FIN.union(Flags::ACK));
    for direction in [Direction::In, Direction::Out] {
        step(&connections, &key(1), direction, fin, at(10)).unwrap();
    }
    assert_eq!(connections.count(at(10)), Count { established: 0, half_open: 0, over: 1 });
    step(&connections, &key(1), Direction::In, ACK, at(100)).unwrap();
    assert!(step(&connections, &key(1), Direction::In, ACK, at(140)).is_none());
    // A new SYN begins another one at once.
    established(&connections, &key(2), at(0));
    step(&connections, &key(2), Direction::Out, Segment::Tcp(Flags::RST), at(1)).unwrap();
    assert!(step(&connections, &key(2), Direction::In, Segment::Tcp(Flags::SYN), at(2)).is_none());
    assert!(!knows(&connections, &key(2), at(2)), "the rules are asked again");
}

#[test]
fn rules_of_another_generation_confirm_and_a_slot_that_changed_hands_is_left_alone() {
    let connections = Connections::new(7);
    established(&connections, &key(1), at(0));
    let known = step(&connections, &key(1), Direction::Out, ACK, at(1)).unwrap();
    connections.confirm(&known, Generation(2));
    assert_eq!(step(&connections, &key(1), Direction::Out, ACK, at(1)).unwrap().epoch(), Generation(2));
    // What was found before its slot changed hands must not touch who stands there now.
    let connections = Connections::with_capacity(7, 8);
    connections.admit(&key(1), Direction::In, State::Started, EPOCH, at(0)).unwrap();
    let known = connections.find(&key(1), at(0)).unwrap();
    for number in 2..10 {
        connections.admit(&key(number), Direction::In, State::Started, EPOCH, at(10)).unwrap();
    }
    assert!(!knows(&connections, &key(1), at(10)));
    assert!(connections.follow(&known, Direction::In, Segment::Datagram, at(10)), "nothing to be begun anew");
    connections.hold(&known, at(10));
    connections.confirm(&known, Generation(9));
    for number in 2..10 {
        let other = connections.find(&key(number), at(10)).unwrap();
        assert!(other.epoch() != Generation(9), "confirmed for another");
    }
}

#[test]
fn what_was_dropped_keeps_its_connection_as_it_was() {
    let connections = Connections::new(7);
    established(&connections, &key(1), at(0));
    for seconds in (7_000..30_000).step_by(7_000) {
        connections.hold(&connections.find(&key(1), at(seconds)).unwrap(), at(seconds));
    }
    assert_eq!(connections.count(at(30_000)).established, 1);
}

#[test]
fn a_flood_of_half_open_connections_displaces_its_own_kind() {
    let connections = Connections::new(7);
    let honest: Vec<Key> = (0..8_000).map(|number| key(number << 8)).collect();
    honest.iter().for_each(|key| established(&connections, key, at(0)));
    // All of it within a minute: nothing expires.
    for number in 0..200_000_u32 {
        let flood = key(1 << 31 | number);
        let now = at(1 + u64::from(number) / 10_000);
        connections.admit(&flood, Direction::In, State::SynSent, EPOCH, now).unwrap();
        assert!(knows(&connections, &flood, now), "the newest is there");
    }
    for key in &honest {
        assert!(
            step(&connections, key, Direction::Out, ACK, at(22)).is_some(),
            "an established one was displaced"
        );
    }
    let count = connections.count(at(22));
    assert_eq!(count.established, honest.len());
    assert!(count.half_open + count.established <= CAPACITY, "{count:?}");
    assert!(count.half_open > CAPACITY / 2, "the room is used: {count:?}");
}

#[test]
fn established_connections_give_way_only_when_they_have_been_silent() {
    let connections = Connections::with_capacity(7, 16);
    // Two sets of eight: all keys may stand in either, or twice in the same.
    let mut admitted = Vec::new();
    for number in 0..400 {
        if connections.admit(&key(number), Direction::In, State::Established, EPOCH, at(0)).is_ok() {
            admitted.push(key(number));
        }
    }
    assert_eq!(admitted.len(), 16);
    let full = connections.admit(&key(1000), Direction::In, State::Established, EPOCH, at(299));
    assert_eq!(full, Err(Full));
    assert!(admitted.iter().all(|key| knows(&connections, key, at(299))));
    assert_eq!(connections.admit(&key(1000), Direction::In, State::SynSent, EPOCH, at(301)), Ok(()));
    assert_eq!(admitted.iter().filter(|key| !knows(&connections, key, at(301))).count(), 1);
}

#[test]
fn a_guess_helps_to_find_a_connection_and_never_finds_another() {
    let connections = Connections::with_capacity(7, 64);
    let admitted: Vec<Key> = (0..40).map(|number| key(number << 8)).collect();
    for (number, key) in (1..).zip(&admitted) {
        connections.admit(key, Direction::In, State::Started, Generation(number), at(0)).unwrap();
    }
    let asked = admitted.iter().map(|key| Some(*key)).chain([None, Some(key(1))]);
    let guesses: [Guess; 64] = connections.guess(asked);
    let right = (1..).zip(&admitted).zip(guesses).filter(|&((number, key), guess)| {
        let found = connections.find_guessed(key, guess, at(0)).unwrap();
        assert_eq!(found.epoch(), Generation(number));
        usize::try_from(guess.0)
            .ok()
            .and_then(|at| connections.slots.find_at(at, key, Tick::of(Nanos(0))))
            .is_some()
    });
    // Tags may collide, seldom.
    assert!(right.count() > 35);
    assert_eq!(guesses[42..], [Guess::NONE; 22]);
    // Any guess will do, but for the time that it takes.
    for wrong in (0..64).map(Guess).chain([Guess::NONE, Guess(64), Guess(1 << 31)]) {
        for (number, key) in (1..).zip(&admitted) {
            let found = connections.find_guessed(key, wrong, at(0)).unwrap();
            assert_eq!(found.epoch(), Generation(number));
        }
        assert!(connections.find_guessed(&key(1), wrong, at(0)).is_none());
    }
}

#[test]
fn slots_do_what_a_plain_map_does() {
    let connections = Connections::with_capacity(7, 4096);
    let mut plain: HashMap<Key, Direction> = HashMap::new();
    let mut dice = 1_u64;
    for number in 0..200_000_u32 {
        // Marsaglia's xorshift: any order will do.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let key = key(u32::try_from(dice % 700).unwrap());
        let direction = if dice & 1 << 40 == 0 { Direction::In } else { Direction::Out };
        let found = connections.find(&key, at(0));
        assert_eq!(found.map(|known| known.origin()), plain.get(&key).copied(), "step {number}");
        match found {
            Some(known) if dice & 3 << 41 == 0 => {
                assert!(connections.follow(&known, direction, Segment::Tcp(Flags::RST), at(0)));
                assert!(step(&connections, &key, direction, Segment::Tcp(Flags::SYN), at(0)).is_none());
                plain.remove(&key);
            }
            Some(_) => {}
            None => {
                connections.admit(&key, direction, State::Established, EPOCH, at(0)).unwrap();
                plain.insert(key, direction);
            }
        }
    }
}

#[test]
fn several_workers_never_see_one_connection_for_another() {
    // Few slots, so that they change hands all the time.
    let connections = &Connections::with_capacity(7, 16);
    std::thread::scope(|scope| {
        for worker in 0..3_u32 {
            scope.spawn(move || {
                for round in 0..60_000_u32 {
                    // A key tells its epoch.
                    let number = round.wrapping_mul(2_654_435_761).wrapping_add(worker) % 64;
                    let epoch = Generation(u64::from(number) + 1);
                    match step(connections, &key(number), Direction::In, Segment::Datagram, at(0)) {
                        Some(known) => assert_eq!(known.epoch(), epoch),
                        None => {
                            let state = State::Started;
                            let _ = connections.admit(&key(number), Direction::In, state, epoch, at(0));
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn of_two_workers_that_meet_a_new_beginning_both_ask_the_rules() {
    let connections = Connections::new(7);
    let syn = Segment::Tcp(Flags::SYN);
    connections.admit(&key(1), Direction::Out, State::SynSent, EPOCH, at(0)).unwrap();
    step(&connections, &key(1), Direction::In, Segment::Tcp(Flags::RST), at(1)).unwrap();
    // Two workers, one SYN each, of the side that the rules do not let begin.
    let (one, other) = (connections.find(&key(1), at(2)).unwrap(), connections.find(&key(1), at(2)).unwrap());
    assert!(!connections.follow(&one, Direction::In, syn, at(2)));
    assert!(!connections.follow(&other, Direction::In, syn, at(2)), "passes, and no rule was asked");
}
