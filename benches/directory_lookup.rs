//! What does one look-up cost in a batch of random keys, while a writer overwrites random entries without a pause?
//!
//! `directory_lookup/{10k,1M}/{ours,papaya,scc,dashmap,rwlock}`. Every contender maps to the same `Location`. The
//! rivals get a compact integer key, the same hash function and one guard (or one read lock) per batch, where they have
//! such a thing: all that they could ask for. Printed beside the times: the writer's rate, because a map can be fast to
//! read by starving its writer, and how many look-ups missed a key that is there all the time.

#![expect(clippy::print_stdout, reason = "the writer's rate and the misses are results")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so loudly")]

use std::collections::HashMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::directory::{DirectoryReader, DirectoryWriter, Engine, Entry, Location};
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};
use foldhash::quality::RandomState;

const BATCH: usize = 64;

/// xorshift64*: good enough to defeat caches and prefetchers, and the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (usize::try_from(high).unwrap_or(0) * limit) >> 32
    }
}

/// The address of entry `number`: 100 networks, all with the same customer addresses.
fn address(number: usize) -> (Vni, CustomerIp) {
    let number = u32::try_from(number).unwrap_or(0);
    let vni = Vni::new(1 + number % 100).expect("1 to 100");
    (vni, Ipv4Addr::from_bits((10 << 24) + number / 100).into())
}

fn integer((vni, ip): (Vni, CustomerIp)) -> u64 {
    match ip.0 {
        std::net::IpAddr::V4(ip) => u64::from(vni.value()) << 32 | u64::from(ip.to_bits()),
        std::net::IpAddr::V6(_) => 0,
    }
}

fn location(number: usize, round: u64) -> Location {
    let [.., a, b, c] = number.to_be_bytes();
    let [.., version] = round.to_be_bytes();
    let host = u32::from(a ^ b ^ c ^ version);
    let physical_ip = PhysicalIp::from(Ipv4Addr::from_bits((192 << 24) + (2 << 8) + host));
    Location { physical_ip, mac: MacAddr([2, 0, 0, a, b, c]), version }
}

/// A map as the benchmark sees it.
trait Contender: Sync {
    fn write(&self, number: usize, location: Location);
}

/// Looks up batches while a writer writes.
fn measure<C: Contender>(
    criterion: &mut Criterion,
    (case, entries): (&str, usize),
    name: &str,
    map: &C,
    mut look_up: impl FnMut(&[(Vni, CustomerIp)]) -> usize,
) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    // Long enough not to be learnt, read in sequence like a receive ring.
    let wanted: Vec<_> = (0..1 << 20).map(|_| address(random.below(entries))).collect();
    let (stop, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(0x1234_5678_9abc_def1);
            let mut round = 1;
            while !stop.load(Ordering::Relaxed) {
                let number = random.below(entries);
                map.write(number, location(number, round));
                round = writes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut group = criterion.benchmark_group(format!("directory_lookup/{case}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut batches = wanted.chunks_exact(BATCH).cycle();
        let mut missed = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let batch = batches.next().unwrap_or_default();
                missed += BATCH - look_up(black_box(batch));
            });
        });
        group.finish();
        if missed > 0 {
            println!("directory_lookup/{case}/{name}: {missed} look-ups MISSED a key that is there");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = writes.into_inner() / milliseconds;
    println!("directory_lookup/{case}/{name}: {rate} thousand writes/s beside it");
}

struct Ours(DirectoryWriter);

impl Contender for Ours {
    fn write(&self, number: usize, location: Location) {
        let (vni, ip) = address(number);
        self.0.set(vni, ip, location).expect("hosts are few");
    }
}

fn look_up_ours(reader: &mut DirectoryReader, batch: &[(Vni, CustomerIp)]) -> usize {
    reader.refresh();
    let mut hashes = [None; BATCH];
    for (hash, (vni, ip)) in hashes.iter_mut().zip(batch) {
        let value = reader.hash(*vni, *ip);
        reader.prefetch(value);
        *hash = Some(value);
    }
    let found = hashes.iter().flatten().zip(batch).map(|(hash, (vni, ip))| reader.lookup(*hash, *vni, *ip));
    found.filter(|found| black_box(found).is_some()).count()
}

fn ours(criterion: &mut Criterion, case: (&str, usize)) {
    let (writer, mut readers) = DirectoryWriter::on(Engine::Slots, 0x5eed, 1);
    let entry = |number| {
        let (vni, ip) = address(number);
        Entry { vni, ip, location: location(number, 0) }
    };
    writer.extend((0..case.1).map(entry)).expect("hosts are few");
    let mut reader = readers.pop().expect("one reader");
    measure(criterion, case, "ours", &Ours(writer), |batch| look_up_ours(&mut reader, batch));
}

impl Contender for papaya::HashMap<u64, Location, RandomState> {
    fn write(&self, number: usize, location: Location) {
        self.pin().insert(integer(address(number)), location);
    }
}

fn papaya(criterion: &mut Criterion, case: (&str, usize)) {
    let map = papaya::HashMap::with_capacity_and_hasher(case.1, RandomState::default());
    (0..case.1).for_each(|number| map.write(number, location(number, 0)));
    measure(criterion, case, "papaya", &map, |batch| {
        let map = map.pin();
        batch.iter().filter(|key| black_box(map.get(&integer(**key)).copied()).is_some()).count()
    });
}

impl Contender for scc::HashIndex<u64, Location, RandomState> {
    fn write(&self, number: usize, location: Location) {
        let key = integer(address(number));
        match self.get_sync(&key) {
            Some(mut entry) => entry.update(location),
            None => drop(self.insert_sync(key, location)),
        }
    }
}

fn scc(criterion: &mut Criterion, case: (&str, usize)) {
    let map = scc::HashIndex::with_capacity_and_hasher(case.1, RandomState::default());
    (0..case.1).for_each(|number| map.write(number, location(number, 0)));
    measure(criterion, case, "scc", &map, |batch| {
        let guard = scc::Guard::new();
        batch.iter().filter(|key| black_box(map.peek(&integer(**key), &guard).copied()).is_some()).count()
    });
}

impl Contender for dashmap::DashMap<u64, Location, RandomState> {
    fn write(&self, number: usize, location: Location) {
        self.insert(integer(address(number)), location);
    }
}

fn dashmap(criterion: &mut Criterion, case: (&str, usize)) {
    let map = dashmap::DashMap::with_capacity_and_hasher(case.1, RandomState::default());
    (0..case.1).for_each(|number| map.write(number, location(number, 0)));
    measure(criterion, case, "dashmap", &map, |batch| {
        batch.iter().filter(|key| black_box(map.get(&integer(**key)).map(|found| *found)).is_some()).count()
    });
}

struct Locked(RwLock<HashMap<u64, Location, RandomState>>);

impl Contender for Locked {
    fn write(&self, number: usize, location: Location) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(integer(address(number)), location);
    }
}

fn rwlock(criterion: &mut Criterion, case: (&str, usize)) {
    let map = Locked(RwLock::new(HashMap::with_capacity_and_hasher(case.1, RandomState::default())));
    (0..case.1).for_each(|number| map.write(number, location(number, 0)));
    measure(criterion, case, "rwlock", &map, |batch| {
        let map = map.0.read().unwrap_or_else(PoisonError::into_inner);
        batch.iter().filter(|key| black_box(map.get(&integer(**key)).copied()).is_some()).count()
    });
}

fn directory_lookup(criterion: &mut Criterion) {
    for case in [("10k", 10_000), ("1M", 1_000_000)] {
        for contender in [ours, papaya, scc, dashmap, rwlock] {
            contender(criterion, case);
        }
    }
}

criterion_group!(benches, directory_lookup);
criterion_main!(benches);
