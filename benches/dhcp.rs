//! What does an answer to a DHCP client cost, from its frame to the whole lease in ours?
//!
//! `dhcp/{discover,request}`: the frame of a systemd-networkd client through the whole egress path, in batches of 64.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so loudly")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use benches::{Field, MAC, document, frame, print_median, tables, with_address};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::directory::DirectoryWriter;
use dataplane::packet::{Buffer, Packet};
use dataplane::pipeline::{BATCH, Context, Trap, Verdict, Verdicts, egress};
use dataplane::types::{MacAddr, Nanos};

/// A client's frame with the given options in front of those that it always sends.
fn message(options: &[u8]) -> Vec<u8> {
    let always = [
        &[61, 19, 0xff, 0x12, 0x34, 0x56, 0x78, 0, 2, 0, 0, 0xab, 0x11, 1, 2, 3, 4, 5, 6, 7, 8][..],
        &[55, 9, 1, 3, 12, 15, 6, 33, 121, 42, 120],
        &[57, 2, 5, 0xb4],
        b"\x0c\x05guest",
        &[255],
    ]
    .concat();
    let mut payload = vec![0; 240];
    payload[..4].copy_from_slice(&[1, 1, 6, 0]);
    payload[4..8].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    payload[28..34].copy_from_slice(&MAC.0);
    payload[236..].copy_from_slice(&[99, 130, 83, 99]);
    payload.extend([options, &always].concat());
    let mut frame = frame(MAC, MacAddr::BROADCAST, Ipv4Addr::UNSPECIFIED, payload.len());
    frame[42..].copy_from_slice(&payload);
    frame[34..38].copy_from_slice(&[0, 68, 0, 67]);
    with_address(&mut frame, 14, Field::Destination, Ipv4Addr::BROADCAST);
    frame
}

fn bench(criterion: &mut Criterion) {
    let tables = tables(&document(1, 10));
    let (_writer, mut readers) = DirectoryWriter::new(1, 1);
    let reader = readers.pop().expect("one reader");
    let port = tables.port_named(&"p0".parse().expect("a name")).expect("the first port");
    let mut buffers: Vec<_> = (0..BATCH).map(|_| Buffer::new()).collect();
    let mut verdicts = Verdicts::new();
    let mut now = Nanos(1);
    let mut group = criterion.benchmark_group("dhcp");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, options, answer) in [
        ("discover", &[53, 1, 1][..], Trap::DhcpOffer),
        ("request", &[53, 1, 3, 50, 4, 10, 0, 0, 10, 54, 4, 10, 0, 0, 1], Trap::DhcpAck),
    ] {
        let request = message(options);
        let mut batches_ns = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|batches| {
                let mut spent = Duration::ZERO;
                for _ in 0..batches {
                    // Ten seconds later: the port has its whole share of answers again.
                    now = Nanos(now.0 + 10_000_000_000);
                    let context = Context { tables: &tables, directory: &reader, now, worker: 0 };
                    let mut packets: ArrayVec<Packet<'_>, BATCH> =
                        buffers.iter_mut().map(|buffer| buffer.load(&request)).collect();
                    let began = Instant::now();
                    egress(&context, port, &mut packets, &mut verdicts);
                    let elapsed = began.elapsed();
                    batches_ns.push(u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX));
                    spent += elapsed;
                    assert!(
                        verdicts.iter().all(|verdict| *verdict == Verdict::Reply(answer)),
                        "{:?}",
                        verdicts.first()
                    );
                }
                spent
            });
        });
        print_median("dhcp", name, batches_ns);
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
