//! Golden frames, both ways: what others sent is read and written back to the same bytes, and what we write is what a
//! judge has found right. Each file of `golden/` notes its origin.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code outside of #[test] functions")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use dataplane::types::{MacAddr, Vni};
use dataplane::wire::arp::Arp;
use dataplane::wire::dhcpv4::{self, MessageType, Reply};
use dataplane::wire::ethernet::{EtherType, Ethernet};
use dataplane::wire::flow::{Fragment, Headers, Network, Transport};
use dataplane::wire::icmpv4::{self, Icmpv4};
use dataplane::wire::icmpv6::{self, Icmpv6};
use dataplane::wire::ipv4::Ipv4;
use dataplane::wire::ipv6::Ipv6;
use dataplane::wire::nd::{
    self, Envelope, NeighbourAdvertisement, NeighbourSolicitation, RouterSolicitation,
};
use dataplane::wire::tcp::Tcp;
use dataplane::wire::udp::{self, Udp};
use dataplane::wire::{Protocol, geneve, vxlan};

const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("hex");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.starts_with("# "), "{name} does not say where it comes from");
    let octets = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    octets.map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

/// Every header parsed and emitted again, every checksum computed anew.
fn rewritten(frame: &[u8]) -> Vec<u8> {
    let headers = Headers::parse(frame).unwrap();
    let ethernet = Ethernet::parse(frame).unwrap();
    let payload = &frame[headers.network_offset()..];
    let mut out = ethernet.to_bytes().to_vec();
    let rest = match headers.network {
        Network::Other => {
            assert_eq!(headers.ethertype, EtherType::ARP);
            out.extend(Arp::parse(payload).unwrap().to_bytes());
            return out;
        }
        Network::V4 { .. } => {
            let ip = Ipv4::parse(payload).unwrap();
            out.extend(ip.to_bytes());
            ip.payload(payload).to_vec()
        }
        Network::V6 { .. } => {
            out.extend(Ipv6::parse(payload).unwrap().to_bytes());
            out.extend(&frame[54..headers.transport_offset()]);
            frame[headers.transport_offset()..headers.end as usize].to_vec()
        }
    };
    out.extend(rewritten_transport(&headers, rest));
    out
}

fn rewritten_transport(headers: &Headers, mut rest: Vec<u8>) -> Vec<u8> {
    match (headers.transport, headers.network) {
        (Transport::Tcp { .. }, _) => {
            let header = Tcp::parse(&rest).unwrap().to_bytes();
            rest[..20].copy_from_slice(&header);
        }
        // RFC 768: its sender computed no checksum (dhcpcd).
        (Transport::Udp { .. }, Network::V4 { .. }) if rest[6..8] == [0, 0] => {}
        (Transport::Udp { source, destination }, Network::V4 { source: from, destination: to }) => {
            assert!(Udp::parse(&rest).unwrap().checksum_is_valid(from.into(), to.into(), &rest));
            rest[..8].fill(0xee);
            udp::emit_v4(&mut rest, (from, source), (to, destination)).unwrap();
        }
        (Transport::Udp { source, destination }, Network::V6 { source: from, destination: to }) => {
            assert!(Udp::parse(&rest).unwrap().checksum_is_valid(from.into(), to.into(), &rest));
            rest[..8].fill(0xee);
            udp::emit_v6(&mut rest, (from, source), (to, destination)).unwrap();
        }
        (Transport::Icmp { kind, code }, Network::V4 { .. }) => {
            let parsed = Icmpv4::parse(&rest).unwrap();
            assert_eq!((parsed.kind, parsed.code), (kind, code));
        }
        (Transport::Icmp { kind, code }, Network::V6 { source, destination }) => {
            let parsed = Icmpv6::parse(&rest, source, destination).unwrap();
            assert_eq!((parsed.kind, parsed.code), (kind, code));
            rest[2..4].fill(0xee);
            icmpv6::finish(&mut rest, source, destination).unwrap();
        }
        _ => assert_eq!(headers.fragment, Fragment::Later),
    }
    rest
}

#[test]
fn every_frame_is_written_as_it_was_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let frame = golden(name);
        assert_eq!(rewritten(&frame), frame, "{name}");
        count += 1;
    }
    assert!(count >= 30, "only {count} golden frames were found");
}

#[test]
fn a_kernels_arp_request_gets_the_kernels_reply() {
    let request = Arp::parse(&golden("arp_request")[14..]).unwrap();
    let reply = request.reply(MacAddr([2, 0, 0, 0, 0, 2]));
    assert_eq!(reply.to_bytes(), golden("arp_reply")[14..]);
}

#[test]
fn echoes_are_answered_as_the_kernel_does() {
    let mut request = golden("icmpv4_echo_request")[34..].to_vec();
    assert!(icmpv4::answer_echo(&mut request));
    assert_eq!(request, golden("icmpv4_echo_reply")[34..]);
    let mut request = golden("icmpv6_echo_request")[54..].to_vec();
    assert!(icmpv6::answer_echo(&mut request));
    assert_eq!(request, golden("icmpv6_echo_reply")[54..]);
}

fn envelope(frame: &[u8]) -> (Envelope, Vec<u8>) {
    let headers = Headers::parse(frame).unwrap();
    (Envelope::of(&headers).unwrap(), frame[headers.transport_offset()..].to_vec())
}

#[test]
fn a_kernels_solicitation_gets_the_kernels_advertisement() {
    let (around, message) = envelope(&golden("nd_solicitation"));
    let solicitation = NeighbourSolicitation::parse(&message, &around).unwrap();
    assert_eq!(solicitation.source_mac, Some(GUEST));
    let advertisement = NeighbourAdvertisement {
        from_router: false,
        solicited: true,
        overrides: true,
        target: solicitation.target,
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
    };
    let bytes = advertisement.to_bytes(solicitation.target, around.source);
    assert_eq!(bytes, golden("nd_advertisement")[54..]);

    let (around, message) = envelope(&golden("nd_probe"));
    let probe = NeighbourSolicitation::parse(&message, &around).unwrap();
    assert_eq!((around.source, probe.source_mac), (Ipv6Addr::UNSPECIFIED, None));
    let (around, message) = envelope(&golden("nd_router_solicitation"));
    let told = RouterSolicitation::parse(&message, &around).unwrap().source_mac;
    assert_eq!(told, Some(MacAddr([2, 0, 0, 0, 0, 2])));
}

#[test]
fn extension_headers_and_fragments_of_the_kernel_are_seen() {
    let report = Headers::parse(&golden("mld_report")).unwrap();
    assert_eq!((report.protocol, report.network_bytes), (Protocol::ICMPV6, 48));
    assert_eq!(report.transport, Transport::Icmp { kind: 143, code: 0 });
    for (name, network_bytes) in [("ipv4_last_fragment", 20), ("ipv6_last_fragment", 48)] {
        let headers = Headers::parse(&golden(name)).unwrap();
        assert_eq!((headers.fragment, headers.network_bytes), (Fragment::Later, network_bytes), "{name}");
    }
}

#[test]
fn a_kernels_vxlan_packet_is_opened_and_closed() {
    let frame = golden("vxlan_arp");
    let headers = Headers::parse(&frame).unwrap();
    assert_eq!(headers.ports().unwrap().1, vxlan::PORT);
    let payload = &frame[headers.payload_offset()..];
    let (vni, inner) = vxlan::parse(payload).unwrap();
    assert_eq!(vni.value(), 42);
    assert_eq!(rewritten(inner), inner);
    assert_eq!([&vxlan::to_bytes(vni), inner].concat(), payload);
}

#[test]
fn a_foreign_geneve_packet_with_an_option_is_opened() {
    let frame = golden("geneve_option");
    let headers = Headers::parse(&frame).unwrap();
    assert_eq!(headers.ports().unwrap().1, geneve::PORT);
    let (vni, inner) = geneve::parse(&frame[headers.payload_offset()..]).unwrap();
    assert_eq!((vni.value(), inner), (42, &golden("arp_request")[..]));
}

#[test]
fn real_dhcp_clients_are_understood() {
    let udhcpc = golden("dhcp_discover_udhcpc");
    let message = dhcpv4::Message::parse(&udhcpc[42..]).unwrap();
    assert_eq!((message.message_type, message.chaddr), (Some(MessageType::Discover), GUEST));
    assert_eq!((message.max_message_bytes, message.reply_limit_bytes()), (Some(576), 548));
    assert!(message.client_id.unwrap() == [1, 2, 0, 0, 0, 0, 1][..]);
    assert!(message.vendor_class.unwrap() == b"udhcp 1.35.0"[..]);
    assert!(message.option(dhcpv4::code::HOST_NAME).unwrap() == b"web-1"[..]);

    let dhclient = golden("dhcp_discover_dhclient");
    let message = dhcpv4::Message::parse(&dhclient[42..]).unwrap();
    assert!(message.client_id.is_none() && message.max_message_bytes.is_none());
    assert_eq!(message.parameter_requests.unwrap().len(), 13);

    let dhcpcd = golden("dhcp_discover_dhcpcd");
    let message = dhcpv4::Message::parse(&dhcpcd[42..]).unwrap();
    assert!(message.rapid_commit);
    let client_id: Vec<u8> = message.client_id.unwrap().bytes().collect();
    assert_eq!((client_id.len(), client_id[0]), (19, 0xff));
}

/// Everything that we write and nobody sent: built here, compared with what a judge has seen.
fn ours() -> Vec<(&'static str, Vec<u8>)> {
    let inner = golden("arp_request");
    let vni = Vni::new(42).unwrap();
    let big = golden("udp_v4");
    let mut frag_needed = [&[0; 8], &big[14..]].concat();
    icmpv4::emit_error(&mut frag_needed, icmpv4::Problem::FragmentationNeeded { next_hop_mtu: 1450 })
        .unwrap();
    let big = golden("udp_v6");
    let (router, guest) = (MacAddr::ROUTER.link_local(), "fd00::1".parse().unwrap());
    let mut too_big = [&[0; 8], &big[14..]].concat();
    icmpv6::emit_error(&mut too_big, router, guest, icmpv6::Problem::PacketTooBig { mtu: 1450 }).unwrap();
    let advertisement = nd::RouterAdvertisement {
        hop_limit: 64,
        managed: true,
        other_config: true,
        router_lifetime_seconds: 1800,
        mac: MacAddr::ROUTER,
        mtu: 1450,
        prefixes: &["fd00::/64".parse().unwrap(), "fd00:0:0:1::/64".parse().unwrap()],
        on_link: true,
        autonomous: false,
        valid_seconds: 3600,
        preferred_seconds: 1800,
        dns: &["fd00::53".parse().unwrap(), "fd00::54".parse().unwrap()],
        dns_lifetime_seconds: 1800,
    };
    let mut advertised = vec![0; advertisement.message_bytes()];
    advertisement.emit(&mut advertised, router, nd::ALL_NODES).unwrap();
    vec![
        ("our_geneve", datagram(49_152, geneve::PORT, &[&geneve::to_bytes(vni), &inner[..]].concat())),
        ("our_vxlan", datagram(49_152, vxlan::PORT, &[&vxlan::to_bytes(vni), &inner[..]].concat())),
        ("our_icmpv4_frag_needed", v4(Protocol::ICMPV4, &frag_needed)),
        ("our_icmpv6_too_big", v6(64, guest, &too_big)),
        ("our_router_advertisement", v6(nd::HOP_LIMIT, nd::ALL_NODES, &advertised)),
        ("our_dhcp_ack", datagram(67, 68, &acknowledgement())),
        ("our_dhcp_overloaded", datagram(67, 68, &overloaded())),
    ]
}

fn frame(ethertype: EtherType, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let ethernet = Ethernet { destination: GUEST, source: MacAddr::ROUTER, ethertype };
    [&ethernet.to_bytes(), header, payload].concat()
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

fn v4(protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let ip = Ipv4 {
        header_bytes: 20,
        tos: 0,
        total_bytes: u16::try_from(20 + payload.len()).unwrap(),
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol,
        source: GATEWAY,
        destination: Ipv4Addr::new(10, 0, 0, 1),
        source_routed: false,
    };
    frame(EtherType::IPV4, &ip.to_bytes(), payload)
}

fn v6(hop_limit: u8, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let ip = Ipv6 {
        traffic_class: 0,
        flow_label: 0,
        payload_bytes: u16::try_from(payload.len()).unwrap(),
        next_header: Protocol::ICMPV6,
        hop_limit,
        source: MacAddr::ROUTER.link_local(),
        destination,
    };
    frame(EtherType::IPV6, &ip.to_bytes(), payload)
}

fn datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; 8], payload].concat();
    udp::emit_v4(&mut bytes, (GATEWAY, from), (Ipv4Addr::new(10, 0, 0, 1), to)).unwrap();
    v4(Protocol::UDP, &bytes)
}

fn reply<'a>(
    request: &dhcpv4::Message<'a>,
    routes: &'a [(ipnet::Ipv4Net, Ipv4Addr)],
    dns: &'a [Ipv4Addr],
) -> Reply<'a> {
    Reply {
        yiaddr: Ipv4Addr::new(10, 0, 0, 1),
        lease_seconds: Some(3600),
        renewal_seconds: Some(1800),
        rebinding_seconds: Some(3150),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        routers: &[GATEWAY],
        dns,
        domain: "blue.example",
        mtu: Some(1450),
        broadcast: Some(Ipv4Addr::new(10, 0, 0, 255)),
        classless_routes: routes,
        wireserver: Some(Ipv4Addr::new(168, 63, 129, 16)),
        host_name: "web-1",
        rapid_commit: true,
        ..Reply::to(request, MessageType::Ack, GATEWAY)
    }
}

fn acknowledgement() -> Vec<u8> {
    let request = golden("dhcp_discover_dhcpcd");
    let request = dhcpv4::Message::parse(&request[42..]).unwrap();
    let routes = ["0.0.0.0/0", "168.63.129.16/32", "169.254.169.254/32", "10.128.0.0/9"];
    let routes = routes.map(|to| (to.parse().unwrap(), GATEWAY));
    let mut out = [0; 1500];
    let length = reply(&request, &routes, &[GATEWAY]).emit(&mut out).unwrap();
    out[..length].to_vec()
}

fn overloaded() -> Vec<u8> {
    let request = golden("dhcp_discover_udhcpc");
    let request = dhcpv4::Message::parse(&request[42..]).unwrap();
    let routes: Vec<_> =
        (0..28).map(|n| (ipnet::Ipv4Net::new(Ipv4Addr::new(10, 0, n, 0), 24).unwrap(), GATEWAY)).collect();
    let mut out = [0; 1500];
    let length = reply(&request, &routes, &[GATEWAY; 10]).emit(&mut out).unwrap();
    out[..length].to_vec()
}

#[test]
fn what_we_write_is_what_the_judge_saw() {
    for (name, bytes) in ours() {
        let hex: Vec<String> = bytes
            .chunks(16)
            .map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(bytes, golden(name), "{name} is now\n{}", hex.join("\n"));
    }
}

#[test]
fn our_own_dhcp_replies_are_written_as_they_were_read() {
    for name in ["our_dhcp_ack", "our_dhcp_overloaded"] {
        let bytes = golden(name);
        let headers = Headers::parse(&bytes).unwrap();
        assert_eq!(headers.addresses().unwrap().0, IpAddr::V4(GATEWAY));
        let parsed = dhcpv4::Message::parse(&bytes[headers.payload_offset()..]).unwrap();
        assert!(parsed.is_reply && parsed.message_type == Some(MessageType::Ack), "{name}");
        assert!(parsed.option(dhcpv4::code::WIRESERVER).unwrap() == [168, 63, 129, 16][..], "{name}");
        assert_eq!(parsed.option(dhcpv4::code::OVERLOAD).is_some(), name == "our_dhcp_overloaded");
    }
}
