//! A machine's directory: `BASE/machines/ID` with `spec.json`, what it boots (`image`, a link), the sign that its network
//! namespace is ours (`net`), and of each life the boot id (`boot`), QEMU's process id (`pid`), the monitor's socket
//! (`qmp`) and the log (`log`, and before it `log.1`): what the machine says at its serial line, and what QEMU says.
//!
//! Never here: processes.

use super::super::{HypervisorError, VmSpec, kept};
use crate::model::{Name, VmId};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// A machine's directory, there or not.
#[derive(Clone, Debug)]
pub(super) struct Home {
    path: PathBuf,
    vm: VmId,
}

/// Makes the directory of all machines.
pub(super) fn prepare(base: &Path) -> Result<(), HypervisorError> {
    let machines = base.join("machines");
    fs::create_dir_all(&machines).map_err(HypervisorError::file("make", &machines))?;
    fs::set_permissions(base, fs::Permissions::from_mode(0o700))
        .map_err(HypervisorError::file("set the mode of", base))
}

/// Everything below `base` that is a machine.
pub(super) fn all(base: &Path) -> Result<Vec<VmId>, HypervisorError> {
    kept::all(&base.join("machines"))
}

impl Home {
    pub(super) fn new(base: &Path, vm: VmId) -> Self {
        Self { path: base.join("machines").join(vm.to_string()), vm }
    }

    pub(super) fn vm(&self) -> VmId {
        self.vm
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it was made as; `None` when it was not, or not to the end.
    pub(super) fn spec(&self) -> Result<Option<VmSpec>, HypervisorError> {
        kept::spec(&self.path)
    }

    /// Makes the directory, and settles what the machine boots: a newer image of the same name is another machine's.
    pub(super) fn make(&self, images: &Path, image: &Name) -> Result<(), HypervisorError> {
        fs::create_dir_all(&self.path).map_err(HypervisorError::file("make", &self.path))?;
        let link = self.path.join("image");
        if link.exists() {
            return Ok(());
        }
        let named = images.join(image.as_str());
        let missing = || HypervisorError::NoImage { image: image.clone(), path: named.display().to_string() };
        let found = fs::canonicalize(&named).map_err(|_| missing())?;
        if !["kernel", "initramfs"].iter().all(|file| found.join(file).is_file()) {
            return Err(missing());
        }
        let _ = fs::remove_file(&link);
        symlink(&found, &link).map_err(HypervisorError::file("link", &link))
    }

    /// The last step of its making.
    pub(super) fn keep(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        kept::keep(&self.path, spec)
    }

    /// Exists from before the machine's network namespace is made until it is gone.
    pub(super) fn namespace_sign(&self) -> PathBuf {
        self.path.join("net")
    }

    /// The monitor's socket.
    pub(super) fn monitor(&self) -> PathBuf {
        self.path.join("qmp")
    }

    /// Begins another life: its boot id is on disk before there is anybody to have it.
    pub(super) fn begin_life(&self, boot_id: &str) -> Result<(), HypervisorError> {
        for name in ["qmp", "pid"] {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(HypervisorError::file("remove", &path)(error));
                }
                _ => {}
            }
        }
        let path = self.path.join("boot");
        fs::write(&path, boot_id).map_err(HypervisorError::file("write", &path))
    }

    /// The boot id of the life that was begun last.
    pub(super) fn boot_id(&self) -> String {
        fs::read_to_string(self.path.join("boot")).unwrap_or_default()
    }

    /// The end of its log.
    pub(super) fn log_end(&self) -> String {
        kept::end_of(&self.path.join("log"))
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> Result<(), HypervisorError> {
        kept::remove(&self.path)
    }
}
