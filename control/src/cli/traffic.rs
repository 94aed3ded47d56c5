//! `shunt vswitch stats` and `drops`.

use dataplane::ctl::protocol::{Drops, PortTraffic, Stats, Traffic};
use dataplane::ctl::{Client, Request};
use dataplane::pipeline::DropReason;

use super::failure::Failure;
use super::output::{Out, table};

/// Stands for packets that belong to no port. No port can have that name.
const UNDERLAY: &str = "(underlay)";

pub(super) fn stats(client: &mut Client, out: &mut Out) -> Result<(), Failure> {
    let stats: Stats = client.call(&Request::Stats {})?;
    out.value(&stats, |stats| {
        let head = ["PORT", "RECEIVED", "BYTES", "SENT", "BYTES", "DROPPED"];
        let ports = stats.ports.iter().map(|PortTraffic { port, traffic }| row(port.as_str(), traffic));
        let rows = table(&head, &[1, 2, 3, 4, 5], ports.chain([row(UNDERLAY, &stats.underlay)]));
        format!("{rows}\n\nreceived: from the guest; in the underlay from other hosts. sent: to the guest, or to other hosts")
    })
}

fn row(name: &str, traffic: &Traffic) -> Vec<String> {
    let Traffic { received_packets, received_bytes, sent_packets, sent_bytes, dropped_packets, .. } = traffic;
    let numbers = [received_packets, received_bytes, sent_packets, sent_bytes, dropped_packets];
    std::iter::once(name.to_owned()).chain(numbers.map(ToString::to_string)).collect()
}

pub(super) fn drops(client: &mut Client, out: &mut Out) -> Result<(), Failure> {
    let drops: Drops = client.call(&Request::Drops {})?;
    out.value(&drops, |drops| {
        let mut drops = drops.drops.clone();
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
        if drops.is_empty() {
            return "nothing was dropped".into();
        }
        let rows = drops.into_iter().map(|drop| {
            let port = drop.port.map_or_else(|| UNDERLAY.to_owned(), |port| port.to_string());
            let sentence = sentence(&drop.reason);
            vec![drop.packets.to_string(), port, drop.reason, sentence.to_owned()]
        });
        table(&["PACKETS", "PORT", "REASON", "WHAT HAPPENED"], &[0], rows)
    })
}

/// A newer switch may know reasons that this command does not.
fn sentence(reason: &str) -> &'static str {
    DropReason::ALL.iter().find(|known| known.name() == reason).map_or("", |known| known.sentence())
}
