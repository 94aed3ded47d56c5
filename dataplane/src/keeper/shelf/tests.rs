//! Sockets on loopback need no privilege; what is true of TAPs is shown against the real kernel in `taps`, tests/devices.rs
//! and tests/keeper.rs.

use std::net::{Ipv4Addr, UdpSocket};

use super::*;
use crate::port::open::Direct;
use crate::types::Mtu;

fn spec(name: &str) -> TapSpec {
    TapSpec {
        name: name.parse().unwrap(),
        kind: PortKind::Tap,
        netns: Some("/proc/self/status".into()),
        mac: "02:00:00:00:00:05".parse().unwrap(),
        mtu: Mtu::ETHERNET,
        queues: 1,
        persistent: true,
    }
}

/// A free port of loopback, for the length of a test.
fn address() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

fn number(socket: &OwnedFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

fn ask(shelf: &mut Shelf<Direct>, address: SocketAddr, purpose: UdpUse) -> Result<OwnedFd, Reason> {
    match shelf.answer(Ask::Udp { address, purpose }, Vec::new()) {
        (Answer::Udp {}, mut passed) => Ok(passed.pop().unwrap()),
        (Answer::Refused { reason, .. }, _) => Err(reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_switch_gets_the_same_sockets_and_no_socket_twice() {
    let mut shelf = Shelf::new(Direct);
    let address = address();
    let receive = |shelf: &mut Shelf<Direct>| number(&ask(shelf, address, UdpUse::Receive).unwrap());
    let first = [receive(&mut shelf), receive(&mut shelf)];
    assert_ne!(first[0], first[1], "one for each worker");
    // Somebody else's probe is not fooled, that of the next switch is not stopped by what is kept for it.
    assert_eq!(ask(&mut shelf, address, UdpUse::Probe).unwrap_err(), Reason::AddressInUse);
    shelf.returned();
    ask(&mut shelf, address, UdpUse::Probe).unwrap();
    let mut again = [receive(&mut shelf), receive(&mut shelf)];
    again.sort_unstable();
    let mut before = first;
    before.sort_unstable();
    assert_eq!(again, before);
    // A third worker has a new one.
    assert!(!first.contains(&receive(&mut shelf)));
    assert_eq!(shelf.sockets(), 3);
}

#[test]
fn what_the_next_switch_does_not_ask_for_is_closed() {
    let mut shelf = Shelf::new(Direct);
    let address = address();
    for _ in 0..3 {
        ask(&mut shelf, address, UdpUse::Receive).unwrap();
    }
    shelf.returned();
    let one = ask(&mut shelf, address, UdpUse::Receive).unwrap();
    shelf.answer(Ask::Complete {}, Vec::new());
    assert_eq!(shelf.sockets(), 1);
    drop(one);
    drop(shelf);
    UdpSocket::bind(address).unwrap();
}

#[test]
fn a_send_port_is_given_once() {
    let mut shelf = Shelf::new(Direct);
    let address = address();
    let first = ask(&mut shelf, address, UdpUse::Send).unwrap();
    assert_eq!(ask(&mut shelf, address, UdpUse::Send).unwrap_err(), Reason::AddressInUse);
    shelf.returned();
    assert_eq!(number(&ask(&mut shelf, address, UdpUse::Send).unwrap()), number(&first));
}

#[test]
fn a_successor_takes_what_is_handed_over_and_no_rubbish() {
    let mut shelf = Shelf::new(Direct);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let keep = |address| Ask::KeepUdp { address, purpose: UdpUse::Send };
    let given = || vec![OwnedFd::from(socket.try_clone().unwrap())];
    assert_eq!(shelf.answer(keep(address), given()).0, Answer::Done {});
    let file: OwnedFd = std::fs::File::open("/proc/self/status").unwrap().into();
    let tcp: OwnedFd = std::net::TcpListener::bind(address).unwrap().into();
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), address.port()));
    for (address, rubbish) in [(address, vec![file]), (address, vec![tcp]), (elsewhere, given())] {
        assert!(matches!(shelf.answer(keep(address), rubbish).0, Answer::Refused { .. }));
    }
    let queue: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let keep = Ask::KeepTap { spec: spec("tap"), udp_trains: true, binding: None };
    let rubbish = vec![OwnedFd::from(socket.try_clone().unwrap()), queue];
    assert!(matches!(shelf.answer(keep, rubbish).0, Answer::Refused { .. }));
    assert_eq!((shelf.taps(), shelf.sockets()), (0, 1));
    // It is with the switch that handed it over.
    assert_eq!(ask(&mut shelf, address, UdpUse::Send).unwrap_err(), Reason::AddressInUse);
}

/// A switch that did not wait for an answer comes back, and hands over what this very keeper has given it.
#[test]
fn what_is_handed_over_to_whom_has_it_is_given_back() {
    let mut shelf = Shelf::new(Direct);
    let address = address();
    let socket = ask(&mut shelf, address, UdpUse::Receive).unwrap();
    let other = ask(&mut shelf, address, UdpUse::Receive).unwrap();
    let keep = |shelf: &mut Shelf<Direct>, socket: &OwnedFd| {
        let passed = vec![socket.try_clone().unwrap()];
        shelf.answer(Ask::KeepUdp { address, purpose: UdpUse::Receive }, passed).0
    };
    shelf.returned();
    assert_eq!(keep(&mut shelf, &socket), Answer::Done {});
    assert_eq!(shelf.sockets(), 2, "none is kept twice");
    assert!(matches!(keep(&mut shelf, &socket), Answer::Refused { .. }), "it is given already");
    // The other one was on its way when the switch lost patience: it asks again, and no new one is opened.
    let again = ask(&mut shelf, address, UdpUse::Receive).unwrap();
    assert_eq!((number(&again), shelf.sockets()), (number(&other), 2));
}

#[test]
fn a_refusal_has_its_words() {
    let mut shelf = Shelf::new(Direct);
    let (answer, passed) = shelf.answer(Ask::Tap { spec: spec("tap") }, Vec::new());
    assert!(passed.is_empty());
    let Answer::Refused { what, remedy, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(what, "interface `tap`: /proc/self/status is not a network namespace");
    assert!(remedy.contains("ip netns"), "{remedy}");
    let (answer, _) = shelf.answer(Ask::Configure { spec: spec("tap") }, Vec::new());
    assert!(matches!(answer, Answer::Refused { .. }));
}

#[test]
fn the_shelf_is_bounded() {
    let mut shelf = Shelf { most: Most { taps: 0, sockets: 2 }, ..Shelf::new(Direct) };
    for _ in 0..2 {
        ask(&mut shelf, address(), UdpUse::Send).unwrap();
    }
    let full = |(answer, passed): Reply| match answer {
        Answer::Refused { what, .. } => assert!(what.contains("already") && passed.is_empty(), "{what}"),
        other => panic!("{other:?}"),
    };
    full(shelf.answer(Ask::Udp { address: address(), purpose: UdpUse::Send }, Vec::new()));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let keep = Ask::KeepUdp { address: socket.local_addr().unwrap(), purpose: UdpUse::Send };
    full(shelf.answer(keep, vec![socket.into()]));
    full(shelf.answer(Ask::Tap { spec: spec("tap") }, Vec::new()));
    assert_eq!((shelf.taps(), shelf.sockets()), (0, 2));
}
