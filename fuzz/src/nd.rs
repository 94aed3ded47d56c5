//! Neighbour discovery (RFC 4861): the input is an envelope and an ICMPv6 message.
//!
//! One byte of wishes (bit 0: leave the checksum; 1: unspecified source; 2: solicited-node destination; 3: take the hop
//! limit from the input), source, destination, hop limit, then the message.

use std::net::{IpAddr, Ipv6Addr};

use dataplane::types::MacAddr;
use dataplane::wire::icmpv6::{self, Icmpv6};
use dataplane::wire::nd::{
    Envelope, NeighbourAdvertisement, NeighbourSolicitation, RouterAdvertisement, RouterSolicitation,
    solicited_node,
};
use ipnet::Ipv6Net;

use crate::dice::Dice;
use crate::sum;

/// A solicitation is accepted exactly when the rules of sections 6.1.1 and 7.1.1 allow it, says what its bytes say, and
/// is the same when its value is written anew; what the switch writes has a right checksum, the length that was
/// announced, and options that end where the message ends.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let wishes = dice.byte();
    let (source, destination, hop_limit) = (dice.array(), dice.array(), dice.byte());
    let mut message = dice.rest().to_vec();
    let target = message.get(8..24).map(|octets| Ipv6Addr::from_octets(octets.try_into().unwrap()));
    let envelope = Envelope {
        source: if wishes & 2 != 0 { Ipv6Addr::UNSPECIFIED } else { Ipv6Addr::from_octets(source) },
        destination: match target {
            Some(target) if wishes & 4 != 0 => solicited_node(target),
            _ => Ipv6Addr::from_octets(destination),
        },
        hop_limit: if wishes & 8 != 0 { hop_limit } else { 255 },
    };
    if wishes & 1 == 0 {
        let has_room = icmpv6::finish(&mut message, envelope.source, envelope.destination).is_ok();
        assert_eq!(has_room, message.len() >= 4);
    }
    check_solicitations(&message, &envelope);
    check_advertisements(&message, &envelope);
}

fn check_solicitations(message: &[u8], envelope: &Envelope) {
    let neighbour = NeighbourSolicitation::parse(message, envelope).ok();
    let router = RouterSolicitation::parse(message, envelope).ok();
    assert_eq!(
        neighbour.map(|asked| (asked.target, asked.source_mac)),
        neighbour_by_the_rfc(message, envelope)
    );
    assert_eq!(router.map(|asked| asked.source_mac), router_by_the_rfc(message, envelope));
    let option = |mac: Option<MacAddr>| mac.map_or(vec![], |mac| [&[1, 1][..], &mac.0].concat());
    let finished = |mut message: Vec<u8>| {
        icmpv6::finish(&mut message, envelope.source, envelope.destination).unwrap();
        message
    };
    if let Some(asked) = neighbour {
        let written =
            [&[135, 0, 0, 0, 0, 0, 0, 0], &asked.target.octets()[..], &option(asked.source_mac)].concat();
        assert_eq!(NeighbourSolicitation::parse(&finished(written), envelope), Ok(asked));
    }
    if let Some(asked) = router {
        let written = [&[133, 0, 0, 0, 0, 0, 0, 0], &option(asked.source_mac)[..]].concat();
        assert_eq!(RouterSolicitation::parse(&finished(written), envelope), Ok(asked));
    }
}

/// Hop limit, checksum, type and code: what both sections ask of the message as a whole.
fn is_fresh(message: &[u8], envelope: &Envelope, kind: u8) -> bool {
    let (from, to) = (IpAddr::V6(envelope.source), IpAddr::V6(envelope.destination));
    envelope.hop_limit == 255
        && message.len() >= 8
        && message[..2] == [kind, 0]
        && sum::with_pseudo(from, to, 58, message) == sum::VALID
}

fn neighbour_by_the_rfc(message: &[u8], envelope: &Envelope) -> Option<(Ipv6Addr, Option<MacAddr>)> {
    let target = Ipv6Addr::from_octets(message.get(8..24)?.try_into().unwrap());
    let mac = told_mac(&message[24..])?;
    let is_probe = envelope.source == Ipv6Addr::UNSPECIFIED;
    let to = envelope.destination.segments();
    let to_solicited_node = to[..6] == [0xff02, 0, 0, 0, 0, 1] && to[6] >> 8 == 0xff;
    let lawful = is_fresh(message, envelope, 135)
        && target.octets()[0] != 0xff
        && !(is_probe && (mac.is_some() || !to_solicited_node));
    lawful.then_some((target, mac))
}

fn router_by_the_rfc(message: &[u8], envelope: &Envelope) -> Option<Option<MacAddr>> {
    let mac = told_mac(message.get(8..)?)?;
    let lawful =
        is_fresh(message, envelope, 133) && !(envelope.source == Ipv6Addr::UNSPECIFIED && mac.is_some());
    lawful.then_some(mac)
}

/// The last source link-layer address of six bytes; `None` when the options don't end where the message ends.
#[expect(clippy::option_option, reason = "no lawful options, and no such option, are different answers")]
fn told_mac(options: &[u8]) -> Option<Option<MacAddr>> {
    Some(walk(options)?.into_iter().rfind(|option| option[..2] == [1, 1]).map(|option| {
        let octets: [u8; 6] = option[2..].try_into().unwrap();
        MacAddr(octets)
    }))
}

/// All options, each with its type and length; `None` when their lengths do not add up.
fn walk(options: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = vec![];
    let mut at = 0;
    while at < options.len() {
        let bytes = usize::from(*options.get(at + 1)?) * 8;
        if bytes == 0 {
            return None;
        }
        found.push(options.get(at..at + bytes)?);
        at += bytes;
    }
    Some(found)
}

/// The message's bytes now choose what the switch would say.
fn check_advertisements(choice: &[u8], envelope: &Envelope) {
    let mut dice = Dice::new(choice);
    let (from, to) = (envelope.source, envelope.destination);
    let wishes = dice.byte();
    let (target, mac) = (Ipv6Addr::from_octets(dice.array()), MacAddr(dice.array()));
    let neighbour = NeighbourAdvertisement {
        from_router: wishes & 0x80 != 0,
        solicited: wishes & 0x40 != 0,
        overrides: wishes & 0x20 != 0,
        target,
        mac,
    };
    let written = neighbour.to_bytes(from, to);
    let header = Icmpv6::parse(&written, from, to).expect("a right checksum");
    assert_eq!((header.kind, header.code, header.rest), (136, 0, [wishes & 0xe0, 0, 0, 0]));
    assert_eq!(written[8..24], target.octets());
    assert_eq!(written[24..], *[&[2, 1][..], &mac.0].concat());

    let prefixes: Vec<Ipv6Net> = (0..dice.byte() % 5)
        .map(|_| Ipv6Net::new(Ipv6Addr::from_octets(dice.array()), dice.byte() % 129).unwrap().trunc())
        .collect();
    let dns: Vec<Ipv6Addr> = (0..dice.byte()).map(|_| Ipv6Addr::from_octets(dice.array())).collect();
    let router = RouterAdvertisement {
        hop_limit: dice.byte(),
        managed: wishes & 1 != 0,
        other_config: wishes & 2 != 0,
        router_lifetime_seconds: dice.word(),
        mac,
        mtu: u32::from(dice.word()),
        prefixes: &prefixes,
        on_link: wishes & 4 != 0,
        autonomous: wishes & 8 != 0,
        valid_seconds: u32::from(dice.word()),
        preferred_seconds: u32::from(dice.word()),
        dns: &dns,
        dns_lifetime_seconds: u32::from(dice.word()),
    };
    let need = router.message_bytes();
    let mut out = vec![0xee; need + 3];
    assert!(router.emit(&mut out[..need - 1], from, to).is_err());
    assert_eq!(router.emit(&mut out, from, to), Ok(need));
    assert_eq!(out[need..], [0xee; 3], "nothing beyond the announced length is written");
    let header = Icmpv6::parse(&out[..need], from, to).expect("a right checksum");
    let [hop_limit, flags, life @ ..] = header.rest;
    assert_eq!((header.kind, header.code, hop_limit), (134, 0, router.hop_limit));
    assert_eq!(
        (flags, u16::from_be_bytes(life)),
        ((wishes & 3).reverse_bits(), router.router_lifetime_seconds)
    );
    let options = walk(&out[16..need]).expect("options that end where the message ends");
    let of = |kind| options.iter().filter(move |option| option[0] == kind).copied().collect::<Vec<_>>();
    assert_eq!(of(1), [[&[1, 1][..], &mac.0].concat()]);
    assert_eq!(of(5), [[&[5, 1, 0, 0][..], &router.mtu.to_be_bytes()].concat()]);
    let told = of(3).into_iter().map(|option| {
        let octets: [u8; 16] = option[16..].try_into().unwrap();
        Ipv6Net::new(Ipv6Addr::from_octets(octets), option[2]).unwrap()
    });
    assert_eq!(told.collect::<Vec<_>>(), prefixes);
    let told: Vec<_> = of(25).into_iter().flat_map(|option| option[8..].chunks(16)).collect();
    let most = dns.len().min(127);
    assert_eq!(told, dns[..most].iter().map(|ip| ip.octets()).collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_we_read_them() {
        let mac = [1, 1, 2, 0, 0, 0, 0, 5];
        let other = [14, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(told_mac(&[other, mac].concat()), Some(Some(MacAddr([2, 0, 0, 0, 0, 5]))));
        assert_eq!(told_mac(&other), Some(None));
        assert_eq!(told_mac(&[14, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(told_mac(&[14, 2, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(told_mac(&[14]), None);
    }

    #[test]
    fn the_rfc_as_we_read_it() {
        let target: Ipv6Addr = "fd00::12:3456".parse().unwrap();
        let envelope = Envelope {
            source: "fd00::1".parse().unwrap(),
            destination: solicited_node(target),
            hop_limit: 255,
        };
        let written = |envelope: &Envelope, options: &[u8]| {
            let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], options].concat();
            icmpv6::finish(&mut message, envelope.source, envelope.destination).unwrap();
            message
        };
        let mac = [1, 1, 2, 0, 0, 0, 0, 5];
        assert!(neighbour_by_the_rfc(&written(&envelope, &mac), &envelope).is_some());
        let probe = Envelope { source: Ipv6Addr::UNSPECIFIED, ..envelope };
        assert!(neighbour_by_the_rfc(&written(&probe, &[]), &probe).is_some());
        for wrong in [
            Envelope { hop_limit: 254, ..envelope },
            probe,
            Envelope { destination: target, source: Ipv6Addr::UNSPECIFIED, ..envelope },
        ] {
            assert_eq!(neighbour_by_the_rfc(&written(&wrong, &mac), &wrong), None, "{wrong:?}");
        }
        assert_eq!(neighbour_by_the_rfc(&written(&envelope, &mac), &probe), None, "checksum");
    }
}
