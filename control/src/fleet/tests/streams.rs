//! What a session sends: documents, snapshots, deltas; to hosts that come back and to hosts that are slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dataplane::types::CustomerIp;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::codec::{self, Gathered};
use super::super::identity::{Credentials, client_config};
use super::super::proto::{self, DirectoryVersion, FromHost, from_host, to_host};
use super::super::samples::{entry, inventory, network, vm, vni};
use super::super::{DesiredChange, DirectoryEntry, DirectorySource, HostStatus, IN_FLIGHT, Pace, dial};
use super::{PATIENCE, Said, Town};
use crate::model::{HostDesired, Problem, VmDesired, VmFact, VmRunning};

/// As many entries as fit one page.
const FULL: u16 = 1024;
const _: () = assert!(FULL as usize == codec::LARGEST_PAGE);

/// A host's end of a stream.
struct Wire {
    say: mpsc::Sender<FromHost>,
    hear: Streaming<proto::ToHost>,
}

impl Wire {
    async fn new(
        town: &Town,
        credentials: &Credentials,
        generation: Option<u64>,
        held: &[(u32, u64)],
    ) -> Self {
        let config = Arc::new(client_config(credentials).unwrap());
        let mut client = dial(std::slice::from_ref(&town.address), config, Pace::default()).await.unwrap();
        let directories = held.iter().map(|(vni, version)| DirectoryVersion { vni: *vni, version: *version });
        let hello = proto::Hello {
            inventory_json: codec::to_json("inventory", &inventory()).unwrap(),
            generation,
            directories: directories.collect(),
        };
        let (say, said) = mpsc::channel(8);
        say.send(FromHost { message: Some(from_host::Message::Hello(hello)) }).await.unwrap();
        let hear = client.attach(ReceiverStream::new(said)).await.unwrap().into_inner();
        Self { say, hear }
    }

    async fn say(&self, message: from_host::Message) {
        self.say.send(FromHost { message: Some(message) }).await.unwrap();
    }

    /// The next message that is no ping; the end of the stream is an error.
    async fn next(&mut self) -> Result<to_host::Message, Status> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.hear.next()).await.expect("a message");
            match message.ok_or_else(|| Status::ok("the end"))?? {
                proto::ToHost { message: Some(to_host::Message::Ping(_)) } => {}
                proto::ToHost { message } => return Ok(message.unwrap()),
            }
        }
    }

    async fn document(&mut self) -> DesiredChange {
        let mut gathered = Gathered::default();
        loop {
            match self.next().await.unwrap() {
                to_host::Message::Desired(part) => {
                    if let Some(change) = gathered.add(&part).unwrap() {
                        return change;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a host makes of snapshots and deltas; any step back is found.
#[derive(Debug, Default)]
struct Follower {
    entries: BTreeMap<CustomerIp, DirectoryEntry>,
    version: Option<u64>,
    paging: Option<(u64, Option<CustomerIp>)>,
    snapshots: usize,
}

impl Follower {
    fn take(&mut self, message: to_host::Message) {
        match message {
            to_host::Message::DirectorySnapshot(page) => {
                let entries = codec::entries(&page.entries).unwrap();
                if page.first {
                    self.snapshots += 1;
                    self.paging = Some((page.version, None));
                }
                let (version, after) = self.paging.expect("a first page");
                assert_eq!(version, page.version);
                let last = entries.last().map(|entry| entry.ip);
                self.entries.retain(|ip, _| {
                    after.is_some_and(|after| *ip <= after)
                        || page.more && last.is_some_and(|last| *ip > last)
                });
                assert!(entries.iter().all(|entry| after.is_none_or(|after| entry.ip > after)));
                self.entries.extend(entries.iter().map(|entry| (entry.ip, *entry)));
                self.paging = Some((version, last));
                if !page.more {
                    assert!(self.version.is_none_or(|held| held <= version), "a version went back");
                    (self.version, self.paging) = (Some(version), None);
                }
            }
            to_host::Message::DirectoryDelta(delta) => {
                assert_eq!(self.version, Some(delta.from), "a delta that does not follow");
                assert!(delta.to > delta.from);
                let puts = codec::entries(&delta.puts).unwrap();
                self.entries.extend(puts.iter().map(|entry| (entry.ip, *entry)));
                for ip in codec::removes(&delta.removes).unwrap() {
                    self.entries.remove(&ip);
                }
                self.version = Some(delta.to);
            }
            other => panic!("{other:?}"),
        }
    }

    async fn follow(&mut self, wire: &mut Wire, version: u64) {
        while self.version.is_none_or(|held| held < version) {
            let message = wire.next().await.unwrap();
            self.take(message);
        }
    }
}

fn document(generation: u64, networks: &[u32], vms: &[&Arc<VmDesired>]) -> HostDesired {
    HostDesired {
        generation,
        networks: networks.iter().map(|vni| Arc::new(network(*vni))).collect(),
        vms: vms.iter().map(|vm| (*vm).clone()).collect(),
    }
}

fn entries(count: u16, host: u8) -> Vec<DirectoryEntry> {
    (0..count).map(|number| entry(number, host)).collect()
}

/// What the board has.
async fn truth(town: &Town) -> BTreeMap<CustomerIp, DirectoryEntry> {
    let page = town.directory.page(vni(100), None, usize::MAX).await.unwrap();
    page.entries.into_iter().map(|entry| (entry.ip, entry)).collect()
}

#[tokio::test]
async fn documents_come_whole_and_then_by_what_changed() {
    let town = Town::new().await;
    let credentials = town.joined("host-a").await;
    let host = credentials.says().host;
    // Nobody knows yet what the host should hold: it is not told to hold nothing.
    let mut wire = Wire::new(&town, &credentials, None, &[]).await;
    let (a, b) = (Arc::new(vm(1)), Arc::new(vm(1)));
    town.desired.put(host, document(4, &[], &[&a, &b]));
    let first = wire.document().await;
    assert_eq!((first.generation, first.base, first.vms.len()), (4, None, 2));

    let newer = Arc::new(VmDesired { generation: 2, ..(*a).clone() });
    town.desired.put(host, document(5, &[], &[&newer]));
    let second = wire.document().await;
    assert_eq!((second.generation, second.base), (5, Some(4)));
    assert_eq!((second.vms, second.removed), (vec![newer.clone()], vec![b.vm]));
    wire.say(from_host::Message::Ack(proto::Ack { generation: 5 })).await;
    town.server.presence().acknowledged(host, 5).await;

    // It comes back with what it has, while the document goes on.
    drop(wire);
    town.heard.wait(|said| *said == Said::Gone(host)).await;
    assert_eq!(town.server.presence().status(host), None);
    town.desired.put(host, document(6, &[], &[]));
    let mut wire = Wire::new(&town, &credentials, Some(5), &[]).await;
    let third = wire.document().await;
    assert_eq!((third.generation, third.base, third.removed), (6, Some(5), vec![newer.vm]));
    // One that has it all is told nothing: the next message is the next change.
    let mut again = Wire::new(&town, &credentials, Some(6), &[]).await;
    town.desired.put(host, document(7, &[], &[&a]));
    assert_eq!(again.document().await.base, Some(6));
    // The session before it was told that it is over.
    let end = loop {
        if let Err(end) = wire.next().await {
            break end;
        }
    };
    assert_eq!(end.code(), Code::Aborted);
    assert!(town.server.presence().status(host).is_some());
}

#[tokio::test]
async fn a_directory_comes_as_a_snapshot_then_deltas_and_goes_on_where_it_was() {
    let town = Town::new().await;
    let credentials = town.joined("host-a").await;
    let host = credentials.says().host;
    let many = FULL * 2 + 10;
    town.directory.load(vni(100), 50, entries(many, 1));
    town.directory.load(vni(200), 9, entries(3, 1));
    town.desired.put(host, document(1, &[100], &[]));
    let mut wire = Wire::new(&town, &credentials, None, &[]).await;
    assert_eq!(wire.document().await.networks.len(), 1);
    let mut follower = Follower::default();
    follower.follow(&mut wire, 50).await;
    assert_eq!(follower.entries, truth(&town).await);
    let held = |status: Option<HostStatus>| status.unwrap().directories.get(&vni(100)).copied();
    assert_eq!(held(town.server.presence().status(host)), Some(None), "subscribed, not acknowledged");
    assert_eq!(town.server.presence().behind(vni(100), 50), [host]);
    assert!(town.server.presence().behind(vni(200), 9).is_empty(), "it does not hold that network");

    let now = town.directory.change(vni(100), &[entry(7, 2)], &[entry(8, 1).ip]);
    follower.follow(&mut wire, now).await;
    assert_eq!((follower.snapshots, &follower.entries), (1, &truth(&town).await));
    let settled = tokio::spawn({
        let presence = town.server.presence().clone();
        async move { presence.settled(vni(100), now).await }
    });
    wire.say(from_host::Message::DirectoryAck(proto::DirectoryAck { vni: 100, version: now })).await;
    tokio::time::timeout(PATIENCE, settled).await.unwrap().unwrap();

    // Back again, from the version that it holds: deltas only.
    drop(wire);
    let later = town.directory.change(vni(100), &[entry(9, 2)], &[]);
    let mut wire = Wire::new(&town, &credentials, Some(1), &[(100, now), (300, 5)]).await;
    follower.follow(&mut wire, later).await;
    assert_eq!((follower.snapshots, &follower.entries), (1, &truth(&town).await));
    assert_eq!(held(town.server.presence().status(host)), Some(Some(now)), "what it said it holds");

    // The network goes and comes back: a fresh snapshot, of this network alone.
    town.desired.put(host, document(2, &[], &[]));
    wire.document().await;
    town.desired.put(host, document(3, &[100], &[]));
    wire.document().await;
    let mut anew = Follower::default();
    anew.follow(&mut wire, later).await;
    assert_eq!((anew.snapshots, anew.entries), (1, truth(&town).await));
}

/// A host that reads nothing while its network changes more than anybody remembers gets a snapshot, and in the meantime
/// costs a few messages and keeps nobody waiting.
#[tokio::test]
async fn a_slow_host_gets_a_snapshot_and_nobody_waits_for_it() {
    let town = Town::new().await;
    let (slow, quick) = (town.joined("slow").await, town.joined("quick").await);
    town.directory.load(vni(100), 1, entries(FULL, 1));
    for credentials in [&slow, &quick] {
        town.desired.put(credentials.says().host, document(1, &[100], &[]));
    }
    let mut slow = Wire::new(&town, &slow, None, &[]).await;
    let mut quick = Wire::new(&town, &quick, None, &[]).await;
    let (mut behind, mut ahead) = (Follower::default(), Follower::default());
    slow.document().await;
    behind.follow(&mut slow, 1).await;
    quick.document().await;
    // Each round fills a delta; together they are more than the log, the queue and the windows of HTTP/2 hold.
    let rounds = 300;
    for round in 0..rounds {
        let puts = entries(FULL, if round % 2 == 0 { 1 } else { 2 });
        let version = town.directory.change(vni(100), &puts, &[]);
        ahead.follow(&mut quick, version).await;
    }
    assert_eq!(ahead.snapshots, 1, "who keeps up needs no second one");
    let end = *town.directory.watch(vni(100)).borrow();
    let mut messages = 0;
    while behind.version != Some(end) {
        let message = slow.next().await.unwrap();
        behind.take(message);
        messages += 1;
    }
    assert_eq!(behind.entries, truth(&town).await);
    assert_eq!(behind.snapshots, 2, "one at the beginning, and one instead of what it missed");
    assert!(messages < rounds / 2, "{messages} messages waited for it, {IN_FLIGHT} may be in the queue");
}

#[tokio::test]
async fn a_document_is_not_kept_behind_a_long_directory() {
    let town = Town::new().await;
    let credentials = town.joined("host-a").await;
    let host = credentials.says().host;
    town.directory.load(vni(100), 1, entries(u16::MAX, 1));
    town.desired.put(host, document(1, &[100], &[]));
    let mut wire = Wire::new(&town, &credentials, None, &[]).await;
    wire.document().await;
    let first = wire.next().await.unwrap();
    assert!(matches!(first, to_host::Message::DirectorySnapshot(_)));
    town.desired.put(host, document(2, &[100], &[]));
    let mut pages = 1;
    while !matches!(wire.next().await.unwrap(), to_host::Message::Desired(_)) {
        pages += 1;
    }
    assert!(pages < 40, "the document waited for {pages} of 64 pages");
}

#[tokio::test]
async fn facts_are_acknowledged_once_they_are_kept_and_refusals_are_told() {
    let town = Town::new().await;
    let credentials = town.joined("host-a").await;
    let host = credentials.says().host;
    let mut wire = Wire::new(&town, &credentials, None, &[]).await;
    let fact = VmFact {
        vm: vm(1).vm,
        generation: 3,
        running: VmRunning::Dead,
        times: None,
        report: None,
        heard_at: None,
        died_at: None,
    };
    let fact_json = vec![codec::to_json("fact", &fact).unwrap()];
    wire.say(from_host::Message::Facts(proto::Facts { fact_json, number: 41 })).await;
    let acknowledged = wire.next().await.unwrap();
    assert_eq!(acknowledged, to_host::Message::FactsAck(proto::FactsAck { number: 41 }));
    town.heard.wait(|said| *said == Said::Facts(host, vec![fact.clone()])).await;

    let problem = Problem::new("it is older", "generation", "none");
    let problem_json = codec::to_json("problem", &problem).unwrap();
    wire.say(from_host::Message::Refused(proto::Refused { problem_json, generation: Some(3) })).await;
    town.heard.wait(|said| *said == Said::Refused(host, problem.clone(), Some(3))).await;

    // What nobody of us says ends the stream, and the reason is told.
    let rubbish = vec![b"{}".as_slice().into(); 1];
    wire.say(from_host::Message::Facts(proto::Facts { fact_json: rubbish, number: 42 })).await;
    assert_eq!(wire.next().await.unwrap_err().code(), Code::InvalidArgument);
    let wire = Wire::new(&town, &credentials, None, &[]).await;
    let many = vec![codec::to_json("fact", &fact).unwrap(); codec::MOST_FACTS + 1];
    wire.say(from_host::Message::Facts(proto::Facts { fact_json: many, number: 1 })).await;
    let mut wire = wire;
    assert_eq!(wire.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_host_that_says_nothing_or_is_dismissed_is_gone() {
    let pace = Pace { ping: Duration::from_millis(50), silence: Duration::from_millis(400) };
    let town = Town::with(pace).await;
    let credentials = town.joined("host-a").await;
    let host = credentials.says().host;
    let mut silent = Wire::new(&town, &credentials, None, &[]).await;
    assert_eq!(silent.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    town.heard.wait(|said| *said == Said::Gone(host)).await;

    let mut dismissed = Wire::new(&town, &credentials, None, &[]).await;
    town.server.presence().dismiss(host);
    assert_eq!(dismissed.next().await.unwrap_err().code(), Code::Aborted);
    let mut last = Wire::new(&town, &credentials, None, &[]).await;
    let (address, stopped) = (town.address.clone(), town.server.stop());
    stopped.await;
    assert!(last.next().await.is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
