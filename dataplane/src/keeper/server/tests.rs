//! The server's loop over socket pairs and a socket in a directory of its own; the process is tested in tests/keeper.rs.

use std::thread;

use super::super::launch::exchange;
use super::super::protocol::Versions;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A server on a directory, without a standby, on a thread of its own.
struct House {
    dir: tempfile::TempDir,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl House {
    fn new(keep: Duration, own_uid: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = channel::listen(dir.path()).unwrap();
        let home = Residence { state_dir: dir.path().into(), keep };
        let mut server = Server::new(listener, home).unwrap();
        server.standby_due = Instant::now() + Duration::from_secs(3600);
        server.alone = Some((Instant::now(), keep));
        if let Some(uid) = own_uid {
            server.own_uid = uid;
        }
        let thread = thread::spawn(move || server.run());
        Self { dir, thread: Some(thread) }
    }

    fn connect(&self) -> Channel {
        Channel::connect(self.dir.path(), PATIENCE).unwrap()
    }

    fn ended(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

fn say(channel: &Channel, ask: &Ask) -> Option<Answer> {
    exchange(channel, ask, &[]).unwrap().map(|(answer, _)| answer)
}

fn hello(channel: &Channel, keep_seconds: u32) -> Option<Answer> {
    say(channel, &Ask::Hello { speaks: SPOKEN, keep_seconds })
}

fn words(answer: Option<Answer>) -> (Reason, String) {
    match answer {
        Some(Answer::Refused { reason, what, remedy }) if !remedy.is_empty() => (reason, what),
        other => panic!("{other:?}"),
    }
}

const A_PROBE: &str = "127.0.0.1:0";

fn probe() -> Ask {
    Ask::Udp { address: A_PROBE.parse().unwrap(), purpose: crate::port::open::UdpUse::Probe }
}

#[test]
fn one_switch_at_a_time_and_the_next_one_at_once() {
    let mut house = House::new(PATIENCE, None);
    let first = house.connect();
    assert!(matches!(hello(&first, 60), Some(Answer::Welcome { version: 1, .. })));
    let second = house.connect();
    let (reason, what) = words(hello(&second, 60));
    assert_eq!(reason, Reason::Busy);
    assert_eq!(what, format!("another switch (process {}) uses this state directory", std::process::id()));
    assert!(say(&second, &Ask::Status {}).is_none(), "and it is hung up on");
    assert!(matches!(say(&first, &probe()), Some(Answer::Udp {})));
    // However fast the successor is.
    for _ in 0..50 {
        let next = house.connect();
        drop(first.watch());
        assert!(matches!(say(&first, &Ask::Status {}), Some(Answer::Status { .. })));
        drop(next);
    }
    drop(first);
    for _ in 0..200 {
        let next = house.connect();
        assert!(matches!(hello(&next, 60), Some(Answer::Welcome { .. })));
    }
    let visitor = house.connect();
    assert_eq!(say(&visitor, &Ask::End {}), Some(Answer::Done {}));
    house.ended();
    assert!(!house.dir.path().join(SOCKET_NAME).exists());
}

#[test]
fn another_user_and_another_version_are_refused() {
    let stranger = rustix::process::geteuid().as_raw() + 1;
    assert!(admits(0, 0) && admits(7, 7) && !admits(7, 0) && !admits(0, 7));
    let house = House::new(PATIENCE, Some(stranger));
    let channel = house.connect();
    // It is told before it is asked, and its question goes nowhere.
    let packet = channel.receive().unwrap().unwrap();
    let (_, what) = words(Some(protocol::decode(&packet.bytes, 0).unwrap()));
    assert_eq!(what, "the keeper serves its own user only");
    assert!(channel.receive().unwrap().is_none());
    // The end of this keeper: its socket goes.
    drop(house);

    let house = House::new(PATIENCE, None);
    let channel = house.connect();
    let later = Ask::Hello { speaks: Versions { oldest: 7, newest: 9 }, keep_seconds: 1 };
    let (_, what) = words(say(&channel, &later));
    assert_eq!(what, "the keeper that runs speaks versions 1 to 1, and this switch 7 to 9");
    // One that speaks ours among others is served.
    let both = Ask::Hello { speaks: Versions { oldest: 1, newest: 9 }, keep_seconds: 1 };
    assert!(matches!(say(&house.connect(), &both), Some(Answer::Welcome { version: 1, .. })));
}

#[test]
fn nothing_is_opened_for_whom_has_not_said_hello_and_garbage_ends_a_connection() {
    let house = House::new(PATIENCE, None);
    let (_, what) = words(say(&house.connect(), &probe()));
    assert!(what.contains("said hello"), "{what}");
    for garbage in [&b"GET / HTTP/1.1"[..], b"SHKP", &[0xff; 200]] {
        let channel = house.connect();
        channel.send(garbage, &[]).unwrap();
        let packet = channel.receive().unwrap().unwrap();
        let (_, what) = words(Some(protocol::decode(&packet.bytes, 0).unwrap()));
        assert!(what.contains("does not understand"), "{what}");
        assert!(channel.receive().unwrap().is_none());
    }
    // Descriptors that nobody asked for are closed with the message that brought them.
    let (reader, writer) = io::pipe().unwrap();
    let channel = house.connect();
    let bytes = protocol::encode(&Ask::Status {}, 1).unwrap();
    channel.send(&bytes, &[writer.as_fd()]).unwrap();
    let packet = channel.receive().unwrap().unwrap();
    let (_, what) = words(Some(protocol::decode(&packet.bytes, 0).unwrap()));
    assert!(what.contains("1 descriptors instead of 0"), "{what}");
    drop(writer);
    assert_eq!(io::read_to_string(reader).unwrap(), "");
    // More visitors than seats, none of whom says a word: the switch has its seat all the same.
    let silent: Vec<Channel> = (0..3 * MOST_CONNECTIONS).map(|_| house.connect()).collect();
    let switch = house.connect();
    assert!(matches!(hello(&switch, 60), Some(Answer::Welcome { .. })));
    let more: Vec<Channel> = (0..3 * MOST_CONNECTIONS).map(|_| house.connect()).collect();
    assert!(matches!(say(&switch, &probe()), Some(Answer::Udp {})));
    drop((silent, more));
}

#[test]
fn a_keeper_without_a_switch_goes_after_the_time_that_the_last_one_wished() {
    let mut house = House::new(PATIENCE, None);
    let switch = house.connect();
    assert!(matches!(hello(&switch, 0), Some(Answer::Welcome { .. })));
    drop(switch);
    house.ended();
    assert!(!house.dir.path().join(SOCKET_NAME).exists());
}

#[test]
fn a_keeper_that_nobody_can_find_goes() {
    let mut house = House::new(Duration::from_secs(3600), None);
    std::fs::remove_file(house.dir.path().join(SOCKET_NAME)).unwrap();
    house.ended();
}

#[test]
fn a_ghost_that_was_laid_leaves_the_keeper_alone() {
    let dir = tempfile::tempdir().unwrap();
    let listener = channel::listen(dir.path()).unwrap();
    let keep = Duration::from_secs(1);
    let mut server = Server::new(listener, Residence { state_dir: dir.path().into(), keep }).unwrap();
    let send = |channel: &Channel, ask: &Ask| channel.send(&protocol::encode(ask, 0).unwrap(), &[]).unwrap();
    let visitor = Channel::connect(dir.path(), PATIENCE).unwrap();
    server.accept();
    let switch = Channel::connect(dir.path(), PATIENCE).unwrap();
    server.accept();
    send(&switch, &Ask::Hello { speaks: SPOKEN, keep_seconds: 1 });
    assert_eq!(server.hear(1), Then::Stay);
    assert!(server.alone.is_none());
    // Both in one turn of the loop: the visitor's question, and the end of the switch.
    send(&visitor, &Ask::Status {});
    drop(switch);
    assert_eq!(server.hear(0), Then::Stay);
    assert_eq!(server.hear(1), Then::Hang);
    server.hang_up(1);
    assert!(server.alone.is_some(), "it would keep everything for ever");
}

#[test]
fn when_the_end_is_told_every_address_is_free() {
    for _ in 0..50 {
        let mut house = House::new(PATIENCE, None);
        let switch = house.connect();
        assert!(matches!(hello(&switch, 60), Some(Answer::Welcome { .. })));
        let free = std::net::UdpSocket::bind(A_PROBE).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let ask = Ask::Udp { address, purpose: crate::port::open::UdpUse::Receive };
        assert!(matches!(say(&switch, &ask), Some(Answer::Udp {})));
        std::net::UdpSocket::bind(address).unwrap_err();
        drop(switch);
        assert_eq!(say(&house.connect(), &Ask::End {}), Some(Answer::Done {}));
        std::net::UdpSocket::bind(address).unwrap();
        house.ended();
    }
}
