use proptest::prelude::*;

use super::*;

const FROM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const TO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn ethernet(ethertype: EtherType) -> Vec<u8> {
    let (destination, source) = (MacAddr([2, 0, 0, 0, 0, 2]), MacAddr([2, 0, 0, 0, 0, 1]));
    Ethernet { destination, source, ethertype }.to_bytes().to_vec()
}

/// `fragment` is (offset in units of eight bytes, more fragments).
fn v4(protocol: Protocol, fragment: (u16, bool), payload: &[u8]) -> Vec<u8> {
    let ip = Ipv4 {
        header_bytes: 20,
        tos: 0x2e,
        total_bytes: u16::try_from(20 + payload.len()).unwrap(),
        identification: 7,
        dont_fragment: false,
        more_fragments: fragment.1,
        fragment_offset: fragment.0,
        ttl: 63,
        protocol,
        source: FROM,
        destination: TO,
        source_routed: false,
    };
    [&ethernet(EtherType::IPV4), &ip.to_bytes()[..], payload].concat()
}

fn v6(next_header: Protocol, payload: &[u8]) -> Vec<u8> {
    let ip = Ipv6 {
        traffic_class: 0x2e,
        flow_label: 5,
        payload_bytes: u16::try_from(payload.len()).unwrap(),
        next_header,
        hop_limit: 63,
        source: FROM.to_ipv6_mapped(),
        destination: TO.to_ipv6_mapped(),
    };
    [&ethernet(EtherType::IPV6), &ip.to_bytes()[..], payload].concat()
}

fn tcp_segment(extra_words: u8) -> Vec<u8> {
    let mut segment = vec![0; 20 + usize::from(extra_words) * 4];
    segment[..4].copy_from_slice(&[0x1f, 0x90, 0, 80]);
    segment[12] = (5 + extra_words) << 4;
    segment[13] = Flags::SYN.0;
    segment
}

const UDP: [u8; 10] = [0, 68, 0, 67, 0, 10, 0, 0, 1, 2];

#[test]
fn tcp_over_ipv4_with_padding() {
    let mut frame = v4(Protocol::TCP, (0, false), &tcp_segment(1));
    frame.resize(60, 0);
    let headers = Headers::parse(&frame).unwrap();
    assert_eq!(headers.addresses(), Some((FROM.into(), TO.into())));
    assert_eq!(headers.ports(), Some((8080, 80)));
    assert!(matches!(headers.transport, Transport::Tcp { flags: Flags::SYN, .. }));
    assert_eq!((headers.transport_offset(), headers.payload_offset()), (34, 58));
    assert_eq!((headers.end, headers.ip_bytes()), (58, 44));
    assert_eq!((headers.tos, headers.hop_limit, headers.dont_fragment), (0x2e, 63, false));
}

#[test]
fn udp_over_ipv6_behind_an_extension() {
    let mut payload = vec![17, 0, 1, 4, 0, 0, 0, 0];
    payload.extend(UDP);
    let headers = Headers::parse(&v6(Protocol::DESTINATION_OPTIONS, &payload)).unwrap();
    assert_eq!(headers.protocol, Protocol::UDP);
    assert_eq!(headers.ports(), Some((68, 67)));
    assert_eq!((headers.network_bytes, headers.payload_offset(), headers.end), (48, 70, 72));
}

#[test]
fn what_is_not_ip_passes_and_tags_do_not() {
    let arp = Headers::parse(&ethernet(EtherType::ARP)).unwrap();
    assert_eq!((arp.network, arp.addresses(), arp.ip_bytes()), (Network::Other, None, 0));
    for tag in [EtherType::VLAN, EtherType::SERVICE_VLAN] {
        assert_eq!(Headers::parse(&ethernet(tag)), Err(ParseError::VlanTagged { ethertype: tag.0 }));
    }
    assert!(matches!(
        Headers::parse(&[0; 13]),
        Err(ParseError::Truncated { layer: Layer::Ethernet, need: 14, have: 13 })
    ));
}

#[test]
fn each_transport_refusal_names_its_layer() {
    let layer = |frame: &[u8]| match Headers::parse(frame) {
        Err(ParseError::Truncated { layer, .. } | ParseError::BadLength { layer, .. }) => Some(layer),
        _ => None,
    };
    assert_eq!(layer(&v4(Protocol::TCP, (0, false), &[0; 19])), Some(Layer::Tcp));
    assert_eq!(layer(&v4(Protocol::UDP, (0, false), &[0; 8])), Some(Layer::Udp));
    assert_eq!(layer(&v4(Protocol::ICMPV4, (0, false), &[8; 7])), Some(Layer::Icmpv4));
    assert_eq!(layer(&v6(Protocol::ICMPV6, &[128; 7])), Some(Layer::Icmpv6));
    assert_eq!(layer(&v6(Protocol::DESTINATION_OPTIONS, &[17; 7])), Some(Layer::Ipv6Extension));
    // ICMPv6 over IPv4 is nothing that anybody would read as ICMP.
    let odd = Headers::parse(&v4(Protocol::ICMPV6, (0, false), &[128; 3])).unwrap();
    assert_eq!(odd.transport, Transport::Other);
}

#[test]
fn fragments_keep_to_their_rules() {
    let first = Headers::parse(&v4(Protocol::UDP, (0, true), &[0, 68, 0, 67, 0x20, 0, 0, 0])).unwrap();
    assert_eq!((first.fragment, first.ports()), (Fragment::First, Some((68, 67))));
    let later = Headers::parse(&v4(Protocol::UDP, (185, false), b"xyz")).unwrap();
    assert_eq!((later.fragment, later.ports(), later.transport_bytes), (Fragment::Later, None, 0));

    for bytes in 0..=23 {
        let refused = Headers::parse(&v4(Protocol::TCP, (0, true), &tcp_segment(1)[..bytes]));
        assert!(matches!(refused, Err(ParseError::TinyFragment { .. })), "{bytes}");
    }
    assert!(Headers::parse(&v4(Protocol::TCP, (0, true), &tcp_segment(1))).is_ok());
    let tiny = ParseError::TinyFragment { need: 8, have: 7 };
    assert_eq!(Headers::parse(&v4(Protocol::UDP, (0, true), &[0; 7])), Err(tiny));
    assert_eq!(Headers::parse(&v4(Protocol::TCP, (1, true), &[0; 8])), Err(ParseError::OverlappingFragment));
    assert!(matches!(
        Headers::parse(&v4(Protocol::ICMPV4, (8189, false), &[0; 24])),
        Err(ParseError::BadLength { claimed: 65_536, most: 65_535, .. })
    ));
    let mut overlap = vec![6, 0, 0, 8, 0, 0, 0, 1];
    overlap.extend([0; 8]);
    assert_eq!(Headers::parse(&v6(Protocol::FRAGMENT, &overlap)), Err(ParseError::OverlappingFragment));
    // RFC 6946: an atomic fragment is a whole datagram.
    let atomic = [&[17, 0, 0, 0, 0, 0, 0, 1], &UDP[..]].concat();
    let headers = Headers::parse(&v6(Protocol::FRAGMENT, &atomic)).unwrap();
    assert_eq!((headers.fragment, headers.ports()), (Fragment::Whole, Some((68, 67))));
}

#[test]
fn all_fragments_of_a_datagram_take_one_path() {
    let hash = |frame: &[u8], seed| flow_hash(&Headers::parse(frame).unwrap(), seed);
    let first = v4(Protocol::UDP, (0, true), &[0, 68, 0, 67, 0x20, 0, 0, 0]);
    let later = v4(Protocol::UDP, (185, false), b"xyz");
    assert_eq!(hash(&first, 1), hash(&later, 1));
    let whole = v4(Protocol::UDP, (0, false), &UDP);
    assert_ne!(hash(&whole, 1), hash(&later, 1));
    assert_ne!(hash(&whole, 1), hash(&whole, 2));
}

#[test]
fn ports_spread_over_all_bits_of_the_hash() {
    let mut used = [0_u32; 32];
    for port in 0..=1023_u16 {
        let mut datagram = UDP;
        datagram[..2].copy_from_slice(&port.to_be_bytes());
        let hash = flow_hash(&Headers::parse(&v4(Protocol::UDP, (0, false), &datagram)).unwrap(), 3);
        used[usize::try_from(hash % 32).unwrap()] += 1;
    }
    assert!(used.iter().all(|n| (12..=60).contains(n)), "{used:?}");
}

#[test]
fn no_errors_about_errors_fragments_or_groups() {
    let judge = |frame: &[u8]| Headers::parse(frame).unwrap().may_provoke_error();
    assert!(judge(&v4(Protocol::UDP, (0, false), &UDP)));
    assert!(judge(&v4(Protocol::ICMPV4, (0, false), &[8, 0, 0, 0, 0, 0, 0, 0])));
    assert!(!judge(&v4(Protocol::ICMPV4, (0, false), &[3, 4, 0, 0, 0, 0, 0, 0])));
    assert!(!judge(&v4(Protocol::UDP, (9, false), &UDP)));
    assert!(!judge(&v6(Protocol::ICMPV6, &[2, 0, 0, 0, 0, 0, 0, 0])));
    let mut broadcast = v4(Protocol::UDP, (0, false), &UDP);
    broadcast[..6].fill(0xff);
    assert!(!judge(&broadcast));
}

/// A plain frame in which one thing may be wrong, or special.
fn nearly_plain(
    protocol: Protocol,
    payload: &[u8],
    at: usize,
    octet: u8,
    is_checksum_mended: bool,
    length: usize,
) -> Vec<u8> {
    let mut frame = v4(protocol, (0, false), payload);
    if let Some(place) = frame.get_mut(at) {
        *place = octet;
    }
    if is_checksum_mended {
        frame[24..26].fill(0);
        let sum = super::super::checksum::Sum::ZERO.add_bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame.resize(length.max(14), 0);
    frame
}

#[test]
fn plain_is_what_needs_no_closer_look() {
    let is_plain = |frame: &[u8]| Headers::parse_plain(frame).is_some();
    assert!(is_plain(&v4(Protocol::UDP, (0, false), &UDP)));
    assert!(is_plain(&v4(Protocol::TCP, (0, false), &tcp_segment(1))));
    assert!(!is_plain(&v4(Protocol::ICMPV4, (0, false), &[8; 8])));
    assert!(
        !is_plain(&v4(Protocol::UDP, (0, true), &UDP)) && !is_plain(&v4(Protocol::UDP, (9, false), &UDP))
    );
    assert!(!is_plain(&v6(Protocol::UDP, &UDP)) && !is_plain(&ethernet(EtherType::ARP)));
}

proptest! {
    /// The quick look takes no frame for more, less or other than the close look does.
    #[test]
    fn a_plain_frame_is_read_as_any_other(is_tcp: bool, extra_words in 0_u8..11, at in 0_usize..60, octet: u8,
                                          is_checksum_mended: bool, length in 30_usize..100) {
        let (protocol, payload) =
            if is_tcp { (Protocol::TCP, tcp_segment(extra_words)) } else { (Protocol::UDP, UDP.to_vec()) };
        let frame = nearly_plain(protocol, &payload, at, octet, is_checksum_mended, length);
        if let Some(plain) = Headers::parse_plain(&frame) {
            prop_assert_eq!(Headers::parse_any(&frame), Ok(plain));
        } else if let Ok(headers) = Headers::parse_any(&frame) {
            let is_special = headers.network_bytes != 20 || headers.fragment != Fragment::Whole
                || headers.ethertype != EtherType::IPV4 || !matches!(headers.protocol, Protocol::TCP | Protocol::UDP);
            prop_assert!(is_special, "{:?} could have been read at once", headers);
        }
    }

    #[test]
    fn no_frame_makes_it_panic_and_offsets_stay_inside(
        mut frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_usize..4, protocol in 0_usize..6) {
        if let Some(ethertype) = frame.get_mut(12..15) {
            ethertype.copy_from_slice(&[[8, 0, 0x45], [8, 0, 0x47], [0x86, 0xdd, 0x60], [8, 6, 0]][kind]);
        }
        // Make most headers agree with the frame, so that the deeper branches are reached.
        let length = u16::try_from(frame.len().saturating_sub(14)).unwrap();
        if kind < 2 && frame.len() >= 34 {
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            frame[23] = [1, 6, 17, 47, 58, 0][protocol];
            frame[24..26].fill(0);
            let header = 14 + usize::from(frame[14] & 15) * 4;
            let sum = super::super::checksum::Sum::ZERO.add_bytes(&frame[14..header.min(frame.len())]).checksum();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        } else if kind == 2 && frame.len() >= 54 {
            frame[18..20].copy_from_slice(&(length - 40).to_be_bytes());
            frame[20] = [58, 6, 17, 44, 60, 0][protocol];
        }
        if let Some(plain) = Headers::parse_plain(&frame) {
            prop_assert_eq!(Headers::parse_any(&frame), Ok(plain));
        }
        if let Ok(headers) = Headers::parse(&frame) {
            prop_assert!(headers.payload_offset() <= frame.len());
            prop_assert!(headers.end as usize <= frame.len());
            if headers.network != Network::Other {
                prop_assert!(headers.payload_offset() <= headers.end as usize);
            }
            let _ = (flow_hash(&headers, 1), headers.may_provoke_error());
        }
    }
}
