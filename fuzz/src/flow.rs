//! What holds for the headers of any frame that the packet path accepts: lengths add up, and the one-pass parse says
//! the same as the parsers of the single protocols.

use dataplane::wire::flow::{Fragment, Headers, Network, Transport, flow_hash};
use dataplane::wire::ipv4::Ipv4;
use dataplane::wire::ipv6::{self, Ipv6};
use dataplane::wire::tcp::Tcp;
use dataplane::wire::udp::Udp;
use dataplane::wire::{icmpv4, icmpv6};

use crate::sum;

/// Checks one frame, from its Ethernet header.
pub(crate) fn check(frame: &[u8]) -> Option<Headers> {
    let headers = Headers::parse(frame).ok()?;
    let end = headers.end as usize;
    assert!(headers.network_offset() <= headers.transport_offset());
    assert!(headers.transport_offset() <= headers.payload_offset());

    match headers.network {
        Network::Other => return Some(headers),
        Network::V4 { source, destination } => {
            let ip = Ipv4::parse(&frame[14..]).expect("the one-pass parse accepted it");
            assert_eq!((ip.source, ip.destination, ip.protocol), (source, destination, headers.protocol));
            assert_eq!((ip.tos, ip.ttl), (headers.tos, headers.hop_limit));
            assert_eq!(end, 14 + usize::from(ip.total_bytes));
            assert_eq!(headers.transport_offset(), 14 + usize::from(ip.header_bytes));
            assert_eq!(ip.is_fragment(), headers.fragment != Fragment::Whole);
            assert!(!ip.overlaps_transport() && !ip.is_tiny_first_fragment());
        }
        Network::V6 { source, destination } => {
            let ip = Ipv6::parse(&frame[14..]).expect("the one-pass parse accepted it");
            assert_eq!((ip.source, ip.destination), (source, destination));
            assert_eq!((ip.traffic_class, ip.hop_limit), (headers.tos, headers.hop_limit));
            assert_eq!(end, 54 + usize::from(ip.payload_bytes));
            assert!(headers.transport_offset() <= 54 + ipv6::MAX_EXTENSION_BYTES);
        }
    }
    assert!(
        headers.payload_offset() <= end && end <= frame.len(),
        "headers lie within the packet, it in the frame"
    );
    assert_eq!(headers.ip_bytes(), end - 14);
    assert_eq!(flow_hash(&headers, 7), flow_hash(&headers, 7));
    check_transport(&headers, &frame[headers.transport_offset()..end]);
    // Padding changes nothing.
    assert_eq!(Headers::parse(&[&frame[..end], &[0xee; 9]].concat()), Ok(headers));
    assert_eq!(Headers::parse(&frame[..end]), Ok(headers));
    Some(headers)
}

fn check_transport(headers: &Headers, payload: &[u8]) {
    match headers.transport {
        Transport::Tcp { source, destination, flags } => {
            let tcp = Tcp::parse(payload).expect("the one-pass parse accepted it");
            assert_eq!((tcp.source, tcp.destination, tcp.flags), (source, destination, flags));
            assert_eq!(tcp.header_bytes, headers.transport_bytes);
            assert!(usize::from(tcp.header_bytes) <= payload.len());
        }
        Transport::Udp { source, destination } if headers.fragment == Fragment::Whole => {
            let udp = Udp::parse(payload).expect("the one-pass parse accepted it");
            assert_eq!((udp.source, udp.destination), (source, destination));
            assert_eq!(udp.payload(payload).len() + 8, usize::from(udp.length_bytes));
            assert_eq!(udp.to_bytes(), payload[..8]);
            if let Some((from, to)) = headers.addresses() {
                let datagram = &payload[..usize::from(udp.length_bytes)];
                let is_right = match udp.checksum {
                    0 => from.is_ipv4(),
                    _ => sum::with_pseudo(from, to, 17, datagram) == sum::VALID,
                };
                assert_eq!(udp.checksum_is_valid(from, to, payload), is_right);
            }
        }
        Transport::Udp { .. } => assert_eq!(headers.fragment, Fragment::First),
        Transport::Icmp { kind, code } => assert_eq!([kind, code], payload[..2]),
        Transport::Other => assert_eq!(headers.transport_bytes, 0),
    }
    if let (Transport::Icmp { .. }, Fragment::Whole, Some((from, to))) =
        (headers.transport, headers.fragment, headers.addresses())
    {
        let sum_of = |message: &[u8]| match from.is_ipv4() {
            true => sum::of(message),
            false => sum::with_pseudo(to, from, 58, message),
        };
        let mut message = payload.to_vec();
        let answer = if from.is_ipv4() { icmpv4::answer_echo } else { icmpv6::answer_echo };
        if answer(&mut message) {
            assert_eq!(message[4..], payload[4..], "an answer to an echo has the same data");
            assert_eq!(
                sum_of(&message) == sum::VALID,
                sum_of(payload) == sum::VALID,
                "its checksum is as right as the question's: {payload:x?} became {message:x?}"
            );
        } else {
            assert_eq!(message, payload);
        }
    }
}
