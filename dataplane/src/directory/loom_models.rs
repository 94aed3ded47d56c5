//! Every interleaving, and every value that a load may return by its ordering, of a reader beside one change. Each
//! model has a twin with one hole opened on purpose, which must fail. They run without the feature `io`, where slots are
//! all that there is.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use loom::thread;

use super::segment::Segment;
use super::*;
use crate::sync::{LOADS_TORN, STORES_RELAXED};

fn vni() -> Vni {
    Vni::new(1).unwrap()
}

fn v4(number: u8) -> CustomerIp {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn v6(number: u16) -> CustomerIp {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into()
}

/// Locations of which every part differs: both halves of the slot, and what stands on the shelf.
fn location(number: u8) -> Location {
    let mac = MacAddr([number << 1, number, number, number, number, number]);
    Location { physical_ip: Ipv4Addr::new(192, 0, 2, number).into(), mac, version: number }
}

fn look_up(reader: &DirectoryReader, ip: CustomerIp) -> Option<Location> {
    reader.lookup(reader.hash(vni(), ip), vni(), ip)
}

/// Runs `change` beside `look`, on a directory that `prepare` filled. `bits` are those that all hashes keep.
fn beside(
    bits: u64,
    prepare: fn(&DirectoryWriter),
    change: fn(&DirectoryWriter),
    look: fn(&mut DirectoryReader),
) {
    beside_in_segments(usize::MAX, bits, prepare, change, look);
}

/// The same, where a segment of `split_buckets` buckets is built as two.
fn beside_in_segments(
    split_buckets: usize,
    bits: u64,
    prepare: fn(&DirectoryWriter),
    change: fn(&DirectoryWriter),
    look: fn(&mut DirectoryReader),
) {
    loom::model(move || {
        let mut hasher = Hasher::new(1);
        hasher.bits = bits;
        let (writer, mut readers) = DirectoryWriter::with(Engine::Slots, &hasher, split_buckets, 1);
        prepare(&writer);
        let mut reader = readers.pop().unwrap();
        reader.refresh();
        let reader = thread::spawn(move || look(&mut reader));
        change(&writer);
        reader.join().unwrap();
    });
}

fn set(writer: &DirectoryWriter, ip: CustomerIp, number: u8) {
    writer.set(vni(), ip, location(number)).unwrap();
}

/// One entry, in a table with room for another and its host.
fn one_entry(writer: &DirectoryWriter) {
    set(writer, v4(1), 1);
    make_room(writer);
}

/// Has the segment built anew, so that the next changes are made in place.
fn make_room(writer: &DirectoryWriter) {
    grow(writer);
    writer.remove(vni(), v4(2));
}

/// Another location for the entry: no new table, so what readers see is the store.
fn in_place(writer: &DirectoryWriter) {
    let before = version(writer);
    set(writer, v4(1), 2);
    assert_eq!(version(writer), before, "the model is about a change in place");
}

fn old_or_new(reader: &mut DirectoryReader) {
    let mut seen_new = false;
    for _ in 0..2 {
        let found = look_up(reader, v4(1)).expect("missed");
        assert!(found == location(1) && !seen_new || found == location(2), "torn, or back in time");
        seen_new |= found == location(2);
    }
}

#[test]
fn loom_an_update_is_seen_as_the_old_or_the_new_entry() {
    beside(u64::MAX, one_entry, in_place, old_or_new);
}

#[test]
#[should_panic(expected = "torn")]
fn loom_catches_loads_in_two_halves() {
    LOADS_TORN.set(true);
    beside(u64::MAX, one_entry, in_place, old_or_new);
}

#[test]
#[should_panic(expected = "missed")]
fn loom_catches_an_update_by_removal_and_insertion() {
    let change = |writer: &DirectoryWriter| {
        writer.remove(vni(), v4(1));
        set(writer, v4(1), 2);
    };
    beside(u64::MAX, one_entry, change, old_or_new);
}

fn long_entry(writer: &DirectoryWriter) {
    set(writer, v6(1), 1);
    make_room(writer);
}

fn long_old_or_new(reader: &mut DirectoryReader) {
    let found = look_up(reader, v6(1)).expect("missed");
    assert!(found == location(1) || found == location(2), "torn");
}

#[test]
fn loom_an_ipv6_update_brings_its_shelf_entry_along() {
    beside(u64::MAX, long_entry, |writer| set(writer, v6(1), 2), long_old_or_new);
}

#[test]
#[should_panic(expected = "missed")]
fn loom_catches_a_slot_that_does_not_publish_the_shelf() {
    STORES_RELAXED.set(true);
    beside(u64::MAX, long_entry, |writer| set(writer, v6(1), 2), long_old_or_new);
}

fn whose_host_is_known(reader: &mut DirectoryReader) {
    if let Some(found) = look_up(reader, v4(1)).filter(|found| *found == location(2)) {
        assert!(reader.is_known_host(found.physical_ip), "an entry names an unknown host");
    }
}

#[test]
fn loom_a_host_is_known_before_an_entry_names_it() {
    beside(u64::MAX, one_entry, in_place, whose_host_is_known);
}

#[test]
#[should_panic(expected = "an entry names an unknown host")]
fn loom_catches_an_entry_that_overtakes_its_host() {
    STORES_RELAXED.set(true);
    beside(u64::MAX, one_entry, in_place, whose_host_is_known);
}

/// A full bucket (the host and three entries), and a fourth entry in the next.
fn past_a_full_bucket(writer: &DirectoryWriter) {
    for number in 1..=4 {
        writer.set(vni(), v4(number), Location { version: number, ..location(1) }).unwrap();
    }
}

#[test]
fn loom_an_entry_past_a_removed_and_reused_slot_is_never_missed() {
    let change = |writer: &DirectoryWriter| {
        writer.remove(vni(), v4(1));
        writer.set(vni(), v4(9), Location { version: 9, ..location(1) }).unwrap();
    };
    beside(0, past_a_full_bucket, change, |reader| {
        assert_eq!(look_up(reader, v4(4)).expect("missed").version, 4);
        assert!(look_up(reader, v4(9)).is_none_or(|found| found.version == 9), "another key's entry");
        assert!(look_up(reader, v4(1)).is_none_or(|found| found.version == 1), "another key's entry");
    });
}

#[test]
fn loom_the_full_bucket_is_one() {
    // What the model above rests on: all hashes collide, and the fifth slot is in the second bucket.
    loom::model(|| {
        let mut hasher = Hasher::new(1);
        hasher.bits = 0;
        let (writer, _) = DirectoryWriter::with(Engine::Slots, &hasher, usize::MAX, 0);
        past_a_full_bucket(&writer);
        let Side::Slots { books, .. } = &writer.side;
        let books = lock(books);
        let segment = &books.table().segments()[0];
        assert_eq!((segment.entries().count(), books.slots()), (5, 12));
        assert!(segment.ends_search(1) && !segment.ends_search(0));
    });
}

fn the_kept_entry(reader: &mut DirectoryReader) {
    assert_eq!(look_up(reader, v4(1)).expect("missed"), location(1));
    reader.refresh();
    assert_eq!(look_up(reader, v4(1)).expect("missed"), location(1));
}

fn first_entry(writer: &DirectoryWriter) {
    set(writer, v4(1), 1);
}

/// Sets a second entry, for which a new table is built.
fn grow(writer: &DirectoryWriter) {
    let before = version(writer);
    set(writer, v4(2), 2);
    assert!(version(writer) > before, "the model is about growth");
}

fn version(writer: &DirectoryWriter) -> crate::publish::Version {
    let Side::Slots { publisher, .. } = &writer.side;
    publisher.version()
}

/// Publishes what `change` makes of the table, behind the writer's back.
fn publish(writer: &DirectoryWriter, change: impl FnOnce(&mut Table)) {
    let Side::Slots { publisher, books } = &writer.side;
    let mut table = Table::clone(lock(books).table());
    change(&mut table);
    publisher.publish(Arc::new(table));
}

#[test]
fn loom_a_segment_is_full_when_it_is_published() {
    beside(u64::MAX, first_entry, grow, the_kept_entry);
}

#[test]
#[should_panic(expected = "missed")]
fn loom_catches_a_segment_published_before_it_is_full() {
    let change = |writer: &DirectoryWriter| {
        publish(writer, |table| table.put(0, 1, &Segment::new(1)));
        grow(writer);
    };
    beside(u64::MAX, first_entry, change, the_kept_entry);
}

fn split(writer: &DirectoryWriter) {
    grow(writer);
    let Side::Slots { books, .. } = &writer.side;
    assert_eq!(lock(books).table().depth(), 1, "the model is about splitting");
}

#[test]
fn loom_halves_of_a_segment_are_full_when_they_are_published() {
    beside_in_segments(1, u64::MAX, first_entry, split, the_kept_entry);
}

#[test]
#[should_panic(expected = "missed")]
fn loom_catches_halves_that_change_places() {
    let change = |writer: &DirectoryWriter| {
        split(writer);
        publish(writer, |table| {
            let halves = table.segments().to_vec();
            table.put(0, 1, &halves[1]);
            table.put(1, 1, &halves[0]);
        });
    };
    beside_in_segments(1, u64::MAX, first_entry, change, the_kept_entry);
}

fn gone_for_ever(reader: &mut DirectoryReader) {
    let mut gone = false;
    for _ in 0..3 {
        let found = look_up(reader, v4(1));
        assert!(found.is_none() || !gone, "it came back");
        gone |= found.is_none();
        reader.refresh();
    }
}

#[test]
fn loom_a_removal_beside_growth_is_not_undone() {
    let change = |writer: &DirectoryWriter| {
        grow(writer);
        writer.remove(vni(), v4(1));
    };
    beside(u64::MAX, first_entry, change, gone_for_ever);
}

#[test]
#[should_panic(expected = "it came back")]
fn loom_catches_a_segment_copied_before_a_removal() {
    let change = |writer: &DirectoryWriter| {
        let Side::Slots { books, .. } = &writer.side;
        let segment = Segment::new(3);
        for (key, value) in lock(books).table().segments()[0].entries() {
            let mut hasher = Hasher::new(1);
            hasher.bits = u64::MAX;
            segment.insert(hasher.hash(key), key, value, &mut 0);
        }
        writer.remove(vni(), v4(1));
        publish(writer, |table| table.put(0, 1, &segment));
    };
    beside(u64::MAX, first_entry, change, gone_for_ever);
}
