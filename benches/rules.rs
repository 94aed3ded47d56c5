//! What do rules cost a packet?
//!
//! `rules/{egress,ingress}/{none,1,10,500}/{known,new}`: the walk of `pipeline`, on a port with so many rules, of which the
//! last is the one that matches. "known" are packets of 8,000 flows that the rules have admitted; "new" begin a flow each, so
//! that the rules are asked and a connection is put in the place of another. The directory has a million entries.
//!
//! `rules/route/{known,any}`: the look at routes and local ports alone, which an entry found by its flow could spare.
//! `none` is the walk without any look-up by flow: the difference to `1/known` is what it costs to find such an entry.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run should say so loudly")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use benches::walk::{ENTRIES, Walk, directory};
use benches::{Field, MAC, Random, document, frame, stranger, tables, with_address};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::desired::{Action, Direction, HostConfig, PortRange, RuleConfig, RuleId, RuleProtocol};
use dataplane::pipeline::{BATCH, Context, Outer, Verdict, egress, ingress};
use dataplane::types::{CustomerIp, MacAddr, Nanos, PhysicalIp};
use dataplane::wire::Protocol;

/// Flows that fit a port's table of connections at a load of one quarter.
const KNOWN: u32 = 8_000;

/// Rules about other ports and prefixes, and one that allows what is sent here.
fn rules(count: u16) -> Vec<RuleConfig> {
    let rule = |number: u16, direction| RuleConfig {
        id: RuleId(u32::from(number) + if direction == Direction::In { 1 } else { 1000 }),
        direction,
        action: Action::Allow,
        protocol: RuleProtocol::One(Protocol::UDP),
        remote: Some(format!("10.0.0.0/{}", 8 + number % 2).parse().unwrap()),
        ports: PortRange::new(3000 + number * 16, 3008 + number * 16),
        icmp_type: None,
        priority: number,
    };
    let of = |direction| {
        let last = RuleConfig { ports: None, ..rule(count - 1, direction) };
        (0..count - 1).map(move |number| rule(number, direction)).chain([last])
    };
    of(Direction::In).chain(of(Direction::Out)).collect()
}

fn with_rules(count: u16) -> HostConfig {
    let mut document = document(1, 1000);
    if count > 0 {
        Arc::make_mut(&mut document.ports[0]).rules = rules(count);
    }
    document
}

/// What a cache of flows could spare: the route, and whether the station is a port of this host.
fn route(criterion: &mut Criterion) {
    let tables = tables(&with_rules(0));
    let vnet = tables.vnets().next().unwrap();
    for (case, flows) in [("known", KNOWN), ("any", ENTRIES)] {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let stations: Vec<CustomerIp> =
            (0..64 * 1024).map(|_| stranger(random.below(flows)).into()).collect();
        let mut batches = stations.as_chunks::<BATCH>().0.iter().cycle();
        let mut group = criterion.benchmark_group("rules");
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(format!("route/{case}"), |bencher| {
            bencher.iter(|| {
                for &station in batches.next().unwrap() {
                    black_box((vnet.routes.lookup(station), vnet.local_port(station)));
                }
            });
        });
        group.finish();
    }
}

fn bench(criterion: &mut Criterion) {
    route(criterion);
    let (_writer, reader) = directory();
    for (name, count) in [("none", 0), ("1", 1), ("10", 10), ("500", 500)] {
        for (case, flows) in [("known", KNOWN), ("new", ENTRIES)] {
            if count == 0 && case == "new" {
                continue;
            }
            let tables = tables(&with_rules(count));
            let context = Context { tables: &tables, directory: &reader, now: Nanos(1), worker: 0 };
            let port = tables.port_named(&"p0".parse().unwrap()).unwrap();
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let out = frame(MAC, MacAddr([2, 1, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 10), 22);
            let id = format!("egress/{name}/{case}");
            let walk =
                Walk { group: "rules", name: &id, template: &out, ip_at: 14, field: Field::Destination };
            walk.measure(
                criterion,
                || stranger(random.below(flows)),
                |packets, verdicts| egress(&context, port, packets, verdicts),
                |verdict| matches!(verdict, Verdict::Underlay(_)),
            );
            let mut inner = frame(MacAddr([2, 1, 0, 0, 0, 1]), MAC, stranger(5), 22);
            with_address(&mut inner, 14, Field::Destination, Ipv4Addr::new(10, 0, 0, 10));
            let tunnelled = [&[8, 0, 0, 0, 0, 0, 100, 0], &inner[..]].concat();
            let outer = Outer { source: PhysicalIp::from(Ipv4Addr::new(192, 0, 2, 7)), traffic_class: 0 };
            let mut random = Random(0x1234_5678_9abc_def1);
            let id = format!("ingress/{name}/{case}");
            let walk = Walk { name: &id, template: &tunnelled, ip_at: 22, field: Field::Source, ..walk };
            walk.measure(
                criterion,
                || stranger(random.below(flows)),
                |packets, verdicts| ingress(&context, &outer, packets, verdicts),
                |verdict| matches!(verdict, Verdict::Deliver(_)),
            );
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
