//! The network namespace that a machine's TAP stands in, named like its port: without addresses, IPv6 and ARP, so that the
//! host's IP stack neither hears the machine nor talks to it. QEMU runs there too, and reaches nothing else.

use super::{super::HypervisorError, home::Home};
use crate::hypervisor::{ip, run};
use std::{fs, io, path::PathBuf};

/// What a new namespace is told. IPv6 may be absent from the kernel.
const SILENCE: &str = "for name in all default; do \
        file=/proc/sys/net/ipv6/conf/$name/disable_ipv6; [ ! -e $file ] || echo 1 > $file || exit 1; \
    done; \
    echo 0 > /proc/sys/net/ipv4/ip_forward";

fn named(port: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(port)
}

/// Makes namespace and TAP unless they are there.
pub(super) async fn make(home: &Home, port: &str) -> Result<(), HypervisorError> {
    let sign = home.namespace_sign();
    let (is_there, is_ours) = (named(port).exists(), sign.exists());
    if is_there && !is_ours {
        return Err(HypervisorError::NamespaceTaken(port.to_owned()));
    }
    if !is_there {
        // First: whatever interrupts us, what stands there afterwards is known to be ours.
        fs::write(&sign, "").map_err(HypervisorError::file("write", &sign))?;
        ip(&["netns", "add", port]).await?;
    }
    let inside = format!("--net={}", named(port).display());
    run("nsenter", &[&inside, "--", "sh", "-c", SILENCE]).await?;
    // An attempt that was cut short may have left it.
    if ip(&["-n", port, "link", "show", "dev", port]).await.is_err() {
        ip(&["-n", port, "tuntap", "add", "dev", port, "mode", "tap", "vnet_hdr"]).await?;
    }
    ip(&["-n", port, "link", "set", "dev", port, "arp", "off", "up"]).await
}

/// Removes both, if they are ours.
pub(super) async fn remove(home: &Home, port: &str) -> Result<(), HypervisorError> {
    let sign = home.namespace_sign();
    if !sign.exists() {
        return Ok(());
    }
    if named(port).exists() {
        // The TAP first: whoever is attached to it learns that it is gone, also when something else holds the namespace.
        let _ = ip(&["-n", port, "link", "delete", "dev", port]).await;
        ip(&["netns", "delete", port]).await?;
    }
    match fs::remove_file(&sign) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HypervisorError::file("remove", &sign)(error))
        }
        _ => Ok(()),
    }
}
