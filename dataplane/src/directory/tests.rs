use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

const ENGINES: [Engine; 2] = [Engine::Slots, Engine::Library];

fn vni(value: u32) -> Vni {
    Vni::new(value).unwrap()
}

/// Every fourth address is IPv6.
fn ip(number: u32) -> CustomerIp {
    let ip: IpAddr = match number % 4 {
        3 => Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number)).into(),
        _ => Ipv4Addr::from_bits(10 << 24 | number).into(),
    };
    CustomerIp(ip)
}

fn host(number: u32) -> PhysicalIp {
    let ip: IpAddr = match number % 4 {
        3 => Ipv6Addr::from_bits(0xfd01 << 112 | u128::from(number)).into(),
        _ => Ipv4Addr::from_bits(172 << 24 | 16 << 16 | number).into(),
    };
    PhysicalIp(ip)
}

/// A location of which every field can be told from the number.
fn location(number: u32) -> Location {
    let [a, b, c, d] = number.to_be_bytes();
    Location { physical_ip: host(number % 50), mac: MacAddr([2, d, a, b, c, d]), version: d }
}

fn look_up(reader: &DirectoryReader, vni: Vni, ip: CustomerIp) -> Option<Location> {
    let hash = reader.hash(vni, ip);
    reader.prefetch(hash);
    if ip.0.is_ipv4() == hash.0.is_multiple_of(2) {
        return reader.end(reader.begin(vni, ip), vni, ip);
    }
    reader.lookup(hash, vni, ip)
}

/// Segments of so many buckets are built as two: small, so that few entries make many segments.
const SMALL: usize = 20;

fn one(engine: Engine) -> (DirectoryWriter, DirectoryReader) {
    let (writer, mut readers) = DirectoryWriter::with(engine, &Hasher::new(7), SMALL, 1);
    (writer, readers.pop().unwrap())
}

fn slots(writer: &DirectoryWriter) -> usize {
    match &writer.side {
        Side::Slots { books, .. } => lock(books).slots(),
        Side::Library(_) => 0,
    }
}

#[derive(Debug, Clone)]
enum Op {
    Set {
        vni: u32,
        ip: u32,
        location: u32,
    },
    Remove {
        vni: u32,
        ip: u32,
    },
    /// Sets that many neighbours, to force growth.
    Extend {
        vni: u32,
        ip: u32,
        count: u32,
    },
    /// Removes that many, to force shrinking.
    RemoveMany {
        vni: u32,
        ip: u32,
        count: u32,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (1..3_u32, 0..60_u32, any::<u32>()).prop_map(|(vni, ip, location)| Op::Set { vni, ip, location }),
        8 => (1..3_u32, 0..60_u32).prop_map(|(vni, ip)| Op::Remove { vni, ip }),
        1 => (1..3_u32, 0..60_u32, 0..80_u32).prop_map(|(vni, ip, count)| Op::Extend { vni, ip, count }),
        1 => (1..3_u32, 0..60_u32, 0..80_u32).prop_map(|(vni, ip, count)| Op::RemoveMany { vni, ip, count }),
    ];
    prop::collection::vec(op, 0..120)
}

/// Does each operation to the directory and to a plain map, and compares all that can be seen.
fn agrees_with_a_plain_map(engine: Engine, bits: u64, ops: &[Op]) {
    let mut hasher = Hasher::new(3);
    hasher.bits = bits;
    let (writer, mut readers) = DirectoryWriter::with(engine, &hasher, SMALL, 1);
    let mut reader = readers.pop().unwrap();
    let mut model: HashMap<(Vni, CustomerIp), Location> = HashMap::new();
    for op in ops {
        match *op {
            Op::Set { vni: v, ip: i, location: l } => {
                let previous = writer.set(vni(v), ip(i), location(l)).unwrap();
                assert_eq!(previous, model.insert((vni(v), ip(i)), location(l)));
            }
            Op::Remove { vni: v, ip: i } => {
                assert_eq!(writer.remove(vni(v), ip(i)), model.remove(&(vni(v), ip(i))));
            }
            Op::Extend { vni: v, ip: i, count } => {
                let entry = |n| Entry { vni: vni(v), ip: ip(n), location: location(n) };
                assert_eq!(writer.extend((i..i + count).map(entry)), Ok(count as usize));
                model.extend((i..i + count).map(|n| ((vni(v), ip(n)), location(n))));
            }
            Op::RemoveMany { vni: v, ip: i, count } => {
                for n in i..i + count {
                    assert_eq!(writer.remove(vni(v), ip(n)), model.remove(&(vni(v), ip(n))));
                }
            }
        }
        reader.refresh();
        for (v, i) in (1..3).flat_map(|v| (0..140).map(move |i| (vni(v), ip(i)))) {
            assert_eq!(look_up(&reader, v, i), model.get(&(v, i)).copied());
        }
        let hosts: HashSet<_> = model.values().map(|location| location.physical_ip).collect();
        assert!((0..50).map(host).all(|host| reader.is_known_host(host) == hosts.contains(&host)));
        assert_eq!((writer.len(), writer.known_hosts()), (model.len(), hosts.len()));
    }
    let entries = writer.entries();
    assert_eq!(entries.len(), model.len());
    assert!(entries.iter().all(|e| model.get(&(e.vni, e.ip)) == Some(&e.location)));
    assert!(entries.iter().all(|e| writer.get(e.vni, e.ip) == Some(e.location)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn slots_agree_with_a_plain_map(ops in ops()) {
        agrees_with_a_plain_map(Engine::Slots, u64::MAX, &ops);
    }

    #[test]
    fn slots_agree_with_a_plain_map_though_all_hashes_collide(ops in ops(), bits in 0..4_u64) {
        agrees_with_a_plain_map(Engine::Slots, bits << 62, &ops);
    }

    #[test]
    fn the_library_agrees_with_a_plain_map(ops in ops()) {
        agrees_with_a_plain_map(Engine::Library, u64::MAX, &ops);
    }
}

#[test]
fn the_same_address_in_two_networks_is_two_entries() {
    for engine in ENGINES {
        let (writer, reader) = one(engine);
        for number in [0, 3] {
            writer.set(vni(1), ip(number), location(1)).unwrap();
            writer.set(vni(2), ip(number), location(2)).unwrap();
            assert_eq!(look_up(&reader, vni(1), ip(number)), Some(location(1)));
            assert_eq!(look_up(&reader, vni(2), ip(number)), Some(location(2)));
            assert_eq!(look_up(&reader, vni(3), ip(number)), None);
        }
    }
}

#[test]
fn an_update_acts_without_a_refresh() {
    for (engine, number) in [(Engine::Slots, 0), (Engine::Slots, 3), (Engine::Library, 0)] {
        let (writer, reader) = one(engine);
        writer.set(vni(1), ip(number), location(1)).unwrap();
        assert_eq!(look_up(&reader, vni(1), ip(number)), Some(location(1)));
        assert_eq!(writer.set(vni(1), ip(number), location(2)), Ok(Some(location(1))));
        assert_eq!(look_up(&reader, vni(1), ip(number)), Some(location(2)));
        assert_eq!(writer.remove(vni(1), ip(number)), Some(location(2)));
        assert_eq!(look_up(&reader, vni(1), ip(number)), None);
    }
}

#[test]
fn a_host_is_known_while_an_entry_names_it() {
    for engine in ENGINES {
        let (writer, reader) = one(engine);
        let at = |number| Location { physical_ip: host(number), ..location(0) };
        assert!(!reader.is_known_host(host(1)));
        writer.set(vni(1), ip(1), at(1)).unwrap();
        writer.set(vni(2), ip(1), at(1)).unwrap();
        writer.set(vni(1), ip(1), at(1)).unwrap();
        assert!(reader.is_known_host(host(1)));
        writer.set(vni(1), ip(1), at(3)).unwrap();
        assert!(reader.is_known_host(host(1)) && reader.is_known_host(host(3)));
        writer.remove(vni(2), ip(1));
        assert!(!reader.is_known_host(host(1)) && reader.is_known_host(host(3)));
        writer.remove(vni(1), ip(1));
        writer.remove(vni(1), ip(1));
        assert!(!reader.is_known_host(host(3)));
        assert_eq!(writer.known_hosts(), 0);
        assert!(!reader.is_known_host(Ipv4Addr::UNSPECIFIED.into()));
    }
}

#[test]
fn what_cannot_be_a_location_is_refused_with_a_sentence() {
    for engine in ENGINES {
        let (writer, _) = one(engine);
        let group = Location { mac: MacAddr([1, 0, 0, 0, 0, 1]), ..location(1) };
        assert_eq!(
            writer.set(vni(5), ip(1), group).unwrap_err().to_string(),
            "cannot map 10.0.0.1 in network 5 to 01:00:00:00:00:01: not a unicast MAC address; expected an even first octet"
        );
        let nowhere = Location { physical_ip: Ipv4Addr::UNSPECIFIED.into(), ..location(1) };
        assert_eq!(
            writer.set(vni(5), ip(1), nowhere).unwrap_err().to_string(),
            "cannot map 10.0.0.1 in network 5 to host 0.0.0.0: expected the address of a host"
        );
        assert!(writer.is_empty());
    }
}

#[test]
fn the_65537th_host_is_refused_and_a_forgotten_one_makes_room() {
    let (writer, mut reader) = one(Engine::Slots);
    let at = |number| Location { physical_ip: host(number), ..location(0) };
    for number in 0..1 << 16 {
        writer.set(vni(1), ip(number), at(number)).unwrap();
    }
    let refused = writer.set(vni(1), ip(1 << 16), at(1 << 16)).unwrap_err();
    assert_eq!(refused, DirectoryError::TooManyHosts { host: host(1 << 16), max: 1 << 16 });
    assert_eq!(writer.set(vni(1), ip(1 << 16), at(9)), Ok(None));
    writer.remove(vni(1), ip(5));
    assert_eq!(writer.set(vni(1), ip(5), at(1 << 16)), Ok(None));
    reader.refresh();
    assert!(reader.is_known_host(host(1 << 16)) && !reader.is_known_host(host(5)));
    assert_eq!(look_up(&reader, vni(1), ip(5)), Some(at(1 << 16)));
    assert!((0..1 << 16).filter(|n| *n != 5).all(|n| look_up(&reader, vni(1), ip(n)) == Some(at(n))));
}

#[test]
fn a_table_neither_clogs_nor_keeps_its_greatest_size() {
    let (writer, mut reader) = one(Engine::Slots);
    // Churn: 100 entries alive at a time, 100,000 in all, a quarter of them IPv6, some overwritten.
    for number in 0..100_000 {
        writer.set(vni(1), ip(number), location(number)).unwrap();
        writer.set(vni(1), ip(number), location(number + 1)).unwrap();
        if number >= 100 {
            assert_eq!(writer.remove(vni(1), ip(number - 100)), Some(location(number - 99)));
        }
        assert!(slots(&writer) < 1000, "{} slots for 100 entries", slots(&writer));
    }
    if let Side::Slots { publisher, .. } = &writer.side {
        let tables = publisher.version().number();
        assert!(
            tables < 1000,
            "{tables} tables: a slot in a bucket that ends searches is free again at once"
        );
    }
    reader.refresh();
    assert!((99_900..100_000).all(|n| look_up(&reader, vni(1), ip(n)) == Some(location(n + 1))));
    // Growth and shrinking.
    let entry = |n| Entry { vni: vni(2), ip: ip(n), location: location(n) };
    writer.extend((0..50_000).map(entry)).unwrap();
    let full = slots(&writer);
    assert!((50_000 * 10 / 7..50_000 * 3).contains(&full), "{full}");
    for number in 0..50_000 {
        writer.remove(vni(2), ip(number));
    }
    assert!(slots(&writer) < 2000, "{} slots for 100 entries", slots(&writer));
    if let Side::Slots { publisher, .. } = &writer.side {
        assert_eq!(
            publisher.collect(),
            1,
            "the reader still has the table of its last refresh, and nobody another"
        );
        reader.refresh();
        assert_eq!(publisher.collect(), 0);
    }
}

#[test]
fn updates_in_place_do_not_fill_the_shelf() {
    let (writer, reader) = one(Engine::Slots);
    let (publisher, books) = match &writer.side {
        Side::Slots { publisher, books } => (publisher, books),
        Side::Library(_) => unreachable!(),
    };
    for number in 0..1000 {
        writer.set(vni(1), ip(3), location(number)).unwrap();
    }
    assert_eq!(writer.get(vni(1), ip(3)), Some(location(999)));
    assert!(publisher.version().number() > 5, "IPv6 entries were never cleaned up");
    assert_eq!(lock(books).len(), 1);
    drop(reader);
}

/// The value of `number` in round `round`: its fields can be checked against each other.
fn round_value(number: u32, round: u32) -> Location {
    let [.., a, b] = number.to_be_bytes();
    let [.., c, d] = round.to_be_bytes();
    Location { physical_ip: host(round % 8), mac: MacAddr([2, a, b, c, d, 0x55]), version: d }
}

fn assert_whole(number: u32, found: Location) {
    let [_, a, b, c, d, _] = found.mac.0;
    let round = u32::from_be_bytes([0, 0, c, d]);
    assert_eq!(found, round_value(number, round), "a torn value, or another key's");
    assert_eq!([0, 0, a, b], number.to_be_bytes());
}

#[test]
fn a_present_key_is_never_missed_and_never_torn_while_the_writer_does_its_worst() {
    const KEPT: u32 = 400;
    const PASSING: u32 = 3000;
    for (engine, bits) in [(Engine::Slots, u64::MAX), (Engine::Slots, 0xf << 60), (Engine::Library, u64::MAX)]
    {
        let mut hasher = Hasher::new(11);
        hasher.bits = bits;
        let (writer, readers) = DirectoryWriter::with(engine, &hasher, SMALL, 2);
        for number in 0..KEPT {
            writer.set(vni(1), ip(number), round_value(number, 0)).unwrap();
        }
        writer.set(vni(2), ip(0), Location { physical_ip: host(100), ..location(0) }).unwrap();
        let rounds = if bits == u64::MAX { 60 } else { 4 };
        let stop = AtomicBool::new(false);
        let looked_up: u64 = thread::scope(|scope| {
            let stop = &stop;
            let readers: Vec<_> = readers
                .into_iter()
                .map(|mut reader| {
                    scope.spawn(move || {
                        let mut batches = 0;
                        while !stop.load(Ordering::Relaxed) {
                            reader.refresh();
                            for number in 0..KEPT {
                                let found = look_up(&reader, vni(1), ip(number));
                                assert_whole(number, found.expect("a present key was missed"));
                            }
                            for number in (KEPT..PASSING).step_by(97) {
                                if let Some(found) = look_up(&reader, vni(1), ip(number)) {
                                    assert_whole(number, found);
                                }
                            }
                            assert!(reader.is_known_host(host(100)), "a known host was missed");
                            batches += 1;
                        }
                        batches
                    })
                })
                .collect();
            let work = || {
                for round in 1..rounds {
                    // Growth by passing keys, updates of kept ones in between, then shrinking.
                    for number in KEPT..PASSING {
                        writer.set(vni(1), ip(number), round_value(number, round)).unwrap();
                        writer.set(vni(1), ip(number % KEPT), round_value(number % KEPT, round)).unwrap();
                    }
                    for number in KEPT..PASSING {
                        writer.remove(vni(1), ip(number));
                    }
                }
            };
            // Let the readers go also when this fails.
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            stop.store(true, Ordering::Relaxed);
            let batches = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
            worked.unwrap();
            batches
        });
        assert!(looked_up > 0);
    }
}

#[test]
fn this_machine_uses_the_slots() {
    assert_eq!(Engine::of_this_machine(), Engine::Slots, "{}", Engine::of_this_machine().sentence());
    assert_eq!(DirectoryWriter::new(1, 0).0.engine(), Engine::Slots);
}
