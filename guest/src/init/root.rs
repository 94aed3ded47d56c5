//! A guest's root: an empty tmpfs with the machine's `/usr` (read-only), the guest's own `/etc`, `/var`, `/home` and
//! `/root`, and kernel file systems of its own namespaces. Nothing else of the machine can be seen afterwards.

use super::{InitError, PROGRAM};
use rustix::{
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_remount, unmount,
    },
    process::{chdir, pivot_root},
    thread::{CapabilitySet, remove_capability_from_bounding_set},
};
use std::{fs, os::unix::fs::symlink, path::Path};

/// Where the root is built, in the guest's directory.
const ROOT: &str = "rootfs";
/// Directories of the guest's own, in its directory.
const OWN: [&str; 4] = ["etc", "var", "home", "root"];
/// Links on a system with a merged `/usr`, directories on one without.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// The devices of a guest.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What a guest keeps: it is root over its own files, processes, host name and network. (Mounting and naming the machine
/// are one capability; it counts in the guest's user namespace only.)
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SETFCAP);

/// Builds the root in the working directory and makes it ours. `program` is the agent's file, `boot_id` what the guest is
/// to see as its kernel's.
pub(super) fn build(program: &str, boot_id: &str) -> Result<(), InitError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(InitError::call("keep mounts to ourselves"))?;
    file_system("tmpfs", ROOT, MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))?;
    for name in OWN {
        bind(name, &below(name)?)?;
    }
    for name in ["run", "tmp"] {
        let mode = if name == "tmp" { c"mode=1777,size=25%" } else { c"mode=755,size=10%" };
        file_system("tmpfs", &below(name)?, MountFlags::NOSUID | MountFlags::NODEV, Some(mode))?;
    }
    programs()?;
    devices()?;
    let hardened = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    file_system("proc", &below("proc")?, hardened, None)?;
    file_system("sysfs", &below("sys")?, hardened, None)?;
    fs::create_dir(format!("{ROOT}/run/shunt")).map_err(InitError::file("make", "/run/shunt"))?;
    file(&format!("{ROOT}{PROGRAM}"))?;
    bind(program, &format!("{ROOT}{PROGRAM}"))?;
    let own_boot_id = format!("{ROOT}/run/shunt/boot_id");
    fs::write(&own_boot_id, format!("{boot_id}\n")).map_err(InitError::file("write", &own_boot_id))?;
    bind(&own_boot_id, &format!("{ROOT}/proc/sys/kernel/random/boot_id"))?;
    enter()
}

/// Makes the new root ours and lets go of the old one.
fn enter() -> Result<(), InitError> {
    chdir(ROOT).map_err(InitError::call("enter the new root"))?;
    // pivot_root(2): with both at one place the old root lies over the new one and can be taken away.
    pivot_root(".", ".").map_err(InitError::call("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(InitError::call("let go of the old root"))?;
    chdir("/").map_err(InitError::call("enter the new root"))
}

/// `/usr` read-only, and the names that lead into it.
fn programs() -> Result<(), InitError> {
    let read_only = |path: &str| -> Result<(), InitError> {
        let target = below(path.trim_start_matches('/'))?;
        mount_bind_recursive(path, &target).map_err(|errno| InitError::file("bind", path)(errno.into()))?;
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        // Options that the machine has set for its /usr can't be taken away here; ask for them then.
        let kept = MountFlags::NODEV | MountFlags::NOSUID;
        mount_remount(&target, flags, c"")
            .or_else(|_| mount_remount(&target, flags | kept, c""))
            .or_else(|_| mount_remount(&target, flags | kept | MountFlags::RELATIME, c""))
            .map_err(|errno| InitError::file("make read-only", path)(errno.into()))
    };
    read_only("/usr")?;
    for name in MERGED {
        let path = format!("/{name}");
        match fs::read_link(&path) {
            Ok(target) => {
                symlink(&target, format!("{ROOT}{path}")).map_err(InitError::file("link", &path))?
            }
            Err(_) if Path::new(&path).is_dir() => read_only(&path)?,
            Err(_) => {}
        }
    }
    // Debian's names of programs that there are several of; links into /usr and nothing else.
    let alternatives = "/etc/alternatives";
    if Path::new(alternatives).is_dir() && Path::new(&format!("{ROOT}{alternatives}")).is_dir() {
        read_only(alternatives)?;
    }
    Ok(())
}

fn devices() -> Result<(), InitError> {
    let dev = below("dev")?;
    file_system("tmpfs", &dev, MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"mode=755,size=64k"))?;
    for name in DEVICES {
        let target = format!("{dev}/{name}");
        file(&target)?;
        bind(&format!("/dev/{name}"), &target)?;
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")]
    {
        symlink(target, format!("{dev}/{name}")).map_err(InitError::file("link", name))?;
    }
    symlink("/proc/self/fd/2", format!("{dev}/stderr")).map_err(InitError::file("link", "stderr"))
}

/// Gives up, for good and for all that will ever run here, what a guest has no use for: modules, time, devices, boot…
pub(super) fn drop_capabilities() -> Result<(), InitError> {
    for number in 0..64_u32 {
        let Some(capability) = CapabilitySet::from_bits(1 << number) else { continue };
        if KEPT.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it yet.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(InitError::call("give up capabilities")(errno)),
        }
    }
    Ok(())
}

fn below(name: &str) -> Result<String, InitError> {
    let path = format!("{ROOT}/{name}");
    fs::create_dir_all(&path).map_err(InitError::file("make", &path))?;
    Ok(path)
}

fn file(path: &str) -> Result<(), InitError> {
    fs::write(path, "").map_err(InitError::file("make", path))
}

fn bind(source: &str, target: &str) -> Result<(), InitError> {
    mount_bind(source, target).map_err(|errno| InitError::file("bind", source)(errno.into()))
}

fn file_system(
    kind: &str,
    target: &str,
    flags: MountFlags,
    options: Option<&std::ffi::CStr>,
) -> Result<(), InitError> {
    mount("shunt", target, kind, flags, options)
        .map_err(|errno| InitError::file("mount", target)(errno.into()))
}
