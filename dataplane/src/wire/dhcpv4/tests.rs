use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;
use crate::wire::NoRoom;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

fn request(options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..8].copy_from_slice(&[1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&MAC.0);
    bytes.extend(MAGIC);
    bytes.extend(options);
    bytes
}

fn joined(value: Option<Value<'_>>) -> Option<Vec<u8>> {
    value.map(|value| value.bytes().collect())
}

#[test]
fn a_discover_is_read_with_pads_and_without_end() {
    let bytes = request(&[
        53, 1, 1, 0, 0, 50, 4, 10, 0, 0, 9, 57, 2, 5, 0xdc, 55, 3, 1, 3, 121, 60, 2, b'M', b'S', 80, 0,
    ]);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.message_type, Some(MessageType::Discover));
    assert_eq!((message.xid, message.flags, message.chaddr), (0xdead_beef, BROADCAST_FLAG, MAC));
    assert_eq!(message.requested_ip, Some(Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!((message.max_message_bytes, message.reply_limit_bytes()), (Some(1500), 1472));
    assert_eq!(joined(message.parameter_requests), Some(vec![1, 3, 121]));
    assert_eq!(joined(message.vendor_class), Some(b"MS".to_vec()));
    assert!(message.rapid_commit && message.client_id.is_none() && !message.is_reply);
}

#[test]
fn client_ids_of_any_form_are_kept() {
    // Text of seven bytes whose first is no hardware type, a DUID (RFC 4361), and one that is split (RFC 3396).
    let duid = [&[61, 19, 0xff], &[7; 18][..]].concat();
    assert_eq!(
        joined(Message::parse(&request(&duid)).unwrap().client_id),
        Some([&[0xff], &[7; 18][..]].concat())
    );
    let text = [&[61, 7], &b"vm-1234"[..]].concat();
    assert_eq!(joined(Message::parse(&request(&text)).unwrap().client_id), Some(b"vm-1234".to_vec()));
    let split = [61, 2, 0, b'v', 53, 1, 3, 61, 1, b'm', 255];
    let bytes = request(&split);
    let client_id = Message::parse(&bytes).unwrap().client_id.unwrap();
    assert_eq!((client_id.len(), client_id == b"\0vm"[..]), (3, true));
}

#[test]
fn overloaded_fields_are_read_file_first() {
    let mut bytes = request(&[52, 1, 3, 53, 1, 3, 61, 1, b'a', 255]);
    bytes[FILE..FILE + 4].copy_from_slice(&[61, 1, b'b', 255]);
    bytes[SNAME..SNAME + 10].copy_from_slice(&[0, 61, 1, b'c', 50, 4, 10, 0, 0, 9]);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(joined(message.client_id), Some(b"abc".to_vec()));
    assert_eq!(message.requested_ip, Some(Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(message.message_type, Some(MessageType::Request));
    bytes[HEADER_BYTES + 2] = 1;
    assert_eq!(joined(Message::parse(&bytes).unwrap().client_id), Some(b"ab".to_vec()));
    bytes[HEADER_BYTES + 2] = 4;
    assert!(matches!(
        Message::parse(&bytes),
        Err(ParseError::Unsupported { field: "option overload", found: 4, .. })
    ));
}

#[test]
fn each_refusal_has_its_reason() {
    let refusal = |options: &[u8]| Message::parse(&request(options)).unwrap_err();
    let layer = Layer::Dhcpv4;
    assert_eq!(refusal(&[12, 5, b'x']), ParseError::Truncated { layer, need: 5, have: 1 });
    assert_eq!(refusal(&[12]), ParseError::Truncated { layer, need: 2, have: 1 });
    assert_eq!(refusal(&[50, 3, 1, 2, 3]), ParseError::BadLength { layer, claimed: 3, least: 4, most: 4 });
    assert!(matches!(refusal(&[53, 1, 1, 53, 1, 3]), ParseError::Violation { .. }));
    assert!(matches!(refusal(&[53, 1, 99]), ParseError::Unsupported { field: "message type", .. }));
    let with = |at: usize, value| {
        let mut bytes = request(&[]);
        bytes[at] = value;
        Message::parse(&bytes).unwrap_err()
    };
    assert!(matches!(with(0, 3), ParseError::Unsupported { field: "op", .. }));
    assert!(matches!(with(1, 6), ParseError::Unsupported { field: "hardware type", .. }));
    assert!(matches!(with(236, 0), ParseError::Violation { .. }));
    assert!(matches!(Message::parse(&[0; 239]), Err(ParseError::Truncated { need: 240, have: 239, .. })));
}

fn routes() -> Vec<(Ipv4Net, Ipv4Addr)> {
    ["0.0.0.0/0", "168.63.129.16/32", "10.128.0.0/9"].map(|to| (to.parse().unwrap(), SERVER)).to_vec()
}

fn whole<'a>(request: &Message<'a>, routes: &'a [(Ipv4Net, Ipv4Addr)]) -> Reply<'a> {
    Reply {
        yiaddr: ADDRESS,
        lease_seconds: Some(3600),
        renewal_seconds: Some(1800),
        rebinding_seconds: Some(3150),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        routers: &[SERVER],
        dns: &[SERVER, ADDRESS],
        domain: "blue.example",
        mtu: Some(1450),
        broadcast: Some(Ipv4Addr::new(10, 0, 0, 255)),
        classless_routes: routes,
        wireserver: Some(Ipv4Addr::new(168, 63, 129, 16)),
        host_name: "web-1",
        rapid_commit: true,
        message: "hello",
        ..Reply::to(request, MessageType::Ack, SERVER)
    }
}

#[test]
fn a_whole_lease_is_written_in_order() {
    let bytes = request(&[53, 1, 1, 61, 7, 1, 2, 0, 0, 0, 0, 5, 82, 4, 1, 2, 3, 4, 255]);
    let request = Message::parse(&bytes).unwrap();
    let routes = routes();
    let mut out = [0xee; 1500];
    let length = whole(&request, &routes).emit(&mut out).unwrap();
    let reply = Message::parse(&out[..length]).unwrap();
    assert!(reply.is_reply);
    assert_eq!(
        (reply.xid, reply.flags, reply.chaddr, reply.yiaddr),
        (0xdead_beef, BROADCAST_FLAG, MAC, ADDRESS)
    );
    let codes: Vec<u8> = reply.options().map(|(code, _)| code).collect();
    assert_eq!(codes, [53, 54, 51, 58, 59, 1, 3, 6, 15, 26, 28, 121, 245, 12, 80, 56, 61, 82]);
    assert_eq!(
        joined(reply.option(code::CLASSLESS_ROUTES)).unwrap(),
        [&[0, 10, 0, 0, 1, 32, 168, 63, 129, 16, 10, 0, 0, 1][..], &[9, 10, 128, 10, 0, 0, 1]].concat()
    );
    assert_eq!(joined(reply.client_id), joined(request.client_id));
    assert_eq!(joined(reply.relay_agent), Some(vec![1, 2, 3, 4]));
}

#[test]
fn a_nak_is_padded_to_bootp_size_with_zeros() {
    let bytes = request(&[53, 1, 3, 255]);
    let mut out = [0xee; 400];
    let reply = Reply {
        message: "wrong network",
        ..Reply::to(&Message::parse(&bytes).unwrap(), MessageType::Nak, SERVER)
    };
    assert_eq!(reply.emit(&mut out), Ok(LEAST_BYTES));
    let used = HEADER_BYTES + 3 + 6 + 15;
    assert_eq!(out[used], code::END);
    assert!(out[used + 1..LEAST_BYTES].iter().all(|byte| *byte == 0));
    assert_eq!(out[LEAST_BYTES], 0xee);
    assert_eq!(reply.emit(&mut out[..299]), Err(NoRoom { need: 300, have: 299 }));
}

#[test]
fn what_does_not_fit_goes_into_file_and_sname() {
    let bytes = request(&[53, 1, 1, 61, 2, 0, 9, 82, 2, 1, 0, 255]);
    let request = Message::parse(&bytes).unwrap();
    assert_eq!(request.reply_limit_bytes(), 548);
    let routes: Vec<_> = (0..30).map(|n| (Ipv4Net::new([10, 0, n, 0].into(), 24).unwrap(), SERVER)).collect();
    let mut out = [0; 1500];
    let text = "x".repeat(60);
    let reply = Reply { domain: &text, host_name: "web-1", message: "", ..whole(&request, &routes) };
    let length = reply.emit(&mut out).unwrap();
    assert!(length <= 548);
    let parsed = Message::parse(&out[..length]).unwrap();
    assert_eq!(joined(parsed.option(code::OVERLOAD)), Some(vec![1]));
    assert_eq!(joined(parsed.option(code::DOMAIN)), Some(text.clone().into_bytes()));
    assert_eq!(joined(parsed.option(code::CLASSLESS_ROUTES)).unwrap().len(), 30 * 8);
    let last_in_field = parsed.options().take_while(|(code, _)| *code != code::RELAY_AGENT).count();
    assert!(parsed.options().nth(last_in_field - 1).is_some_and(|(code, _)| code == code::OVERLOAD));
}

#[test]
fn what_fits_nowhere_is_left_out_by_importance() {
    let bytes = request(&[53, 1, 1, 61, 2, 0, 9, 255]);
    let request = Message::parse(&bytes).unwrap();
    let routes = routes();
    let mut out = [0; 300];
    let text = "x".repeat(200);
    let length = Reply { message: &text, ..whole(&request, &routes) }.emit(&mut out).unwrap();
    let parsed = Message::parse(&out[..length]).unwrap();
    assert_eq!(parsed.option(code::MESSAGE).map(|_| ()), None);
    for kept in [53, 54, 51, 1, 61, 3, 121, 245, 26, 6, 28, 58, 59, 80, 15, 12] {
        assert!(parsed.option(kept).is_some(), "{kept}");
    }
}

#[test]
fn a_relay_option_without_room_is_left_out_not_moved() {
    // RFC 3046 §2.2: relays look for it at the end of the options field; a reply without it is what they expect then.
    let bytes = request(&[&[53, 1, 1, 82, 40][..], &[7; 40]].concat());
    let request = Message::parse(&bytes).unwrap();
    let mut out = [0; 300];
    let length = whole(&request, &[]).emit(&mut out).unwrap();
    let parsed = Message::parse(&out[..length]).unwrap();
    assert!(parsed.relay_agent.is_none() && parsed.option(code::OVERLOAD).is_some());
}

#[test]
fn long_options_are_split_and_joined() {
    let bytes = request(&[53, 1, 1, 57, 2, 0x05, 0xdc, 255]);
    let request = Message::parse(&bytes).unwrap();
    let routes: Vec<_> = (0..70).map(|n| (Ipv4Net::new([10, 0, n, 0].into(), 24).unwrap(), SERVER)).collect();
    let mut out = [0; 1472];
    let length = whole(&request, &routes).emit(&mut out).unwrap();
    let parsed = Message::parse(&out[..length]).unwrap();
    let pieces: Vec<usize> =
        parsed.options().filter(|(code, _)| *code == 121).map(|(_, piece)| piece.len()).collect();
    assert_eq!(pieces, [255, 255, 50]);
    let value = joined(parsed.option(code::CLASSLESS_ROUTES)).unwrap();
    assert_eq!(value[69 * 8..], [24, 10, 0, 69, 10, 0, 0, 1]);
}

proptest! {
    #[test]
    fn no_options_make_it_panic_and_iteration_ends(options in proptest::collection::vec(any::<u8>(), 0..400),
                                                   fields in proptest::collection::vec(any::<u8>(), 192), overload in 0_u8..5) {
        let mut bytes = request(&[52, 1, overload]);
        bytes.extend(&options);
        bytes[SNAME..SNAME + 192].copy_from_slice(&fields);
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(message.options().count() <= bytes.len() / 2);
        }
        let _ = Message::parse(&options);
    }

    #[test]
    fn any_reply_fits_its_limit_and_parses(limit in 300_usize..700, client_id in proptest::collection::vec(any::<u8>(), 0..255),
                                           domain in "[a-z]{0,260}", host_name in "[a-z]{0,60}", routes in 0_u8..80, dns in 0_usize..20) {
        let mut options = vec![53, 1, 1, 61, u8::try_from(client_id.len()).unwrap()];
        options.extend(&client_id);
        let bytes = request(&options);
        let request = Message::parse(&bytes).unwrap();
        let routes: Vec<_> = (0..routes).map(|n| (Ipv4Net::new([10, 0, n, 0].into(), 24).unwrap(), SERVER)).collect();
        let dns = vec![SERVER; dns];
        let reply = Reply { domain: &domain, host_name: &host_name, dns: &dns, limit_bytes: limit, ..whole(&request, &routes) };
        let mut out = [0xee; 800];
        let length = reply.emit(&mut out).unwrap();
        prop_assert!(length <= limit.max(LEAST_BYTES) && out[limit.max(LEAST_BYTES)] == 0xee);
        let parsed = Message::parse(&out[..length]).unwrap();
        prop_assert_eq!(parsed.message_type, Some(MessageType::Ack));
        prop_assert_eq!(parsed.server_id, Some(SERVER));
        if let Some(value) = parsed.option(code::DNS) {
            prop_assert_eq!(value.len(), dns.len() * 4);
        }
        if let Some(value) = parsed.option(code::DOMAIN) {
            prop_assert!(value == *domain.as_bytes());
        }
        if let Some(value) = parsed.client_id {
            prop_assert!(value == client_id[..]);
        }
    }
}
