//! What the switch must know after a restart: one file, `state.redb`, with the document and the directory.
//!
//! A change is on disk before it is acknowledged, and only the difference to what is there is written, in one durable
//! transaction. A file that cannot be trusted is never repaired in silence and never overwritten: opening it fails with
//! a sentence that names it, and [`set_aside`] is the operator's explicit way to start empty. Never here: devices,
//! validation of documents, anything that a packet waits for.

mod directory;
mod error;
mod rows;
mod trial;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

pub use error::StateError;
use rows::{Block, BlockKey, MappingKey, MappingValue, Ordered};
use trial::Trial;

use crate::desired::{HostConfig, NetworkConfig, PortConfig};
use crate::types::{CustomerIp, Generation, MacAddr, PhysicalIp, Vni};

/// The file's name inside of `state_dir`.
pub const FILE_NAME: &str = "state.redb";
const LOCK_NAME: &str = "lock";
/// Grows when the tables below change their meaning.
const SCHEMA: u64 = 2;
/// Had a row for each entry of the directory; read once, and written anew.
const SCHEMA_OF_ROWS: u64 = 1;
/// Pages kept in memory. The directory is read once, at start; afterwards only what changes is touched.
const CACHE_BYTES: usize = 16 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// VNI → (place in the document, JSON).
const NETWORKS: TableDefinition<'_, u32, (u64, &[u8])> = TableDefinition::new("networks");
/// Name → (place in the document, JSON).
const PORTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("ports");
/// Entries whose addresses differ in the last byte only stand in one row: an import of neighbours writes a hundredth of the rows.
const DIRECTORY: TableDefinition<'_, &BlockKey, &[u8]> = TableDefinition::new("directory_blocks");
const DIRECTORY_OF_ROWS: TableDefinition<'_, &MappingKey, &MappingValue> = TableDefinition::new("directory");
const META_SCHEMA: &str = "schema";
const META_GENERATION: &str = "generation";

/// One entry of the directory: in this network, packets for this customer address go to that host and that NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The virtual network.
    pub network: Vni,
    /// The guest's address.
    pub ip: CustomerIp,
    /// The guest's MAC address.
    pub mac: MacAddr,
    /// The host that it is on.
    pub physical_ip: PhysicalIp,
}

/// The open state file. Holds the lock on its directory for as long as it lives.
///
/// Any thread may call any method: writers wait for each other, readers for nobody.
#[derive(Debug)]
pub struct State {
    database: Database,
    file: PathBuf,
    saved: Mutex<Saved>,
    _lock: File,
}

/// The document as it stands in the file, so that a change can be written as a difference.
#[derive(Debug, Default)]
struct Saved {
    document: HostConfig,
    networks: Vec<u64>,
    ports: Vec<u64>,
}

impl State {
    /// Opens the state in `dir`, making the directory and an empty state where there is none.
    ///
    /// # Errors
    /// When another switch uses the directory, the file cannot be opened, or its content cannot be trusted. The file is
    /// then left byte for byte as it is.
    pub fn open(dir: &Path) -> Result<(Self, HostConfig), StateError> {
        Self::open_showing(dir, |_| {})
    }

    /// Opens the state as [`State::open`] does, and shows every entry of the directory once, in order. What was shown counts
    /// for nothing when the file is refused in the end.
    ///
    /// # Errors
    /// Those of [`State::open`].
    pub fn open_showing(dir: &Path, mut see: impl FnMut(Mapping)) -> Result<(Self, HostConfig), StateError> {
        let lock = lock(dir)?;
        let file = dir.join(FILE_NAME);
        if !file.try_exists().map_err(|source| StateError::Open { file: file.clone(), source })? {
            create(dir, &file)?;
        }
        // The database verifies checksums, but promises no more than "may panic" for a file that somebody else wrote.
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<_, StateError> {
            let trial = Trial::open(&file).map_err(|error| error::opening(&file, error))?;
            let database = Builder::new()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(true)
                .create_with_backend(trial.clone())
                .map_err(|error| error::opening(&file, error))?;
            let (saved, outdated) = load(&database, &file, &mut see)?;
            trial.accept().map_err(|source| error::writing(&file, source.into()))?;
            if let Some(mappings) = outdated {
                bring_up_to_date(&database, &file, &mappings)?;
            }
            Ok((database, saved))
        }));
        let (database, saved) = opened.map_err(|_| StateError::Corrupt {
            file: file.clone(),
            detail: "its structure contradicts itself".into(),
        })??;
        let document = saved.document.clone();
        Ok((Self { database, file, saved: Mutex::new(saved), _lock: lock }, document))
    }

    /// Makes `document` the one that the next start begins with. Writes what differs from the last one.
    ///
    /// # Errors
    /// When the disk refuses; the file then still holds the last document.
    pub fn save(&self, document: &HostConfig) -> Result<(), StateError> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let networks =
            rows::difference(&saved.document.networks, &saved.networks, &document.networks, |n| n.vni);
        let ports =
            rows::difference(&saved.document.ports, &saved.ports, &document.ports, |p| p.name.clone());
        self.write(|transaction| {
            transaction.open_table(META)?.insert(META_GENERATION, document.generation.0)?;
            let mut table = transaction.open_table(NETWORKS)?;
            for vni in &networks.gone {
                table.remove(vni.value())?;
            }
            for (order, network) in &networks.put {
                table.insert(network.vni.value(), (*order, rows::json(network.as_ref())?.as_slice()))?;
            }
            let mut table = transaction.open_table(PORTS)?;
            for name in &ports.gone {
                table.remove(name.as_str())?;
            }
            for (order, port) in &ports.put {
                table.insert(port.name.as_str(), (*order, rows::json(port.as_ref())?.as_slice()))?;
            }
            Ok(())
        })?;
        *saved = Saved { document: document.clone(), networks: networks.orders, ports: ports.orders };
        Ok(())
    }

    /// Adds or replaces entries of the directory, all of them or none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set_mappings(&self, mappings: &[Mapping]) -> Result<(), StateError> {
        self.write(|transaction| directory::set_mappings(transaction, mappings))
    }

    /// Removes entries of the directory, all of them or none, and says how many were there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_mappings(&self, keys: &[(Vni, CustomerIp)]) -> Result<usize, StateError> {
        let mut removed = 0;
        self.write(|transaction| {
            let mut table = transaction.open_table(DIRECTORY)?;
            let mut bytes = Vec::new();
            for &(network, ip) in keys {
                let (key, last) = rows::key(network, ip);
                let found = table.get(&key)?.map(|row| Block::parse(row.value()));
                let Some(found) = found else { continue };
                let mut block = found.map_err(redb::Error::Corrupted)?;
                if !block.remove(last) {
                    continue;
                }
                removed += 1;
                if block.is_empty() {
                    table.remove(&key)?;
                } else {
                    block.to_bytes(&mut bytes);
                    table.insert(&key, bytes.as_slice())?;
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// Up to `limit` entries of the directory in the order of (network, family, address): those of one network or of
    /// all, beginning behind `after`.
    ///
    /// # Errors
    /// When the disk or a row cannot be read.
    pub fn mappings(
        &self,
        network: Option<Vni>,
        after: Option<(Vni, CustomerIp)>,
        limit: usize,
    ) -> Result<Vec<Mapping>, StateError> {
        let mut found = Vec::new();
        if limit > 0 {
            directory::walk(&self.database, &self.file, network, after, |mapping| {
                found.push(mapping);
                found.len() < limit
            })?;
        }
        Ok(found)
    }

    fn write(
        &self,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StateError> {
        let failed = |error: redb::Error| error::writing(&self.file, error);
        let transaction = self.database.begin_write().map_err(|error| failed(error.into()))?;
        // Dropped without a commit, a transaction leaves nothing behind.
        fill(&transaction).map_err(failed)?;
        transaction.commit().map_err(|error| failed(error.into()))
    }
}

/// Writes the directory of a file of the schema before this one anew, in one transaction.
fn bring_up_to_date(database: &Database, file: &Path, mappings: &[Mapping]) -> Result<(), StateError> {
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        directory::set_mappings(&transaction, mappings)?;
        transaction.delete_table(DIRECTORY_OF_ROWS)?;
        transaction.open_table(META)?.insert(META_SCHEMA, SCHEMA)?;
        Ok(transaction.commit()?)
    };
    write().map_err(|error| error::writing(file, error))
}

/// Moves the state file of `dir` out of the way, so that the next start begins empty, and says where it went; `None`
/// when there is none.
///
/// # Errors
/// When a switch uses the directory, or the file cannot be renamed.
pub fn set_aside(dir: &Path) -> Result<Option<PathBuf>, StateError> {
    let _lock = lock(dir)?;
    let file = dir.join(FILE_NAME);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let free =
        (now..).map(|seconds| dir.join(format!("{FILE_NAME}.discarded-{seconds}"))).find(|to| !to.exists());
    let Some(to) = free else { return Ok(None) };
    match fs::rename(&file, &to) {
        Ok(()) => Ok(Some(to)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Open { file, source }),
    }
}

fn lock(dir: &Path) -> Result<File, StateError> {
    let failed = |source| StateError::Dir { dir: dir.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let path = dir.join(LOCK_NAME);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who holds the lock is a courtesy: without it the sentence is shorter.
            let _ = file.take(32).read_to_string(&mut holder);
            return Err(StateError::Locked { dir: dir.into(), holder: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// The right to use a state directory, held until it is dropped. [`State::open`] takes it for itself: this is for what
/// has to be done before.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "its lock is what it is for")] File);

impl Claim {
    /// Makes the directory if there is none, and claims it.
    ///
    /// # Errors
    /// When another switch uses the directory, or it cannot be used.
    pub fn to(dir: &Path) -> Result<Self, StateError> {
        lock(dir).map(Self)
    }
}

/// Makes an empty state under another name first: a file called `state.redb` is always whole.
fn create(dir: &Path, file: &Path) -> Result<(), StateError> {
    let fresh = dir.join(format!("{FILE_NAME}.new"));
    let written = (|| -> Result<(), redb::Error> {
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let database = Builder::new().create(&fresh)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_SCHEMA, SCHEMA)?;
            meta.insert(META_GENERATION, 0)?;
            transaction.open_table(NETWORKS)?;
            transaction.open_table(PORTS)?;
            transaction.open_table(DIRECTORY)?;
        }
        transaction.commit()?;
        database.close()?;
        fs::rename(&fresh, file)?;
        File::open(dir)?.sync_all()?;
        Ok(())
    })();
    written.map_err(|error| error::writing(file, error))
}

/// Reads the document and shows the directory; of a file of the schema before this one also the directory, to be written
/// anew.
fn load(
    database: &Database,
    file: &Path,
    see: &mut impl FnMut(Mapping),
) -> Result<(Saved, Option<Vec<Mapping>>), StateError> {
    let failed = |error: redb::Error| error::reading(file, error);
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let meta = transaction.open_table(META).map_err(|error| failed(error.into()))?;
    let number = |key: &'static str| -> Result<u64, StateError> {
        let found = meta.get(key).map_err(|error| failed(error.into()))?;
        found
            .map(|value| value.value())
            .ok_or_else(|| StateError::Corrupt { file: file.into(), detail: format!("its {key} is missing") })
    };
    let schema = number(META_SCHEMA)?;
    if !matches!(schema, SCHEMA | SCHEMA_OF_ROWS) {
        return Err(StateError::Schema { file: file.into(), found: schema, known: SCHEMA });
    }
    let generation = Generation(number(META_GENERATION)?);

    let table = transaction.open_table(NETWORKS).map_err(|error| failed(error.into()))?;
    let mut networks = Ordered::<NetworkConfig>::new();
    for row in table.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        let (order, json) = value.value();
        let has_its_key = |network: &NetworkConfig| network.vni.value() == key.value();
        networks.push(order, json, has_its_key).map_err(|row| error::bad_row(file, row))?;
    }
    let table = transaction.open_table(PORTS).map_err(|error| failed(error.into()))?;
    let mut ports = Ordered::<PortConfig>::new();
    for row in table.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        let (order, json) = value.value();
        let has_its_key = |port: &PortConfig| port.name.as_str() == key.value();
        ports.push(order, json, has_its_key).map_err(|row| error::bad_row(file, row))?;
    }
    let (network_orders, networks) = networks.sorted();
    let (port_orders, ports) = ports.sorted();
    let document = HostConfig { generation, networks, ports };
    let saved = Saved { document, networks: network_orders, ports: port_orders };
    if schema == SCHEMA {
        directory::walk(database, file, None, None, |mapping| {
            see(mapping);
            true
        })?;
        return Ok((saved, None));
    }
    let table = transaction.open_table(DIRECTORY_OF_ROWS).map_err(|error| failed(error.into()))?;
    let mut mappings = Vec::new();
    for row in table.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        let mapping = rows::mapping(key.value(), value.value()).map_err(|row| error::bad_row(file, row))?;
        mappings.push(mapping);
        see(mapping);
    }
    Ok((saved, Some(mappings)))
}

#[cfg(test)]
mod tests;
