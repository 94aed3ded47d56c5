//! Limits of guests by cgroup v2: memory, processes, processor time. Where the machine does not let us, guests run without
//! limits and that is said once.

use super::super::VmSpec;
use crate::model::VmId;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Directory of all guests, below the root of the hierarchy.
const NAME: &str = "shunt-guests";
const CONTROLLERS: &str = "+memory +pids +cpu";
/// Processes and threads of one guest.
const PROCESSES: u32 = 1024;
/// Memory that the agents need whatever a machine is sold as, in bytes.
const LEAST_MEMORY: u64 = 32 << 20;

/// The directory of all guests.
#[derive(Clone, Debug)]
pub(super) struct Parent(PathBuf);

/// One guest's.
#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

impl Parent {
    /// Makes it, if the machine lets us.
    pub(super) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let made = mount_point(&mounts)
            .ok_or_else(|| io::Error::other("no cgroup v2 hierarchy is mounted"))
            .and_then(|root| Self::make_below(&root));
        match made {
            Ok(parent) => Some(parent),
            Err(error) => {
                tracing::warn!(%error, "guests of kind netns run without limits of memory, processes and processor time");
                None
            }
        }
    }

    fn make_below(root: &Path) -> io::Result<Self> {
        fs::write(root.join("cgroup.subtree_control"), CONTROLLERS)?;
        let parent = root.join(NAME);
        fs::create_dir_all(&parent)?;
        fs::write(parent.join("cgroup.subtree_control"), CONTROLLERS)?;
        Ok(Self(parent))
    }

    /// Makes one guest's, with its limits.
    pub(super) fn make(&self, spec: &VmSpec) -> Option<Cgroup> {
        let path = self.0.join(spec.vm.to_string());
        let memory = (u64::from(spec.memory_mib) << 20).max(LEAST_MEMORY);
        let limits = [
            ("memory.max", memory.to_string()),
            ("pids.max", PROCESSES.to_string()),
            ("cpu.max", format!("{} 100000", u64::from(spec.vcpus.max(1)) * 100_000)),
        ];
        let made = fs::create_dir_all(&path)
            .and_then(|()| limits.iter().try_for_each(|(file, limit)| fs::write(path.join(file), limit)));
        match made {
            Ok(()) => Some(Cgroup(path)),
            Err(error) => {
                tracing::warn!(%error, vm = %spec.vm, "a guest runs without limits");
                None
            }
        }
    }

    /// Removes one guest's; its processes are gone.
    pub(super) fn remove(&self, vm: VmId) {
        let _ = fs::remove_dir(self.0.join(vm.to_string()));
    }
}

impl Cgroup {
    /// Takes a process in, and with it all that it will start.
    pub(super) fn take(&self, pid: u32) {
        if let Err(error) = fs::write(self.0.join("cgroup.procs"), pid.to_string()) {
            tracing::warn!(%error, pid, "a guest runs without limits");
        }
    }
}

/// Where the v2 hierarchy is mounted (proc(5): the type follows the ` - `).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_by_its_type() {
        let mounts = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - tmpfs tmpfs rw\n\
            25 24 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            26 24 0:24 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point(""), None);
    }
}
