//! VM hosts: a namespace each, joined by a bridge in a namespace called "fabric" that plays the physical network.

use super::{LabError, World, link};
use std::net::IpAddr;

/// The namespace of the physical network. The interface towards host NAME is called `to-NAME` there.
pub const FABRIC: &str = "fabric";

/// Room for a 1500-byte guest packet and a tunnel header.
const UNDERLAY_MTU: u16 = 1600;

/// Makes the physical network.
///
/// # Errors
/// As [`World::run`].
pub fn make_fabric(world: &World) -> Result<(), LabError> {
    world.add_netns(FABRIC)?;
    let mtu = UNDERLAY_MTU.to_string();
    world.run(
        None,
        "ip",
        &["-n", FABRIC, "link", "add", "br0", "mtu", &mtu, "up", "type", "bridge", "mcast_snooping", "0"],
    )?;
    Ok(())
}

/// A VM host: namespace and name are the same word, its interface on the physical network is `underlay`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name of the host and of its namespace, at most 11 letters.
    pub name: String,
    /// Its physical IP.
    pub physical_ip: IpAddr,
}

impl Host {
    /// Makes a host with a /24 (or /64) address on the physical network.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn new(world: &World, name: &str, physical_ip: IpAddr) -> Result<Self, LabError> {
        world.add_netns(name)?;
        let port = format!("to-{name}");
        link::join(world, (name, "underlay"), (FABRIC, &port), UNDERLAY_MTU)?;
        world.run(None, "ip", &["-n", FABRIC, "link", "set", &port, "master", "br0"])?;
        let prefix = if physical_ip.is_ipv4() { 24 } else { 64 };
        let address = format!("{physical_ip}/{prefix}");
        // nodad: an IPv6 address must be usable at once.
        let nodad: &[&str] = if physical_ip.is_ipv4() { &[] } else { &["nodad"] };
        let mut add = vec!["-n", name, "address", "add", &address, "dev", "underlay"];
        add.extend(nodad);
        world.run(None, "ip", &add)?;
        Ok(Self { name: name.to_owned(), physical_ip })
    }

    /// The interface of the physical network that leads here: captured in [`FABRIC`], it shows exactly what passes
    /// between this host and the others.
    #[must_use]
    pub fn fabric_port(&self) -> String {
        format!("to-{}", self.name)
    }
}
