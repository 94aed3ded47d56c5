//! What guests say of themselves: read field by field, so that a refusal names the field, and cut to what is kept.

use crate::model::{GuestReport, Phase};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// How much of a detail is kept, in bytes.
const DETAIL: usize = 4096;
/// Addresses that are kept.
const ADDRESSES: usize = 16;

/// A report and who it is from: what the switch said, not what the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The port that it came from.
    pub port: String,
    /// The label that the port had.
    pub label: String,
    /// What was said.
    pub report: GuestReport,
    /// When it came.
    pub at: Timestamp,
}

/// Reads a report. The error is a sentence that names the field.
pub(super) fn parse(body: &[u8]) -> Result<GuestReport, String> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("the report is not JSON: {error}"))?;
    let Value::Object(mut fields) = value else { return Err("the report is not a JSON object".to_owned()) };
    let generation: u64 = required(&mut fields, "generation")?;
    let phase: Phase = required(&mut fields, "phase")?;
    let boot_id: String = required(&mut fields, "boot_id")?;
    let hostname: Option<String> = optional(&mut fields, "hostname")?;
    let mut addresses: Vec<_> = optional(&mut fields, "addresses")?.unwrap_or_default();
    let detail: Option<String> = optional(&mut fields, "detail")?;
    for (name, text) in [("boot_id", Some(&boot_id)), ("hostname", hostname.as_ref())] {
        if text.is_some_and(|text| text.len() > 255 || !text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(format!("`{name}` is not a word of at most 255 printable characters"));
        }
    }
    addresses.truncate(ADDRESSES);
    Ok(GuestReport { generation, phase, detail: detail.map(cut), boot_id, hostname, addresses })
}

fn required<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Result<T, String> {
    optional(fields, name)?.ok_or_else(|| format!("`{name}` is missing"))
}

fn optional<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Result<Option<T>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value).map(Some).map_err(|error| format!("`{name}`: {error}")),
    }
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_examples_are_understood() {
        for text in [
            include_str!("../../tests/golden/guest_report_ready.json"),
            include_str!("../../tests/golden/guest_report_failed.json"),
        ] {
            let report = parse(text.as_bytes()).unwrap();
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(report).unwrap(), value);
        }
    }

    #[test]
    fn a_refusal_names_the_field() {
        let base = include_str!("../../tests/golden/guest_report_ready.json");
        for (field, value) in [
            ("generation", "-1"),
            ("generation", "null"),
            ("phase", "\"done\""),
            ("phase", "7"),
            ("boot_id", "7"),
            ("boot_id", "\"a b\""),
            ("hostname", "\"a\\u0000b\""),
            ("addresses", "[\"10.0.0.5\"]"),
            ("addresses", "7"),
            ("detail", "[]"),
        ] {
            let mut report: Map<String, Value> = serde_json::from_str(base).unwrap();
            report.insert(field.to_owned(), serde_json::from_str(value).unwrap());
            let refused = parse(&serde_json::to_vec(&report).unwrap()).unwrap_err();
            assert!(refused.contains(&format!("`{field}`")), "{field} = {value}: {refused}");
        }
        assert!(parse(b"[]").is_err() && parse(b"{").is_err() && parse(b"\xff").is_err());
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut report: Map<String, Value> =
            serde_json::from_str(include_str!("../../tests/golden/guest_report_ready.json")).unwrap();
        report.insert("detail".to_owned(), Value::String(format!("x{}", "ß".repeat(DETAIL))));
        report.insert("addresses".to_owned(), serde_json::to_value(vec!["10.0.0.1/24"; 99]).unwrap());
        let report = parse(&serde_json::to_vec(&report).unwrap()).unwrap();
        assert_eq!((report.detail.unwrap().len(), report.addresses.len()), (DETAIL - 1, ADDRESSES));
    }
}
