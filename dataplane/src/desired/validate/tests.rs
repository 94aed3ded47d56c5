use serde_json::{Value, json};

use super::*;
use crate::desired::Encapsulation;
use crate::types::Mtu;

fn underlay() -> UnderlayConfig {
    UnderlayConfig {
        physical_ips: vec!["192.0.2.1".parse().unwrap()],
        encapsulation: Encapsulation::Vxlan,
        mtu: Mtu::new(1600).unwrap(),
    }
}

fn document() -> Value {
    json!({
        "generation": 3,
        "networks": [
            {"vni": 100, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"prefix": "fd00::/64", "gateway": "fd00::1"}],
             "dns": ["10.0.0.53"], "domain": "red.example", "mtu": 1500, "lease_seconds": 60,
             "routes": [{"prefix": "0.0.0.0/0", "via": "10.0.0.9"}, {"prefix": "10.9.0.0/16", "via": "network:200"}]},
            {"vni": 200, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}]}
        ],
        "ports": [
            {"name": "a", "network": 100, "mac": "02:00:00:00:00:01", "ips": ["10.0.0.5", "fd00::5"], "netns": "g1"},
            {"name": "b", "network": 200, "mac": "02:00:00:00:00:01", "ips": ["10.0.0.5"]}
        ]
    })
}

fn judge(document: Value) -> Result<(), String> {
    let config: HostConfig = serde_json::from_value(document).map_err(|error| error.to_string())?;
    config.validate(&underlay()).map_err(|error| format!("{error} [{}] {}", error.place(), error.remedy()))
}

#[test]
fn networks_may_overlap_but_a_network_may_not_overlap_itself() {
    assert_eq!(judge(document()), Ok(()));
}

#[test]
fn json_round_trips() {
    let config: HostConfig = serde_json::from_value(document()).unwrap();
    let again: HostConfig = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
    assert_eq!(config, again);
}

#[test]
fn each_fault_is_named_with_its_place_and_remedy() {
    let cases: &[(&str, Value, &str)] = &[
        ("/networks/1/vni", json!(100), "network 100 is there twice [network 100] leave one of them out"),
        ("/networks/0/vni", json!(16_777_216), "VNI 16777216 is out of range: expected 1 to 16777215"),
        ("/networks/0/subnets", json!([]), "network 100 has no prefix [network 100] give it"),
        (
            "/networks/0/subnets/0/prefix",
            json!("10.0.0.5/24"),
            "prefix 10.0.0.5/24 has host bits set [network 100, prefix] write 10.0.0.0/24",
        ),
        (
            "/networks/0/subnets/0/prefix",
            json!("10.0.0.0/31"),
            "prefix 10.0.0.0/31 has no room for a gateway and a guest [network 100, prefix]",
        ),
        (
            "/networks/0/subnets/0/gateway",
            json!("10.0.1.1"),
            "gateway 10.0.1.1 is not a host address of 10.0.0.0/24 [network 100, gateway]",
        ),
        ("/networks/0/subnets/0/gateway", json!("10.0.0.255"), "gateway 10.0.0.255 is not a host address"),
        (
            "/networks/0/subnets/1",
            json!({"prefix": "10.0.0.128/25", "gateway": "10.0.0.129"}),
            "prefixes 10.0.0.0/24 and 10.0.0.128/25 overlap [network 100]",
        ),
        (
            "/networks/0/mtu",
            json!(1551),
            "MTU 1551 does not fit the underlay: at most 1550 bytes [network 100, mtu]",
        ),
        (
            "/networks/0/mtu",
            json!(1279),
            "MTU 1279 is too small for IPv6: expected at least 1280 bytes [network 100, mtu]",
        ),
        (
            "/generation",
            json!(1_u64 << 53),
            "generation 9007199254740992 is out of range: at most 9007199254740991 [generation] count from",
        ),
        ("/networks/0/mtu", json!(70_000), "MTU 70000 is out of range"),
        (
            "/networks/0/lease_seconds",
            json!(1),
            "lease of 1 s is too short: expected at least 5 s [network 100, lease_seconds]",
        ),
        ("/networks/0/dns/0", json!("0.0.0.0"), "0.0.0.0 is not a unicast host address [network 100, dns]"),
        ("/networks/0/domain", json!("a..b"), "`a..b` is not a domain name"),
        (
            "/networks/0/routes/0/via",
            json!("10.7.0.9"),
            "route 0.0.0.0/0 goes through 10.7.0.9, which is in no prefix of the network or of the other family",
        ),
        ("/networks/0/routes/0/via", json!("fd00::9"), "route 0.0.0.0/0 goes through fd00::9"),
        (
            "/networks/0/routes/0/prefix",
            json!("10.9.0.0/16"),
            "route 10.9.0.0/16 is there twice [network 100, route 10.9.0.0/16] leave one of them out",
        ),
        (
            "/networks/0/routes/1/via",
            json!("network:100"),
            "route 10.9.0.0/16 leads back into its own network",
        ),
        (
            "/networks/0/routes/1/via",
            json!("network:300"),
            "network 300 does not exist [network 100, route 10.9.0.0/16]",
        ),
        ("/ports/1/name", json!("a"), "port a is there twice [port a]"),
        ("/ports/1/network", json!(300), "network 300 does not exist [port b, network]"),
        (
            "/ports/1/mac",
            json!("ff:ff:ff:ff:ff:ff"),
            "ff:ff:ff:ff:ff:ff is not a unicast MAC address: expected an even first octet, and not all zeros [port b, mac]",
        ),
        ("/ports/1/mac", json!(MacAddr::ROUTER), "is the virtual router's [port b, mac]"),
        (
            "/ports/1/network",
            json!(100),
            "MAC address 02:00:00:00:00:01 is already port a's in network 100 [port b, mac]",
        ),
        (
            "/ports/1",
            json!({"name": "b", "network": 100, "mac": "02:00:00:00:00:02", "ips": ["10.0.0.5"]}),
            "address 10.0.0.5 is already port a's in network 100 [port b, ips]",
        ),
        (
            "/ports/1/ips",
            json!(["10.0.0.6", "10.0.0.7", "10.0.0.6"]),
            "address 10.0.0.6 is named twice [port b, ips] name it once",
        ),
        ("/ports/1/ips", json!([]), "port b has no address [port b, ips]"),
        ("/ports/1/queues", json!(0), "port b has no queue [port b, queues] give it one"),
        (
            "/ports/1/ips/0",
            json!("10.0.0.1"),
            "address 10.0.0.1 is the gateway's in network 200 [port b, ips]",
        ),
        (
            "/ports/1/ips/0",
            json!("10.0.0.0"),
            "address 10.0.0.0 is not a guest address of network 200 [port b, ips]",
        ),
        (
            "/ports/1/ips/0",
            json!("10.0.2.5"),
            "address 10.0.2.5 is not a guest address of network 200 [port b, ips]",
        ),
        ("/ports/0/netns", json!("a/b"), "`a/b` is not a network namespace"),
        ("/ports/0/queues", json!(17), "17 queues are too many: at most 16 [port a] keep to 16"),
        ("/ports/0/colour", json!("red"), "unknown field `colour`"),
    ];
    for (pointer, value, expected) in cases {
        let mut document = document();
        match document.pointer_mut(pointer) {
            Some(slot) => *slot = value.clone(),
            None => {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                document.pointer_mut(parent).unwrap()[key] = value.clone();
            }
        }
        let refusal = judge(document).expect_err(pointer);
        assert!(refusal.contains(expected), "{pointer} = {value}: expected `{expected}`, got `{refusal}`");
    }
}
