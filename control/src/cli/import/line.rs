//! One line of a file of directory entries.
//!
//! The plain spelling (no escapes, each name once) is read by hand, ten times faster than by serde; whatever else a line is, serde
//! says, and what is wrong with it.

use dataplane::switch::Mapping;
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, TypeError, Vni};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What JSON calls white space.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// The entry on a line.
///
/// # Errors
/// A sentence about what is wrong with it.
pub(super) fn entry(line: &str) -> Result<Mapping, String> {
    let entry = match plain(line) {
        Some(entry) => entry,
        None => serde_json::from_str(line).map_err(|error| {
            let what = sentence(&error);
            wrong_field(line, &what).unwrap_or(what)
        })?,
    };
    check(&entry).map_err(|(field, error)| format!("{field}: {error}"))?;
    Ok(entry)
}

fn sentence(error: &serde_json::Error) -> String {
    let what = error.to_string();
    // The line's number is the caller's: here it is always the first.
    what.rsplit_once(" at line 1 ").map_or(what.clone(), |(what, at)| format!("{what} at {at}"))
}

/// Which field's value is none, if the line is an object otherwise.
fn wrong_field(line: &str, what: &str) -> Option<String> {
    // These name it already, or are about none.
    if ["duplicate", "unknown", "missing"].iter().any(|start| what.starts_with(start)) {
        return None;
    }
    fn wrong<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> Option<String> {
        let error = serde_json::from_value::<T>(fields.get(name)?.clone()).err()?;
        Some(format!("{name}: {error}"))
    }
    let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
    wrong::<Vni>(&fields, "network")
        .or_else(|| wrong::<CustomerIp>(&fields, "ip"))
        .or_else(|| wrong::<MacAddr>(&fields, "mac"))
        .or_else(|| wrong::<PhysicalIp>(&fields, "physical_ip"))
}

fn check(entry: &Mapping) -> Result<(), (&'static str, TypeError)> {
    entry.ip.require_unicast().map_err(|error| ("ip", error))?;
    entry.physical_ip.require_unicast().map_err(|error| ("physical_ip", error))?;
    entry.mac.require_unicast().map_err(|error| ("mac", error))?;
    Ok(())
}

/// The entry, if the line is spelt plainly and right.
fn plain(line: &str) -> Option<Mapping> {
    let (mut network, mut ip, mut mac, mut physical_ip) = (None, None, None, None);
    let mut rest = after(line, '{')?;
    loop {
        let (name, value) = quoted(rest)?;
        let value = after(value, ':')?.trim_start_matches(BLANK);
        rest = if name == "network" {
            let end = value.find(|digit: char| !digit.is_ascii_digit())?;
            let (digits, rest) = value.split_at_checked(end)?;
            // JSON has no leading zeros.
            let number: u64 = digits.parse().ok().filter(|_| !digits.starts_with('0'))?;
            once(&mut network, Vni::try_from(number).ok()?)?;
            rest
        } else {
            let (text, rest) = quoted(value)?;
            match name {
                "ip" => once(&mut ip, text.parse::<CustomerIp>().ok()?)?,
                "mac" => once(&mut mac, colons(text)?)?,
                "physical_ip" => once(&mut physical_ip, text.parse::<PhysicalIp>().ok()?)?,
                _ => return None,
            }
            rest
        };
        match rest.trim_start_matches(BLANK).split_at_checked(1)? {
            (",", more) => rest = more,
            ("}", end) if end.trim_start_matches(BLANK).is_empty() => break,
            _ => return None,
        }
    }
    Some(Mapping { network: network?, ip: ip?, mac: mac?, physical_ip: physical_ip? })
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn after(text: &str, sign: char) -> Option<&str> {
    text.trim_start_matches(BLANK).strip_prefix(sign)
}

/// A string without escapes and control characters, and what stands behind it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = after(text, '"')?;
    let end = text.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
    let (inner, rest) = text.split_at_checked(end)?;
    Some((inner, rest.strip_prefix('"')?))
}

/// Six octets of two digits each.
fn colons(text: &str) -> Option<MacAddr> {
    let mut octets = [0; 6];
    let bytes: &[u8; 17] = text.as_bytes().try_into().ok()?;
    for (octet, chunk) in octets.iter_mut().zip(bytes.chunks(3)) {
        let &[high, low, ref colon @ ..] = chunk else { return None };
        if !matches!(colon, [] | [b':']) {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *octet = digit(high)? << 4 | digit(low)?;
    }
    Some(MacAddr(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str =
        r#"{"network":100,"ip":"10.0.0.7","mac":"02:00:00:00:0a:F7","physical_ip":"2001:db8::2"}"#;

    #[test]
    fn plain_lines_are_read_without_serde_and_say_the_same() {
        for line in [
            PLAIN.to_owned(),
            format!("\t {PLAIN} \r"),
            PLAIN.replace(',', " , ").replace(':', ": ").replace(": ", ":"),
            r#" { "mac" : "02:00:00:00:00:07" , "ip":"fd00::7","physical_ip":"192.0.2.2","network" :16777215 } "#.into(),
        ] {
            let read = plain(&line).unwrap_or_else(|| panic!("not read: {line}"));
            assert_eq!(read, serde_json::from_str(&line).unwrap(), "{line}");
        }
    }

    /// Every line that differs from a plain one in one byte, or lacks one: what is read by hand is what serde reads.
    #[test]
    fn whatever_is_read_by_hand_serde_reads_too() {
        let mut read = 0;
        for at in 0..PLAIN.len() {
            let replaced = (0..=127_u8).map(|byte| {
                let mut line = PLAIN.as_bytes().to_vec();
                line[at] = byte;
                line
            });
            let mut shorter = PLAIN.as_bytes().to_vec();
            shorter.remove(at);
            let doubled =
                [&PLAIN.as_bytes()[..at], &PLAIN.as_bytes()[at..=at], &PLAIN.as_bytes()[at..]].concat();
            for line in replaced.chain([shorter, doubled, PLAIN.as_bytes()[..at].to_vec()]) {
                let line = String::from_utf8(line).unwrap();
                if let Some(by_hand) = plain(&line) {
                    read += 1;
                    assert_eq!(Some(by_hand), serde_json::from_str(&line).ok(), "{line}");
                }
            }
        }
        assert!(read > 500, "{read}");
    }

    #[test]
    fn other_spellings_are_serdes() {
        let escaped = PLAIN.replace("\"ip\"", "\"\\u0069p\"");
        assert_eq!((plain(&escaped), entry(&escaped)), (None, entry(PLAIN)));
        assert_eq!(entry(&PLAIN.replace("02:00:00:00:0a:F7", "2-0-0-0-a-f7")), entry(PLAIN));
        for (from, to, what) in [
            (":100", ":0", "network: VNI 0 is out of range"),
            (":100", ":0100", "invalid number at column 13"),
            (":100", ":\"red\"", "network: invalid type: string"),
            ("10.0.0.7", "10.0.0.300", "ip: invalid IP address"),
            ("02:00:00", "02:00:0g", "mac: `02:00:0g:00:0a:F7` is not a MAC address"),
            ("10.0.0.7", "255.255.255.255", "ip: 255.255.255.255 is not a unicast host address"),
            ("2001:db8::2", "::", "physical_ip: :: is not a unicast host address"),
            ("02:00", "03:00", "mac: 03:00:00:00:0a:f7 is not a unicast MAC address"),
            ("\"mac\"", "\"ip\"", "duplicate field `ip`"),
            ("\"mac\"", "\"max\"", "unknown field `max`"),
            ("}", ",", "EOF while parsing"),
            ("}", "} x", "trailing characters"),
        ] {
            let said = entry(&PLAIN.replacen(from, to, 1)).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }
}
