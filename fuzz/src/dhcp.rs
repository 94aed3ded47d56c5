//! DHCP for IPv4 (RFC 2131, 2132, 3396): the input is a choice of a reply and a message.
//!
//! Two bytes of wishes (which options the reply has), two bytes for the room it gets, then the client's message.

use std::net::Ipv4Addr;

use dataplane::wire::dhcpv4::{BROADCAST_FLAG, HEADER_BYTES, LEAST_BYTES, Message, MessageType, Reply, code};
use ipnet::Ipv4Net;

use crate::dice::Dice;

type Listed = Vec<(u8, Vec<u8>)>;

/// A message is accepted exactly when the RFCs' rules allow it; its options are those that a slower walk lists, and lie
/// within it; a reply keeps to its room and its limit, is a lawful message that says what was to be said, and leaves
/// options out only for want of room, each whole.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let (wishes, room) = (dice.word(), dice.word());
    let bytes = dice.rest();
    let listed = by_the_rfc(bytes);
    let parsed = Message::parse(bytes).ok();
    assert_eq!(parsed.is_some(), listed.is_some());
    let (Some(request), Some(listed)) = (parsed, listed) else { return };
    check_options(&request, &listed, bytes);
    check_reply(&request, wishes, usize::from(room % 2048));
}

/// All options in order, pads left out; `None` for a message that must not be believed.
fn by_the_rfc(message: &[u8]) -> Option<Listed> {
    let (header, options) = message.split_at_checked(HEADER_BYTES)?;
    if header[236..] != [99, 130, 83, 99] || !matches!(header[0], 1 | 2) || header[1..3] != [1, 6] {
        return None;
    }
    let mut listed = walk(options)?;
    let overload: Vec<_> = listed.iter().filter(|(code, _)| *code == code::OVERLOAD).collect();
    let which = match overload[..] {
        [] => 0,
        [(_, value)] if value.len() == 1 && (1..=3).contains(&value[0]) => value[0],
        _ => return None,
    };
    if which & 1 != 0 {
        listed.extend(walk(&header[108..236])?);
    }
    if which & 2 != 0 {
        listed.extend(walk(&header[44..108])?);
    }
    let is_lawful = |wanted, bytes| {
        let found: Vec<_> = listed.iter().filter(|(code, _)| *code == wanted).collect();
        found.len() <= 1 && found.iter().all(|(_, value)| value.len() == bytes)
    };
    let kind = one(&listed, code::MESSAGE_TYPE);
    let all = is_lawful(code::MESSAGE_TYPE, 1)
        && kind.is_none_or(|kind| (1..=8).contains(&kind[0]))
        && is_lawful(code::REQUESTED_IP, 4)
        && is_lawful(code::SERVER_ID, 4)
        && is_lawful(code::MAX_MESSAGE, 2);
    all.then_some(listed)
}

fn walk(field: &[u8]) -> Option<Listed> {
    let mut listed = vec![];
    let mut at = 0;
    while at < field.len() && field[at] != code::END {
        if field[at] == code::PAD {
            at += 1;
            continue;
        }
        let bytes = usize::from(*field.get(at + 1)?);
        listed.push((field[at], field.get(at + 2..at + 2 + bytes)?.to_vec()));
        at += 2 + bytes;
    }
    Some(listed)
}

/// RFC 3396 section 7: options of one code are joined.
fn one(listed: &Listed, wanted: u8) -> Option<Vec<u8>> {
    let mut pieces = listed.iter().filter(|(code, _)| *code == wanted).peekable();
    pieces.peek()?;
    Some(pieces.flat_map(|(_, value)| value.clone()).collect())
}

fn check_options(request: &Message<'_>, listed: &Listed, bytes: &[u8]) {
    let told: Listed = request.options().map(|(code, value)| (code, value.to_vec())).collect();
    assert_eq!(&told, listed);
    let range = bytes.as_ptr_range();
    for (_, value) in request.options() {
        assert!(value.is_empty() || range.contains(&value.as_ptr()), "values lie within the message");
    }
    assert!(
        told.iter().map(|(_, value)| value.len() + 2).sum::<usize>() <= bytes.len(),
        "the walk is bounded"
    );
    for wanted in told.iter().map(|(code, _)| *code).chain([code::CLASSLESS_ROUTES]) {
        let value = request.option(wanted).map(|value| value.bytes().collect::<Vec<_>>());
        assert_eq!(value, one(listed, wanted), "option {wanted}");
    }
    let four = |wanted| one(listed, wanted).map(|value| Ipv4Addr::from_octets(value.try_into().unwrap()));
    assert_eq!(
        request.message_type.map(|kind| kind as u8),
        one(listed, code::MESSAGE_TYPE).map(|value| value[0])
    );
    assert_eq!(request.requested_ip, four(code::REQUESTED_IP));
    assert_eq!(request.server_id, four(code::SERVER_ID));
    assert_eq!(request.rapid_commit, one(listed, code::RAPID_COMMIT).is_some());
    for (value, wanted) in [
        (request.client_id, code::CLIENT_ID),
        (request.relay_agent, code::RELAY_AGENT),
        (request.vendor_class, code::VENDOR_CLASS),
        (request.parameter_requests, code::PARAMETER_REQUESTS),
    ] {
        assert_eq!(value.map(|value| value.bytes().collect()), one(listed, wanted));
    }
    assert!((548..=65_507).contains(&request.reply_limit_bytes()));
}

const DNS: [Ipv4Addr; 5] = [Ipv4Addr::new(10, 0, 0, 53); 5];
const DOMAIN: &str = "a-rather-long-name.of-a-department.of-some-tenant.example";

fn check_reply(request: &Message<'_>, wishes: u16, room: usize) {
    let wish = |bit: u16| wishes >> bit & 1 != 0;
    let routes: Vec<_> = (0..if wish(0) { 40 } else { 3 })
        .map(|n| {
            (
                Ipv4Net::new(Ipv4Addr::new(10, n, n, 0), 8 + n % 25).unwrap().trunc(),
                Ipv4Addr::new(10, 0, 0, 1),
            )
        })
        .collect();
    let kinds = [MessageType::Offer, MessageType::Ack, MessageType::Nak];
    let kind = kinds[usize::from(wishes >> 14) % 3];
    let reply = Reply {
        ciaddr: request.ciaddr,
        yiaddr: Ipv4Addr::new(10, 0, 0, 5),
        lease_seconds: wish(1).then_some(3600),
        renewal_seconds: wish(2).then_some(1800),
        rebinding_seconds: wish(3).then_some(3150),
        subnet_mask: wish(4).then_some(Ipv4Addr::new(255, 255, 255, 0)),
        routers: &DNS[..usize::from(wish(5))],
        dns: &DNS[..usize::from(wishes >> 6) % 6],
        domain: if wish(8) { DOMAIN } else { "" },
        mtu: wish(9).then_some(1450),
        broadcast: wish(10).then_some(Ipv4Addr::new(10, 0, 0, 255)),
        classless_routes: if wish(11) { &routes } else { &[] },
        wireserver: wish(12).then_some(Ipv4Addr::new(168, 63, 129, 16)),
        host_name: if wish(13) { "guest" } else { "" },
        rapid_commit: request.rapid_commit,
        message: if wish(8) { "no" } else { "" },
        ..Reply::to(request, kind, Ipv4Addr::new(10, 0, 0, 1))
    };
    let mut out = vec![0xee; room];
    let Ok(length) = reply.emit(&mut out) else {
        assert!(room < LEAST_BYTES, "room for the least reply is enough");
        return;
    };
    assert!((LEAST_BYTES..=room).contains(&length));
    assert!(length <= reply.limit_bytes.max(LEAST_BYTES), "no client gets more than it takes");
    assert!(out[length..].iter().all(|byte| *byte == 0xee), "nothing behind the reply is written");
    let listed = by_the_rfc(&out[..length]).expect("a lawful message");
    let answer = Message::parse(&out[..length]).expect("a lawful message");
    check_options(&answer, &listed, &out[..length]);
    assert!(answer.is_reply);
    assert_eq!((answer.message_type, answer.server_id), (Some(kind), Some(reply.server_id)));
    assert_eq!((answer.xid, answer.secs, answer.chaddr), (request.xid, 0, request.chaddr));
    assert_eq!(answer.flags & !BROADCAST_FLAG, request.flags & !BROADCAST_FLAG);
    assert_eq!((answer.ciaddr, answer.yiaddr), (reply.ciaddr, reply.yiaddr));
    assert_eq!((answer.siaddr, answer.giaddr), (reply.siaddr, request.giaddr));

    let wanted = wanted(&reply, request);
    let limit = reply.limit_bytes.clamp(LEAST_BYTES, room);
    let left = room_left(&out[..length], limit);
    for (code, value) in &wanted {
        let space = value.len() + 2 * value.len().div_ceil(255).max(1);
        // Relays look for their option in the first field only (RFC 3046 section 2.2).
        let fields = if *code == code::RELAY_AGENT { &left[..1] } else { &left[..] };
        match one(&listed, *code) {
            Some(told) => assert_eq!(told, *value, "option {code}"),
            None => assert!(
                fields.iter().all(|left| *left < space),
                "option {code} had room: {space} of {left:?}"
            ),
        }
    }
    for (code, _) in &listed {
        assert!(
            *code == code::OVERLOAD || wanted.iter().any(|(other, _)| other == code),
            "option {code} was asked for"
        );
    }
}

/// Bytes that more options could have had in the options field, `file` and `sname`: less their END, and less option 52.
fn room_left(reply: &[u8], limit: usize) -> [usize; 3] {
    let (header, options) = reply.split_at(HEADER_BYTES);
    let listed = walk(options).unwrap();
    let which = one(&listed, code::OVERLOAD).map_or(0, |value| value[0]);
    let left = |whole: usize, listed: Option<Listed>| {
        let others = listed.unwrap_or_default().into_iter().filter(|(code, _)| *code != code::OVERLOAD);
        // Without option 52 its three bytes may be used, too.
        whole.saturating_sub(others.map(|(_, value)| value.len() + 2).sum::<usize>())
    };
    [
        left(limit - HEADER_BYTES - 4, Some(listed)),
        left(127, (which & 1 != 0).then(|| walk(&header[108..236]).unwrap())),
        left(63, (which & 2 != 0).then(|| walk(&header[44..108]).unwrap())),
    ]
}

/// What the reply is to say, in the bytes of RFC 2132 and 3442.
fn wanted(reply: &Reply<'_>, request: &Message<'_>) -> Listed {
    let addresses = |list: &[Ipv4Addr]| list.iter().flat_map(Ipv4Addr::octets).collect::<Vec<_>>();
    let seconds = |value: Option<u32>| value.map_or(vec![], |value| value.to_be_bytes().to_vec());
    let mut routes = vec![];
    for (net, router) in reply.classless_routes {
        routes.push(net.prefix_len());
        routes.extend(&net.addr().octets()[..usize::from(net.prefix_len()).div_ceil(8)]);
        routes.extend(router.octets());
    }
    let mut wanted: Listed = vec![
        (code::MESSAGE_TYPE, vec![reply.message_type as u8]),
        (code::SERVER_ID, addresses(&[reply.server_id])),
        (code::LEASE_SECONDS, seconds(reply.lease_seconds)),
        (code::RENEWAL_SECONDS, seconds(reply.renewal_seconds)),
        (code::REBINDING_SECONDS, seconds(reply.rebinding_seconds)),
        (code::SUBNET_MASK, addresses(reply.subnet_mask.as_slice())),
        (code::ROUTERS, addresses(reply.routers)),
        (code::DNS, addresses(reply.dns)),
        (code::DOMAIN, reply.domain.into()),
        (code::MTU, reply.mtu.map_or(vec![], |mtu| mtu.to_be_bytes().to_vec())),
        (code::BROADCAST, addresses(reply.broadcast.as_slice())),
        (code::CLASSLESS_ROUTES, routes),
        (code::WIRESERVER, addresses(reply.wireserver.as_slice())),
        (code::HOST_NAME, reply.host_name.into()),
        (code::MESSAGE, reply.message.into()),
    ];
    wanted.retain(|(_, value)| !value.is_empty());
    if reply.rapid_commit {
        wanted.push((code::RAPID_COMMIT, vec![]));
    }
    let echoes = [(code::CLIENT_ID, request.client_id), (code::RELAY_AGENT, request.relay_agent)];
    wanted.extend(echoes.into_iter().filter_map(|(code, value)| Some((code, value?.bytes().collect()))));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(options: &[u8], file: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[108..108 + file.len()].copy_from_slice(file);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn the_rfcs_as_we_read_them() {
        let listed =
            by_the_rfc(&message(&[0, 53, 1, 1, 52, 1, 1, 61, 1, 7, 255, 9], &[61, 2, 8, 9, 255])).unwrap();
        assert_eq!(one(&listed, 61), Some(vec![7, 8, 9]));
        assert_eq!(one(&listed, 50), None);
        for wrong in [
            &[53, 1, 9][..],
            &[53, 2, 1, 1],
            &[53, 1, 1, 53, 1, 1],
            &[50, 3, 1, 1, 1],
            &[52, 1, 4],
            &[12, 2, 1],
            &[12],
        ] {
            assert_eq!(by_the_rfc(&message(wrong, &[])), None, "{wrong:?}");
        }
        assert_eq!(by_the_rfc(&message(&[], &[])[..239]), None);
    }
}
