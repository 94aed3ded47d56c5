//! What this host was told to hold, on its disk: written before anything acts upon it, read when nobody is there to ask.
//!
//! A document older than the one that is held is refused, and so is one of the same generation with other content; the same
//! again is fine. The same holds for each machine. One transaction is one document: after a crash there is the old one or
//! the new one. Machines that are no longer wanted stay as *leaving* until nothing of them is left and the controller knows.
//! Never here: anything that acts.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::desired::NetworkConfig;
use dataplane::types::Vni;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::{Deserialize, Serialize};

pub use rules::Refusal;

use crate::fleet::DesiredChange;
use crate::model::{Problem, VmDesired, VmId};

const FILE: &str = "ledger.redb";
const CACHE_BYTES: usize = 8 << 20;
/// Grows when the tables below change their meaning.
const SCHEMA: u32 = 1;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const VMS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("vms");
const LEAVING: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("leaving");
/// VNI → (version, generation of the switch's document when it was reached).
const DIRECTORIES: TableDefinition<'_, u32, (u64, u64)> = TableDefinition::new("directories");
/// Machines that were started and not stopped since.
const STARTED: TableDefinition<'_, u128, ()> = TableDefinition::new("started");
const HEAD: &str = "head";

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Its directory cannot be made, or its file not put there.
    #[error("cannot {act}: {source}")]
    File {
        /// What was tried.
        act: &'static str,
        /// With what.
        file: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be opened: another agent has it, or it is damaged.
    #[error("cannot open the ledger: {source}")]
    Open {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A row is not what it should be.
    #[error("the ledger is damaged: {why}")]
    Garbled {
        /// What is wrong.
        why: String,
    },
    /// It was written by a later version.
    #[error("the ledger has schema {found}, this program knows {SCHEMA}")]
    Newer {
        /// Its schema.
        found: u32,
    },
    /// The disk refuses.
    #[error("cannot write the ledger: {source}")]
    Write {
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The document is refused; the ledger is as it was.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl LedgerError {
    /// What, where, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (place, remedy) = match self {
            Self::File { file, .. } => {
                (file.display().to_string(), "let the agent's user write there, and look at the disk's space")
            }
            Self::Open { file, .. } => (
                file.display().to_string(),
                "stop the other agent; if there is none, restore the file, or move it away and let the controller send all anew",
            ),
            Self::Garbled { .. } => {
                ("ledger".to_owned(), "move the file away and let the controller send all anew")
            }
            Self::Newer { .. } => ("ledger".to_owned(), "start the version of shunt that wrote it"),
            Self::Write { .. } => ("ledger".to_owned(), "look at the disk's space and health"),
            Self::Refused(refusal) => return refusal.problem(),
        };
        Problem::new(self.to_string(), place, remedy)
    }
}

/// What the ledger says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// The document's; none before the first one.
    pub generation: Option<u64>,
    /// All networks.
    pub networks: BTreeMap<Vni, Arc<NetworkConfig>>,
    /// All machines.
    pub vms: BTreeMap<VmId, Arc<VmDesired>>,
    /// Machines that are to go, as they were wanted last.
    pub leaving: BTreeMap<VmId, Arc<VmDesired>>,
    /// Networks that are no longer wanted and may still be on the switch.
    pub retired: BTreeSet<Vni>,
    /// Machines that were started and not stopped since: one of them that does not run has died.
    pub started: BTreeSet<VmId>,
    /// Versions of directories that the switch holds, each with the generation of the switch's document then.
    pub directories: BTreeMap<Vni, (u64, u64)>,
}

/// What a document changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Machines that are new or different.
    pub changed: Vec<Arc<VmDesired>>,
    /// Machines that are to go.
    pub leaving: Vec<VmId>,
    /// True when networks are new, different or gone.
    pub networks: bool,
}

/// The head of the document, one row.
#[derive(Serialize, Deserialize)]
struct Head {
    schema: u32,
    generation: Option<u64>,
    networks: Vec<Arc<NetworkConfig>>,
    #[serde(default)]
    retired: BTreeSet<Vni>,
}

/// The ledger. One agent per file.
#[derive(Debug)]
pub struct Ledger {
    database: Database,
    held: Mutex<Held>,
}

impl Ledger {
    /// Opens the ledger of a state directory; an empty one if there is none.
    ///
    /// # Errors
    /// When it cannot be had, is damaged or newer, or another agent has it. The file is then left as it is.
    pub fn open(directory: &Path) -> Result<Self, LedgerError> {
        let failed = |act, file: &Path| {
            let file = file.to_path_buf();
            move |source| LedgerError::File { act, file, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make the state directory", directory))?;
        let file = directory.join(FILE);
        let opening = |error: redb::DatabaseError| LedgerError::Open {
            file: file.clone(),
            source: Box::new(error.into()),
        };
        if !file.try_exists().map_err(failed("look for the ledger", &file))? {
            // Made whole under another name: half a file is never taken for a ledger.
            let fresh = directory.join("ledger.new");
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed("remove the file", &fresh)(error));
                }
                _ => {}
            }
            let database = Builder::new().create(&fresh).map_err(opening)?;
            write(&database, |transaction| put_head(transaction, &Held::default()))?;
            drop(database);
            // Documents have what owners want in their machines, keys and password hashes among it.
            let own = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&fresh, own).map_err(failed("set the mode of the file", &fresh))?;
            fs::rename(&fresh, &file).map_err(failed("rename the file", &fresh))?;
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(failed("write the directory to disk", directory))?;
        }
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .open(&file)
            .map_err(opening)?;
        Self::of(database)
    }

    fn of(database: Database) -> Result<Self, LedgerError> {
        let held = Mutex::new(load(&database)?);
        Ok(Self { database, held })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // It is replaced as a whole, after the disk has it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it says now.
    #[must_use]
    pub fn held(&self) -> Held {
        self.lock().clone()
    }

    /// A machine as it should be; none when it is not wanted.
    #[must_use]
    pub fn wanted(&self, vm: VmId) -> Option<Arc<VmDesired>> {
        self.lock().vms.get(&vm).cloned()
    }

    /// A network as it should be; none when it is not wanted.
    #[must_use]
    pub fn network(&self, vni: Vni) -> Option<Arc<NetworkConfig>> {
        self.lock().networks.get(&vni).cloned()
    }

    /// Whether a machine was started and not stopped since.
    #[must_use]
    pub fn was_started(&self, vm: VmId) -> bool {
        self.lock().started.contains(&vm)
    }

    /// The version of a network's directory that the switch holds.
    #[must_use]
    pub fn directory_version(&self, network: Vni) -> Option<u64> {
        self.lock().directories.get(&network).map(|(version, _)| *version)
    }

    /// Judges a document, and writes it down. Durable when this returns.
    ///
    /// # Errors
    /// `Refused`, `Write`; then nothing has changed.
    pub fn accept(&self, change: DesiredChange) -> Result<Accepted, LedgerError> {
        let mut held = self.lock();
        let (next, accepted) = rules::judge(&held, change)?;
        if next == *held {
            return Ok(accepted);
        }
        write(&self.database, |transaction| {
            put_head(transaction, &next)?;
            let mut vms = transaction.open_table(VMS)?;
            let mut leaving = transaction.open_table(LEAVING)?;
            for vm in &accepted.changed {
                let key = vm.vm.uuid().as_u128();
                vms.insert(key, json(&**vm)?.as_slice())?;
                leaving.remove(key)?;
            }
            for id in &accepted.leaving {
                let key = id.uuid().as_u128();
                vms.remove(key)?;
                if let Some(vm) = next.leaving.get(id) {
                    leaving.insert(key, json(&**vm)?.as_slice())?;
                }
            }
            Ok(())
        })?;
        *held = next;
        Ok(accepted)
    }

    /// Strikes out machines of which nothing is left, and of which the controller knows that.
    ///
    /// # Errors
    /// `Write`.
    pub fn gone(&self, vms: &[VmId]) -> Result<(), LedgerError> {
        let mut held = self.lock();
        if !vms.iter().any(|vm| held.leaving.contains_key(vm)) {
            return Ok(());
        }
        write(&self.database, |transaction| {
            let mut leaving = transaction.open_table(LEAVING)?;
            let mut started = transaction.open_table(STARTED)?;
            for vm in vms {
                leaving.remove(vm.uuid().as_u128())?;
                started.remove(vm.uuid().as_u128())?;
            }
            Ok(())
        })?;
        held.leaving.retain(|vm, _| !vms.contains(vm));
        held.started.retain(|vm| !vms.contains(vm));
        Ok(())
    }

    /// Strikes out networks that are no longer on the switch.
    ///
    /// # Errors
    /// `Write`.
    pub fn network_gone(&self, network: Vni) -> Result<(), LedgerError> {
        let mut held = self.lock();
        let mut next = held.clone();
        if !next.retired.remove(&network) && next.directories.remove(&network).is_none() {
            return Ok(());
        }
        next.directories.remove(&network);
        write(&self.database, |transaction| {
            transaction.open_table(DIRECTORIES)?.remove(network.value())?;
            put_head(transaction, &next)
        })?;
        *held = next;
        Ok(())
    }

    /// Notes that a machine was started, or was stopped on purpose.
    ///
    /// # Errors
    /// `Write`.
    pub fn started(&self, vm: VmId, started: bool) -> Result<(), LedgerError> {
        let mut held = self.lock();
        if held.started.contains(&vm) == started {
            return Ok(());
        }
        write(&self.database, |transaction| {
            let mut table = transaction.open_table(STARTED)?;
            let key = vm.uuid().as_u128();
            if started {
                table.insert(key, ()).map(drop)?
            } else {
                table.remove(key).map(drop)?
            };
            Ok(())
        })?;
        if started {
            held.started.insert(vm)
        } else {
            held.started.remove(&vm)
        };
        Ok(())
    }

    /// Notes which version of a network's directory the switch holds; none: it cannot be told.
    ///
    /// # Errors
    /// `Write`.
    pub fn directory(&self, network: Vni, version: Option<(u64, u64)>) -> Result<(), LedgerError> {
        let mut held = self.lock();
        if held.directories.get(&network).copied() == version {
            return Ok(());
        }
        write(&self.database, |transaction| {
            let mut table = transaction.open_table(DIRECTORIES)?;
            match version {
                Some(version) => table.insert(network.value(), version).map(drop)?,
                None => table.remove(network.value()).map(drop)?,
            }
            Ok(())
        })?;
        match version {
            Some(version) => drop(held.directories.insert(network, version)),
            None => drop(held.directories.remove(&network)),
        }
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn put_head(transaction: &redb::WriteTransaction, held: &Held) -> Result<(), redb::Error> {
    let networks = held.networks.values().cloned().collect();
    let head = Head { schema: SCHEMA, generation: held.generation, networks, retired: held.retired.clone() };
    transaction.open_table(META)?.insert(HEAD, json(&head)?.as_slice())?;
    Ok(())
}

fn write(
    database: &Database,
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), LedgerError> {
    let failed = |error: redb::Error| LedgerError::Write { source: Box::new(error) };
    let transaction = database.begin_write().map_err(|error| failed(error.into()))?;
    // Dropped without a commit, a transaction leaves nothing behind.
    fill(&transaction).map_err(failed)?;
    transaction.commit().map_err(|error| failed(error.into()))
}

fn load(database: &Database) -> Result<Held, LedgerError> {
    #[derive(Deserialize)]
    struct AnySchema {
        schema: u32,
    }
    let garbled = |why: String| LedgerError::Garbled { why };
    let reading = |error: redb::Error| LedgerError::Garbled { why: error.to_string() };
    let transaction = database.begin_read().map_err(|error| reading(error.into()))?;
    let meta = transaction.open_table(META).map_err(|error| reading(error.into()))?;
    let head = meta.get(HEAD).map_err(|error| reading(error.into()))?;
    let head = head.ok_or_else(|| garbled("its head is missing".to_owned()))?;
    let schema: AnySchema =
        serde_json::from_slice(head.value()).map_err(|error| garbled(error.to_string()))?;
    if schema.schema > SCHEMA {
        return Err(LedgerError::Newer { found: schema.schema });
    }
    let head: Head = serde_json::from_slice(head.value()).map_err(|error| garbled(error.to_string()))?;
    let mut held = Held {
        generation: head.generation,
        networks: head.networks.into_iter().map(|network| (network.vni, network)).collect(),
        retired: head.retired,
        ..Held::default()
    };
    for (definition, into) in [(VMS, &mut held.vms), (LEAVING, &mut held.leaving)] {
        let table = match transaction.open_table(definition) {
            // Tables are made by the first document.
            Err(TableError::TableDoesNotExist(_)) => continue,
            table => table.map_err(|error| reading(error.into()))?,
        };
        for row in table.iter().map_err(|error| reading(error.into()))? {
            let (_, value) = row.map_err(|error| reading(error.into()))?;
            let vm: VmDesired =
                serde_json::from_slice(value.value()).map_err(|error| garbled(error.to_string()))?;
            into.insert(vm.vm, Arc::new(vm));
        }
    }
    match transaction.open_table(DIRECTORIES) {
        Err(TableError::TableDoesNotExist(_)) => {}
        table => {
            let table = table.map_err(|error| reading(error.into()))?;
            for row in table.iter().map_err(|error| reading(error.into()))? {
                let (key, value) = row.map_err(|error| reading(error.into()))?;
                let network = Vni::new(key.value()).map_err(|error| garbled(error.to_string()))?;
                held.directories.insert(network, value.value());
            }
        }
    }
    match transaction.open_table(STARTED) {
        Err(TableError::TableDoesNotExist(_)) => {}
        table => {
            let table = table.map_err(|error| reading(error.into()))?;
            for row in table.iter().map_err(|error| reading(error.into()))? {
                let (key, _) = row.map_err(|error| reading(error.into()))?;
                held.started.insert(VmId::fixed(key.value()));
            }
        }
    }
    Ok(held)
}
