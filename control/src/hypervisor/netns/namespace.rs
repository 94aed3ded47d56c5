//! A guest's user and network namespaces. They are made before it starts, so that the switch can put its interface there,
//! and outlive it; the network namespace is a named one (`/run/netns/PORT`).
//!
//! The network namespace belongs to the user namespace: the guest's root configures it and is nobody on the host.

use super::{
    super::{
        HypervisorError, ip,
        kept::{IDS, maps_ranges},
        path,
    },
    directory::Directory,
};
use rustix::{
    fs::{StatFs, statfs},
    mount::{UnmountFlags, mount_bind, unmount},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// `NSFS_MAGIC` (statfs(2)): a file that a namespace is mounted on.
const NSFS: u64 = 0x6e73_6673;

fn named(port: &str) -> PathBuf {
    Path::new("/run/netns").join(port)
}

fn is_namespace(path: &Path) -> bool {
    // The type's width differs between machines.
    statfs(path).is_ok_and(|StatFs { f_type, .. }| u64::try_from(f_type).is_ok_and(|kind| kind == NSFS))
}

/// Makes both namespaces unless they are there.
pub(super) async fn make(directory: &Directory, port: &str) -> Result<(), HypervisorError> {
    let user = directory.user_namespace();
    match (is_namespace(&user), is_namespace(&named(port))) {
        (true, true) => return Ok(()),
        // The handle is made first, so a namespace without one is somebody else's.
        (false, true) => return Err(HypervisorError::NamespaceTaken(port.to_owned())),
        (true, false) => let_go(&user)?,
        (false, false) => {}
    }
    let mut holder = Command::new("unshare");
    // It says when the namespaces are there, and ends when we close its ear, or end.
    holder.args(["--user", "--net", "--", "sh", "-c", "echo; read line"]).env("PATH", path());
    holder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed =
        |output: String| HypervisorError::Program { command: "unshare --user --net".to_owned(), output };
    let mut holder = holder.spawn().map_err(|error| failed(error.to_string()))?;
    let mut line = String::new();
    if let Some(out) = holder.stdout.take() {
        let _ = BufReader::new(out).read_line(&mut line).await;
    }
    if line.is_empty() {
        let output = holder.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let kept = keep(directory, port, &holder).await;
    let _ = holder.kill().await;
    kept
}

/// Maps the ids and gives the namespaces names that outlive the process they were made with.
async fn keep(directory: &Directory, port: &str, holder: &Child) -> Result<(), HypervisorError> {
    let pid = holder.id().unwrap_or_default();
    let (user, group) = if maps_ranges() {
        let map = format!("0 {} {IDS}\n", directory.first_id());
        (map.clone(), map)
    } else {
        // One id is all we have ourselves.
        let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        (format!("0 {} 1\n", us.0), format!("0 {} 1\n", us.1))
    };
    for (name, map) in [("uid_map", user), ("gid_map", group)] {
        let path = format!("/proc/{pid}/{name}");
        fs::write(&path, map).map_err(HypervisorError::file("write", &path))?;
    }
    let handle = directory.user_namespace();
    mount_bind(format!("/proc/{pid}/ns/user"), &handle)
        .map_err(|errno| HypervisorError::file("mount a namespace on", &handle)(errno.into()))?;
    ip(&["netns", "attach", port, &pid.to_string()]).await?;
    ip(&["-n", port, "link", "set", "lo", "up"]).await
}

/// Removes both. Interfaces that are left in the network namespace go with it, or back to whoever holds them.
pub(super) fn remove(directory: &Directory) -> Result<(), HypervisorError> {
    let user = directory.user_namespace();
    if let Some(spec) = directory.spec()? {
        let net = named(&spec.port);
        // Without our handle the name may be somebody else's.
        if is_namespace(&net) && is_namespace(&user) {
            let_go(&net)?;
            fs::remove_file(&net).map_err(HypervisorError::file("remove", &net))?;
        }
    }
    if is_namespace(&user) { let_go(&user) } else { Ok(()) }
}

fn let_go(path: &Path) -> Result<(), HypervisorError> {
    unmount(path, UnmountFlags::DETACH).map_err(|errno| HypervisorError::file("unmount", path)(errno.into()))
}
