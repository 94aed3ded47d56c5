//! What does a change of one port's network cost, from the new document to the moment when the worker has passed it?
//!
//! `publish/{10,100,1000}`: the document with one port moved, validated, built into tables, published, adopted by one
//! reader and settled, with so many ports on the host. `publish/1000_with_1M_mappings` has a million directory entries beside
//! it, which must not matter. Printed are the median and the 99th percentile, once by the wall clock and once by the
//! thread's processor time: what the second does not have is the time that the scheduler gave to others meanwhile. The
//! reader here is on the same thread: what a real worker adds is the rest of its batch.
//!
//! `publish/any/1000`: the same with the two last ports' order in the document turned, which the short cut for changes
//! in place leaves to the full walk.

#![expect(clippy::print_stdout, reason = "the percentile is a result")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot run should say so loudly"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::{NETWORK, document, port, stranger, tables};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::desired::HostConfig;
use dataplane::directory::{DirectoryWriter, Entry, Location};
use dataplane::publish::{Publisher, Reader};
use dataplane::tables::Tables;
use dataplane::types::{MacAddr, PhysicalIp};
use rustix::time::{ClockId, clock_gettime};

/// Enough for fifty beyond the 99th percentile.
const CHANGES: usize = 5000;

struct Host {
    config: HostConfig,
    publisher: Publisher<Tables>,
    reader: Reader<Tables>,
}

impl Host {
    fn new(ports: u32) -> Self {
        let config = document(1, ports);
        let (publisher, mut readers) = Publisher::new(tables(&config), 1);
        Self { config, publisher, reader: readers.pop().expect("one reader") }
    }

    /// Moves a port in the middle to the other network and back, and gives the time that it took.
    fn change(&mut self, kind: Kind) -> Spent {
        let mut next = self.config.clone();
        next.generation = next.generation.next();
        let (middle, last) = (next.ports.len() / 2, next.ports.len() - 1);
        let vni = if next.ports[middle].network == *NETWORK { 200 } else { 100 };
        next.ports[middle] = Arc::new(port(u32::try_from(middle).unwrap(), vni));
        if kind == Kind::Any {
            next.ports.swap(last - 1, last);
        }
        let cpu_before = cpu();
        let began = Instant::now();
        let built = self.publisher.current().succeed(&next, 1).expect("a valid document");
        let version = self.publisher.publish(Arc::new(built));
        assert!(self.reader.refresh());
        self.reader.pass();
        assert!(self.publisher.settled(version));
        let wall = began.elapsed();
        let spent = Spent { wall, cpu: cpu().saturating_sub(cpu_before) };
        self.publisher.collect();
        self.config = next;
        spent
    }
}

/// Which way a change is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    InPlace,
    Any,
}

#[derive(Clone, Copy)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

/// This thread's processor time so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

fn measure(criterion: &mut Criterion, name: &str, ports: u32, kind: Kind) {
    let mut host = Host::new(ports);
    let mut group = criterion.benchmark_group("publish");
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|changes| (0..changes).map(|_| host.change(kind).wall).sum());
    });
    group.finish();
    let spent: Vec<_> = (0..CHANGES).map(|_| host.change(kind)).collect();
    for (clock, of) in [("wall", (|spent| spent.wall) as fn(&Spent) -> Duration), ("cpu", |spent| spent.cpu)]
    {
        let mut times: Vec<_> = spent.iter().map(of).collect();
        times.sort_unstable();
        let at = |percent: usize| times.get(CHANGES * percent / 100).copied().unwrap_or_default();
        println!(
            "publish/{name}, {clock} time of {CHANGES}: median {:?}, 99th percentile {:?}",
            at(50),
            at(99)
        );
    }
}

fn bench(criterion: &mut Criterion) {
    for (name, ports) in [("10", 10), ("100", 100), ("1000", 1000)] {
        measure(criterion, name, ports, Kind::InPlace);
    }
    measure(criterion, "any/1000", 1000, Kind::Any);
    let (writer, _readers) = DirectoryWriter::new(1, 1);
    let entry = |number: u32| {
        let physical_ip = PhysicalIp::from(Ipv4Addr::new(192, 0, 2, 2));
        let location = Location { physical_ip, mac: MacAddr([2, 1, 0, 0, 0, 1]), version: 1 };
        Entry { vni: *NETWORK, ip: stranger(number).into(), location }
    };
    writer.extend((0..1_000_000).map(entry)).expect("one host");
    measure(criterion, "1000_with_1M_mappings", 1000, Kind::InPlace);
}

criterion_group!(benches, bench);
criterion_main!(benches);
