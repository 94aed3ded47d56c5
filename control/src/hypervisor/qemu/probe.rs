//! Which accelerator works here. A device file says little (nested machines often have one that refuses, hangs, or does well
//! until the first change of the processor's mode), so a machine is run: the usual firmware starts it, which goes through
//! those modes, and its boot sector switches it off with a number of ours.

use super::{PROGRAM, path};
use std::{fs, path::Path, process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

/// A machine that works is over in about a second.
const LIMIT: Duration = Duration::from_secs(10);
/// What QEMU exits with when the boot sector has written [`SAID`] to the exit device.
const EXIT: i32 = (SAID as i32) << 1 | 1;
const SAID: u8 = 0x2a;
const SECTOR_BYTES: usize = 512;

/// What executes a machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator: works everywhere, and is some twenty times slower.
    Tcg,
}

impl Accelerator {
    /// The one that works here. `scratch` is a directory to write to.
    pub(super) async fn find(scratch: &Path) -> Self {
        if !Path::new("/dev/kvm").exists() {
            return Self::Tcg;
        }
        match Self::Kvm.works(scratch).await {
            Ok(()) => Self::Kvm,
            Err(reason) => {
                tracing::warn!(%reason, "KVM does not work here: machines are emulated, which is much slower");
                Self::Tcg
            }
        }
    }

    /// For `-machine accel=`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// For `-cpu`. Emulated: the simplest 64-bit processor, which boots fastest, and one that has entropy to give.
    pub(super) const fn processor(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "qemu64,+rdrand",
        }
    }

    /// Runs the machine.
    async fn works(self, scratch: &Path) -> Result<(), String> {
        let file = scratch.join("probe");
        fs::write(&file, boot_sector())
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        let mut command = Command::new(PROGRAM);
        command
            .args(["-machine", &format!("pc,accel={}", self.name()), "-cpu", self.processor(), "-m", "16"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-drive"])
            .arg(format!("file={},format=raw,if=floppy,readonly=on", file.display()))
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let output = timeout(LIMIT, command.output()).await;
        let _ = fs::remove_file(&file);
        match output {
            Err(_) => Err(format!("a machine that should end at once runs for {} s", LIMIT.as_secs())),
            Ok(Err(error)) => Err(format!("{PROGRAM} cannot be started: {error}")),
            Ok(Ok(output)) if output.status.code() == Some(EXIT) => Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("{}; {}", output.status, said.trim().replace('\n', "; ")))
            }
        }
    }
}

/// `mov dx, 0xf4; mov al, SAID; out dx, al; hlt`, and the sign of a boot sector.
fn boot_sector() -> Vec<u8> {
    let mut bytes = vec![0xba, 0xf4, 0x00, 0xb0, SAID, 0xee, 0xf4];
    bytes.resize(SECTOR_BYTES - 2, 0xf4);
    bytes.extend([0x55, 0xaa]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[ignore = "needs QEMU: make e2e-vm"]
    async fn the_probe_tells_a_machine_that_runs_from_one_that_does_not() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(Accelerator::Tcg.works(scratch.path()).await, Ok(()));
        let found = Accelerator::find(scratch.path()).await;
        assert_eq!(found == Accelerator::Kvm, Accelerator::Kvm.works(scratch.path()).await.is_ok());
    }
}
