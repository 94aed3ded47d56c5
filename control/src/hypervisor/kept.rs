//! What every kind keeps of a machine in a directory of its own: `spec.json` and a log. And the user ids that it gets.
//!
//! Never here: processes, namespaces.

use super::{HypervisorError, VmSpec};
use crate::model::VmId;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// How much of a log people are shown, in bytes.
const LOG_END: u64 = 2048;
/// First of the user ids that machines get, and how many each gets.
const FIRST_ID: u32 = 655_360;
pub(super) const IDS: u32 = 65_536;
/// So many ranges; machines whose ids fall into the same range differ in everything else.
const RANGES: u128 = 20_000;

#[derive(Serialize, Deserialize)]
struct Kept {
    schema: u32,
    spec: VmSpec,
}

const SCHEMA: u32 = 1;

/// What the machine of this directory was made as; `None` when it was not, or not to the end.
pub(super) fn spec(directory: &Path) -> Result<Option<VmSpec>, HypervisorError> {
    let path = directory.join("spec.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HypervisorError::file("read", &path)(error)),
    };
    let kept: Kept = serde_json::from_slice(&text)
        .map_err(|error| HypervisorError::file("understand", &path)(error.into()))?;
    if kept.schema == SCHEMA {
        return Ok(Some(kept.spec));
    }
    let error = io::Error::other(format!("it has form {}, this program knows {SCHEMA}", kept.schema));
    Err(HypervisorError::file("understand", &path)(error))
}

/// Keeps what the machine of this directory was made as.
pub(super) fn keep(directory: &Path, spec: &VmSpec) -> Result<(), HypervisorError> {
    let kept = Kept { schema: SCHEMA, spec: spec.clone() };
    let (path, unfinished) = (directory.join("spec.json"), directory.join("spec.unfinished"));
    let text = serde_json::to_vec(&kept).unwrap_or_default();
    fs::write(&unfinished, text)
        .and_then(|()| fs::rename(&unfinished, &path))
        .map_err(HypervisorError::file("write", &path))
}

/// Everything below `base` that is named like a machine.
pub(super) fn all(base: &Path) -> Result<Vec<VmId>, HypervisorError> {
    let entries = fs::read_dir(base).map_err(HypervisorError::file("read", base))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The end of a log, on one line.
pub(super) fn end_of(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        let mut end = Vec::new();
        file.take(LOG_END).read_to_end(&mut end)?;
        Ok(end)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().replace('\n', "; ")
}

/// Removes a directory, if it is there.
pub(super) fn remove(directory: &Path) -> Result<(), HypervisorError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HypervisorError::file("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// The first of the host's user ids that are a machine's.
pub(super) fn first_id(vm: VmId) -> u32 {
    let range = u32::try_from(vm.uuid().as_u128() % RANGES).unwrap_or_default();
    FIRST_ID + range * IDS
}

/// Can we give each machine a range of ids of its own? Not in a user namespace that has one id only.
pub(super) fn maps_ranges() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        matches!((first, count), (Some(Ok(0)), Some(Ok(count))) if count > u64::from(FIRST_ID) + u64::from(IDS) * 20_000)
    })
}

/// Refuses what cannot be a machine.
pub(super) fn check(spec: &VmSpec) -> Result<(), HypervisorError> {
    let plain = |text: &str, others: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    let port = &spec.port;
    if port.is_empty() || port.len() > 15 || port.starts_with(['.', '-']) || !plain(port, b"-_.") {
        return Err(HypervisorError::Unfit(format!("{port:?} cannot be the name of an interface")));
    }
    let hostname = &spec.hostname;
    if hostname.is_empty() || hostname.len() > 64 || hostname.starts_with('-') || !plain(hostname, b"-.") {
        return Err(HypervisorError::Unfit(format!("{hostname:?} cannot be the name of a machine")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::no_mac;

    fn spec() -> VmSpec {
        VmSpec {
            vm: VmId::fixed(7),
            port: "web-1".into(),
            hostname: "pool-1".into(),
            image: "tiny".parse().unwrap(),
            mac: "02:00:00:00:00:05".parse().unwrap(),
            vcpus: 1,
            memory_mib: 128,
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for port in ["", "../x", "a/b", "sixteen-letters-", ".x", "a b", "-x"] {
            assert!(check(&VmSpec { port: port.into(), ..spec() }).is_err(), "{port}");
        }
        for hostname in ["", "a b", "-x", "a/b"] {
            assert!(check(&VmSpec { hostname: hostname.into(), ..spec() }).is_err(), "{hostname}");
        }
        check(&spec()).unwrap();
    }

    #[test]
    fn a_specification_from_before_addresses_were_kept_is_understood() {
        let base = tempfile::tempdir().unwrap();
        keep(base.path(), &spec()).unwrap();
        let path = base.path().join("spec.json");
        let older = fs::read_to_string(&path).unwrap().replace(r#""mac":"02:00:00:00:00:05","#, "");
        assert!(!older.contains("mac"), "{older}");
        fs::write(&path, older).unwrap();
        assert_eq!(super::spec(base.path()).unwrap(), Some(VmSpec { mac: no_mac(), ..spec() }));
    }
}
