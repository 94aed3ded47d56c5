//! Makes the seeds of the parsers' corpora from the golden frames of `dataplane/tests/golden`, one file each.
//!
//! `cargo run --example seeds` in `fuzz/`; only needed when golden frames are added.

use std::fs;
use std::path::Path;

use dataplane::wire::flow::{Headers, Network, Transport};
use dataplane::wire::{geneve, vxlan};

/// What people write: the documents' own examples.
const TEXTS: [(&str, &[u8], &str); 3] = [
    (
        "config",
        &[1],
        "state_dir = \"/s\"\nsocket = '/s/sock'\nmetrics = \"127.0.0.1:9477\"\n[underlay]\nphysical_ip = [\"192.0.2.1\", \"::1\"]\n\
         encapsulation = \"geneve\"\nmtu = 1600\n[workers]\ncount = 2\ncpus = [1, 3]\npoll = \"busy\"\n",
    ),
    (
        "document",
        &[0, 0, 1],
        r#"{"generation":1,"networks":[{"vni":100,"subnets":[{"prefix":"10.0.0.0/24","gateway":"10.0.0.1"}],"dns":["10.0.0.53"],"domain":"red.example","mtu":1400,"lease_seconds":60,"routes":[{"prefix":"10.9.0.0/16","via":"10.0.0.9"}]}],"ports":[{"name":"p1","network":100,"mac":"02:00:00:00:00:01","ips":["10.0.0.5"],"kind":"tap","netns":"n","queues":1,"hostname":"h"}]}"#,
    ),
    ("control", &[0, 0, 34], r#"{"verb":"port_show","port":"p1"}  "#),
];

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (target, choices, text) in TEXTS {
        let folder = here.join("corpus").join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("text"), [choices, text.as_bytes()].concat()).unwrap();
    }
    for entry in fs::read_dir(here.join("../dataplane/tests/golden")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let octets = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
        let frame: Vec<u8> = octets.map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
        let name = path.file_stem().unwrap().to_str().unwrap();
        for (target, input) in seeds(&frame) {
            let folder = here.join("corpus").join(target);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("golden_{name}")), input).unwrap();
        }
    }
}

/// What a frame is worth to which target, tunnels looked into.
fn seeds(frame: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let Ok(headers) = Headers::parse(frame) else { return vec![] };
    let packet = &frame[headers.network_offset()..];
    let payload = &frame[headers.payload_offset()..headers.end as usize];
    let mut seeds = match headers.network {
        Network::Other => vec![("arp", packet.to_vec())],
        Network::V4 { .. } => vec![("ipv4", [&[0, 0x2e], packet].concat())],
        Network::V6 { .. } => vec![("ipv6", [&[0, 0x2e], packet].concat())],
    };
    seeds.push(("oracles", [&[2], frame].concat()));
    match (headers.network, headers.transport) {
        (_, Transport::Udp { destination: vxlan::PORT, .. }) => {
            seeds.push(("vxlan", payload.to_vec()));
            seeds.extend(vxlan::parse(payload).map_or(vec![], |(_, inner)| self::seeds(inner)));
        }
        (_, Transport::Udp { destination: geneve::PORT, .. }) => {
            seeds.push(("geneve", payload.to_vec()));
            seeds.extend(geneve::parse(payload).map_or(vec![], |(_, inner)| self::seeds(inner)));
        }
        (_, Transport::Udp { destination: 67 | 68, .. }) => {
            // So many options in so little room that all three fields are needed.
            seeds.push(("dhcp", [&[0x7f, 0x7e, 0x01, 0x2c], payload].concat()));
            seeds.push(("oracles", [&[1], payload].concat()));
        }
        (Network::V6 { source, destination }, Transport::Icmp { .. }) => {
            let message = &frame[headers.transport_offset()..headers.end as usize];
            let envelope = [&[8][..], &source.octets(), &destination.octets(), &[headers.hop_limit]].concat();
            seeds.push(("nd", [&envelope[..], message].concat()));
        }
        _ => {}
    }
    seeds
}
