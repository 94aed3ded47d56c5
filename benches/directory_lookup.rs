//! What does one look-up cost in a batch of random keys, beside a writer that overwrites random entries at some rate?
//!
//! `directory_lookup/{10k,1M,10M}/{0,100k,1M}/{ours,papaya,scc,dashmap,rwlock}`: entries, updates a second, contender.
//! Every contender maps to the same `Location`, which is copied out and used. The rivals get a compact integer key, the same hash
//! function and one guard (or one read lock) per batch, where they have such a thing: all that they could ask for.
//!
//! Before criterion's own measurement the contenders are tried in turns, some milliseconds each, and the least, the
//! 10th percentile and the median of single batches are printed: on a machine that others use, these can be compared. Printed too:
//! the writes that were really made, because a map can be fast to read by starving its writer, and how many look-ups
//! missed a key that is there all the time.

#![expect(clippy::print_stdout, reason = "the writer's rate and the misses are results")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so loudly")]

mod directory;

use std::collections::HashMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::directory::{DirectoryReader, DirectoryWriter, Engine, Location};
use dataplane::types::{CustomerIp, Vni};
use directory::{address, entry, location};
use foldhash::quality::RandomState;

const BATCH: usize = 64;
type Keys = [(Vni, CustomerIp); BATCH];

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

fn integer((vni, ip): (Vni, CustomerIp)) -> u64 {
    match ip.0 {
        IpAddr::V4(ip) => u64::from(vni.value()) << 32 | u64::from(ip.to_bits()),
        IpAddr::V6(_) => 0,
    }
}

/// Looks at every field, as whoever sends the packet does.
#[inline(always)]
fn used(location: Location) -> bool {
    let [a, b, c, d, e, f] = location.mac.0;
    let mac = u64::from_be_bytes([location.version, 0, a, b, c, d, e, f]);
    let host = match location.physical_ip.0 {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(_) => 0,
    };
    black_box(mac ^ host) != 1
}

/// A map as the benchmark sees it.
struct Contender {
    name: &'static str,
    /// How many of a batch are found.
    look_up: Box<dyn FnMut(&Keys) -> usize>,
    write: Box<dyn Fn(usize, Location) + Sync>,
}

fn look_up_ours(reader: &mut DirectoryReader, keys: &Keys) -> usize {
    reader.refresh();
    let begun = keys.each_ref().map(|&(vni, ip)| reader.begin(vni, ip));
    let found = begun.iter().zip(keys).filter_map(|(begun, &(vni, ip))| reader.end(*begun, vni, ip));
    found.filter(|found| used(*found)).count()
}

fn ours(entries: usize) -> Contender {
    let (writer, mut readers) = DirectoryWriter::on(Engine::Slots, 0x5eed, 1);
    writer.extend((0..entries).map(entry)).expect("hosts are few");
    let mut reader = readers.pop().expect("one reader");
    Contender {
        name: "ours",
        look_up: Box::new(move |keys| look_up_ours(&mut reader, keys)),
        write: Box::new(move |number, location| {
            let (vni, ip) = address(number);
            writer.set(vni, ip, location).expect("hosts are few");
        }),
    }
}

fn papaya(entries: usize) -> Contender {
    let map = Arc::new(papaya::HashMap::with_capacity_and_hasher(entries, RandomState::default()));
    for number in 0..entries {
        map.pin().insert(integer(address(number)), location(number, 0));
    }
    let writer = map.clone();
    Contender {
        name: "papaya",
        look_up: Box::new(move |keys| {
            let map = map.pin();
            let found = keys.iter().filter_map(|key| map.get(&integer(*key)).copied());
            found.filter(|found| used(*found)).count()
        }),
        write: Box::new(move |number, location| {
            writer.pin().insert(integer(address(number)), location);
        }),
    }
}

fn scc(entries: usize) -> Contender {
    let map = Arc::new(scc::HashIndex::with_capacity_and_hasher(entries, RandomState::default()));
    for number in 0..entries {
        map.insert_sync(integer(address(number)), location(number, 0)).expect("each once");
    }
    let writer = map.clone();
    Contender {
        name: "scc",
        look_up: Box::new(move |keys| {
            let guard = scc::Guard::new();
            let found = keys.iter().filter_map(|key| map.peek(&integer(*key), &guard).copied());
            found.filter(|found| used(*found)).count()
        }),
        write: Box::new(move |number, location| {
            if let Some(mut entry) = writer.get_sync(&integer(address(number))) {
                entry.update(location);
            }
        }),
    }
}

fn dashmap(entries: usize) -> Contender {
    let map = Arc::new(dashmap::DashMap::with_capacity_and_hasher(entries, RandomState::default()));
    for number in 0..entries {
        map.insert(integer(address(number)), location(number, 0));
    }
    let writer = map.clone();
    Contender {
        name: "dashmap",
        look_up: Box::new(move |keys| {
            let found = keys.iter().filter_map(|key| map.get(&integer(*key)).map(|found| *found));
            found.filter(|found| used(*found)).count()
        }),
        write: Box::new(move |number, location| {
            writer.insert(integer(address(number)), location);
        }),
    }
}

fn rwlock(entries: usize) -> Contender {
    let filled = (0..entries).map(|number| (integer(address(number)), location(number, 0)));
    let filled: HashMap<u64, Location, RandomState> = filled.collect();
    let map = Arc::new(RwLock::new(filled));
    let writer = map.clone();
    Contender {
        name: "rwlock",
        look_up: Box::new(move |keys| {
            let map = map.read().unwrap_or_else(PoisonError::into_inner);
            let found = keys.iter().filter_map(|key| map.get(&integer(*key)).copied());
            found.filter(|found| used(*found)).count()
        }),
        write: Box::new(move |number, location| {
            writer.write().unwrap_or_else(PoisonError::into_inner).insert(integer(address(number)), location);
        }),
    }
}

/// Runs `read` beside a writer that makes so many updates a second, or as many as it can. Returns how many thousand it made
/// a second.
fn beside(
    write: &(dyn Fn(usize, Location) + Sync),
    (entries, updates): (usize, u64),
    read: impl FnOnce(),
) -> u64 {
    let (stop, writes) = (AtomicBool::new(updates == 0), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(0x1234_5678_9abc_def1);
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                let due =
                    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX) * updates / 1_000_000;
                // At most a hundredth of a second's at a time.
                for _ in 0..due.saturating_sub(done).min(updates / 100) {
                    let number = random.below(entries);
                    write(number, location(number, done));
                    done += 1;
                }
                writes.store(done, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(200));
            }
        });
        read();
        stop.store(true, Ordering::Relaxed);
    });
    writes.into_inner() / u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

const TURNS: usize = 8;
const TURN: Duration = Duration::from_millis(60);

/// Tries the contenders in turns, and prints what single batches took.
fn in_turns(case: &str, size: (usize, u64), contenders: &mut [Contender], wanted: &[Keys]) {
    let mut results: Vec<_> = contenders.iter().map(|_| (Vec::new(), Vec::new(), 0)).collect();
    for turn in 0..TURNS {
        for (contender, (times, rates, missed)) in contenders.iter_mut().zip(&mut results) {
            let look_up = &mut contender.look_up;
            let rate = beside(&contender.write, size, || {
                let turn_began = Instant::now();
                for keys in wanted.iter().cycle().skip(turn * wanted.len() / TURNS) {
                    let began = Instant::now();
                    *missed += BATCH - look_up(black_box(keys));
                    times.push(began.elapsed().as_nanos());
                    if turn_began.elapsed() > TURN {
                        break;
                    }
                }
            });
            rates.push(rate);
        }
    }
    for (contender, (mut times, rates, missed)) in contenders.iter().zip(results) {
        times.sort_unstable();
        let at = |percent| {
            let tenths = times.get(times.len() * percent / 100).map_or(0, |ns| ns * 10 / BATCH as u128);
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let rate = rates.iter().sum::<u64>() / rates.len() as u64;
        println!(
            "directory_lookup/{case}/{}: least {} ns, 10th percentile {}, median {}; {rate} thousand writes/s; {missed} missed",
            contender.name,
            at(0),
            at(10),
            at(50),
        );
    }
}

fn directory_lookup(criterion: &mut Criterion) {
    let all = ["0", "100k", "1M"].map(str::to_owned);
    for (size, entries, rates) in
        [("10k", 10_000, &all[..1]), ("1M", 1_000_000, &all[..]), ("10M", 10_000_000, &all[..])]
    {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        // Long enough not to be learnt, read in sequence like a receive ring.
        let wanted: Vec<Keys> =
            (0..1 << 14).map(|_| std::array::from_fn(|_| address(random.below(entries)))).collect();
        let mut contenders = [ours, papaya, scc, dashmap, rwlock].map(|make| make(entries));
        for rate in rates {
            let updates = match rate.as_str() {
                "0" => 0,
                "100k" => 100_000,
                _ => 1_000_000,
            };
            let case = format!("{size}/{rate}");
            in_turns(&case, (entries, updates), &mut contenders, &wanted);
            let mut group = criterion.benchmark_group(format!("directory_lookup/{case}"));
            group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
            group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
            for contender in &mut contenders {
                let look_up = &mut contender.look_up;
                beside(&contender.write, (entries, updates), || {
                    let mut batches = wanted.iter().cycle();
                    group.bench_function(contender.name, |bencher| {
                        bencher.iter(|| batches.next().map(|keys| look_up(black_box(keys))));
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, directory_lookup);
criterion_main!(benches);
