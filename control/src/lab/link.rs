//! Wires between namespaces, and the way of a thread into one.

use super::{LabError, World};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{fs::File, os::fd::AsFd};

/// Joins interface `a` in namespace `a_netns` and `b` in `b_netns` by a veth pair; both are up when it returns.
///
/// # Errors
/// As [`World::run`].
pub(super) fn join(
    world: &World,
    (a_netns, a): (&str, &str),
    (b_netns, b): (&str, &str),
    mtu: u16,
) -> Result<(), LabError> {
    let mtu = mtu.to_string();
    let pair = ["type", "veth", "peer", "name", b, "mtu", &mtu, "netns", b_netns];
    let mut add = vec!["link", "add", a, "netns", a_netns, "mtu", &mtu];
    add.extend(pair);
    world.run(None, "ip", &add)?;
    world.run(None, "ip", &["-n", a_netns, "link", "set", a, "up"])?;
    world.run(None, "ip", &["-n", b_netns, "link", "set", b, "up"]).map(drop)
}

/// Switches the checksum offload of an interface, so that a capture shows finished checksums.
///
/// # Errors
/// As [`World::run`].
pub fn set_checksum_offload(world: &World, netns: &str, device: &str, on: bool) -> Result<(), LabError> {
    let state = if on { "on" } else { "off" };
    world.run(Some(netns), "ethtool", &["-K", device, "tx", state]).map(drop)
}

/// Moves the calling thread into a network namespace of the world: sockets that it opens from now on belong there.
/// For threads that end there, not for borrowed ones.
///
/// # Errors
/// `File` when there is no such namespace or no right to enter it.
pub fn enter_netns(world: &World, netns: &str) -> Result<(), LabError> {
    let path = world.outside(format!("/run/netns/{netns}"));
    let file = File::open(&path).map_err(LabError::file("open", &path))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| LabError::file("enter", &path)(errno.into()))
}

/// Moves the calling thread into the world's own network, where its loopback is.
///
/// # Errors
/// `File` when there is no right to enter it.
pub fn enter_world(world: &World) -> Result<(), LabError> {
    let path = std::path::PathBuf::from(format!("/proc/{}/ns/net", world.anchor()));
    let file = File::open(&path).map_err(LabError::file("open", &path))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| LabError::file("enter", &path)(errno.into()))
}
