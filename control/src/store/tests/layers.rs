//! Rows and leases on top of a store.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lease::{self, Acquired, Lease};
use super::rows::{self, Row, RowError};
use super::*;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pet {
    name: String,
    legs: u32,
}

impl Row for Pet {
    const KIND: &'static str = "pet";
    const SCHEMA: u32 = 3;

    /// Schema 1 had no legs; schema 2 called them feet.
    fn migrate(from: u32, mut value: Value) -> Result<Value, String> {
        let fields = value.as_object_mut().ok_or("no object")?;
        match from {
            1 => drop(fields.insert("feet".into(), 4.into())),
            2 => {
                let feet = fields.remove("feet").ok_or("no feet")?;
                fields.insert("legs".into(), feet);
            }
            _ => return Err(format!("there was no schema {from}")),
        }
        Ok(value)
    }
}

fn pet(name: &str) -> Pet {
    Pet { name: name.into(), legs: 4 }
}

async fn raw(store: &dyn Store, key: &Key, value: &Value) {
    store.commit(draft(|draft| draft.put(key, value.to_string()))).await.unwrap();
}

#[test]
fn rows_carry_their_schema_and_are_compared() {
    run(async {
        let store = MemoryStore::new();
        let rex = key("pet/rex");
        let mut draft = Draft::new();
        draft.create(&rex, &pet("Rex"));
        assert_eq!(draft.commit(&store).await, Ok(Revision(1)));
        let value: Value = serde_json::from_slice(&store.get(&rex).await.unwrap().unwrap().value).unwrap();
        assert_eq!(value, json!({"schema": 3, "name": "Rex", "legs": 4}));
        let read = rows::load::<Pet>(&store, &rex).await.unwrap().unwrap();
        assert_eq!((&read.row, read.revision), (&pet("Rex"), Revision(1)));
        let mut draft = Draft::new();
        draft.create(&rex, &pet("Max"));
        assert!(draft.commit(&store).await.unwrap_err().is_conflict());
        let mut first = Draft::new();
        first.replace(&read, &pet("Max"));
        first.commit(&store).await.unwrap();
        let mut late = Draft::new();
        late.remove(&read);
        assert!(late.commit(&store).await.unwrap_err().is_conflict());
        let updated =
            rows::update(&store, &rex, |pet: &Pet| Some(Pet { legs: 3, ..pet.clone() })).await.unwrap();
        assert_eq!(updated.unwrap().row, Pet { name: "Max".into(), legs: 3 });
        assert_eq!(rows::update(&store, &key("pet/none"), |_: &Pet| None).await, Ok(None));
    });
}

#[test]
fn many_updates_of_one_row_all_count() {
    run(async {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let rex = key("pet/rex");
        let mut draft = Draft::new();
        draft.create(&rex, &Pet { name: "Rex".into(), legs: 0 });
        draft.commit(&*store).await.unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (store, rex) = (store.clone(), rex.clone());
                tokio::spawn(async move {
                    let more = |pet: &Pet| Some(Pet { legs: pet.legs + 1, ..pet.clone() });
                    rows::update(&*store, &rex, more).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(rows::load::<Pet>(&*store, &rex).await.unwrap().unwrap().row.legs, 16);
    });
}

#[test]
fn older_rows_are_migrated_and_newer_ones_refused() {
    run(async {
        let store = MemoryStore::new();
        let (one, two, four) = (key("pet/one"), key("pet/two"), key("pet/four"));
        raw(&store, &one, &json!({"schema": 1, "name": "One"})).await;
        raw(&store, &two, &json!({"schema": 2, "name": "Two", "feet": 2})).await;
        let all = Prefix::of(["pet"]).unwrap();
        let snapshot = rows::list_all::<Pet>(&store, &all).await.unwrap();
        assert_eq!(snapshot.rows.iter().map(|pet| pet.row.legs).collect::<Vec<_>>(), [4, 2]);
        // Reading wrote nothing; bringing up to date does, once.
        assert_eq!(store.revision().await, Ok(Revision(2)));
        assert_eq!(rows::bring_up_to_date::<Pet>(&store, &all).await, Ok(2));
        assert_eq!(rows::bring_up_to_date::<Pet>(&store, &all).await, Ok(0));
        let value: Value = serde_json::from_slice(&store.get(&two).await.unwrap().unwrap().value).unwrap();
        assert_eq!(value, json!({"schema": 3, "name": "Two", "legs": 2}));

        raw(&store, &four, &json!({"schema": 4, "name": "Four", "wings": 2})).await;
        let refused = rows::load::<Pet>(&store, &four).await.unwrap_err();
        assert_eq!(refused, RowError::NewerSchema { key: four.clone(), found: 4, known: 3 });
        assert!(refused.to_string().contains("`pet/four` has schema 4"), "{refused}");
        for bad in [
            json!({"name": "x"}),
            json!([1]),
            json!({"schema": 3, "name": "x"}),
            json!({"schema": 0, "name": "x"}),
            json!({"schema": -1}),
        ] {
            raw(&store, &four, &bad).await;
            let refused = rows::load::<Pet>(&store, &four).await.unwrap_err();
            assert!(matches!(refused, RowError::Unreadable { kind: "pet", .. }), "{bad}: {refused}");
        }
    });
}

#[test]
fn a_row_belongs_under_its_kind() {
    run(async {
        let store = MemoryStore::new();
        let mut draft = Draft::new();
        draft.create(&key("petrol/1"), &pet("Rex"));
        assert!(matches!(draft.finish(), Err(DraftError::Row { .. })));
        raw(&store, &key("vm/1"), &json!({"schema": 3, "name": "x", "legs": 1})).await;
        assert!(matches!(rows::load::<Pet>(&store, &key("vm/1")).await, Err(RowError::Unreadable { .. })));
    });
}

#[test]
fn a_list_of_several_pages_is_whole() {
    run(async {
        let store = MemoryStore::new();
        for first in (0..2500).step_by(100) {
            let mut draft = Draft::new();
            for number in first..first + 100 {
                draft.create(&key(&format!("pet/{number:05}")), &pet("x"));
            }
            draft.commit(&store).await.unwrap();
        }
        let snapshot = rows::list_all::<Pet>(&store, &Prefix::of(["pet"]).unwrap()).await.unwrap();
        assert_eq!((snapshot.rows.len(), snapshot.revision), (2500, Revision(25)));
    });
}

const TTL: Duration = Duration::from_secs(10);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

async fn held(store: &dyn Store, holder: &str, now: Timestamp) -> Option<Lease> {
    match lease::acquire(store, "reconcile", holder, now, TTL).await.unwrap() {
        Acquired::Held(lease) => Some(lease),
        Acquired::Taken { .. } => None,
    }
}

#[test]
fn a_lease_has_one_holder() {
    run(async {
        let store = MemoryStore::new();
        let a = held(&store, "a", at(0)).await.unwrap();
        assert_eq!((a.term(), a.until()), (1, at(10)));
        let taken = lease::acquire(&store, "reconcile", "b", at(9), TTL).await.unwrap();
        assert_eq!(taken, Acquired::Taken { holder: "a".into(), until: at(10) });
        let a = lease::renew(&store, &a, at(5), TTL).await.unwrap().unwrap();
        assert_eq!(a.until(), at(15));
        assert!(held(&store, "b", at(14)).await.is_none());
        let b = held(&store, "b", at(15)).await.unwrap();
        assert_eq!(b.term(), 2);
        // Too late for the first.
        assert_eq!(lease::renew(&store, &a, at(16), TTL).await, Ok(None));
        lease::release(&store, &a).await.unwrap();
        assert!(held(&store, "a", at(16)).await.is_none());
        lease::release(&store, &b).await.unwrap();
        assert_eq!(held(&store, "a", at(16)).await.unwrap().term(), 3);
    });
}

#[test]
fn who_lost_the_lease_writes_nothing_under_it() {
    run(async {
        let store = MemoryStore::new();
        let row = key("row");
        let write = async |lease: &Lease| {
            let mut draft = Draft::new();
            lease.guard(&mut draft);
            draft.put(&row, "x");
            store.commit(draft.finish().unwrap()).await
        };
        let a = held(&store, "a", at(0)).await.unwrap();
        // Renewing is nothing that a write under way notices.
        lease::renew(&store, &a, at(5), TTL).await.unwrap().unwrap();
        assert!(write(&a).await.is_ok());
        let b = held(&store, "b", at(100)).await.unwrap();
        assert!(write(&a).await.unwrap_err().is_conflict());
        assert!(write(&b).await.is_ok());
        lease::release(&store, &b).await.unwrap();
        assert!(write(&b).await.unwrap_err().is_conflict());
    });
}

#[test]
fn one_of_many_gets_an_expired_lease() {
    run(async {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        held(&*store, "old", at(0)).await.unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move { held(&*store, &format!("new-{task}"), at(10)).await.is_some() })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            won += u32::from(task.await.unwrap());
        }
        assert_eq!(won, 1);
    });
}
