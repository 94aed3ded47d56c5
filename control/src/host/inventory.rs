//! What this host has, as it tells the controller.

use std::fs;
use std::thread::available_parallelism;

use super::config::HostFile;
use crate::model::Inventory;

/// What this machine has, with what the configuration says of it.
#[must_use]
pub fn inventory(config: &HostFile) -> Inventory {
    Inventory {
        physical_ip: config.physical_ip,
        cpus: available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_mib: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text)).unwrap_or(0),
        hypervisors: config.hypervisors.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The total of a `/proc/meminfo`, in MiB.
fn memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_total() {
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       24613268 kB\n"), Some(24_036));
        assert_eq!(memory("MemTotal: many kB\n"), None);
        assert_eq!(memory(""), None);
    }
}
