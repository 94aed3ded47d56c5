//! The instance document in the form that cloud images know: so far what cloud-init needs.

use crate::model::GuestConfig;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::fmt::Write;

/// The machine's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its hardware address, six bytes.
    pub mac: [u8; 6],
    /// Its addresses with their prefixes' lengths.
    pub addresses: Vec<IpNet>,
}

/// The document of a machine with this configuration. All scalars are strings, but for one boolean that cloud-init takes
/// for one; what is absent is `""`.
#[must_use]
pub fn instance(config: &GuestConfig, interface: &Interface, location: &str) -> Value {
    let mac = interface.mac.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    });
    let of =
        |v4: bool| interface.addresses.iter().filter(move |address| matches!(address, IpNet::V4(_)) == v4);
    let addresses: Vec<Value> = of(true)
        .map(|net| json!({"privateIpAddress": net.addr().to_string(), "publicIpAddress": ""}))
        .collect();
    let subnets: Vec<Value> = of(true)
        .map(|net| json!({"address": net.network().to_string(), "prefix": net.prefix_len().to_string()}))
        .collect();
    let v6: Vec<Value> = of(false).map(|net| json!({"privateIpAddress": net.addr().to_string()})).collect();
    let user = config.settings.user.as_ref();
    let name = user.map_or("", |user| user.name.as_str());
    let keys: Vec<Value> = user
        .iter()
        .flat_map(|user| &user.ssh_keys)
        .map(|key| json!({"keyData": key, "path": format!("/home/{name}/.ssh/authorized_keys")}))
        .collect();
    let keys_only = user.is_none_or(|user| user.password_hash.is_none());
    json!({
        "compute": {
            "vmId": config.vm_id.to_string(),
            "name": config.hostname,
            "location": location,
            "osProfile": {
                "adminUsername": name,
                "computerName": config.hostname,
                "disablePasswordAuthentication": keys_only.to_string(),
            },
            "publicKeys": keys,
        },
        "network": {
            "interface": [{
                "macAddress": mac,
                "ipv4": {"ipAddress": addresses, "subnet": subnets},
                "ipv6": {"ipAddress": v6},
            }],
        },
        "extended": {
            "compute": {"hasCustomData": false, "ppsType": if config.partial { "Running" } else { "None" }},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_cloud_init_needs() {
        let text = include_str!("../../tests/golden/guest_config_full.json");
        let config: GuestConfig = serde_json::from_str(text).unwrap();
        let addresses = vec!["10.0.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()];
        let interface = Interface { mac: [0, 0x11, 0xaa, 0xff, 0xbb, 0x22], addresses };
        let document = instance(&config, &interface, "here");
        let at =
            |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        assert_eq!(at("/compute/osProfile/computerName"), "web-1");
        assert_eq!(at("/compute/osProfile/disablePasswordAuthentication"), "false");
        assert_eq!(at("/network/interface/0/macAddress"), "0011AAFFBB22");
        assert_eq!(at("/network/interface/0/ipv4/subnet/0/address"), "10.0.0.0");
        assert_eq!(at("/network/interface/0/ipv4/subnet/0/prefix"), "24");
        assert_eq!(at("/network/interface/0/ipv6/ipAddress/0/privateIpAddress"), "fd00::5");
        assert_eq!(at("/extended/compute/ppsType"), "None");
        let partial = instance(&GuestConfig { partial: true, ..config }, &interface, "here");
        assert_eq!(partial.pointer("/extended/compute/ppsType").unwrap(), "Running");
    }
}
