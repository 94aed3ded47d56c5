//! The rules, restarts, and a crash at every write.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use redb::StorageBackend;

use super::*;
use crate::fleet::samples::{network, vm, vni};

fn whole(generation: u64, vms: &[&Arc<VmDesired>]) -> DesiredChange {
    let networks = vec![Arc::new(network(100))];
    let vms = vms.iter().map(|vm| (*vm).clone()).collect();
    DesiredChange { generation, base: None, networks, vms, removed: vec![] }
}

fn newer(vm: &VmDesired) -> Arc<VmDesired> {
    Arc::new(VmDesired { generation: vm.generation + 1, ..vm.clone() })
}

fn refused(ledger: &Ledger, change: DesiredChange) -> Refusal {
    let before = ledger.held();
    let error = ledger.accept(change).unwrap_err();
    assert_eq!(ledger.held(), before, "a refusal changes nothing");
    assert!(!error.problem().remedy.is_empty());
    match error {
        LedgerError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

#[test]
fn older_and_contradicting_documents_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    let (a, b) = (Arc::new(vm(1)), Arc::new(vm(1)));
    assert_eq!(
        refused(&ledger, DesiredChange { base: Some(4), ..whole(5, &[]) }),
        Refusal::Base { base: 4, held: None }
    );
    let accepted = ledger.accept(whole(5, &[&a, &b])).unwrap();
    assert_eq!((accepted.changed.len(), accepted.leaving.len(), accepted.networks), (2, 0, true));
    assert_eq!(ledger.accept(whole(5, &[&b, &a])).unwrap(), Accepted::default(), "the same again is fine");
    assert_eq!(refused(&ledger, whole(5, &[&a])), Refusal::SameGeneration(5));
    assert_eq!(refused(&ledger, whole(4, &[&a, &b])), Refusal::Older { offered: 4, held: 5 });
    assert_eq!(
        refused(&ledger, DesiredChange { base: Some(4), ..whole(6, &[]) }),
        Refusal::Base { base: 4, held: Some(5) }
    );

    // A change, then each rule for one machine.
    let change = DesiredChange { base: Some(5), removed: vec![b.vm], ..whole(6, &[&newer(&a)]) };
    let accepted = ledger.accept(change.clone()).unwrap();
    assert_eq!((accepted.changed[0].generation, accepted.leaving, accepted.networks), (2, vec![b.vm], false));
    assert_eq!(refused(&ledger, whole(7, &[&a])), Refusal::Vm { vm: a.vm, offered: 1, held: 2 });
    let contradiction = Arc::new(VmDesired { memory_mib: 1, ..(*newer(&a)).clone() });
    assert_eq!(refused(&ledger, whole(7, &[&contradiction])), Refusal::Vm { vm: a.vm, offered: 2, held: 2 });
    let current = newer(&newer(&a));
    let held = ledger.held();
    assert_eq!(held.leaving.keys().collect::<Vec<_>>(), [&b.vm]);
    let stranger = |change: fn(&mut VmDesired)| {
        let mut vm = vm(1);
        change(&mut vm);
        Arc::new(vm)
    };
    let renamed = Arc::new(VmDesired { port: "other".to_owned(), ..(*current).clone() });
    let thief = Arc::new(VmDesired { port: a.port.clone(), ..vm(1) });
    let squatter = Arc::new(VmDesired { port: b.port.clone(), ..vm(1) });
    for bad in [
        vec![&renamed],
        vec![&current, &thief],
        vec![&current, &squatter],
        vec![&current, &current],
        vec![&current, &stranger(|vm| vm.port = "a name that is too long".to_owned())],
        vec![&current, &stranger(|vm| vm.network = vni(999))],
        vec![&current, &stranger(|vm| vm.ips.clear())],
    ] {
        assert!(matches!(refused(&ledger, whole(8, &bad)), Refusal::Impossible { .. }));
    }
    // The one that left comes back, as new.
    ledger.accept(whole(8, &[&current, &b])).unwrap();
    assert!(ledger.held().leaving.is_empty());
}

#[test]
fn it_is_the_same_after_a_restart_and_belongs_to_one_agent() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Arc::new(vm(1)), Arc::new(vm(3)));
    let held = {
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.accept(whole(5, &[&a, &b])).unwrap();
        ledger.accept(whole(6, &[&a])).unwrap();
        ledger.directory(vni(100), Some((17, 4))).unwrap();
        ledger.directory(vni(200), Some((1, 4))).unwrap();
        ledger.directory(vni(200), None).unwrap();
        let second = Ledger::open(directory.path()).unwrap_err();
        assert!(matches!(second, LedgerError::Open { .. }), "{second}");
        ledger.held()
    };
    assert_eq!(held.directories, BTreeMap::from([(vni(100), (17, 4))]));
    let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "it has password hashes in it");
    let ledger = Ledger::open(directory.path()).unwrap();
    assert_eq!(ledger.held(), held);
    ledger.gone(&[b.vm, a.vm]).unwrap();
    assert!(ledger.held().leaving.is_empty() && ledger.wanted(a.vm).is_some());
    drop(ledger);
    assert!(Ledger::open(directory.path()).unwrap().held().leaving.is_empty());
}

#[test]
fn a_damaged_or_newer_ledger_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.accept(whole(5, &[&Arc::new(vm(1))])).unwrap();
    drop(ledger);
    let good = fs::read(&file).unwrap();
    for bad in [good[..good.len() / 2].to_vec(), vec![7; 4096], vec![]] {
        fs::write(&file, &bad).unwrap();
        // An empty file is one that redb would make anew.
        assert!(Ledger::open(directory.path()).is_err());
        assert_eq!(fs::read(&file).unwrap(), bad);
    }
    fs::write(&file, &good).unwrap();
    let database = Database::open(&file).unwrap();
    write(&database, |transaction| {
        transaction.open_table(META)?.insert(HEAD, br#"{"schema":2,"else":1}"#.as_slice())?;
        Ok(())
    })
    .unwrap();
    drop(database);
    assert!(matches!(Ledger::open(directory.path()), Err(LedgerError::Newer { found: 2 })));
}

/// A disk that loses its power at the n-th write, length change or flush: afterwards it has what was flushed, and of what
/// was not, every second write.
#[derive(Debug, Clone)]
struct Disk {
    content: Arc<Mutex<Content>>,
    left: Arc<AtomicUsize>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    now: Vec<u8>,
    flushed: Vec<u8>,
    since: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    fn new(content: Vec<u8>, left: usize) -> Self {
        let content = Content { now: content.clone(), flushed: content, since: vec![] };
        Self { content: Arc::new(Mutex::new(content)), left: Arc::new(AtomicUsize::new(left)) }
    }

    fn act(&self) -> Result<(), io::Error> {
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        before.map(drop).map_err(|_| io::Error::other("power loss"))
    }

    /// What is on it when the power comes back; `which` of the writes that were not flushed have reached it.
    fn after_the_crash(&self, which: usize) -> Vec<u8> {
        let content = self.content.lock().unwrap();
        let mut bytes = content.flushed.clone();
        let reached = content.since.iter().enumerate().filter(|(number, _)| match which {
            0 => false,
            1 => true,
            _ => number % 2 == which % 2,
        });
        for (_, (at, data)) in reached {
            let end = at + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(data);
        }
        bytes
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.content.lock().unwrap().now.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = usize::try_from(offset).unwrap();
        let content = self.content.lock().unwrap();
        let from = content
            .now
            .get(at..at + out.len())
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(from);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.act()?;
        let mut content = self.content.lock().unwrap();
        content.now.resize(usize::try_from(len).unwrap(), 0);
        // The length is metadata, and journaled: take it for flushed.
        content.flushed.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.act()?;
        let mut content = self.content.lock().unwrap();
        content.flushed = content.now.clone();
        content.since.clear();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.act()?;
        let at = usize::try_from(offset).unwrap();
        let mut content = self.content.lock().unwrap();
        content.now[at..at + data.len()].copy_from_slice(data);
        content.since.push((at, data.to_vec()));
        Ok(())
    }
}

#[test]
fn a_crash_at_any_write_leaves_the_old_document_or_the_new_one() {
    let disk = Disk::new(vec![], usize::MAX);
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    write(&database, |transaction| put_head(transaction, &Held::default())).unwrap();
    drop(database);
    let image = disk.after_the_crash(1);
    let (a, b, c) = (Arc::new(vm(1)), Arc::new(vm(1)), Arc::new(vm(1)));
    let steps = [
        whole(1, &[&a, &b]),
        DesiredChange { base: Some(1), removed: vec![b.vm], ..whole(2, &[&newer(&a), &c]) },
        whole(3, &[&c]),
    ];
    let mut crashes = 0;
    for left in 0.. {
        let disk = Disk::new(image.clone(), left);
        // What was acknowledged, and what may be there besides.
        let (mut sure, mut maybe) = (Held::default(), None);
        let opened = Builder::new()
            .create_with_backend(disk.clone())
            .ok()
            .and_then(|database| Ledger::of(database).ok());
        let mut done = false;
        if let Some(ledger) = opened {
            done = true;
            for step in &steps {
                maybe = Some(rules::judge(&sure, step.clone()).unwrap().0);
                if ledger.accept(step.clone()).is_err() {
                    done = false;
                    break;
                }
                sure = ledger.held();
            }
            drop(ledger);
        }
        for which in 0..4 {
            let revived = Disk::new(disk.after_the_crash(which), usize::MAX);
            let database =
                Builder::new().set_check_integrity_on_open(true).create_with_backend(revived).unwrap();
            let found = Ledger::of(database).unwrap().held();
            let expected = found == sure || Some(&found) == maybe.as_ref();
            assert!(
                expected,
                "crash at {left}, {which}: {:?} instead of {:?}",
                found.generation, sure.generation
            );
        }
        if done {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 10, "{crashes} crashes");
}
