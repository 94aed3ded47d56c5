//! Directory entries as one string, for those who bring millions: no names, no punctuation, nothing to allocate.
//!
//! Each entry is a row of bytes, all rows are written in hexadecimal one behind the other:
//!
//! ```text
//! families 1 | VNI 3 | customer IP 4 or 16 | MAC 6 | physical IP 4 or 16
//! ```
//!
//! Bit 0 of `families` says that the customer IP is IPv6, bit 1 the same of the physical IP; all others are zero.
//! Never here: whether an entry makes sense.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::switch::Mapping;
use crate::types::{CustomerIp, MacAddr, PhysicalIp, Vni};

const CUSTOMER_IS_V6: u8 = 1;
const PHYSICAL_IS_V6: u8 = 2;

/// Entries that are written as one string.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed(pub Vec<Mapping>);

impl Packed {
    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Vec::with_capacity(self.0.len() * 36);
        let mut put = |bytes: &[u8]| {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
            text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
        };
        let put_ip = |ip: IpAddr, put: &mut dyn FnMut(&[u8])| match ip {
            IpAddr::V4(ip) => put(&ip.octets()),
            IpAddr::V6(ip) => put(&ip.octets()),
        };
        for Mapping { network, ip, mac, physical_ip } in &self.0 {
            let families = if ip.0.is_ipv6() { CUSTOMER_IS_V6 } else { 0 }
                | if physical_ip.0.is_ipv6() { PHYSICAL_IS_V6 } else { 0 };
            put(&[families]);
            put(&network.to_be_bytes());
            put_ip(ip.0, &mut put);
            put(&mac.0);
            put_ip(physical_ip.0, &mut put);
        }
        // Digits only.
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = Packed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("directory entries in hexadecimal, as docs/PROTOCOLS.md describes them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Packed, E> {
                parse(text.as_bytes()).map(Packed).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

fn parse(mut text: &[u8]) -> Result<Vec<Mapping>, String> {
    let mut entries = Vec::with_capacity(text.len() / 36);
    while !text.is_empty() {
        let entry = entry(&mut text).map_err(|what| format!("packed entry {}: {what}", entries.len() + 1))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(text: &mut &[u8]) -> Result<Mapping, String> {
    let [families] = bytes(text)?;
    if families & !(CUSTOMER_IS_V6 | PHYSICAL_IS_V6) != 0 {
        return Err(format!("families {families} are none: expected 0 to 3"));
    }
    let network = Vni::from_be_bytes(bytes(text)?).ok_or("VNI 0 is out of range")?;
    let ip = CustomerIp(ip(text, families & CUSTOMER_IS_V6 != 0)?);
    let mac = MacAddr(bytes(text)?);
    let physical_ip = PhysicalIp(self::ip(text, families & PHYSICAL_IS_V6 != 0)?);
    Ok(Mapping { network, ip, mac, physical_ip })
}

fn ip(text: &mut &[u8], is_v6: bool) -> Result<IpAddr, String> {
    Ok(if is_v6 { bytes::<16>(text)?.into() } else { bytes::<4>(text)?.into() })
}

fn bytes<const N: usize>(text: &mut &[u8]) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    for byte in &mut bytes {
        let (digits, rest) = text.split_first_chunk::<2>().ok_or("it ends too early")?;
        let [high, low] = digits.map(value);
        if (high | low) > 15 {
            return Err("it has a character that is no hexadecimal digit".into());
        }
        *byte = high << 4 | low;
        *text = rest;
    }
    Ok(bytes)
}

const fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Packed {
        let entry = |ip: &str, physical_ip: &str| Mapping {
            network: Vni::new(100).unwrap(),
            ip: ip.parse().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, 0x1f]),
            physical_ip: physical_ip.parse().unwrap(),
        };
        let (v4, v6) = ("10.0.0.10", "fd00::a");
        Packed(vec![
            entry(v4, "192.0.2.2"),
            entry(v6, "192.0.2.2"),
            entry(v4, "2001:db8::2"),
            entry(v6, "2001:db8::2"),
        ])
    }

    #[test]
    fn what_is_packed_comes_back() {
        let text = serde_json::to_string(&packed()).unwrap();
        assert!(text.starts_with("\"000000640a00000a02000000001fc0000202"), "{text}");
        assert_eq!(serde_json::from_str::<Packed>(&text).unwrap(), packed());
        assert_eq!(serde_json::from_str::<Packed>(&text.to_uppercase()).unwrap(), packed());
        assert_eq!(serde_json::from_str::<Packed>("\"\"").unwrap(), Packed::default());
    }

    #[test]
    fn what_is_no_row_is_refused_by_its_number() {
        let one = "000000640a00000a02000000001fc0000202";
        for (text, what) in [
            (format!("{one}0"), "packed entry 2: it ends too early"),
            (one[..34].to_owned(), "packed entry 1: it ends too early"),
            (format!("{one}{}", one.replace("0a", "0g")), "packed entry 2: it has a character that is no"),
            (one.replacen("00", "04", 1), "packed entry 1: families 4 are none"),
            (one.replace("64", "00"), "packed entry 1: VNI 0 is out of range"),
            ("é".to_owned(), "packed entry 1: it has a character that is no"),
        ] {
            let error = serde_json::from_str::<Packed>(&format!("\"{text}\"")).unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
        }
    }
}
