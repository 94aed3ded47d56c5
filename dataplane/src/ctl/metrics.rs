//! `/metrics`: what the workers count, in OpenMetrics text. Read at each scrape; nothing is kept here.
//!
//! Labels are bounded by configuration: ports, drop reasons, traps. Never an address.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::desired::PortName;
use crate::stats::Totals;
use crate::switch::Switch;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric: what its reference page says, and where its samples come from.
pub struct Metric {
    /// As scraped, except for the suffix `_total` that OpenMetrics adds to counters.
    pub name: &'static str,
    /// What it tells.
    pub sentence: &'static str,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// False for a gauge.
    pub is_counter: bool,
    samples: fn(&Reading) -> Vec<Sample>,
}

/// Label values, in the order of [`Metric::labels`], and the number.
type Sample = (Vec<String>, u64);

/// Everything that one scrape tells.
struct Reading {
    generation: u64,
    workers: u16,
    networks: usize,
    ports: Vec<(PortName, Totals)>,
    underlay: Totals,
}

macro_rules! metrics {
    ($($kind:ident $name:literal [$($label:literal),*] $samples:expr, $sentence:literal;)+) => {
        /// Every metric, in the order of the page.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: concat!("shunt_vswitch_", $name),
            sentence: $sentence,
            labels: &[$($label),*],
            is_counter: metrics!(@ $kind),
            samples: $samples,
        },)+];
    };
    (@ counter) => { true };
    (@ gauge) => { false };
}

metrics! {
    gauge "generation" [] |r| one(r.generation), "The generation of the document in force.";
    gauge "workers" [] |r| one(r.workers.into()), "Threads that move packets.";
    gauge "networks" [] |r| one(count(r.networks)), "Virtual networks on this host.";
    gauge "ports" [] |r| one(count(r.ports.len())), "Ports on this host.";
    counter "port_received_packets" ["port"] |r| per_port(r, |t| t.received_packets), "Frames received from the guest.";
    counter "port_received_bytes" ["port"] |r| per_port(r, |t| t.received_bytes), "Bytes of frames received from the guest.";
    counter "port_sent_packets" ["port"] |r| per_port(r, |t| t.sent_packets), "Frames sent to the guest.";
    counter "port_sent_bytes" ["port"] |r| per_port(r, |t| t.sent_bytes), "Bytes of frames sent to the guest.";
    counter "port_drops" ["port", "reason"] |r| named(r, drops), "Packets dropped on a port, by reason; docs/reference/drops.md explains each.";
    counter "port_traps" ["port", "trap"] |r| named(r, traps), "Packets that the switch's own services handled for a port.";
    counter "underlay_received_packets" [] |r| one(r.underlay.received_packets), "Tunnel packets received from other hosts that belong to no port.";
    counter "underlay_received_bytes" [] |r| one(r.underlay.received_bytes), "Their bytes.";
    counter "underlay_sent_packets" [] |r| one(r.underlay.sent_packets), "Tunnel packets sent to other hosts that belong to no port.";
    counter "underlay_sent_bytes" [] |r| one(r.underlay.sent_bytes), "Their bytes.";
    counter "underlay_drops" ["reason"] |r| drops(&r.underlay).map(|(name, n)| (vec![name.into()], n)).collect(), "Packets from other hosts that were dropped before a port was known, by reason.";
}

fn one(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn per_port(reading: &Reading, value: fn(&Totals) -> u64) -> Vec<Sample> {
    reading.ports.iter().map(|(port, totals)| (vec![port.to_string()], value(totals))).collect()
}

fn named<'r, I: Iterator<Item = (&'static str, u64)> + 'r>(
    reading: &'r Reading,
    values: fn(&'r Totals) -> I,
) -> Vec<Sample> {
    let of_port = |(port, totals): &'r (PortName, Totals)| {
        let port = port.to_string();
        values(totals).map(move |(name, value)| (vec![port.clone(), name.to_owned()], value))
    };
    reading.ports.iter().flat_map(of_port).collect()
}

fn drops(totals: &Totals) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    totals.drops.iter().map(|&(reason, packets)| (reason.name(), packets))
}

fn traps(totals: &Totals) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    totals.traps.iter().map(|&(trap, packets)| (trap.name(), packets))
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Metric {
    fn encode_value(&self, value: u64, to: MetricEncoder<'_>) -> fmt::Result {
        if self.is_counter {
            ConstCounter::new(value).encode(to)
        } else {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(to)
        }
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for metric in METRICS {
            let kind = if metric.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let sentence = metric.sentence.trim_end_matches('.');
            let mut family = encoder.encode_descriptor(metric.name, sentence, None, kind)?;
            for (values, value) in (metric.samples)(self) {
                let labels: Vec<(&str, String)> = metric.labels.iter().copied().zip(values).collect();
                if labels.is_empty() {
                    // An empty label set would be written as `{}`.
                    metric.encode_value(value, family)?;
                    break;
                }
                metric.encode_value(value, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn page(reading: Reading) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(reading));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Serves the page until the runtime ends.
pub(super) async fn serve(listener: TcpListener, switch: Arc<Switch>) {
    let read = move || {
        let switch = switch.clone();
        // Reading waits for a change under way, and this thread serves the control socket as well.
        async move {
            let read = tokio::task::spawn_blocking(move || answer(&switch)).await;
            read.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
    };
    // `axum::serve` rides out errors of single connections by itself.
    let _ = axum::serve(listener, Router::new().route("/metrics", get(read))).await;
}

fn answer(switch: &Switch) -> Response {
    let (ports, underlay) = switch.totals();
    let document = switch.document();
    let reading = Reading {
        generation: document.generation.0,
        workers: switch.config().workers.count,
        networks: document.networks.len(),
        ports,
        underlay,
    };
    match page(reading) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{DropReason, Trap};

    #[test]
    fn the_page_names_ports_and_reasons_and_no_addresses() {
        let totals = Totals {
            received_packets: 7,
            drops: vec![(DropReason::NoRoute, 5)],
            traps: vec![(Trap::DhcpAck, 1)],
            ..Totals::default()
        };
        let underlay = Totals { drops: vec![(DropReason::VniAbsent, 2)], ..Totals::default() };
        let ports = vec![("web-1".parse().unwrap(), totals)];
        let page = page(Reading { generation: 3, workers: 2, networks: 1, ports, underlay }).unwrap();
        for line in [
            "# TYPE shunt_vswitch_port_received_packets counter",
            "shunt_vswitch_port_received_packets_total{port=\"web-1\"} 7",
            "shunt_vswitch_port_drops_total{port=\"web-1\",reason=\"no_route\"} 5",
            "shunt_vswitch_port_traps_total{port=\"web-1\",trap=\"dhcp_ack\"} 1",
            "shunt_vswitch_underlay_drops_total{reason=\"vni_absent\"} 2",
            "shunt_vswitch_generation 3",
            "shunt_vswitch_workers 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in:\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }
}
