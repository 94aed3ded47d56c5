//! What the tests of this room and of `host` send around.

#![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use dataplane::desired::{NetworkConfig, Subnet};
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};

use super::source::DirectoryEntry;
use crate::model::{GuestConfig, Inventory, Power, Settings, VmDesired, VmId};

pub(crate) fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

pub(crate) fn network(number: u32) -> NetworkConfig {
    NetworkConfig {
        vni: vni(number),
        subnets: vec![Subnet::with_first_gateway("10.0.0.0/16".parse().unwrap())],
        dns: vec![],
        domain: None,
        mtu: None,
        lease_seconds: 3600,
        routes: vec![],
    }
}

/// A machine of this generation in network 100.
pub(crate) fn vm(generation: u64) -> VmDesired {
    let vm = VmId::new();
    let number = vm.uuid().as_u128();
    let [.., a, b, c] = number.to_be_bytes();
    VmDesired {
        vm,
        generation,
        power: Power::Running,
        hypervisor: "netns".parse().unwrap(),
        image: "netns".parse().unwrap(),
        vcpus: 1,
        memory_mib: 64,
        port: format!("v{:014x}", number & 0xff_ffff_ffff_ffff),
        mac: MacAddr([2, 0, 0, a, b, c]),
        network: vni(100),
        ips: vec![CustomerIp(std::net::IpAddr::from([10, 0, a & 0x7f, b]))],
        rules: vec![],
        config: GuestConfig {
            generation,
            vm_id: vm,
            partial: true,
            hostname: "placeholder".to_owned(),
            settings: Settings::default(),
            network: None,
        },
        bounces: 0,
    }
}

pub(crate) fn entry(number: u16, host: u8) -> DirectoryEntry {
    let [high, low] = number.to_be_bytes();
    DirectoryEntry {
        ip: CustomerIp(std::net::IpAddr::from([10, 0, high, low])),
        mac: MacAddr([2, 0, 0, 0, high, low]),
        physical_ip: PhysicalIp(std::net::IpAddr::from([192, 0, 2, host])),
    }
}

pub(crate) fn inventory() -> Inventory {
    Inventory {
        physical_ip: PhysicalIp(std::net::IpAddr::from([192, 0, 2, 1])),
        cpus: 2,
        memory_mib: 1024,
        hypervisors: vec!["netns".parse().unwrap()],
        version: "0.1.0".to_owned(),
    }
}
