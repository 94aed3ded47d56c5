//! What the demonstration says: while it runs, and at its end.

use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::Instant,
};

/// Tells the timeline while it happens, for eyes only.
pub(super) struct Narrator {
    start: Instant,
    aloud: bool,
}

impl Narrator {
    pub(super) fn new(aloud: bool) -> Self {
        Self { start: Instant::now(), aloud }
    }

    /// A line without a time.
    pub(super) fn headline(&self, text: &str) {
        if self.aloud {
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    /// A line of the timeline.
    pub(super) fn tell(&self, text: &str) {
        self.headline(&format!("{:>7.2} s  {text}", self.start.elapsed().as_secs_f64()));
    }
}

/// One verified statement.
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    /// What was seen, for eyes.
    pub(super) seen: String,
}

/// A change, with its times in milliseconds from the request.
#[derive(Default)]
pub(super) struct Operation {
    /// `network_change` or `hand_over`.
    pub(super) kind: &'static str,
    pub(super) lease_ms: Option<f64>,
    pub(super) first_packet_ms: Option<f64>,
    pub(super) ready_ms: Option<f64>,
    /// Each step and how long it took.
    pub(super) steps: Vec<(String, f64)>,
}

/// The outcome.
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
    pub(super) operations: Vec<Operation>,
}

impl Report {
    pub(super) fn all_hold(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// The fixed shape of `--output json`.
    pub(super) fn json(&self) -> String {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| json!({"name": check.name, "ok": check.ok, "seen": check.seen}))
            .collect();
        let operations: Vec<Value> = self.operations.iter().map(Operation::json).collect();
        json!({"checks": checks, "operations": operations}).to_string()
    }

    /// The same for eyes.
    pub(super) fn table(&self) -> String {
        let mut text: String = self.operations.iter().map(Operation::table).collect();
        text.push_str("\nVerified:\n");
        for check in &self.checks {
            let mark = if check.ok { "ok    " } else { "FAILED" };
            let _ = writeln!(text, "  {mark}  {} ({})", check.name, check.seen);
        }
        let held = self.checks.iter().filter(|check| check.ok).count();
        let _ = write!(text, "\n{held} of {} checks hold.", self.checks.len());
        text
    }
}

impl Operation {
    fn json(&self) -> Value {
        let steps: Vec<Value> =
            self.steps.iter().map(|(name, ms)| json!({"name": name, "ms": round(*ms)})).collect();
        json!({
            "kind": self.kind,
            "lease_ms": self.lease_ms.map(round),
            "first_packet_ms": self.first_packet_ms.map(round),
            "ready_ms": self.ready_ms.map(round),
            "steps": steps,
        })
    }

    fn table(&self) -> String {
        let mut text = format!("\n{}, step by step:\n", self.kind);
        for (name, ms) in &self.steps {
            let _ = writeln!(text, "{ms:>10.2} ms  {name}");
        }
        text.push_str("  and after the request:\n");
        let times = [
            ("the switch had sent the new lease", self.lease_ms),
            ("first packet from the new address", self.first_packet_ms),
            ("ready: the guest says so, or hears a new neighbour", self.ready_ms),
        ];
        for (what, ms) in times {
            match ms {
                Some(ms) => drop(writeln!(text, "{ms:>10.2} ms  {what}")),
                None => drop(writeln!(text, "{:>10} ms  {what}", "?")),
            }
        }
        text
    }
}

fn round(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ok: bool) -> Report {
        let check = |ok| Check { name: "a", ok, seen: "b".to_owned() };
        let operation = Operation {
            kind: "network_change",
            lease_ms: Some(1.23456),
            steps: vec![("swap".to_owned(), 0.5)],
            ..Operation::default()
        };
        Report { checks: vec![check(true), check(ok)], operations: vec![operation] }
    }

    #[test]
    fn one_failed_check_fails_the_whole() {
        assert!(report(true).all_hold());
        assert!(!report(false).all_hold());
        assert!(report(false).table().contains("1 of 2 checks hold"));
    }

    #[test]
    fn the_json_has_its_fixed_shape() {
        let value: Value = serde_json::from_str(&report(false).json()).unwrap();
        assert_eq!(value["checks"][1]["ok"], false);
        assert_eq!(value["operations"][0]["kind"], "network_change");
        assert_eq!(value["operations"][0]["lease_ms"], 1.235);
        assert_eq!(value["operations"][0]["ready_ms"], Value::Null);
        assert_eq!(value["operations"][0]["steps"][0], json!({"name": "swap", "ms": 0.5}));
    }
}
