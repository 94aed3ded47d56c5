//! The suite: each case is run against each engine.

use super::*;

macro_rules! each_engine {
    ($($case:ident)*) => {
        mod memory { $(#[test] fn $case() { super::run(super::$case(<super::InMemory as super::Engine>::start(10_000))) })* }
        mod redb { $(#[test] fn $case() { super::run(super::$case(<super::OnDisk as super::Engine>::start(10_000))) })* }
    };
}

each_engine! {
    compares_decide
    what_is_not_written_may_be_compared
    what_changes_nothing_takes_no_revision
    all_or_nothing_among_64_tasks
    one_of_64_wins
    listings_have_pages_and_borders
    a_watch_shows_each_revision_once
    a_watch_ends_with_its_store
    a_watch_of_the_future_is_told_to_read_anew
    a_watch_goes_over_many_revisions_that_are_not_its_own
}

async fn compares_decide(engine: impl Engine) {
    let store = engine.store();
    let a = key("a/1");
    let create = || draft(|draft| draft.require_absent(&a).put(&a, "one"));
    assert_eq!(store.get(&a).await, Ok(None));
    assert_eq!(store.commit(create()).await, Ok(Revision(1)));
    let conflict = |revision| Err(CommitError::Conflict { key: a.clone(), revision });
    assert_eq!(store.commit(create()).await, conflict(Revision(1)));
    let replace = |at, value: &'static str| draft(|draft| draft.require(&a, Revision(at)).put(&a, value));
    assert_eq!(store.commit(replace(1, "two")).await, Ok(Revision(2)));
    assert_eq!(store.commit(replace(1, "three")).await, conflict(Revision(2)));
    let found = store.get(&a).await.unwrap().unwrap();
    assert_eq!((&*found.value, found.revision), (&b"two"[..], Revision(2)));
    assert_eq!(store.commit(draft(|draft| draft.require(&a, Revision(2)).delete(&a))).await, Ok(Revision(3)));
    assert_eq!(store.get(&a).await, Ok(None));
    assert_eq!(store.commit(replace(2, "four")).await, conflict(Revision::ABSENT));
    // Its revision does not begin anew.
    assert_eq!(store.commit(create()).await, Ok(Revision(4)));
    assert_eq!(store.revision().await, Ok(Revision(4)));
}

async fn what_is_not_written_may_be_compared(engine: impl Engine) {
    let store = engine.store();
    let (guard, row) = (key("guard"), key("row"));
    store.commit(draft(|draft| draft.put(&guard, "1"))).await.unwrap();
    let guarded = |at| draft(|draft| draft.require(&guard, Revision(at)).put(&row, "x"));
    assert_eq!(store.commit(guarded(1)).await, Ok(Revision(2)));
    store.commit(draft(|draft| draft.put(&guard, "2"))).await.unwrap();
    let conflict = CommitError::Conflict { key: guard.clone(), revision: Revision(3) };
    assert_eq!(store.commit(guarded(1)).await, Err(conflict));
    assert_eq!(store.get(&guard).await.unwrap().unwrap().revision, Revision(3));
    assert_eq!(store.get(&row).await.unwrap().unwrap().revision, Revision(2));
}

async fn what_changes_nothing_takes_no_revision(engine: impl Engine) {
    let store = engine.store();
    let (a, b) = (key("a"), key("b"));
    store.commit(draft(|draft| draft.put(&a, "1"))).await.unwrap();
    assert_eq!(store.commit(draft(|draft| draft.require(&a, Revision(1)))).await, Ok(Revision(1)));
    assert_eq!(store.commit(draft(|draft| draft.delete(&b))).await, Ok(Revision(1)));
    // The same value is a change all the same.
    assert_eq!(store.commit(draft(|draft| draft.put(&a, "1"))).await, Ok(Revision(2)));
    let mut watch = store.watch(&Prefix::all(), Revision::ABSENT);
    for expected in [1, 2] {
        let Some(WatchItem::Changes { revision, changes }) = watch.next().await else { panic!() };
        assert_eq!((revision.0, changes.len()), (expected, 1));
    }
}

/// Tasks move amounts between accounts; whoever looks sees the same sum.
async fn all_or_nothing_among_64_tasks(engine: impl Engine) {
    const ACCOUNTS: usize = 8;
    let store = engine.store();
    let account = |number: usize| key(&format!("account/{number}"));
    store
        .commit(draft(|draft| (0..ACCOUNTS).fold(draft, |draft, number| draft.put(&account(number), "100"))))
        .await
        .unwrap();
    let amount = |entry: &Entry| str::from_utf8(&entry.value).unwrap().parse::<i64>().unwrap();
    let movers: Vec<_> = (0..64)
        .map(|task: usize| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut moved = 0;
                while moved < 5 {
                    let (from, to) = (account(task % ACCOUNTS), account((task * 3 + moved + 1) % ACCOUNTS));
                    if from == to {
                        moved += 1;
                        continue;
                    }
                    let taken = store.get(&from).await.unwrap().unwrap();
                    let given = store.get(&to).await.unwrap().unwrap();
                    let transfer = draft(|draft| {
                        draft.require(&from, taken.revision).require(&to, given.revision);
                        draft.put(&from, (amount(&taken) - 1).to_string());
                        draft.put(&to, (amount(&given) + 1).to_string())
                    });
                    match store.commit(transfer).await {
                        Ok(_) => moved += 1,
                        Err(error) => assert!(error.is_conflict(), "{error}"),
                    }
                }
            })
        })
        .collect();
    let all = prefix("account/");
    while !movers.iter().all(tokio::task::JoinHandle::is_finished) {
        let listing = store.list(&all, None, 100).await.unwrap();
        assert_eq!(listing.entries.iter().map(amount).sum::<i64>(), 800);
        assert!(listing.entries.iter().all(|entry| entry.revision <= listing.revision));
        tokio::task::yield_now().await;
    }
    for mover in movers {
        mover.await.unwrap();
    }
    let listing = store.list(&all, None, 100).await.unwrap();
    assert_eq!(listing.entries.iter().map(amount).sum::<i64>(), 800);
}

async fn one_of_64_wins(engine: impl Engine) {
    let store = engine.store();
    let prize = key("prize");
    let tasks: Vec<_> = (0..64)
        .map(|task: u32| {
            let (store, prize) = (store.clone(), prize.clone());
            tokio::spawn(async move {
                let own = key(&format!("own/{task}"));
                let claim = draft(|draft| {
                    draft.require_absent(&prize).put(&prize, task.to_string()).put(&own, "won")
                });
                store.commit(claim).await.is_ok()
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
    assert_eq!(store.revision().await, Ok(Revision(1)));
    let owns = store.list(&prefix("own/"), None, 100).await.unwrap().entries;
    let [own] = &owns[..] else { panic!("{owns:?}") };
    let prize = store.get(&prize).await.unwrap().unwrap();
    assert_eq!(own.key.as_str(), format!("own/{}", str::from_utf8(&prize.value).unwrap()));
}

async fn listings_have_pages_and_borders(engine: impl Engine) {
    let store = engine.store();
    let names = ["a", "vm", "vm/a/1", "vm/a/2", "vm/a/3", "vm/ab/1", "vm/b/1", "vms/1"];
    for name in names {
        store.commit(draft(|draft| draft.put(&key(name), name))).await.unwrap();
    }
    let list = async |below: &str, after: Option<&str>, limit| {
        let listing = store.list(&prefix(below), after.map(key).as_ref(), limit).await.unwrap();
        assert_eq!(listing.revision, Revision(8));
        let keys: Vec<String> = listing.entries.iter().map(|entry| entry.key.to_string()).collect();
        (keys.join(" "), listing.more)
    };
    assert_eq!(list("vm/a/", None, 2).await, ("vm/a/1 vm/a/2".into(), true));
    assert_eq!(list("vm/a/", Some("vm/a/2"), 2).await, ("vm/a/3".into(), false));
    assert_eq!(list("vm/a/", None, 3).await, ("vm/a/1 vm/a/2 vm/a/3".into(), false));
    assert_eq!(list("vm/a/", Some("vm/a/3"), 3).await, (String::new(), false));
    // A place outside of the prefix: all of it, or none.
    assert_eq!(list("vm/a/", Some("a"), 9).await, ("vm/a/1 vm/a/2 vm/a/3".into(), false));
    assert_eq!(list("vm/a/", Some("vms/1"), 9).await, (String::new(), false));
    assert_eq!(list("vm/", None, 9).await.0, "vm/a/1 vm/a/2 vm/a/3 vm/ab/1 vm/b/1");
    assert_eq!(list("", None, 9).await.0, names.join(" "));
    assert_eq!(list("", None, 0).await, (String::new(), true));
    assert_eq!(list("nothing/", None, 9).await, (String::new(), false));
    // A listing is bounded whatever is asked for.
    for first in (0..1100).step_by(100) {
        let many = draft(|draft| {
            (first..first + 100).fold(draft, |draft, n| draft.put(&key(&format!("many/{n:05}")), ""))
        });
        store.commit(many).await.unwrap();
    }
    let page = store.list(&prefix("many/"), None, usize::MAX).await.unwrap();
    assert_eq!((page.entries.len(), page.more), (MAX_LISTING, true));
}

async fn a_watch_shows_each_revision_once(engine: impl Engine) {
    let store = engine.store();
    let (mine, other) = (key("mine/1"), key("other/1"));
    store.commit(draft(|draft| draft.put(&mine, "before"))).await.unwrap();
    let mut watch = store.watch(&prefix("mine/"), Revision(1));
    let waiting = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(watch.next().await.unwrap());
        }
        seen
    });
    store.commit(draft(|draft| draft.put(&other, "x").put(&mine, "one"))).await.unwrap();
    store.commit(draft(|draft| draft.put(&other, "y"))).await.unwrap();
    store.commit(draft(|draft| draft.delete(&mine))).await.unwrap();
    let two = key("mine/2");
    store.commit(draft(|draft| draft.put(&mine, "1").put(&two, "2"))).await.unwrap();
    let put = |key: &Key, value: &'static str, revision| {
        Change::Put(Entry { key: key.clone(), value: value.into(), revision: Revision(revision) })
    };
    let changes = |revision, changes| WatchItem::Changes { revision: Revision(revision), changes };
    let expected = [
        changes(2, vec![put(&mine, "one", 2)]),
        changes(4, vec![Change::Delete { key: mine.clone() }]),
        changes(5, vec![put(&mine, "1", 5), put(&two, "2", 5)]),
    ];
    assert_eq!(waiting.await.unwrap(), expected);
    // The past is the same for one who comes later.
    let mut late = store.watch(&prefix("mine/"), Revision(1));
    for item in expected {
        assert_eq!(late.next().await, Some(item));
    }
}

async fn a_watch_ends_with_its_store(engine: impl Engine) {
    let store = engine.store();
    store.commit(draft(|draft| draft.put(&key("a"), "1"))).await.unwrap();
    let mut watch = store.watch(&Prefix::all(), Revision::ABSENT);
    let waiting = tokio::spawn(async move {
        let first = watch.next().await;
        (first.is_some(), watch.next().await)
    });
    drop((store, engine));
    assert_eq!(waiting.await.unwrap(), (true, None));
}

async fn a_watch_of_the_future_is_told_to_read_anew(engine: impl Engine) {
    let store = engine.store();
    store.commit(draft(|draft| draft.put(&key("a"), "1"))).await.unwrap();
    let mut watch = store.watch(&Prefix::all(), Revision(7));
    assert_eq!(watch.next().await, Some(WatchItem::Compacted { resnapshot_from: Revision(1) }));
    assert_eq!(watch.next().await, None);
}

async fn a_watch_goes_over_many_revisions_that_are_not_its_own(engine: impl Engine) {
    let store = engine.store();
    let mut commits = Vec::new();
    for number in 0..600 {
        let store = store.clone();
        commits.push(tokio::spawn(async move {
            store.commit(draft(|draft| draft.put(&key("other/1"), number.to_string()))).await.unwrap();
        }));
    }
    for commit in commits {
        commit.await.unwrap();
    }
    store.commit(draft(|draft| draft.put(&key("mine/1"), ""))).await.unwrap();
    let mut watch = store.watch(&prefix("mine/"), Revision::ABSENT);
    let Some(WatchItem::Changes { revision, .. }) = watch.next().await else { panic!() };
    assert_eq!(revision, Revision(601));
}

mod compaction {
    use super::*;

    /// Old revisions go; a watcher that is behind is told, and nobody waits for it.
    async fn a_slow_watcher_is_told(engine: impl Engine) {
        let store = engine.store();
        let a = key("a");
        let put = async || store.commit(draft(|draft| draft.put(&a, "x"))).await.unwrap();
        put().await;
        let mut slow = store.watch(&Prefix::all(), Revision::ABSENT);
        let mut quick = store.watch(&Prefix::all(), Revision::ABSENT);
        for _ in 0..4 {
            put().await;
            assert!(matches!(quick.next().await, Some(WatchItem::Changes { .. })));
        }
        assert_eq!(slow.next().await, Some(WatchItem::Compacted { resnapshot_from: Revision(5) }));
        assert_eq!(slow.next().await, None);
        // From the border on, all is there.
        let mut watch = store.watch(&Prefix::all(), Revision(1));
        for expected in 2..=5 {
            let Some(WatchItem::Changes { revision, .. }) = watch.next().await else { panic!() };
            assert_eq!(revision, Revision(expected));
        }
    }

    #[test]
    fn memory() {
        run(a_slow_watcher_is_told(InMemory::start(4)));
    }

    #[test]
    fn redb() {
        run(a_slow_watcher_is_told(OnDisk::start(4)));
    }
}
