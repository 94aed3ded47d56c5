//! ARP (RFC 826): the input is an Ethernet payload.

use dataplane::types::MacAddr;
use dataplane::wire::arp::{Arp, MESSAGE_BYTES, Operation};

/// A message is accepted exactly when it is one of Ethernet and IPv4; it is written back as the same bytes; it is never
/// a probe and an announcement at once; and an answer goes from the target asked for to the asker.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let parsed = Arp::parse(input).ok();
    let is_ours =
        input.len() >= MESSAGE_BYTES && input[..7] == [0, 1, 8, 0, 6, 4, 0] && matches!(input[7], 1 | 2);
    assert_eq!(parsed.is_some(), is_ours);
    let Some(message) = parsed else { return };
    assert_eq!(message.to_bytes(), input[..MESSAGE_BYTES]);
    assert!(!(message.is_probe() && message.is_announcement()));
    let mut out = [0xee; MESSAGE_BYTES + 1];
    message.emit(&mut out).unwrap();
    assert_eq!(out, *[&message.to_bytes()[..], &[0xee]].concat(), "writes its own length and no more");
    assert!(message.emit(&mut out[..MESSAGE_BYTES - 1]).is_err());

    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let answer = message.reply(mac);
    assert_eq!(Arp::parse(&answer.to_bytes()), Ok(answer));
    assert_eq!((answer.operation, answer.sender_mac), (Operation::Reply, mac));
    assert_eq!((answer.sender_ip, answer.target_ip), (message.target_ip, message.sender_ip));
    assert_eq!(answer.target_mac, message.sender_mac);
}
