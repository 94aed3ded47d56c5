//! What does a change of one port's network cost, from the new document to the moment when the worker has passed it?
//!
//! `publish/{10,100,1000}`: the document with one port moved, validated, built into tables, published, adopted by one
//! reader and settled, with so many ports on the host. `publish/1000_with_1M_mappings` has a million directory entries beside
//! it, which must not matter. The 99th percentile is printed. The reader here is on the same thread: what a real worker adds is
//! the rest of its batch.

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

    /// Moves the last port to the other network and back, and gives the time that it took.
    fn change(&mut self) -> Duration {
        let mut next = self.config.clone();
        next.generation = next.generation.next();
        let last = next.ports.len() - 1;
        let vni = if next.ports[last].network == *NETWORK { 200 } else { 100 };
        next.ports[last] = Arc::new(port(u32::try_from(last).unwrap(), vni));
        let began = Instant::now();
        let built = self.publisher.current().succeed(&next, 1).expect("a valid document");
        let version = self.publisher.publish(Arc::new(built));
        assert!(self.reader.refresh());
        self.reader.pass();
        assert!(self.publisher.settled(version));
        let spent = began.elapsed();
        self.publisher.collect();
        self.config = next;
        spent
    }
}

fn measure(criterion: &mut Criterion, name: &str, ports: u32) {
    let mut host = Host::new(ports);
    let mut group = criterion.benchmark_group("publish");
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|changes| (0..changes).map(|_| host.change()).sum());
    });
    group.finish();
    let mut times: Vec<_> = (0..5000).map(|_| host.change()).collect();
    times.sort_unstable();
    println!(
        "publish/{name}: median {:?}, 99th percentile {:?} of {}",
        times[2500],
        times[4950],
        times.len()
    );
}

fn bench(criterion: &mut Criterion) {
    for (name, ports) in [("10", 10), ("100", 100), ("1000", 1000)] {
        measure(criterion, name, ports);
    }
    let (writer, _readers) = DirectoryWriter::new(1, 1);
    let entry = |number: u32| {
        let physical_ip = PhysicalIp::from(Ipv4Addr::new(192, 0, 2, 2));
        let location = Location { physical_ip, mac: MacAddr([2, 1, 0, 0, 0, 1]), version: 1 };
        Entry { vni: *NETWORK, ip: stranger(number).into(), location }
    };
    writer.extend((0..1_000_000).map(entry)).expect("one host");
    measure(criterion, "1000_with_1M_mappings", 1000);
}

criterion_group!(benches, bench);
criterion_main!(benches);
