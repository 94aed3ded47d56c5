//! What a process may do. The switch: nothing beyond its user's own files. The keeper: interfaces, and entering namespaces.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// To make and configure interfaces and force the sizes of buffers; to attach to those that hypervisors hold; to enter
/// namespaces, those of other users' processes included.
const OF_A_KEEPER: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// What a keeper that this process starts would lack: capabilities by name, and what does not work without them.
///
/// # Errors
/// What the kernel says.
pub fn missing_of_a_keeper() -> io::Result<Vec<(&'static str, &'static str)>> {
    let own = rustix::thread::capabilities(None)?.effective;
    let needed = [
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", "no TAP can be made, so ports cannot be added"),
        (
            CapabilitySet::NET_RAW,
            "CAP_NET_RAW",
            "no interface of a hypervisor's can be attached to, so ports of kind netdev cannot be added",
        ),
        (
            CapabilitySet::SYS_ADMIN,
            "CAP_SYS_ADMIN",
            "no network namespace can be entered, so ports with a `netns` cannot be added",
        ),
    ];
    Ok(needed
        .into_iter()
        .filter(|(capability, ..)| !own.contains(*capability))
        .map(|(_, name, without)| (name, without))
        .collect())
}

/// Gives up every capability, for good: what this thread and those that it starts do from now on needs none. To be called
/// before any other thread is started, because capabilities are each thread's own.
///
/// # Errors
/// What the kernel says.
pub fn drop_all() -> io::Result<()> {
    // No program that is started from here can regain anything, setuid or not.
    rustix::thread::set_no_new_privs(true)?;
    drop_all_but(CapabilitySet::empty())
}

/// Gives up what a keeper does not need.
pub(super) fn drop_all_but_a_keepers() -> io::Result<()> {
    drop_all_but(OF_A_KEEPER)
}

fn drop_all_but(kept: CapabilitySet) -> io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    if kept.is_empty() {
        match rustix::thread::clear_ambient_capability_set() {
            // Kernels without ambient capabilities have none to clear.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => match rustix::thread::remove_capability_from_bounding_set(capability) {
                // Without CAP_SETPCAP the bound stays; it bounds nothing for a process that has and gets nothing.
                Err(Errno::PERM) if !own.permitted.contains(CapabilitySet::SETPCAP) => break,
                other => other?,
            },
            Ok(false) => {}
            // Past the last one that this kernel knows.
            Err(_) => break,
        }
    }
    let sets = CapabilitySets {
        effective: own.effective & kept,
        permitted: own.permitted & kept,
        inheritable: own.inheritable & kept,
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Raises the limit on open files to what the administrator allows at most: a port takes three, a worker some seventy.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    if current != maximum {
        // It stays as it was, then.
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
