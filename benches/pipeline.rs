//! What does a packet cost from the guest's frame to the tunnel packet, and back?
//!
//! `pipeline/{egress,ingress}/{hit,miss}/{64,1500}`: the whole walk (parse, checks, routes, directory, rewriting,
//! tunnel header) in batches of 64, with a directory of a million random entries and random destinations. "miss" is a destination
//! that nobody has. Numbers are frame bytes at 64 and IP packet bytes at 1500. The clock runs while the pipeline works,
//! not while the batch's frames are put into the buffers. Beside criterion's mean, the median of all single batches is
//! printed: on a busy machine that is the batch which nobody interrupted.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark that cannot run should say so loudly"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use benches::{MAC, NETWORK, Random, document, frame, print_median, stranger, tables, with_destination};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::directory::{DirectoryReader, DirectoryWriter, Entry, Location};
use dataplane::packet::{Buffer, Packet};
use dataplane::pipeline::{BATCH, Context, Outer, Verdict, Verdicts, egress, ingress};
use dataplane::tables::Tables;
use dataplane::types::{MacAddr, Nanos, PhysicalIp};

const ENTRIES: u32 = 1_000_000;
const PORTS: u32 = 1000;

/// A million stations, spread over 250 hosts.
fn directory() -> (DirectoryWriter, DirectoryReader) {
    let (writer, mut readers) = DirectoryWriter::new(0x5eed, 1);
    let entry = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        let physical_ip = PhysicalIp::from(Ipv4Addr::new(192, 0, 2, 2 + u8::try_from(number % 250).unwrap()));
        Entry {
            vni: *NETWORK,
            ip: stranger(number).into(),
            location: Location { physical_ip, mac: MacAddr([2, 1, 0, a, b, c]), version: 1 },
        }
    };
    writer.extend((0..ENTRIES).map(entry)).expect("hosts are few");
    let mut reader = readers.pop().expect("one reader");
    reader.refresh();
    (writer, reader)
}

/// Runs `handle` on batches of frames with random destinations, and times nothing else.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    template: &[u8],
    destination_at: usize,
    mut destination: impl FnMut() -> Ipv4Addr,
    mut handle: impl FnMut(&mut [Packet<'_>], &mut Verdicts),
    expected: fn(&Verdict) -> bool,
) {
    let mut buffers: Vec<_> = (0..BATCH).map(|_| Buffer::new()).collect();
    let mut verdicts = Verdicts::new();
    let mut template = template.to_vec();
    let mut batches_ns = Vec::new();
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|batches| {
            let mut spent = Duration::ZERO;
            for _ in 0..batches {
                let mut packets: ArrayVec<Packet<'_>, BATCH> = buffers
                    .iter_mut()
                    .map(|buffer| {
                        with_destination(&mut template, destination_at, destination());
                        buffer.load(&template)
                    })
                    .collect();
                let began = Instant::now();
                handle(&mut packets, &mut verdicts);
                let elapsed = began.elapsed();
                batches_ns.push(u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX));
                spent += elapsed;
                assert!(verdicts.iter().all(expected), "{:?}", verdicts.first());
            }
            spent
        });
    });
    group.finish();
    print_median("pipeline", name, batches_ns);
}

fn bench(criterion: &mut Criterion) {
    let (_writer, reader) = directory();
    let tables: Arc<Tables> = tables(&document(1, PORTS));
    let context = Context { tables: &tables, directory: &reader, now: Nanos(1), worker: 0 };
    let port = tables.port_named(&"p0".parse().unwrap()).unwrap();
    for (size, payload_bytes) in [("64", 22), ("1500", 1472)] {
        for (case, offset) in [("hit", 0), ("miss", 1)] {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let template =
                frame(MAC, MacAddr([2, 1, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 10), payload_bytes);
            measure(
                criterion,
                &format!("egress/{case}/{size}"),
                &template,
                14,
                // Entries are two apart: between them is nobody.
                || Ipv4Addr::from_bits(stranger(random.below(ENTRIES)).to_bits() + offset),
                |packets, verdicts| egress(&context, port, packets, verdicts),
                if offset == 0 {
                    |verdict| matches!(verdict, Verdict::Underlay(_))
                } else {
                    |verdict| matches!(verdict, Verdict::Drop(_))
                },
            );
            let inner = frame(MacAddr([2, 1, 0, 0, 0, 1]), MAC, stranger(5), payload_bytes);
            let tunnelled = [&[8, 0, 0, 0, 0, 0, 100, 0], &inner[..]].concat();
            let outer = Outer { source: PhysicalIp::from(Ipv4Addr::new(192, 0, 2, 7)), traffic_class: 0 };
            let mut random = Random(0x1234_5678_9abc_def1);
            measure(
                criterion,
                &format!("ingress/{case}/{size}"),
                &tunnelled,
                22,
                || Ipv4Addr::from_bits((10 << 24) + 10 + random.below(PORTS) + offset * 100_000),
                |packets, verdicts| ingress(&context, &outer, packets, verdicts),
                if offset == 0 {
                    |verdict| matches!(verdict, Verdict::Deliver(_))
                } else {
                    |verdict| matches!(verdict, Verdict::Drop(_))
                },
            );
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
