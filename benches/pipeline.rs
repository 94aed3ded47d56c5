//! What does a packet cost from the guest's frame to the tunnel packet, and back?
//!
//! `pipeline/{egress,ingress}/{hit,miss}/{64,1500}`: the whole walk (parse, checks, routes, directory, rewriting,
//! tunnel header) in batches of 64, with a directory of a million random entries and random destinations. "miss" is a destination
//! that nobody has. Numbers are frame bytes at 64 and IP packet bytes at 1500. The clock runs while the pipeline works,
//! not while the batch's frames are put into the buffers. Beside criterion's mean, the median of all single batches is
//! printed: on a busy machine that is the batch which nobody interrupted.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should say so loudly")]

use std::net::Ipv4Addr;
use std::sync::Arc;

use benches::walk::{ENTRIES, Walk, directory};
use benches::{Field, MAC, Random, document, frame, stranger, tables};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::pipeline::{Context, Outer, Verdict, egress, ingress};
use dataplane::tables::Tables;
use dataplane::types::{MacAddr, Nanos, PhysicalIp};

const PORTS: u32 = 1000;

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
            let name = format!("egress/{case}/{size}");
            let walk = Walk {
                group: "pipeline",
                name: &name,
                template: &template,
                ip_at: 14,
                field: Field::Destination,
            };
            walk.measure(
                criterion,
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
            let name = format!("ingress/{case}/{size}");
            let walk = Walk { name: &name, template: &tunnelled, ip_at: 22, ..walk };
            walk.measure(
                criterion,
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
