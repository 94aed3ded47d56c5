//! DHCPv4 in every state that a client can be in, before and after its port moved. `dhcproto` writes the requests and
//! reads the answers.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::packet::Buffer;
use dataplane::pipeline::{DropReason, Trap, Verdict};
use dataplane::types::MacAddr;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use etherparse::TransportHeader;

use super::frames::{Head, Seen, TTL, assert_is_golden, golden};
use super::world::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
/// From the network that the port was in before.
const OLD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);
const OLD_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// A client's message and how it travels.
#[derive(Clone)]
struct Ask {
    options: Vec<DhcpOption>,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    chaddr: MacAddr,
    broadcast: bool,
    from: Ipv4Addr,
    to: Ipv4Addr,
}

impl Ask {
    fn new(kind: MessageType) -> Self {
        Self {
            options: vec![DhcpOption::MessageType(kind)],
            ciaddr: NONE,
            giaddr: NONE,
            chaddr: A1.mac,
            broadcast: false,
            from: NONE,
            to: Ipv4Addr::BROADCAST,
        }
    }

    fn request() -> Self {
        Self::new(MessageType::Request)
    }

    fn with(mut self, option: DhcpOption) -> Self {
        self.options.push(option);
        self
    }

    fn wants(self, ip: Ipv4Addr) -> Self {
        self.with(DhcpOption::RequestedIpAddress(ip))
    }

    fn server(self, ip: Ipv4Addr) -> Self {
        self.with(DhcpOption::ServerIdentifier(ip))
    }

    /// Renewing: from the address that it has, to the server.
    fn has(self, ip: Ipv4Addr, to: Ipv4Addr) -> Self {
        Self { ciaddr: ip, from: ip, to, ..self }
    }

    fn frame(&self) -> Vec<u8> {
        let mut message =
            Message::new_with_id(0x1234_5678, self.ciaddr, NONE, NONE, self.giaddr, &self.chaddr.0);
        if self.broadcast {
            message.set_flags(Flags::default().set_broadcast());
        }
        for option in &self.options {
            message.opts_mut().insert(option.clone());
        }
        let to_mac = if self.to.is_broadcast() { MacAddr::BROADCAST } else { MacAddr::ROUTER };
        let head = Head { from_mac: A1.mac, to_mac, from: self.from.into(), to: self.to.into(), ttl: TTL };
        head.udp((68, 67), &message.to_vec().unwrap())
    }

    fn send(&self, world: &World) -> Outcome {
        world.a.send(&A1, &self.frame())
    }

    #[track_caller]
    fn answered(&self, world: &World, trap: Trap) -> Answer {
        let outcome = self.send(world);
        outcome.is_reply(trap);
        Answer::of(&outcome)
    }

    #[track_caller]
    fn is_dropped(&self, reason: DropReason) {
        self.send(&World::vxlan()).is_drop(reason, "a1");
    }
}

struct Answer {
    message: Message,
    macs: (MacAddr, MacAddr),
    ips: (IpAddr, IpAddr),
}

impl Answer {
    fn of(outcome: &Outcome) -> Self {
        let seen = Seen::of(&outcome.frame);
        let Some(TransportHeader::Udp(udp)) = &seen.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port, udp.destination_port), (67, 68));
        assert_ne!(udp.checksum, 0, "a checksum is set");
        assert!(seen.payload.len() >= 300, "RFC 1542 section 2.1: {}", seen.payload.len());
        let message = Message::decode(&mut Decoder::new(seen.payload)).unwrap();
        assert_eq!(message.xid(), 0x1234_5678);
        assert_eq!(&message.chaddr()[..6], &A1.mac.0);
        Self { message, macs: seen.macs(), ips: seen.ips() }
    }

    fn option(&self, code: OptionCode) -> Option<&DhcpOption> {
        self.message.opts().get(code)
    }

    fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }

    fn server(&self) -> Ipv4Addr {
        match self.option(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(ip)) => *ip,
            other => panic!("{other:?}"),
        }
    }

    /// To everybody.
    #[track_caller]
    fn is_nak(&self, server: Ipv4Addr) {
        self.is_nak_to(server, Ipv4Addr::BROADCAST, MacAddr::BROADCAST);
    }

    #[track_caller]
    fn is_nak_to(&self, server: Ipv4Addr, ip: Ipv4Addr, mac: MacAddr) {
        assert_eq!(self.kind(), MessageType::Nak);
        assert_eq!(self.server(), server);
        assert_eq!(self.ips, (server.into(), ip.into()));
        assert_eq!(self.macs, (MacAddr::ROUTER, mac));
        assert_eq!((self.message.yiaddr(), self.message.ciaddr()), (NONE, NONE));
        for absent in [
            OptionCode::AddressLeaseTime,
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::Unknown(245),
        ] {
            assert_eq!(self.option(absent), None, "RFC 2131 table 3");
        }
        assert!(self.option(OptionCode::Message).is_some());
    }

    fn has_whole_lease(&self) {
        let expected =
            [DhcpOption::AddressLeaseTime(3600), DhcpOption::Renewal(1800), DhcpOption::Rebinding(3150)];
        for option in expected {
            assert_eq!(self.option(OptionCode::from(&option)), Some(&option));
        }
        self.has_configuration();
    }

    fn has_configuration(&self) {
        let route = |to: &str| (to.parse().unwrap(), GATEWAY);
        let expected = [
            DhcpOption::ServerIdentifier(GATEWAY),
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 0, 0, 255)),
            DhcpOption::Router(vec![GATEWAY]),
            DhcpOption::DomainNameServer(vec![Ipv4Addr::new(10, 0, 0, 53)]),
            DhcpOption::DomainName("red.example".into()),
            DhcpOption::Hostname("guest-a1".into()),
            DhcpOption::InterfaceMtu(1500),
            DhcpOption::ClasslessStaticRoute(vec![
                route("0.0.0.0/0"),
                route("168.63.129.16/32"),
                route("169.254.169.254/32"),
                route("10.0.1.0/24"),
            ]),
            DhcpOption::Unknown(UnknownOption::new(OptionCode::Unknown(245), vec![168, 63, 129, 16])),
        ];
        for option in expected {
            assert_eq!(self.option(OptionCode::from(&option)), Some(&option));
        }
    }
}

#[test]
fn init_is_offered_the_ports_address_whatever_it_wishes() {
    let world = World::vxlan();
    for ask in [Ask::new(MessageType::Discover), Ask::new(MessageType::Discover).wants(OLD)] {
        let offer = ask.answered(&world, Trap::DhcpOffer);
        assert_eq!(offer.kind(), MessageType::Offer);
        assert_eq!(offer.message.yiaddr(), OWN);
        assert_eq!(offer.ips, (GATEWAY.into(), OWN.into()));
        assert_eq!(offer.macs, (MacAddr::ROUTER, A1.mac), "unicast, as the flags allow");
        offer.has_whole_lease();
    }
    assert_eq!(world.a.port("a1").progress.lease_at(), None, "an offer is no lease");
}

#[test]
fn a_client_that_cannot_receive_unicast_is_broadcast_to() {
    let world = World::vxlan();
    let offer = Ask { broadcast: true, ..Ask::new(MessageType::Discover) }.answered(&world, Trap::DhcpOffer);
    assert_eq!(offer.ips.1, IpAddr::V4(Ipv4Addr::BROADCAST));
    assert_eq!(offer.macs.1, MacAddr::BROADCAST);
    assert!(offer.message.flags().broadcast(), "RFC 2131 table 3");
    // RFC 2131 section 4.1: an address that the client has comes first.
    let renewing =
        Ask { broadcast: true, ..Ask::request().has(OWN, GATEWAY) }.answered(&world, Trap::DhcpAck);
    assert_eq!((renewing.ips.1, renewing.macs.1), (OWN.into(), A1.mac));
}

#[test]
fn rapid_commit_saves_two_messages() {
    let mut world = World::vxlan();
    world.a.now.0 = 77;
    let ack = Ask::new(MessageType::Discover).with(DhcpOption::RapidCommit).answered(&world, Trap::DhcpAck);
    assert_eq!((ack.kind(), ack.message.yiaddr()), (MessageType::Ack, OWN));
    assert!(ack.option(OptionCode::RapidCommit).is_some(), "RFC 4039 section 3.1");
    ack.has_whole_lease();
    assert_eq!(world.a.port("a1").progress.lease_at().map(|at| at.0), Some(77));
}

#[test]
fn selecting() {
    let mut world = World::vxlan();
    world.a.now.0 = 9;
    let ack = Ask::request().server(GATEWAY).wants(OWN).answered(&world, Trap::DhcpAck);
    assert_eq!((ack.kind(), ack.message.yiaddr()), (MessageType::Ack, OWN));
    assert_eq!(ack.ips, (GATEWAY.into(), OWN.into()));
    ack.has_whole_lease();
    assert!(ack.option(OptionCode::RapidCommit).is_none());
    assert_eq!(world.a.port("a1").progress.lease_at().map(|at| at.0), Some(9));
    // Some fill in the address that they still have: what they ask for counts.
    let sloppy = Ask::request().server(GATEWAY).wants(OWN).has(OLD, Ipv4Addr::BROADCAST);
    assert_eq!(sloppy.answered(&world, Trap::DhcpAck).message.yiaddr(), OWN);
    // Moved between offer and request: the server that it names is asked in the old network's name.
    for _ in 0..3 {
        Ask::request().server(OLD_GATEWAY).wants(OLD).answered(&world, Trap::DhcpNak).is_nak(OLD_GATEWAY);
        Ask::request().server(GATEWAY).wants(OLD).answered(&world, Trap::DhcpNak).is_nak(GATEWAY);
    }
    Ask::request().server(OLD_GATEWAY).wants(OWN).is_dropped(DropReason::DhcpNotForUs);
}

#[test]
fn init_reboot() {
    let world = World::vxlan();
    let ack = Ask::request().wants(OWN).answered(&world, Trap::DhcpAck);
    assert_eq!(ack.message.yiaddr(), OWN);
    ack.has_whole_lease();
    for _ in 0..3 {
        Ask::request().wants(OLD).answered(&world, Trap::DhcpNak).is_nak(GATEWAY);
    }
    Ask::request().is_dropped(DropReason::DhcpIgnored);
}

#[test]
fn renewing_and_rebinding() {
    let world = World::vxlan();
    for to in [GATEWAY, Ipv4Addr::BROADCAST, OLD_GATEWAY] {
        let ack = Ask::request().has(OWN, to).answered(&world, Trap::DhcpAck);
        assert_eq!((ack.message.yiaddr(), ack.message.ciaddr()), (OWN, OWN), "RFC 2131 table 3");
        assert_eq!((ack.ips, ack.macs.1), ((GATEWAY.into(), OWN.into()), A1.mac));
        ack.has_whole_lease();
    }
    for _ in 0..3 {
        // Renewing, with its old source address, to the old network's server, which a client may want the NAK from. It
        // listens where it speaks from, whatever the flag says.
        for ask in [Ask::request(), Ask { broadcast: true, ..Ask::request() }] {
            let nak = ask.has(OLD, OLD_GATEWAY).answered(&world, Trap::DhcpNak);
            nak.is_nak_to(OLD_GATEWAY, OLD, A1.mac);
        }
        // Against RFC 2131 table 5, and seen.
        let sloppy = Ask::request().has(OLD, OLD_GATEWAY).server(OLD_GATEWAY);
        sloppy.answered(&world, Trap::DhcpNak).is_nak_to(OLD_GATEWAY, OLD, A1.mac);
        // Rebinding.
        Ask::request().has(OLD, Ipv4Addr::BROADCAST).answered(&world, Trap::DhcpNak).is_nak(GATEWAY);
    }
    let ack = Ask::request().has(OWN, OLD_GATEWAY).server(OLD_GATEWAY).answered(&world, Trap::DhcpAck);
    assert_eq!(ack.server(), GATEWAY);
}

#[test]
fn a_nak_is_unicast_only_to_an_address_that_was_spoken_from() {
    let world = World::vxlan();
    let other = Ipv4Addr::new(10, 77, 0, 6);
    for ask in [
        Ask { from: NONE, ..Ask::request().has(OLD, OLD_GATEWAY) },
        Ask { from: other, ..Ask::request().has(OLD, OLD_GATEWAY) },
        Ask { ciaddr: NONE, ..Ask::request().wants(OLD).has(OLD, OLD_GATEWAY) },
        Ask::request().has(Ipv4Addr::LOCALHOST, OLD_GATEWAY),
    ] {
        ask.answered(&world, Trap::DhcpNak).is_nak(OLD_GATEWAY);
    }
}

/// Renewals as these clients send them, in the network that they have their lease from and after a move to another.
#[test]
fn real_renewals_are_answered_where_their_clients_listen() {
    let mut world = World::vxlan();
    let clients = ["dhcpcd", "networkd", "udhcpc"];
    let send = |world: &World, client: &str| {
        let outcome = world.a.send(&A1, &golden(&format!("dhcp_renewal_{client}")));
        let seen = Seen::of(&outcome.frame);
        (outcome.verdict, seen.ips(), seen.macs().1, outcome.frame)
    };
    let everybody = ((GATEWAY.into(), Ipv4Addr::BROADCAST.into()), MacAddr::BROADCAST);
    let itself = ((GATEWAY.into(), OWN.into()), A1.mac);
    let expected = |client: &str| if client == "udhcpc" { everybody } else { itself };
    for client in clients {
        let (verdict, ips, mac, frame) = send(&world, client);
        assert_eq!(verdict, Verdict::Reply(Trap::DhcpAck), "{client}");
        assert_eq!((ips, mac), expected(client), "{client}");
        if client == "udhcpc" {
            assert_is_golden("our_dhcp_ack_to_udhcpc", &frame);
        }
    }
    world.a.apply(&document(2, &[Guest { network: 200, ips: &["10.2.0.5"], ..A1 }]));
    for client in clients {
        let (verdict, ips, mac, frame) = send(&world, client);
        assert_eq!(verdict, Verdict::Reply(Trap::DhcpNak), "{client}");
        assert_eq!((ips, mac), expected(client), "{client}");
        assert_is_golden(&format!("our_dhcp_nak_to_{client}"), &frame);
    }
}

#[test]
fn a_nak_never_comes_from_nobodys_address() {
    let world = World::vxlan();
    for server in [NONE, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1)] {
        Ask::request().server(server).wants(OLD).answered(&world, Trap::DhcpNak).is_nak(GATEWAY);
    }
}

#[test]
fn inform_gets_everything_but_address_and_times() {
    let world = World::vxlan();
    let ack = Ask::new(MessageType::Inform).has(OWN, Ipv4Addr::BROADCAST).answered(&world, Trap::DhcpInform);
    assert_eq!((ack.kind(), ack.message.yiaddr(), ack.message.ciaddr()), (MessageType::Ack, NONE, OWN));
    assert_eq!(ack.ips.1, IpAddr::V4(OWN));
    for absent in [OptionCode::AddressLeaseTime, OptionCode::Renewal, OptionCode::Rebinding] {
        assert_eq!(ack.option(absent), None, "RFC 2131 section 4.3.5");
    }
    ack.has_configuration();
    assert_eq!(world.a.port("a1").progress.lease_at(), None);
    Ask::new(MessageType::Inform).has(OLD, Ipv4Addr::BROADCAST).is_dropped(DropReason::DhcpIgnored);
}

#[test]
fn release_and_decline_are_counted_and_change_nothing() {
    let world = World::vxlan();
    let release = Ask::new(MessageType::Release).has(OWN, GATEWAY).server(GATEWAY).send(&world);
    assert_eq!(release.verdict, Verdict::Absorbed(Trap::DhcpRelease));
    let decline = Ask::new(MessageType::Decline).wants(OWN).server(GATEWAY).send(&world);
    assert_eq!(decline.verdict, Verdict::Absorbed(Trap::DhcpDecline));
    let offer = Ask::new(MessageType::Discover).answered(&world, Trap::DhcpOffer);
    assert_eq!(offer.message.yiaddr(), OWN);
}

#[test]
fn every_form_of_client_id_is_echoed_and_none_changes_the_address() {
    let world = World::vxlan();
    let mut duid = vec![0xff, 1, 2, 3, 4, 0, 2];
    duid.extend([7; 12]);
    for id in [[&[1][..], &A1.mac.0].concat(), duid, b"vm-1234".to_vec(), vec![0; 2], vec![9; 255]] {
        let ask = Ask::new(MessageType::Discover).with(DhcpOption::ClientIdentifier(id.clone()));
        let offer = ask.answered(&world, Trap::DhcpOffer);
        assert_eq!(
            offer.option(OptionCode::ClientIdentifier),
            Some(&DhcpOption::ClientIdentifier(id.clone()))
        );
        assert_eq!(offer.message.yiaddr(), OWN);
        let nak = Ask::request().wants(OLD).with(DhcpOption::ClientIdentifier(id.clone()));
        let nak = nak.answered(&world, Trap::DhcpNak);
        assert_eq!(
            nak.option(OptionCode::ClientIdentifier),
            Some(&DhcpOption::ClientIdentifier(id)),
            "RFC 6842"
        );
    }
}

#[test]
fn relay_information_is_echoed() {
    let world = World::vxlan();
    let option = [82, 6, 1, 4, b'p', b'o', b'r', b't'];
    let mut frame = Ask::new(MessageType::Discover).frame();
    // dhcproto has no raw form of option 82: write it in front of END.
    let end = frame.iter().rposition(|&byte| byte == 255).unwrap();
    frame.splice(end..end, option);
    let length = u16::try_from(frame.len() - 34).unwrap();
    frame[38..40].copy_from_slice(&length.to_be_bytes());
    frame[16..18].copy_from_slice(&(length + 20).to_be_bytes());
    super::frames::mend_v4(&mut frame);
    let outcome = world.a.send(&A1, &frame);
    outcome.is_reply(Trap::DhcpOffer);
    assert!(outcome.frame.windows(option.len()).any(|window| window == option));
}

#[test]
fn what_no_server_answers() {
    Ask { giaddr: GATEWAY, ..Ask::new(MessageType::Discover) }.is_dropped(DropReason::DhcpRelayed);
    Ask { chaddr: A6.mac, ..Ask::new(MessageType::Discover) }.is_dropped(DropReason::DhcpForeignClient);
    for kind in [MessageType::Offer, MessageType::Ack, MessageType::Nak] {
        Ask::new(kind).is_dropped(DropReason::DhcpServerForged);
    }
    let bootp = Ask { options: vec![], ..Ask::new(MessageType::Discover) };
    bootp.is_dropped(DropReason::DhcpIgnored);
}

#[test]
fn an_answer_without_room_is_named() {
    let world = World::vxlan();
    let frame = Ask::new(MessageType::Discover).frame();
    let mut tight = frame.clone();
    let end = tight.len();
    let packet = dataplane::packet::Packet::within(&mut tight, 0, end, dataplane::packet::Offload::NONE);
    world.a.send_packet(&A1, packet).is_drop(DropReason::AnswerNoRoom, "a1");
    let mut buffer = Buffer::new();
    world.a.send_packet(&A1, buffer.load(&frame)).is_reply(Trap::DhcpOffer);
}
