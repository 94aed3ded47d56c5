//! IPv6 (RFC 8200) and what it carries: the input is two bytes of wishes and a packet.
//!
//! The first byte's bit 0 leaves the payload length as it came, else it is made to fit, and bit 1 the checksum of
//! ICMPv6; the second byte is a traffic class to set.

use std::net::IpAddr;

use dataplane::wire::icmpv6;
use dataplane::wire::ipv6::{self, Ipv6, MAX_EXTENSION_BYTES, MAX_EXTENSIONS, Upper};

use crate::dice::Dice;
use crate::{flow, sum};

/// A header is accepted exactly when version and length allow it, and is written back as the same bytes; the walk over
/// extension headers is bounded and ends where a slower walk ends; changes on the way touch nothing else; errors about
/// it verify.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let (wishes, class) = (dice.byte(), dice.byte());
    let mut packet = dice.rest().to_vec();
    if let (0, Some(bytes)) = (wishes & 1, packet.len().checked_sub(40).and_then(|n| u16::try_from(n).ok())) {
        packet[4..6].copy_from_slice(&bytes.to_be_bytes());
    }
    let parsed = Ipv6::parse(&packet).ok();
    let claimed = packet.get(4..6).map_or(0, |field| usize::from(u16::from_be_bytes([field[0], field[1]])));
    assert_eq!(parsed.is_some(), packet.len() >= 40 + claimed && packet[0] >> 4 == 6);
    if let (0, Some(ip)) = (wishes & 2, parsed) {
        put_right_icmp(&ip, &mut packet);
    }
    flow::check(&[&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd], &packet[..]].concat());
    let Some(ip) = parsed else { return };
    assert_eq!(ip.to_bytes(), packet[..40]);
    assert_eq!(ip.payload(&packet), &packet[40..40 + usize::from(ip.payload_bytes)]);
    check_walk(&ip, &packet);
    check_edits(&ip, &packet, class);
    check_errors(&ip, &packet, class);
}

fn put_right_icmp(ip: &Ipv6, packet: &mut [u8]) {
    let end = 40 + usize::from(ip.payload_bytes);
    let Ok(upper) = ipv6::walk(&packet[..end], ip.next_header) else { return };
    if let (58, Some(message @ [_, _, _, _, ..])) = (upper.protocol.0, packet.get_mut(upper.offset..end)) {
        icmpv6::finish(message, ip.source, ip.destination).unwrap();
        let (from, to) = (IpAddr::V6(ip.source), IpAddr::V6(ip.destination));
        assert_eq!(sum::with_pseudo(from, to, 58, message), sum::VALID);
    }
}

fn check_walk(ip: &Ipv6, packet: &[u8]) {
    let within = &packet[..40 + usize::from(ip.payload_bytes)];
    let walked = ipv6::walk(within, ip.next_header).ok();
    assert_eq!(walked, walk_by_the_rfc(within));
    let Some(upper) = walked else { return };
    assert!(upper.offset <= within.len() && upper.offset % 8 == 0);
    assert!(upper.offset <= 40 + MAX_EXTENSION_BYTES);
}

/// The chain as a list first, judged afterwards.
fn walk_by_the_rfc(packet: &[u8]) -> Option<Upper> {
    let mut chain: Vec<(u8, &[u8])> = vec![];
    let (mut kind, mut rest) = (packet[6], &packet[40..]);
    while matches!(kind, 0 | 43 | 44 | 60) && chain.len() <= MAX_EXTENSIONS {
        let bytes = if kind == 44 { 8 } else { 8 + usize::from(*rest.get(1)?) * 8 };
        let (header, after) = rest.split_at_checked(bytes)?;
        chain.push((kind, header));
        (kind, rest) = (header[0], after);
        if chain.last().is_some_and(|(kind, header)| *kind == 44 && (header[2] != 0 || header[3] & 0xf8 != 0))
        {
            break;
        }
    }
    let bytes = chain.iter().map(|(_, header)| header.len()).sum::<usize>();
    let fragments: Vec<_> = chain.iter().filter(|(kind, _)| *kind == 44).collect();
    let is_lawful = chain.len() <= MAX_EXTENSIONS
        && bytes <= MAX_EXTENSION_BYTES
        && fragments.len() <= 1
        && chain.iter().skip(1).all(|(kind, _)| *kind != 0);
    is_lawful.then(|| Upper {
        protocol: dataplane::wire::Protocol(kind),
        offset: 40 + bytes,
        fragment: fragments.first().map(|(_, header)| {
            let field = u16::from_be_bytes([header[2], header[3]]);
            ipv6::Fragment {
                offset: field / 8,
                more: field % 2 == 1,
                identification: u32::from_be_bytes(header[4..8].try_into().unwrap()),
            }
        }),
        source_routed: chain.iter().any(|(kind, header)| *kind == 43 && header[2] == 0 && header[3] > 0),
    })
}

fn check_edits(ip: &Ipv6, packet: &[u8], class: u8) {
    let mut edited = packet.to_vec();
    ipv6::set_traffic_class(&mut edited, class).unwrap();
    assert_eq!(Ipv6::parse(&edited), Ok(Ipv6 { traffic_class: class, ..*ip }));
    let left = ipv6::decrement_hop_limit(&mut edited).unwrap();
    assert_eq!(left, (ip.hop_limit > 1).then(|| ip.hop_limit - 1));
    let hop_limit = left.unwrap_or(ip.hop_limit);
    assert_eq!(Ipv6::parse(&edited), Ok(Ipv6 { traffic_class: class, hop_limit, ..*ip }));
    assert_eq!(edited[40..], packet[40..]);
}

fn check_errors(ip: &Ipv6, packet: &[u8], choice: u8) {
    use icmpv6::Problem;
    let quoted = &packet[..packet.len().min(icmpv6::QUOTE_BYTES)];
    let problem = match choice % 5 {
        0 => Problem::PacketTooBig { mtu: 1450 },
        1 => Problem::NoRoute,
        2 => Problem::Prohibited,
        3 => Problem::AddressUnreachable,
        _ => Problem::HopLimitExceeded,
    };
    let mut message = [&[0xee; 8], quoted].concat();
    icmpv6::emit_error(&mut message, ip.destination, ip.source, problem).unwrap();
    let (from, to) = (IpAddr::V6(ip.destination), IpAddr::V6(ip.source));
    assert_eq!(sum::with_pseudo(from, to, 58, &message), sum::VALID);
    assert_eq!(message[8..], *quoted);
    assert!(icmpv6::Icmpv6::parse(&message, ip.destination, ip.source).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_as_we_read_them() {
        let packet =
            |next: u8, payload: &[u8]| [&[0x60, 0, 0, 0, 0, 0, next, 64][..], &[0; 32], payload].concat();
        let walked =
            walk_by_the_rfc(&packet(0, &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 42])).unwrap();
        assert_eq!((walked.protocol.0, walked.offset), (17, 56));
        assert_eq!(walked.fragment, Some(ipv6::Fragment { offset: 0, more: true, identification: 42 }));
        // Behind a later fragment's header nothing is a header.
        assert_eq!(walk_by_the_rfc(&packet(44, &[60, 0, 0, 8, 0, 0, 0, 1])).unwrap().offset, 48);
        assert!(walk_by_the_rfc(&packet(43, &[59, 0, 0, 1, 0, 0, 0, 0])).unwrap().source_routed);
        assert_eq!(walk_by_the_rfc(&packet(60, &[0, 0, 1, 4, 0, 0, 0, 0, 59, 0, 1, 4, 0, 0, 0, 0])), None);
        assert_eq!(walk_by_the_rfc(&packet(44, &[44, 0, 0, 0, 0, 0, 0, 1, 59, 0, 0, 0, 0, 0, 0, 1])), None);
        assert_eq!(walk_by_the_rfc(&packet(60, &[59, 1, 1, 4, 0, 0, 0, 0])), None);
        assert!(
            walk_by_the_rfc(&packet(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 1))).is_none()
        );
    }
}
