use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::desired::{NetworkConfig, PortConfig, Subnet};

fn network(vni: u32) -> Arc<NetworkConfig> {
    let subnet = Subnet::with_first_gateway("10.0.0.0/24".parse().unwrap());
    Arc::new(NetworkConfig {
        vni: Vni::new(vni).unwrap(),
        subnets: vec![subnet],
        dns: vec![],
        domain: None,
        mtu: None,
        lease_seconds: 60,
        routes: vec![],
    })
}

fn port(number: u8, vni: u32) -> Arc<PortConfig> {
    let json = format!(
        r#"{{"name":"p{number}","network":{vni},"mac":"02:00:00:00:00:{number:02x}","ips":["10.0.0.{number}"]}}"#
    );
    Arc::new(serde_json::from_str(&json).unwrap())
}

fn document(generation: u64, ports: &[(u8, u32)]) -> HostConfig {
    HostConfig {
        generation: Generation(generation),
        networks: vec![network(200), network(100)],
        ports: ports.iter().map(|&(number, vni)| port(number, vni)).collect(),
    }
}

fn mapping(vni: u32, ip: &str, mac: u8) -> Mapping {
    Mapping {
        network: Vni::new(vni).unwrap(),
        ip: ip.parse().unwrap(),
        mac: MacAddr([2, 0, 0, 0, 0, mac]),
        physical_ip: "2001:db8::7".parse().unwrap(),
    }
}

fn all(state: &State) -> Vec<Mapping> {
    state.mappings(None, None, usize::MAX).unwrap()
}

#[test]
fn a_restart_finds_the_document_in_its_order_and_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mappings = [mapping(1, "10.0.0.2", 1), mapping(1, "fd00::2", 2), mapping(2, "10.0.0.1", 3)];
    let last = document(3, &[(9, 200), (3, 100), (5, 100)]);
    {
        let (state, empty) = State::open(dir.path()).unwrap();
        assert_eq!(empty, HostConfig::default());
        state.save(&document(1, &[(3, 100), (9, 100)])).unwrap();
        state.save(&last).unwrap();
        state.set_mappings(&mappings).unwrap();
        state.set_mappings(&[mapping(2, "10.0.0.9", 4)]).unwrap();
        let gone = (Vni::new(2).unwrap(), "10.0.0.9".parse().unwrap());
        assert_eq!(state.remove_mappings(&[gone]).unwrap(), 1);
        assert_eq!(state.remove_mappings(&[gone]).unwrap(), 0);
    }
    let mut seen = Vec::new();
    let (state, found) = State::open_showing(dir.path(), |mapping| seen.push(mapping)).unwrap();
    assert_eq!(found, last);
    assert_eq!((all(&state), seen), (mappings.to_vec(), mappings.to_vec()));
}

#[test]
fn the_directory_is_read_in_pages_of_one_network_or_all() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = State::open(dir.path()).unwrap();
    let mappings: Vec<_> =
        [(1, "10.0.0.2"), (1, "10.0.0.10"), (1, "fd00::1"), (2, "10.0.0.2"), (0xff_ffff, "10.0.0.2")]
            .map(|(vni, ip)| mapping(vni, ip, 1))
            .to_vec();
    state.set_mappings(&mappings).unwrap();
    for limit in 1..=6 {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = state.mappings(None, after, limit).unwrap();
            after = page.last().map(|last| (last.network, last.ip));
            pages.extend(page);
            if after.is_none() || pages.len() > mappings.len() {
                break;
            }
        }
        assert_eq!(pages, mappings, "limit {limit}");
    }
    let one = Vni::new(1).unwrap();
    let key = |m: &Mapping| Some((m.network, m.ip));
    assert_eq!(state.mappings(Some(one), None, 9).unwrap(), mappings[..3]);
    assert_eq!(state.mappings(Some(one), key(&mappings[0]), 9).unwrap(), mappings[1..3]);
    assert_eq!(state.mappings(Some(one), key(&mappings[3]), 9).unwrap(), []);
    assert_eq!(state.mappings(Some(mappings[3].network), key(&mappings[0]), 9).unwrap(), mappings[3..4]);
    assert_eq!(state.mappings(None, None, 0).unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_directory_on_disk_agrees_with_a_plain_map(
        ops in prop::collection::vec(prop::collection::vec((any::<bool>(), 1_u32..3, 0_u16..600, any::<bool>(), any::<u8>()), 0..40), 0..12)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = State::open(dir.path()).unwrap();
        let mut model = std::collections::BTreeMap::new();
        for together in ops {
            let (mut set, mut gone) = (Vec::new(), Vec::new());
            for (adds, vni, number, v6, mac) in together {
                let [high, low] = number.to_be_bytes();
                let ip = if v6 { format!("fd00::{number:x}") } else { format!("10.0.{high}.{low}") };
                let mapping = mapping(vni, &ip, mac);
                if adds { set.push(mapping) } else { gone.push((mapping.network, mapping.ip)) }
            }
            state.set_mappings(&set).unwrap();
            model.extend(set.into_iter().map(|mapping| ((mapping.network, mapping.ip), mapping)));
            let removed = gone.iter().filter(|key| model.remove(key).is_some()).count();
            prop_assert_eq!(state.remove_mappings(&gone).unwrap(), removed);
            prop_assert_eq!(all(&state), model.values().copied().collect::<Vec<_>>());
        }
    }
}

/// Opens a state that must be refused, and left byte for byte as it is.
fn refusal(dir: &Path) -> StateError {
    let file = dir.join(FILE_NAME);
    let before = fs::read(&file).unwrap();
    let error = State::open(dir).unwrap_err();
    assert!(fs::read(&file).unwrap() == before, "{error}: the refused file was changed");
    error
}

/// Rows go into the gap between two others together; those that are there already are added to.
#[test]
fn an_import_between_what_is_there_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = State::open(dir.path()).unwrap();
    let at = |third: usize, last: u8| mapping(7, &format!("10.0.{third}.{last}"), last);
    let (there, new): (Vec<_>, Vec<_>) = (
        (0..200).step_by(7).map(|third| at(third, 9)).collect(),
        (0..200).map(|third| at(third, 3)).collect(),
    );
    state.set_mappings(&there).unwrap();
    let backwards: Vec<_> = new.iter().rev().copied().collect();
    state.set_mappings(&backwards).unwrap();
    let mut both = [there, new].concat();
    both.sort_by_key(|mapping| mapping.ip);
    assert_eq!(all(&state), both);
}

#[test]
fn one_switch_per_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = State::open(dir.path()).unwrap();
    let error = State::open(dir.path()).unwrap_err();
    let pid = std::process::id();
    assert_eq!(error.to_string(), format!("another switch (process {pid}) uses this state directory"));
    assert_eq!(error.place(), dir.path().display().to_string());
    assert!(matches!(set_aside(dir.path()), Err(StateError::Locked { .. })));
    drop(first);
    State::open(dir.path()).unwrap();
}

#[test]
fn a_refused_file_stays_as_it_is_until_it_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    for content in [&b""[..], b"x", &[0x5a; 9000], b"redb\x1a\x0a\xa9\x0d\x0a and so on"] {
        fs::write(&file, content).unwrap();
        let error = refusal(dir.path());
        assert!(matches!(error, StateError::Corrupt { .. }), "{content:?}: {error:?}");
        assert_eq!(error.place(), file.display().to_string());
        assert!(error.remedy().contains("--discard-state"));
    }
    let aside = set_aside(dir.path()).unwrap().unwrap();
    assert!(aside.display().to_string().contains("state.redb.discarded-"));
    assert!(fs::read(aside).unwrap().starts_with(b"redb"));
    assert_eq!(set_aside(dir.path()).unwrap(), None);
    assert_eq!(State::open(dir.path()).unwrap().1, HostConfig::default());
}

#[test]
fn a_file_with_a_row_for_each_entry_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let mappings = [mapping(1, "10.0.0.2", 1), mapping(1, "10.0.1.2", 5), mapping(1, "fd00::2", 2)];
    drop(State::open(dir.path()).unwrap());
    {
        let database = Database::open(dir.path().join(FILE_NAME)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.delete_table(DIRECTORY).unwrap();
        transaction.open_table(META).unwrap().insert(META_SCHEMA, SCHEMA_OF_ROWS).unwrap();
        {
            let mut table = transaction.open_table(DIRECTORY_OF_ROWS).unwrap();
            // 2001:db8::7 is the host of `mapping`.
            let host = [6, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
            let ips: [&[u8]; 3] = [
                &[4, 10, 0, 0, 2],
                &[4, 10, 0, 1, 2],
                &[6, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            ];
            for (ip, mapping) in ips.into_iter().zip(&mappings) {
                let mut key = [0; 21];
                key[3] = 1;
                key[4..4 + ip.len()].copy_from_slice(ip);
                let mut value = [0; 23];
                value[..6].copy_from_slice(&mapping.mac.0);
                value[6..].copy_from_slice(&host);
                table.insert(&key, &value).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    let file = dir.path().join(FILE_NAME);
    let outdated = fs::read(&file).unwrap();
    for _ in 0..2 {
        let mut seen = Vec::new();
        let (state, _) = State::open_showing(dir.path(), |mapping| seen.push(mapping)).unwrap();
        assert_eq!((all(&state), seen), (mappings.to_vec(), mappings.to_vec()));
    }
    // It is written anew only if all of it can be read.
    fs::write(&file, outdated).unwrap();
    {
        let database = Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(DIRECTORY_OF_ROWS).unwrap().insert(&[0xff; 21], &[0; 23]).unwrap();
        transaction.commit().unwrap();
    }
    assert!(matches!(refusal(dir.path()), StateError::Corrupt { .. }));
}

#[test]
fn another_schema_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    drop(State::open(dir.path()).unwrap());
    let file = dir.path().join(FILE_NAME);
    let database = Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(META_SCHEMA, SCHEMA + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refusal(dir.path());
    assert_eq!(error.to_string(), "the state file has schema 3, and this switch knows schema 2");
}

#[test]
fn rows_that_are_no_values_are_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    drop(State::open(dir.path()).unwrap());
    let database = Database::open(dir.path().join(FILE_NAME)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(PORTS).unwrap().insert("p", (0, &b"{\"nam\":1}"[..])).unwrap();
    transaction.open_table(DIRECTORY).unwrap().insert(&[0; 20], &[0; 23][..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refusal(dir.path());
    assert!(
        matches!(&error, StateError::Corrupt { detail, .. } if detail.contains("unknown field `nam`")),
        "{error}"
    );
}

/// Such a row would come back after its network, port or entry was removed.
#[test]
fn a_row_under_another_key_than_its_own_is_corrupt() {
    let write = |fill: &dyn Fn(&redb::WriteTransaction)| {
        let dir = tempfile::tempdir().unwrap();
        drop(State::open(dir.path()).unwrap());
        let database = Database::open(dir.path().join(FILE_NAME)).unwrap();
        let transaction = database.begin_write().unwrap();
        fill(&transaction);
        transaction.commit().unwrap();
        dir
    };
    let json = rows::json(network(100).as_ref()).unwrap();
    let foreign = write(&|transaction| {
        transaction.open_table(NETWORKS).unwrap().insert(200, (0, json.as_slice())).unwrap();
    });
    let error = refusal(foreign.path());
    assert!(
        matches!(&error, StateError::Corrupt { detail, .. } if detail.contains("another key")),
        "{error}"
    );
    let json = rows::json(port(1, 100).as_ref()).unwrap();
    let foreign = write(&|transaction| {
        transaction.open_table(PORTS).unwrap().insert("p2", (0, json.as_slice())).unwrap();
    });
    let error = refusal(foreign.path());
    assert!(
        matches!(&error, StateError::Corrupt { detail, .. } if detail.contains("another key")),
        "{error}"
    );

    let entry = mapping(1, "10.0.0.2", 1);
    let (mut key, last) = rows::key(entry.network, entry.ip);
    key[19] = 1;
    let mut row = rows::Block::default();
    row.set(last, entry.mac, entry.physical_ip);
    let mut value = Vec::new();
    row.to_bytes(&mut value);
    let foreign = write(&|transaction| {
        transaction.open_table(DIRECTORY).unwrap().insert(&key, &value[..]).unwrap();
    });
    assert!(matches!(refusal(foreign.path()), StateError::Corrupt { .. }));
}

/// A state file of some size, closed properly, and the same as a killed switch leaves it.
fn files() -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    let (state, _) = State::open(dir.path()).unwrap();
    let ports: Vec<_> = (1..=100).map(|number| (number, 100)).collect();
    state.save(&document(1, &ports)).unwrap();
    let mappings: Vec<_> = (1..=200).map(|last| mapping(7, &format!("10.0.0.{last}"), last)).collect();
    state.set_mappings(&mappings).unwrap();
    state.save(&document(2, &ports[..99])).unwrap();
    let killed = fs::read(&file).unwrap();
    drop(state);
    (fs::read(file).unwrap(), killed)
}

fn closed_file() -> Vec<u8> {
    files().0
}

/// Opens a damaged file: it is either refused and left alone, or it says what was saved last.
fn judge(bytes: &[u8], damage: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    fs::write(&file, bytes).unwrap();
    match State::open(dir.path()) {
        Ok((state, document)) => {
            assert_eq!((document.generation.0, document.ports.len()), (2, 99), "{damage}");
            assert_eq!(all(&state).len(), 200, "{damage}");
            true
        }
        Err(error) => {
            assert!(matches!(error, StateError::Corrupt { .. }), "{damage}: {error:?}");
            assert!(fs::read(&file).unwrap() == bytes, "{damage}: the refused file was changed");
            false
        }
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let whole = closed_file();
    assert!(judge(&whole, "none"));
    for keep in [1, 8, 63, 64, 320, 4096, 8192, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        assert!(!judge(&whole[..keep], &format!("{keep} bytes left")));
    }
}

#[test]
fn flipped_bits_are_refused_or_harmless() {
    let whole = closed_file();
    // A fixed walk over the file: every run tries the same bits.
    let (mut at, mut refused) = (0, 0);
    for round in 0..300_usize {
        at = (at * 31 + 7919 * (round + 1)) % if round % 3 == 0 { 512 } else { whole.len() };
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        refused += usize::from(!judge(&bytes, &format!("bit {} of byte {at}", round % 8)));
    }
    assert!(refused > 10, "only {refused} of 300 were noticed: is the file checked at all?");
}

#[test]
fn what_a_killed_switch_left_is_repaired_or_stays_as_it_is() {
    let (closed, killed) = files();
    assert!(closed != killed, "a killed switch has not closed its file");
    assert!(judge(&killed, "killed"));
    let (mut at, mut refused) = (0, 0);
    for round in 0..300_usize {
        at = (at * 31 + 7919 * (round + 1)) % if round % 3 == 0 { 512 } else { killed.len() };
        let mut bytes = killed.clone();
        bytes[at] ^= 1 << (round % 8);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), &bytes).unwrap();
        // What a flip made of the last commit may pass for one that was cut short: then the one before counts.
        match State::open(dir.path()) {
            Ok((_, document)) => assert!(matches!(document.generation.0, 1 | 2)),
            Err(error) => {
                assert!(matches!(error, StateError::Corrupt { .. }), "{error:?}");
                assert!(
                    fs::read(dir.path().join(FILE_NAME)).unwrap() == bytes,
                    "bit {} of byte {at}",
                    round % 8
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "only {refused} of 300 were noticed: is the file checked at all?");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_the_changes_a_restart_finds_the_last_document(
        lists in prop::collection::vec(prop::collection::vec((1_u8..12, 1_u32..3), 0..10), 1..8)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut last = HostConfig::default();
        {
            let (state, _) = State::open(dir.path()).unwrap();
            for (generation, list) in lists.iter().enumerate() {
                let mut ports = Vec::new();
                for &(number, vni) in list {
                    if !ports.iter().any(|&(other, _)| other == number) {
                        ports.push((number, vni * 100));
                    }
                }
                last = document(generation as u64 + 1, &ports);
                state.save(&last).unwrap();
            }
        }
        prop_assert_eq!(State::open(dir.path()).unwrap().1, last);
    }
}

#[test]
fn one_changed_port_is_one_row() {
    let ports: Vec<_> = (1..=100).map(|number| port(number, 100)).collect();
    let orders: Vec<u64> = (0..100).collect();
    let name = |p: &PortConfig| p.name.clone();
    let mut moved = ports.clone();
    moved[40] = port(41, 200);
    let difference = rows::difference(&ports, &orders, &moved, name);
    assert_eq!((difference.put.len(), difference.gone.len()), (1, 0));
    assert_eq!(difference.orders, orders);
    let mut removed = ports.clone();
    removed.remove(40);
    let difference = rows::difference(&ports, &orders, &removed, name);
    assert_eq!((difference.put.len(), difference.gone.len()), (0, 1));
    let mut added = removed.clone();
    added.push(port(41, 100));
    let difference = rows::difference(&removed, &difference.orders, &added, name);
    assert_eq!((difference.put.len(), difference.gone.len()), (1, 0));
}
