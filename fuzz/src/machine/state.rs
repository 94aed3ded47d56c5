//! `state.redb`: a file whose bytes were changed, a file whose rows were, or a row of changes and restarts.
//!
//! The first byte chooses.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dataplane::desired::{HostConfig, NetworkConfig, PortConfig};
use dataplane::switch::{FILE_NAME, Mapping, State, StateError, set_aside};
use dataplane::types::{CustomerIp, Vni};
use redb::{Database, TableDefinition};
use serde_json::json;

use crate::dice::Dice;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const NETWORKS: TableDefinition<'_, u32, (u64, &[u8])> = TableDefinition::new("networks");
const PORTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("ports");
const DIRECTORY: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("directory_blocks");
/// What the switch writes.
const SCHEMA: u64 = 2;

type Directory = BTreeMap<(Vni, CustomerIp), Mapping>;

/// A file that was damaged is refused with a sentence that names it, and left as it is, until it is set aside, whole; or
/// it says what was saved last. A row that is no value of its type, or is not its key's, is such a damage. Whatever the
/// changes, a restart finds the last document and the directory.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    match dice.byte() % 8 {
        0..=3 => damaged_bytes(&mut dice),
        4 | 5 => foreign_rows(&mut dice),
        _ => changes(&mut dice),
    }
}

fn network(vni: u32, whim: u8) -> Arc<NetworkConfig> {
    let third = whim % 4;
    let value = json!({"vni": vni, "lease_seconds": 60 + u32::from(whim),
                       "subnets": [{"prefix": format!("10.0.{third}.0/24"), "gateway": format!("10.0.{third}.1")}]});
    serde_json::from_value(value).unwrap()
}

fn port(nth: u8, vni: u32, whim: u8) -> Arc<PortConfig> {
    let value = json!({"name": format!("p{nth}"), "network": vni, "mac": format!("02:00:00:00:00:{nth:02x}"),
                       "ips": [format!("10.0.{}.{nth}", whim % 4)]});
    serde_json::from_value(value).unwrap()
}

fn mapping(dice: &mut Dice<'_>) -> Mapping {
    let (vni, last) = (dice.pick(&[100_u32, 200, 0xff_ffff]), dice.byte());
    let ip = match last >> 5 {
        0 => format!("fd00::{last:x}"),
        1 => format!("::ffff:10.0.0.{last}"),
        _ => format!("10.0.0.{last}"),
    };
    let host = dice.pick(&["192.0.2.2", "192.0.2.3", "2001:db8::2"]);
    serde_json::from_value(json!({"network": vni, "ip": ip, "mac": "02:00:00:00:00:09", "physical_ip": host}))
        .unwrap()
}

fn any_document(dice: &mut Dice<'_>, generation: u64) -> HostConfig {
    let mut networks: Vec<_> = [100, 200, 300].map(|vni| network(vni, dice.byte())).to_vec();
    let turn = usize::from(dice.byte() % 3);
    networks.rotate_left(turn);
    networks.truncate(3 - usize::from(dice.rarely(4)));
    let mut ports: Vec<Arc<PortConfig>> = vec![];
    for _ in 0..dice.byte() % 12 {
        let nth = dice.byte() % 16;
        if ports.iter().all(|other| other.name.as_str() != format!("p{nth}")) {
            ports.push(port(nth, dice.pick(&[100, 200]), dice.byte()));
        }
    }
    HostConfig { generation: dataplane::types::Generation(generation), networks, ports }
}

fn all(state: &State) -> Vec<Mapping> {
    state.mappings(None, None, usize::MAX).expect("a file that was opened can be read")
}

/// A closed file and what it holds.
struct Kept {
    bytes: Vec<u8>,
    document: HostConfig,
    directory: Vec<Mapping>,
}

fn kept() -> Kept {
    let dir = super::scratch();
    let mut dice = Dice::new(&[
        3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7,
    ]);
    let (state, _) = State::open(dir.path()).unwrap();
    let (before, document) = (any_document(&mut dice, 1), any_document(&mut dice, 2));
    let mappings: Vec<_> = (0..60).map(|last| mapping(&mut Dice::new(&[last, last * 4, last]))).collect();
    state.save(&before).unwrap();
    state.set_mappings(&mappings).unwrap();
    state.save(&document).unwrap();
    let directory = all(&state);
    drop(state);
    Kept { bytes: fs::read(dir.path().join(FILE_NAME)).unwrap(), document, directory }
}

fn damaged_bytes(dice: &mut Dice<'_>) {
    thread_local! {
        static KEPT: Kept = kept();
    }
    KEPT.with(|kept| {
        let mut bytes = kept.bytes.clone();
        for _ in 0..=dice.byte() % 4 {
            let at = match dice.byte() % 4 {
                // The header, where most of what matters stands.
                0 | 1 => usize::from(dice.word()) % 512,
                _ => u32::from_be_bytes(dice.array()) as usize % bytes.len().max(1),
            };
            match dice.byte() % 8 {
                0 => bytes.truncate(at),
                1 => bytes.extend(vec![dice.byte(); at]),
                2 => {
                    let patch = dice.bytes(64);
                    let length = patch.len().min(bytes.len().saturating_sub(at));
                    bytes.splice(
                        at.min(bytes.len())..(at + length).min(bytes.len()),
                        patch[..length].iter().copied(),
                    );
                }
                3 => bytes.iter_mut().skip(at).take(4096).for_each(|byte| *byte = 0),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = dice.byte()),
            }
        }
        let dir = super::scratch();
        let file = dir.path().join(FILE_NAME);
        fs::write(&file, &bytes).unwrap();
        match State::open(dir.path()) {
            Ok((state, document)) => {
                assert_eq!(document, kept.document);
                assert_eq!(all(&state), kept.directory);
            }
            Err(error) => check_refusal(dir.path(), &error, |file| assert!(fs::read(file).unwrap() == bytes)),
        }
    });
}

/// It is named, was left alone, and can be set aside whole.
fn check_refusal(dir: &Path, error: &StateError, check_untouched: impl Fn(&Path)) {
    let file = dir.join(FILE_NAME);
    assert!(matches!(error, StateError::Corrupt { .. } | StateError::Schema { .. }), "{error:?}");
    assert_eq!(error.place(), file.display().to_string());
    assert!(!error.to_string().is_empty() && error.remedy().contains("--discard-state"));
    check_untouched(&file);
    let aside = set_aside(dir).expect("a file can be renamed").expect("there is a file");
    check_untouched(&aside);
    let (state, document) = State::open(dir).expect("an empty state can be made");
    assert_eq!((document, all(&state)), (HostConfig::default(), vec![]));
}

/// Rows that somebody else wrote into a good file.
fn foreign_rows(dice: &mut Dice<'_>) {
    let dir = super::scratch();
    let first = any_document(dice, 1);
    {
        let (state, _) = State::open(dir.path()).unwrap();
        state.save(&first).unwrap();
        state.set_mappings(&[mapping(dice), mapping(dice)]).unwrap();
    }
    let file = dir.path().join(FILE_NAME);
    // The last word counts: a wrong row may be written over with a right one, or go with its table.
    let mut rights = BTreeMap::new();
    let mut is_known = true;
    {
        let database = Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        for _ in 0..=dice.byte() % 3 {
            match dice.byte() % 8 {
                0 | 1 => {
                    let (key, order) =
                        (dice.pick(&[100_u32, 200, 400, 0]), u64::from(dice.byte()) << (dice.byte() % 64));
                    let mut row = serde_json::to_vec(&*network(dice.pick(&[100, 200, 400]), 0)).unwrap();
                    spoil(dice, &mut row);
                    let value = serde_json::from_slice::<NetworkConfig>(&row).ok();
                    let is_right = value.is_some_and(|network| network.vni.value() == key);
                    rights.insert(("network", key.to_string()), is_right);
                    let mut table = transaction.open_table(NETWORKS).unwrap();
                    table.insert(key, (order, &row[..])).unwrap();
                }
                2 | 3 => {
                    let (key, order) =
                        (dice.pick(&["p1", "p2", "p77", ""]), u64::from(dice.byte()) << (dice.byte() % 64));
                    let mut row = serde_json::to_vec(&*port(dice.pick(&[1, 2, 77]), 100, 0)).unwrap();
                    spoil(dice, &mut row);
                    let value = serde_json::from_slice::<PortConfig>(&row).ok();
                    let is_right = value.is_some_and(|port| port.name.as_str() == key);
                    rights.insert(("port", key.to_string()), is_right);
                    let mut table = transaction.open_table(PORTS).unwrap();
                    table.insert(key, (order, &row[..])).unwrap();
                }
                4 => {
                    let mut table = transaction.open_table(META).unwrap();
                    let key = dice.pick(&["schema", "generation", "other"]);
                    if dice.rarely(3) {
                        rights.insert(("meta", key.to_string()), key == "other");
                        table.remove(key).unwrap();
                    } else {
                        let value = u64::from(dice.byte());
                        rights.insert(("meta", key.to_string()), key != "schema" || value == SCHEMA);
                        table.insert(key, value).unwrap();
                    }
                }
                5 => {
                    if transaction.delete_table(dice.pick(&[PORTS, TableDefinition::new("zzz")])).unwrap() {
                        rights.retain(|(table, _), _| *table != "port");
                    }
                }
                _ => {
                    let mut key = [0; 20];
                    key[..4].copy_from_slice(&dice.pick(&[100_u32, 0, 0xff_ffff, 1 << 24]).to_be_bytes());
                    key[4] = dice.pick(&[4, 6, 0]);
                    key[5..5 + 5].copy_from_slice(&dice.array::<5>());
                    let mut value = vec![];
                    for _ in 0..=dice.byte() % 3 {
                        value.extend([dice.byte(), 2, 0, 0, 0, 0, 1, dice.pick(&[4, 6, 9])]);
                        value.resize(value.len() + dice.pick(&[4, 16, 5]), dice.byte());
                    }
                    // Nobody reads these a second time here: such a file may be refused, or be right to the last row.
                    is_known = false;
                    transaction.open_table(DIRECTORY).unwrap().insert(&key, &value[..]).unwrap();
                }
            }
        }
        rights.insert(("tables", String::new()), transaction.list_tables().unwrap().count() == 4);
        transaction.commit().unwrap();
    }
    let is_right = rights.values().all(|is_right| *is_right);
    let before = fs::read(&file).unwrap();
    match State::open(dir.path()) {
        Ok((state, document)) => {
            assert!(is_right, "accepted {document:?}");
            drop(document);
            check_directory(&state);
            // What is saved next is what a restart finds, foreign rows or not.
            let next = any_document(dice, 9);
            state.save(&next).unwrap();
            drop(state);
            assert_eq!(State::open(dir.path()).unwrap().1, next);
        }
        Err(error) => {
            assert!(!is_right || !is_known, "{error:?}");
            check_refusal(dir.path(), &error, |file| assert!(fs::read(file).unwrap() == before));
        }
    }
}

fn spoil(dice: &mut Dice<'_>, row: &mut Vec<u8>) {
    match dice.byte() % 4 {
        0 => {
            let at = usize::from(dice.byte()) % row.len();
            row[at] = dice.byte();
        }
        1 => row.truncate(usize::from(dice.byte())),
        _ => {}
    }
}

/// Every row is an entry that can be found and removed by its key.
fn check_directory(state: &State) {
    let mappings = all(state);
    let keys: Vec<_> = mappings.iter().map(|mapping| (mapping.network, mapping.ip)).collect();
    assert_eq!(state.remove_mappings(&keys).unwrap(), keys.len(), "{mappings:?}");
    assert_eq!(all(state), []);
}

fn changes(dice: &mut Dice<'_>) {
    let dir = super::scratch();
    let (mut state, mut document) = State::open(dir.path()).unwrap();
    let mut directory = Directory::new();
    for generation in 1..=12 {
        if dice.is_empty() {
            break;
        }
        match dice.byte() % 8 {
            0 | 1 => {
                let next = any_document(dice, generation);
                state.save(&next).unwrap();
                document = next;
            }
            2 => {
                // Most changes are small: one port of the same document, or its order.
                let mut next =
                    HostConfig { generation: dataplane::types::Generation(generation), ..document };
                let at = usize::from(dice.byte()) % (next.ports.len() + 1);
                match dice.byte() % 3 {
                    0 if at < next.ports.len() => drop(next.ports.remove(at)),
                    1 => next.ports.rotate_left(at),
                    _ => {
                        let new = port(dice.byte() % 16, 100, dice.byte());
                        next.ports.retain(|other| other.name != new.name);
                        next.ports.insert(at.min(next.ports.len()), new);
                    }
                }
                state.save(&next).unwrap();
                document = next;
            }
            3 | 4 => {
                let mappings: Vec<_> = (0..dice.byte() % 8).map(|_| mapping(dice)).collect();
                state.set_mappings(&mappings).unwrap();
                directory.extend(mappings.iter().map(|mapping| ((mapping.network, mapping.ip), *mapping)));
            }
            5 => {
                let keys: Vec<_> =
                    (0..dice.byte() % 4).map(|_| mapping(dice)).map(|it| (it.network, it.ip)).collect();
                let there = keys.iter().filter(|key| directory.remove(key).is_some()).count();
                assert_eq!(state.remove_mappings(&keys).unwrap(), there);
            }
            6 => {
                let (network, limit) =
                    (Some(mapping(dice).network).filter(|_| dice.rarely(2)), usize::from(dice.byte() % 9));
                let after = Some(mapping(dice)).filter(|_| dice.rarely(2)).map(|it| (it.network, it.ip));
                let page = state.mappings(network, after, limit).unwrap();
                let all = directory.values().filter(|it| network.is_none_or(|vni| vni == it.network));
                let all = all.filter(|it| after.is_none_or(|after| (it.network, it.ip) > after));
                assert!(page.iter().eq(all.take(limit)));
            }
            _ => {
                drop(state);
                let (again, found) = State::open(dir.path()).unwrap();
                assert_eq!(found, document);
                state = again;
            }
        }
    }
    drop(state);
    let (state, found) = State::open(dir.path()).unwrap();
    assert_eq!(found, document);
    assert!(all(&state).iter().eq(directory.values()));
}
