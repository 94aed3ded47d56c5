//! The shelf and real TAPs, each test in network namespaces of its own: needs root, or `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`.

use std::process::Command;
use std::thread;

use super::*;
use crate::port::open::Direct;
use crate::types::Mtu;

/// Runs `test` in a thread with a fresh network namespace.
fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = || {
            #[expect(
                deprecated,
                reason = "the namespace flag alone is safe; the replacement is `unsafe` for FILES"
            )]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
                .expect("this test needs the privilege to make a network namespace");
            test()
        };
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn spec(name: &str) -> TapSpec {
    TapSpec {
        name: name.parse().unwrap(),
        kind: PortKind::Tap,
        netns: None,
        mac: "02:00:00:00:00:0a".parse().unwrap(),
        mtu: Mtu::ETHERNET,
        queues: 1,
        persistent: false,
    }
}

/// Control socket and queues, as they are handed over.
fn copies(tap: &OpenTap) -> Vec<OwnedFd> {
    std::iter::once(&tap.control).chain(&tap.queues).map(|own| own.try_clone().unwrap()).collect()
}

fn keep(shelf: &mut Shelf<Direct>, name: &str, descriptors: Vec<OwnedFd>) -> Answer {
    shelf.answer(Ask::KeepTap { spec: spec(name), udp_trains: true, binding: Some(7) }, descriptors).0
}

fn mac(tap: &OpenTap, name: &str) -> [u8; 6] {
    sys::interface_mac(tap.control.as_fd(), name).unwrap()
}

/// A switch that was taken over could else have the keeper change any interface of the host.
#[test]
fn a_tap_is_kept_under_its_own_name_and_in_its_own_namespace_only() {
    isolated(|| {
        let (mine, victim) =
            (Direct.open_tap(&spec("mine")).unwrap(), Direct.open_tap(&spec("victim")).unwrap());
        let elsewhere = isolated(|| Direct.open_tap(&spec("mine")).unwrap());
        let mut shelf = Shelf::new(Direct);
        assert!(
            matches!(keep(&mut shelf, "victim", copies(&mine)), Answer::Refused { .. }),
            "another's name"
        );
        let mixed = || vec![elsewhere.control.try_clone().unwrap(), mine.queues[0].try_clone().unwrap()];
        assert!(matches!(keep(&mut shelf, "mine", mixed()), Answer::Refused { .. }), "another's namespace");
        assert_eq!(shelf.taps(), 0);
        let other = TapSpec { mac: "02:00:00:00:00:66".parse().unwrap(), ..spec("victim") };
        assert!(matches!(shelf.answer(Ask::Configure { spec: other }, vec![]).0, Answer::Refused { .. }));
        for (tap, name) in [(&mine, "mine"), (&victim, "victim"), (&elsewhere, "mine")] {
            assert_eq!(mac(tap, name), spec(name).mac.0);
        }
        assert_eq!(keep(&mut shelf, "mine", copies(&mine)), Answer::Done {});
        let changed = TapSpec { mac: "02:00:00:00:00:0b".parse().unwrap(), ..spec("mine") };
        assert_eq!(shelf.answer(Ask::Configure { spec: changed.clone() }, vec![]).0, Answer::Done {});
        assert_eq!(mac(&mine, "mine"), changed.mac.0);
        // The name goes to another interface: what is kept does not reach that one.
        for line in ["link set mine name other", "link set victim name mine"] {
            assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
        }
        assert!(matches!(shelf.answer(Ask::Configure { spec: changed }, vec![]).0, Answer::Refused { .. }));
        assert_eq!(mac(&victim, "mine"), spec("mine").mac.0);
    });
}

/// A switch that did not wait for an answer comes back, and hands over what this very keeper has given it.
#[test]
fn a_tap_that_is_handed_over_to_whom_has_it_is_given_back() {
    isolated(|| {
        let mut shelf = Shelf::new(Direct);
        let (Answer::Tap { .. }, given) = shelf.answer(Ask::Tap { spec: spec("mine") }, vec![]) else {
            panic!("a TAP can be opened")
        };
        let given = || given.iter().map(|own| own.try_clone().unwrap()).collect();
        shelf.returned();
        assert_eq!(keep(&mut shelf, "mine", given()), Answer::Done {});
        assert!(matches!(keep(&mut shelf, "mine", given()), Answer::Refused { .. }), "it is given already");
        shelf.answer(Ask::Complete {}, vec![]);
        assert_eq!(shelf.taps(), 1, "it is the switch's");
        // The next switch has it, with its last mark.
        shelf.returned();
        let (answer, _) = shelf.answer(Ask::Tap { spec: spec("mine") }, vec![]);
        assert!(matches!(answer, Answer::Tap { existed: true, binding: Some(7), .. }), "{answer:?}");
    });
}

/// A document may be applied anew after a restart, with another number of queues.
#[test]
fn a_kept_tap_with_other_queues_than_wanted_is_opened_anew() {
    isolated(|| {
        let mut shelf = Shelf::new(Direct);
        let mut ask = |queues| {
            shelf.returned();
            let spec = TapSpec { queues, persistent: true, ..spec("mine") };
            let (answer, passed) = shelf.answer(Ask::Tap { spec }, vec![]);
            assert!(
                passed.iter().skip(1).all(|queue| sys::tap_name(queue.as_fd()).as_deref() == Some("mine"))
            );
            (answer, passed.len())
        };
        for queues in [2, 3, 2] {
            let (answer, passed) = ask(queues);
            assert!(matches!(answer, Answer::Tap { existed: _, .. }), "{queues} queues: {answer:?}");
            assert_eq!(passed, 1 + queues);
        }
        // The interface stands, made for several: one that has one only is another kind.
        let (answer, passed) = ask(1);
        let Answer::Refused { what, remedy, .. } = answer else { panic!("{answer:?}") };
        assert!(
            what.contains("not a TAP with 1 queue(s)") && remedy.contains("ip link delete mine"),
            "{what}"
        );
        assert_eq!(passed, 0);
    });
}

/// A hypervisor holds the TAP; what is kept is the packet socket, and it answers for that interface only.
#[test]
fn somebody_elses_interface_is_kept_and_nothing_else_under_its_name() {
    isolated(|| {
        let _hypervisor = (Direct.open_tap(&spec("vm0")).unwrap(), Direct.open_tap(&spec("vm1")).unwrap());
        let netdev = |name| TapSpec { kind: PortKind::Netdev, ..spec(name) };
        let keep = |shelf: &mut Shelf<Direct>, name, descriptors| {
            let ask = Ask::KeepTap { spec: netdev(name), udp_trains: false, binding: Some(7) };
            shelf.answer(ask, descriptors).0
        };
        let mut shelf = Shelf::new(Direct);
        let (Answer::Tap { udp_trains: false, existed: true, .. }, given) =
            shelf.answer(Ask::Tap { spec: netdev("vm0") }, vec![])
        else {
            panic!("the interface is there")
        };
        let copies = || given.iter().map(|own| own.try_clone().unwrap()).collect();
        let own = TapSpec { netns: Some("/proc/self/ns/net".into()), ..netdev("lo") };
        let (answer, _) = shelf.answer(Ask::Tap { spec: own }, vec![]);
        assert!(
            matches!(&answer, Answer::Refused { what, .. } if what.contains("own namespace")),
            "{answer:?}"
        );
        // The next switch gets the same socket, and what waits in it.
        shelf.returned();
        let (answer, again) = shelf.answer(Ask::Tap { spec: netdev("vm0") }, vec![]);
        assert!(matches!(answer, Answer::Tap { existed: true, .. }), "{answer:?}");
        assert_eq!(inode(&again[1]), inode(&given[1]));
        // A successor takes it under its own name only, and takes no TAP of the switch's for it.
        let mut successor = Shelf::new(Direct);
        assert!(matches!(keep(&mut successor, "vm1", copies()), Answer::Refused { .. }), "another's name");
        let own = Direct.open_tap(&spec("own")).unwrap();
        assert!(matches!(keep(&mut successor, "own", self::copies(&own)), Answer::Refused { .. }), "a TAP");
        let elsewhere = isolated(|| {
            let _hypervisor = Direct.open_tap(&spec("vm0")).unwrap();
            Direct.open_tap(&netdev("vm0")).unwrap().control
        });
        let mixed = vec![elsewhere, given[1].try_clone().unwrap()];
        assert!(matches!(keep(&mut successor, "vm0", mixed), Answer::Refused { .. }), "another's namespace");
        assert_eq!(successor.taps(), 0);
        assert_eq!(keep(&mut successor, "vm0", copies()), Answer::Done {});
    });
}
