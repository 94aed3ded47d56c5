//! The Linux kernel's own bridge and VXLAN device as an independent peer.

use super::{Guest, Host, LabError, World, link, set_checksum_offload};
use std::{net::Ipv4Addr, sync::Arc};

/// A host whose guest is behind the kernel's bridge and VXLAN device. It knows no learning and no flooding: every
/// address is told to it.
#[derive(Debug)]
pub struct KernelPeer {
    world: Arc<World>,
    host: Host,
    device: String,
    guest: Guest,
}

impl KernelPeer {
    /// Makes the peer on `host`, with one guest of the given name, MAC and address (of a /24).
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn new(
        world: &Arc<World>,
        host: &Host,
        vni: u32,
        (name, mac, address): (&str, &str, Ipv4Addr),
    ) -> Result<Self, LabError> {
        let guest = Guest::new(world, name)?;
        let (ns, device, id) = (host.name.as_str(), format!("vxlan{vni}"), vni.to_string());
        let local = host.physical_ip.to_string();
        let ip = |arguments: &[&str]| world.run(Some(ns), "ip", arguments);
        ip(&["link", "add", "br0", "up", "type", "bridge"])?;
        let mut add =
            vec!["link", "add", &device, "mtu", "1500", "type", "vxlan", "id", &id, "local", &local];
        add.extend(["dev", "underlay", "dstport", "4789", "nolearning", "udpcsum"]);
        ip(&add)?;
        ip(&["link", "set", &device, "master", "br0", "up"])?;
        link::join(world, (ns, "to-guest"), (name, name), 1500)?;
        ip(&["link", "set", "to-guest", "master", "br0"])?;
        guest.run("ip", &["link", "set", name, "address", mac])?;
        guest.set_address(address, 24)?;
        // veth hands unfinished inner checksums to whoever receives, which no real NIC does.
        set_checksum_offload(world, ns, "underlay", false)?;
        Ok(Self { world: Arc::clone(world), host: host.clone(), device, guest })
    }

    /// Tells bridge and guest where a machine of the other side is.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn learn(&self, address: Ipv4Addr, mac: &str, at: &Host) -> Result<(), LabError> {
        let to = at.physical_ip.to_string();
        self.world.run(
            Some(&self.host.name),
            "bridge",
            &["fdb", "append", mac, "dev", &self.device, "dst", &to],
        )?;
        let address = address.to_string();
        let name = self.guest.name();
        self.guest.run("ip", &["neighbour", "replace", &address, "lladdr", mac, "dev", name]).map(drop)
    }

    /// The guest behind it.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }
}
