//! How fast does a directory fill, and how long does a change wait while it grows?
//!
//! * `directory_import/memory/{1M,10M}`: entries that are announced, as an import or a start brings them.
//! * `directory_import/one_by_one/1M`: each by a call of its own, with all the growing that this takes.
//! * `directory_import/disk/{neighbours,scattered}`: 1 M mappings made durable in one transaction.
//!
//! Printed: the longest single change while 10 M entries came one by one. That is what other writers may have to wait.

#![expect(clippy::print_stdout, reason = "the longest wait is a result")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so loudly")]

mod directory;

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::directory::{DirectoryWriter, Engine, Entry};
use dataplane::switch::{Mapping, State};
use directory::{address, entry};

fn empty() -> DirectoryWriter {
    DirectoryWriter::on(Engine::Slots, 0x5eed, 0).0
}

fn memory(criterion: &mut Criterion) {
    for (name, count) in [("1M", 1_000_000), ("10M", 10_000_000)] {
        let mut group = criterion.benchmark_group("directory_import/memory");
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(1))
            .throughput(Throughput::Elements(count as u64));
        let entries: Vec<Entry> = (0..count).map(entry).collect();
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                empty,
                |writer| writer.extend(entries.iter().copied()).expect("hosts are few"),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

fn one_by_one(criterion: &mut Criterion) {
    let set = |writer: &DirectoryWriter, number| {
        let Entry { vni, ip, location } = entry(number);
        writer.set(vni, ip, location).expect("hosts are few");
    };
    let mut group = criterion.benchmark_group("directory_import/one_by_one");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(1))
        .throughput(Throughput::Elements(1_000_000));
    group.bench_function("1M", |bencher| {
        bencher.iter_batched_ref(
            empty,
            |writer| (0..1_000_000).for_each(|number| set(writer, number)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let writer = empty();
    let mut longest = [Duration::ZERO; 3];
    for number in 0..10_000_000 {
        let began = Instant::now();
        set(&writer, number);
        let took = began.elapsed();
        let size = usize::from(number >= 100_000) + usize::from(number >= 1_000_000);
        longest[size] = longest[size].max(took);
    }
    let [a, b, c] = longest.map(|longest| longest.as_micros());
    println!(
        "directory_import/longest_change: {a} µs up to 100,000 entries, {b} µs up to 1,000,000, {c} µs up to 10,000,000"
    );
    let began = Instant::now();
    for number in 0..10_000_000 {
        let (vni, ip) = address(number);
        writer.remove(vni, ip);
    }
    println!("directory_import/removal: 10,000,000 in {} ms", began.elapsed().as_millis());
}

fn disk(criterion: &mut Criterion) {
    let mapping = |number| {
        let Entry { vni, ip, location } = entry(number);
        Mapping { network: vni, ip, mac: location.mac, physical_ip: location.physical_ip }
    };
    for (name, step) in [("neighbours", 1), ("scattered", 25_600)] {
        // Multiples of 25,600 lie 256 addresses apart in one network: none shares a row.
        let mappings: Vec<_> =
            (0..1_000_000_usize).map(|number| mapping(number * step % (1 << 32))).collect();
        let mut group = criterion.benchmark_group("directory_import/disk");
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(1))
            .throughput(Throughput::Elements(1_000_000));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || {
                    let dir = tempfile::tempdir().expect("a directory");
                    let state = State::open(dir.path()).expect("a state").0;
                    (state, dir)
                },
                |(state, _)| state.set_mappings(&mappings).expect("a disk"),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, memory, one_by_one, disk);
criterion_main!(benches);
