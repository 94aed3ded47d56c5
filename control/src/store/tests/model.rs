//! Random transactions against the plainest model of a store: a map, a counter, and a list of what happened.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One key's part in a transaction.
#[derive(Debug, Clone)]
struct Part {
    key: usize,
    /// What to require: nothing, the truth, or something that is false.
    require: Require,
    write: Option<Option<u8>>,
}

#[derive(Debug, Clone, Copy)]
enum Require {
    Nothing,
    Truth,
    Falsehood,
}

const KEYS: [&str; 6] = ["a/1", "a/2", "b/1", "b/1/x", "b/2", "c"];
const PREFIXES: [&str; 4] = ["", "a/", "b/", "b/1/"];

fn part() -> impl Strategy<Value = Part> {
    let require =
        prop_oneof![6 => Just(Require::Truth), 3 => Just(Require::Nothing), 1 => Just(Require::Falsehood)];
    (0..KEYS.len(), require, proptest::option::of(proptest::option::of(any::<u8>())))
        .prop_map(|(key, require, write)| Part { key, require, write })
}

fn transactions() -> impl Strategy<Value = Vec<Vec<Part>>> {
    proptest::collection::vec(proptest::collection::vec(part(), 1..4), 1..40)
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<Key, (u64, Vec<u8>)>,
    revision: u64,
    happened: Vec<(u64, Vec<Change>)>,
}

impl Model {
    fn commit(&mut self, transaction: &Transaction) -> Result<Revision, CommitError> {
        for (key, required) in transaction.compares() {
            let at = Revision(self.rows.get(key).map_or(0, |row| row.0));
            if at != *required {
                return Err(CommitError::Conflict { key: key.clone(), revision: at });
            }
        }
        let (next, mut changes) = (self.revision + 1, Vec::new());
        for write in transaction.writes() {
            match write {
                Write::Put(key, value) => {
                    self.rows.insert(key.clone(), (next, value.to_vec()));
                    changes.push(Change::Put(Entry {
                        key: key.clone(),
                        value: value.clone(),
                        revision: Revision(next),
                    }));
                }
                Write::Delete(key) if self.rows.remove(key).is_some() => {
                    changes.push(Change::Delete { key: key.clone() });
                }
                Write::Delete(_) => {}
            }
        }
        if !changes.is_empty() {
            self.revision = next;
            self.happened.push((next, changes));
        }
        Ok(Revision(self.revision))
    }

    fn transaction(&self, parts: &[Part]) -> Option<Transaction> {
        let mut draft = Draft::new();
        for part in parts {
            let key = key(KEYS[part.key]);
            let truth = self.rows.get(&key).map_or(0, |row| row.0);
            match part.require {
                Require::Nothing => {}
                Require::Truth => {
                    draft.require(&key, Revision(truth));
                }
                Require::Falsehood => {
                    draft.require(&key, Revision(truth + 1));
                }
            }
            match part.write {
                None => {}
                Some(None) => {
                    draft.delete(&key);
                }
                Some(Some(value)) => {
                    draft.put(&key, vec![value]);
                }
            }
        }
        // A key twice is refused: not what this is about.
        draft.finish().ok()
    }

    fn seen_below(&self, prefix: &Prefix, after: u64) -> Vec<WatchItem> {
        let later = self.happened.iter().filter(|(revision, _)| *revision > after);
        let below = later.map(|(revision, changes)| {
            let changes: Vec<_> = changes.iter().filter(|change| prefix.has(change.key())).cloned().collect();
            WatchItem::Changes { revision: Revision(*revision), changes }
        });
        below
            .filter(|item| !matches!(item, WatchItem::Changes { changes, .. } if changes.is_empty()))
            .collect()
    }
}

async fn agree(engine: impl Engine, script: Vec<Vec<Part>>) {
    let store = engine.store();
    let mut model = Model::default();
    let mut watches = PREFIXES.map(|below| store.watch(&prefix(below), Revision::ABSENT));
    for parts in script {
        let Some(transaction) = model.transaction(&parts) else { continue };
        assert_eq!(store.commit(transaction.clone()).await, model.commit(&transaction));
    }
    assert_eq!(store.revision().await, Ok(Revision(model.revision)));
    for name in KEYS {
        let found =
            store.get(&key(name)).await.unwrap().map(|entry| (entry.revision.0, entry.value.to_vec()));
        assert_eq!(found, model.rows.get(&key(name)).cloned());
    }
    for (below, watch) in PREFIXES.iter().zip(&mut watches) {
        let below = prefix(below);
        let listing = store.list(&below, None, 100).await.unwrap();
        let listed: Vec<_> = listing
            .entries
            .into_iter()
            .map(|entry| (entry.key, (entry.revision.0, entry.value.to_vec())))
            .collect();
        let expected: Vec<_> = model
            .rows
            .iter()
            .filter(|(key, _)| below.has(key))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        assert_eq!(listed, expected);
        for expected in model.seen_below(&below, 0) {
            assert_eq!(watch.next().await, Some(expected));
        }
        // From the middle, too.
        let middle = model.revision / 2;
        let mut late = store.watch(&below, Revision(middle));
        for expected in model.seen_below(&below, middle) {
            assert_eq!(late.next().await, Some(expected));
        }
    }
    // Nothing comes that did not happen.
    drop((store, engine));
    for watch in &mut watches {
        assert_eq!(watch.next().await, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn memory(script in transactions()) {
        run(agree(InMemory::start(10_000), script));
    }
}

proptest! {
    // Each needs a file and its fsyncs.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn redb(script in transactions()) {
        run(agree(OnDisk::start(10_000), script));
    }
}
