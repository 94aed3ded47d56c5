//! The file: what was acknowledged is there after any death, what cannot be trusted is refused and left alone, and
//! commits are grouped.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use ::redb::{Database, ReadableDatabase, TableDefinition};

use super::*;

const CHILD: &str = "SHUNT_TEST_STORE";

fn open(dir: &tempfile::TempDir) -> RedbStore {
    RedbStore::open(&file(dir)).unwrap()
}

#[test]
fn a_store_is_the_same_after_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = open(&dir);
        store.commit(draft(|draft| draft.put(&key("a"), "1").put(&key("b"), "2"))).await.unwrap();
        store.commit(draft(|draft| draft.delete(&key("a")))).await.unwrap();
        drop(store);
        let store = open(&dir);
        assert_eq!(store.revision().await, Ok(Revision(2)));
        let entries = store.list(&Prefix::all(), None, 10).await.unwrap().entries;
        assert_eq!(entries, [Entry { key: key("b"), value: "2".into(), revision: Revision(1) }]);
        // The log is not kept: who was behind reads anew, who was not goes on.
        let mut behind = store.watch(&Prefix::all(), Revision(1));
        assert_eq!(behind.next().await, Some(WatchItem::Compacted { resnapshot_from: Revision(2) }));
        let mut level = store.watch(&Prefix::all(), Revision(2));
        store.commit(draft(|draft| draft.put(&key("c"), "3"))).await.unwrap();
        assert!(matches!(level.next().await, Some(WatchItem::Changes { revision: Revision(3), .. })));
    });
}

#[test]
fn two_cannot_have_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(&dir);
    let refused = RedbStore::open(&file(&dir)).unwrap_err();
    assert!(
        matches!(refused, OpenError::Locked { holder: Some(pid), .. } if pid == std::process::id()),
        "{refused}"
    );
    assert_eq!(refused.place(), file(&dir));
}

/// What waits while the disk is busy is written together.
#[test]
fn commits_are_grouped() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let store = Arc::new(open(&dir));
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for turn in 0..16 {
                        let own = key(&format!("task/{task}/{turn}"));
                        store.commit(draft(|draft| draft.require_absent(&own).put(&own, "x"))).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let statistics = store.statistics();
        assert_eq!((statistics.transactions, statistics.conflicts), (1024, 0));
        assert!(statistics.commits < 512, "{statistics:?}");
        assert_eq!(store.revision().await, Ok(Revision(1024)));
    });
}

/// Not a test of its own: the process that [`what_was_acknowledged_survives_a_kill`] kills.
#[test]
#[ignore = "run by another test"]
fn a_process_that_is_killed() {
    let path = std::env::var_os(CHILD).unwrap();
    run(async {
        let store = Arc::new(RedbStore::open(path.as_ref()).unwrap());
        let tasks: Vec<_> = (0..32)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for turn in 0u32.. {
                        let (row, twin) = (key(&format!("row/{task}/{turn}")), key(&format!("twin/{task}")));
                        let put = draft(|draft| draft.put(&row, "x").put(&twin, turn.to_string()));
                        let revision = store.commit(put).await.unwrap();
                        // In one write, so that lines stay whole.
                        let line = format!("acknowledged {task} {turn} {revision}\n");
                        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for (round, lines) in [40, 200, 500].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::durable::a_process_that_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, file(&dir))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut parse = |line: String| {
            let words: Vec<u64> =
                line.strip_prefix("acknowledged ")?.split(' ').map(|word| word.parse().unwrap()).collect();
            Some((round, words[0], words[1], words[2]))
        };
        acknowledged.extend(output.by_ref().filter_map(&mut parse).take(lines));
        child.kill().unwrap();
        // What it said before it died counts as well; its last line may be cut.
        acknowledged.extend(output.filter(|line| line.split(' ').count() == 4).filter_map(&mut parse));
        child.wait().unwrap();
        run(async {
            let store = open(&dir);
            let last = store.revision().await.unwrap().0;
            for (written, task, turn, revision) in &acknowledged {
                assert!(
                    *revision <= last,
                    "revision {revision} was acknowledged, and the last one is {last}"
                );
                let row = store.get(&key(&format!("row/{task}/{turn}"))).await.unwrap();
                let row = row.unwrap_or_else(|| panic!("row/{task}/{turn} was acknowledged, and is gone"));
                // A later round has written the same rows anew.
                assert!(row.revision.0 == *revision || *written < round && row.revision.0 > *revision);
            }
            // Each transaction is there whole: the twin is that of the task's last row.
            for task in 0..32 {
                let Some(twin) = store.get(&key(&format!("twin/{task}"))).await.unwrap() else { continue };
                let turn = str::from_utf8(&twin.value).unwrap();
                let row = store.get(&key(&format!("row/{task}/{turn}"))).await.unwrap().unwrap();
                assert_eq!(row.revision, twin.revision);
            }
        });
    }
    assert!(acknowledged.len() >= 740);
}

/// A store with some rows, closed or killed, and its bytes.
fn filled(dir: &tempfile::TempDir) -> Vec<u8> {
    run(async {
        let store = open(dir);
        for number in 0..50 {
            let row = key(&format!("row/{number}"));
            store.commit(draft(|draft| draft.put(&row, vec![7; 2000]))).await.unwrap();
        }
    });
    fs::read(file(dir)).unwrap()
}

/// The same as a kill leaves it: copied while it was open.
fn filled_and_killed(dir: &tempfile::TempDir) -> Vec<u8> {
    let bytes = run(async {
        let store = open(dir);
        for number in 0..50 {
            let row = key(&format!("row/{number}"));
            store.commit(draft(|draft| draft.put(&row, vec![7; 2000]))).await.unwrap();
        }
        fs::read(file(dir)).unwrap()
    });
    fs::write(file(dir), &bytes).unwrap();
    bytes
}

fn refused(dir: &tempfile::TempDir, bytes: &[u8], what: &str) -> OpenError {
    fs::write(file(dir), bytes).unwrap();
    let error = RedbStore::open(&file(dir)).map(drop).expect_err(what);
    assert!(fs::read(file(dir)).unwrap() == bytes, "{what}: the refused file was changed ({error})");
    assert!(error.place() == file(dir) && !error.remedy().is_empty(), "{what}: {error}");
    error
}

#[test]
fn a_killed_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    filled_and_killed(&dir);
    let store = open(&dir);
    assert_eq!(run(store.revision()), Ok(Revision(50)));
    assert_eq!(run(store.list(&prefix("row/"), None, 100)).unwrap().entries.len(), 50);
}

/// What opening a file with these bytes came to: `None` for refused, else the revision that it is at.
fn opened(dir: &tempfile::TempDir, bytes: &[u8], what: &str) -> Option<u64> {
    fs::write(file(dir), bytes).unwrap();
    match RedbStore::open(&file(dir)) {
        Ok(store) => {
            let listing = run(store.list(&Prefix::all(), None, 100)).unwrap();
            assert!(listing.entries.iter().all(|entry| entry.value == vec![7; 2000]), "{what}");
            assert_eq!(listing.entries.len() as u64, listing.revision.0, "{what}");
            Some(listing.revision.0)
        }
        Err(error) => {
            assert!(matches!(error, OpenError::Corrupt { .. }), "{what}: {error}");
            assert!(fs::read(file(dir)).unwrap() == bytes, "{what}: the refused file was changed");
            None
        }
    }
}

/// Damage is either harmless (in a free page) or refused, with the file left alone; never believed, never a panic. In a
/// file that was not closed, a damaged header of the last commit is the same as a commit that a crash cut short: then
/// the store is whole as of the one before.
#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    for (fill, least) in [(filled as fn(&tempfile::TempDir) -> Vec<u8>, 50), (filled_and_killed, 49)] {
        let dir = tempfile::tempdir().unwrap();
        let good = fill(&dir);
        for length in [0, 1, 100, 4096, 8192, good.len() / 8] {
            refused(&dir, &good[..length], &format!("cut to {length}"));
        }
        for length in [good.len() / 2, good.len() - 4096, good.len() - 1] {
            let what = format!("cut to {length} of {}", good.len());
            assert!(opened(&dir, &good[..length], &what).is_none_or(|revision| revision >= least), "{what}");
        }
        refused(&dir, b"#!/bin/sh\necho no store\n", "foreign");
        let mut found = 0;
        let places = (0..320).step_by(7).chain((320..good.len()).step_by(good.len() / 40));
        for place in places {
            let mut bytes = good.clone();
            bytes[place] ^= 0x55;
            match opened(&dir, &bytes, &format!("byte {place} flipped")) {
                None => found += 1,
                Some(revision) => assert!(revision >= least, "byte {place} flipped: {revision}"),
            }
        }
        assert!(found > 10, "{found}");
        assert_eq!(opened(&dir, &good, "as it was"), Some(50));
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let dir = tempfile::tempdir().unwrap();
    filled(&dir);
    let database = Database::open(file(&dir)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("schema", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let bytes = fs::read(file(&dir)).unwrap();
    let error = refused(&dir, &bytes, "newer");
    assert!(matches!(error, OpenError::Schema { found: 2, known: 1, .. }), "{error}");
    assert_eq!(error.to_string(), "the store has schema 2, and this program knows schema 1");
    let database = Database::open(file(&dir)).unwrap();
    assert_eq!(
        database.begin_read().unwrap().open_table(META).unwrap().get("revision").unwrap().unwrap().value(),
        50
    );
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = RedbStore::open("/nowhere/store.redb".as_ref()).unwrap_err();
    assert!(matches!(&error, OpenError::Open { .. }), "{error}");
    assert_eq!(error.place().to_str(), Some("/nowhere/store.redb"));
}
