//! IPv4 (RFC 791) and what it carries: the input is two bytes of wishes and a packet.
//!
//! The first byte's bit 0 leaves the header's checksum as it came, else it is put right, and bit 1 likewise for ICMP;
//! the second byte is a type of service to set.

use dataplane::wire::ipv4::{self, Ipv4};
use dataplane::wire::{Protocol, icmpv4};

use crate::dice::Dice;
use crate::{flow, sum};

/// A header is accepted exactly when RFC 791's rules allow it; header and payload add up to its total length; the value
/// is the same when written and read again, and a header without options even has the same bytes; changes on the way
/// keep the checksum right and touch nothing else; errors about it verify.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let (wishes, tos) = (dice.byte(), dice.byte());
    let mut packet = dice.rest().to_vec();
    if wishes & 1 == 0 {
        put_right(&mut packet);
    }
    if wishes & 2 == 0 {
        put_right_icmp(&mut packet);
    }
    let parsed = Ipv4::parse(&packet).ok();
    assert_eq!(parsed.is_some(), by_the_rfc(&packet));
    flow::check(&[&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0], &packet[..]].concat());
    let Some(ip) = parsed else { return };
    check_value(&ip, &packet);
    check_edits(&ip, &packet, tos);
    check_errors(&packet, tos);
}

/// Sets the header's checksum by the slow sum, if there is a header.
fn put_right(packet: &mut [u8]) {
    let header_bytes = packet.first().map_or(0, |byte| usize::from(byte & 15) * 4);
    if let Some(header @ [_, _, _, _, _, _, _, _, _, _, _, _, ..]) = packet.get_mut(..header_bytes) {
        header[10..12].fill(0);
        let checksum = !sum::of(header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

fn put_right_icmp(packet: &mut [u8]) {
    let Ok(ip) = Ipv4::parse(packet) else { return };
    let range = usize::from(ip.header_bytes)..usize::from(ip.total_bytes);
    if let (Protocol::ICMPV4, Some(message @ [_, _, _, _, ..])) = (ip.protocol, packet.get_mut(range)) {
        message[2..4].fill(0);
        let checksum = !sum::of(message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
}

fn by_the_rfc(packet: &[u8]) -> bool {
    let Some(header) = packet.first().and_then(|byte| packet.get(..usize::from(byte & 15) * 4)) else {
        return false;
    };
    if header.len() < 20 || header[0] >> 4 != 4 {
        return false;
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header.len()..=packet.len()).contains(&total)
        && sum::of(header) == sum::VALID
        && options(&header[20..]).is_some()
}

/// Each option's type, in order; `None` when one leaves the header.
fn options(area: &[u8]) -> Option<Vec<u8>> {
    let mut kinds = vec![];
    let mut at = 0;
    while at < area.len() && area[at] != 0 {
        kinds.push(area[at]);
        let bytes = if area[at] == 1 { 1 } else { usize::from(*area.get(at + 1)?) };
        if bytes == 0 || bytes == 1 && area[at] != 1 || at + bytes > area.len() {
            return None;
        }
        at += bytes;
    }
    Some(kinds)
}

fn check_value(ip: &Ipv4, packet: &[u8]) {
    let header = &packet[..usize::from(ip.header_bytes)];
    assert_eq!(header.len() + ip.payload(packet).len(), usize::from(ip.total_bytes), "lengths add up");
    let kinds = options(&header[20..]).expect("accepted");
    assert_eq!(ip.source_routed, kinds.iter().any(|kind| matches!(kind, 131 | 137)));
    assert_eq!(ip.is_fragment(), u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0);
    let payload = ip.payload(packet);
    let plain = Ipv4 {
        header_bytes: 20,
        total_bytes: ip.total_bytes - u16::from(ip.header_bytes - 20),
        source_routed: false,
        ..*ip
    };
    let written = [&plain.to_bytes(), payload].concat();
    assert_eq!(Ipv4::parse(&written), Ok(plain));
    assert_eq!(sum::of(&written[..20]), sum::VALID);
    // The reserved bit is not kept, and a checksum of 0xffff is 0's twin.
    let reserved_clear = header[6] & 0x80 == 0;
    if header.len() == 20 && reserved_clear && header[10..12] != [0xff, 0xff] {
        assert_eq!(written, packet[..usize::from(ip.total_bytes)]);
    }
    let mut out = [0xee; 21];
    plain.emit(&mut out).unwrap();
    assert_eq!((&out[..20], out[20]), (&written[..20], 0xee));
    assert!(plain.emit(&mut out[..19]).is_err());
}

fn check_edits(ip: &Ipv4, packet: &[u8], tos: u8) {
    let mut edited = packet.to_vec();
    ipv4::set_tos(&mut edited, tos).unwrap();
    assert_eq!(Ipv4::parse(&edited), Ok(Ipv4 { tos, ..*ip }));
    let left = ipv4::decrement_ttl(&mut edited).unwrap();
    assert_eq!(left, (ip.ttl > 1).then(|| ip.ttl - 1));
    assert_eq!(Ipv4::parse(&edited), Ok(Ipv4 { tos, ttl: left.unwrap_or(ip.ttl), ..*ip }));
    let others = |bytes: &[u8]| [&bytes[..1], &bytes[2..8], &bytes[9..10], &bytes[12..]].concat();
    assert_eq!(others(&edited), others(packet), "nothing but TOS, TTL and checksum changes");
}

fn check_errors(packet: &[u8], choice: u8) {
    use icmpv4::Problem;
    let quoted = &packet[..packet.len().min(icmpv4::QUOTE_BYTES)];
    let problem = match choice % 5 {
        0 => Problem::FragmentationNeeded { next_hop_mtu: 1450 },
        1 => Problem::NetworkUnreachable,
        2 => Problem::HostUnreachable,
        3 => Problem::Prohibited,
        _ => Problem::TtlExceeded,
    };
    let mut message = [&[0xee; 8], quoted].concat();
    icmpv4::emit_error(&mut message, problem).unwrap();
    assert_eq!(sum::of(&message), sum::VALID);
    assert_eq!(message[8..], *quoted);
    assert!(icmpv4::Icmpv4::parse(&message).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_we_read_them() {
        assert_eq!(options(&[1, 131, 7, 4, 10, 0, 0, 9]), Some(vec![1, 131]));
        assert_eq!(options(&[148, 4, 0, 0, 0, 131, 7, 4]), Some(vec![148]));
        assert_eq!(options(&[1, 1, 1, 1]), Some(vec![1; 4]));
        for wrong in [[7, 9, 4, 0], [7, 1, 4, 0], [7, 0, 4, 0], [1, 1, 1, 7]] {
            assert_eq!(options(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_seen_and_put_right() {
        let mut packet = [0x45, 0, 0, 20, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        assert!(!by_the_rfc(&packet));
        put_right(&mut packet);
        assert!(by_the_rfc(&packet));
        assert!(!by_the_rfc(&packet[..19]));
    }
}
