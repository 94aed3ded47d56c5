//! Samples of times, and how they are told.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Times of one thing, in milliseconds.
#[derive(Default, Clone)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn add(&mut self, ms: f64) {
        self.0.push(ms);
    }

    pub(crate) fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which this share of the sample lies (nearest rank); NaN of nothing.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, p50, p90, p99, most] = [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| self.quantile(share));
        write!(
            f,
            "p50 {p50:.1}, p99 {p99:.1} ms (least {low:.1}, p90 {p90:.1}, most {most:.1}; {} of them)",
            self.len()
        )
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

/// What operations of one journey tell of themselves.
#[derive(Default)]
pub(crate) struct Timelines {
    /// Each step's length, in the order of the journey.
    steps: Vec<(String, Sample)>,
    /// What the host's switch has measured.
    times: BTreeMap<&'static str, Sample>,
    /// From the request until the guest's word.
    ready: Sample,
    /// The steps in which the controller waits for nobody but its store.
    own: Sample,
}

/// Steps that wait for a host or a guest.
const WAITING: [&str; 6] = ["learn", "bind", "change", "boot", "ready", "partial"];

impl Timelines {
    /// Takes an operation as the API shows it.
    pub(crate) fn add(&mut self, operation: &Value) {
        let mut own = 0.0;
        for step in operation["steps"].as_array().into_iter().flatten() {
            let (Some(name), Some(ms)) = (step["name"].as_str(), step["ms"].as_f64()) else { continue };
            match self.steps.iter_mut().find(|(known, _)| known == name) {
                Some((_, sample)) => sample.add(ms),
                None => self.steps.push((name.to_owned(), [ms].into_iter().collect())),
            }
            if name == "ready" {
                self.ready.add(step["start_ms"].as_f64().unwrap_or(f64::NAN) + ms);
            }
            if !WAITING.contains(&name) {
                own += ms;
            }
        }
        self.own.add(own);
        for (name, factor) in
            [("swap_ns", 1e-6), ("settled_ns", 1e-6), ("lease_ms", 1.0), ("first_packet_ms", 1.0)]
        {
            if let Some(time) = operation["times"][name].as_f64() {
                self.times.entry(name.split('_').next().unwrap_or(name)).or_default().add(time * factor);
            }
        }
    }

    pub(crate) fn tell(&self) {
        for (name, sample) in &self.steps {
            println!("    step {name:<10} {sample}");
        }
        println!("    asked to the guest's word        {}", self.ready);
        println!("    steps that wait for nobody, sum  {}", self.own);
        for (name, sample) in &self.times {
            println!("    switch: received to {name:<8}     {sample}");
        }
    }
}
