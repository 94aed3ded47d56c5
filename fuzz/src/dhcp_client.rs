//! A DHCP client of any manners on a port that moves: the input is a row of messages, wrong ones and garbage among them,
//! and of network changes.
//!
//! The judge has the table of RFC 2131 section 4.3 (and of 4039) as one function of the lease and the message; every
//! answer is read by dhcproto. dhcproto 0.15 keeps options sorted and ignores option 52, so order is not compared, and
//! the client's limit always leaves room for one options field.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};

use dataplane::desired::{Encapsulation, UnderlayConfig};
use dataplane::directory::{DirectoryReader, DirectoryWriter};
use dataplane::packet::{Offload, Packet};
use dataplane::pipeline::{Context, Trap, Verdict, Verdicts, egress};
use dataplane::tables::{Lease, Port, Tables};
use dataplane::types::{CustomerIp, Generation, MacAddr, Mtu, Nanos};
use dhcproto::v4::{self, DhcpOption, OptionCode};
use dhcproto::{Decodable as _, Decoder};
use serde_json::json;
use std::sync::Arc;

use crate::dice::Dice;
use crate::{flow, sum};

const MOST_STEPS: usize = 24;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa1]);

/// Where the port can be: network, addresses.
const PLACES: [(u32, &[&str]); 6] = [
    (100, &["10.0.0.5", "fd00::5"]),
    (200, &["10.2.0.7"]),
    (100, &["10.0.1.6", "10.0.0.9"]),
    (100, &["fd00::5"]),
    (400, &["10.0.0.5"]),
    (200, &["10.2.0.8", "10.2.0.7"]),
];

/// Addresses that a client may name: right ones, those of other places, and such as nobody has.
const NAMED: [[u8; 4]; 12] = [
    [10, 0, 0, 5],
    [10, 2, 0, 7],
    [10, 0, 1, 6],
    [10, 0, 0, 9],
    [10, 2, 0, 8],
    [10, 0, 0, 1],
    [10, 0, 0, 2],
    [10, 2, 0, 1],
    [0, 0, 0, 0],
    [255, 255, 255, 255],
    [127, 0, 0, 1],
    [224, 0, 0, 9],
];

/// Whatever the client says, it gets its port's lease or none; each wrong address is refused, each time; every answer is
/// for it, can be read, and says the whole lease; and after all that, a proper client gets its address.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let mut world = World::new();
    for _ in 0..MOST_STEPS {
        if dice.is_empty() {
            break;
        }
        match dice.byte() % 8 {
            0 => world.move_to(dice.pick(&PLACES)),
            1 => world.garbage(&mut dice),
            2 => world.now.set(world.now.get() + (u64::from(dice.word()) << 24)),
            _ => {
                let message = Asked::any(&mut dice, &world);
                world.say(&message, &mut dice);
            }
        }
    }
    world.a_proper_client_gets_its_address();
}

struct World {
    tables: Tables,
    directory: DirectoryReader,
    _writer: DirectoryWriter,
    /// Nanoseconds.
    now: Cell<u64>,
    /// What the server last offered, and as whom.
    offered: Option<(Ipv4Addr, Ipv4Addr)>,
    /// What it last acknowledged.
    bound: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// A message as the judge sees it.
#[derive(Debug, Clone, Default)]
struct Asked {
    kind: u8,
    xid: u32,
    ciaddr: Option<Ipv4Addr>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    rapid_commit: bool,
    broadcast: bool,
    limit: Option<u16>,
    client_id: Option<Vec<u8>>,
    /// Where it is sent, from where.
    to: Option<Ipv4Addr>,
    from: Option<Ipv4Addr>,
}

impl Asked {
    /// Mostly what a client in one of its states would say.
    fn any(dice: &mut Dice<'_>, world: &World) -> Self {
        let (offered, bound) = (world.offered, world.bound);
        let mut asked = Self { xid: u32::from(dice.word()), ..Self::default() };
        match dice.byte() % 9 {
            0 => (asked.kind, asked.requested) = (1, bound.map(|(ip, _)| ip)),
            1 => (asked.kind, asked.rapid_commit) = (1, true),
            2 => {
                asked.kind = 3;
                (asked.requested, asked.server) =
                    (offered.map(|(ip, _)| ip), offered.map(|(_, server)| server));
            }
            3 => (asked.kind, asked.requested) = (3, bound.map(|(ip, _)| ip)),
            4 => {
                asked.kind = 3;
                (asked.ciaddr, asked.from, asked.to) =
                    (bound.map(|(ip, _)| ip), bound.map(|(ip, _)| ip), bound.map(|(_, server)| server));
            }
            5 => {
                (asked.kind, asked.ciaddr, asked.from) = (3, bound.map(|(ip, _)| ip), bound.map(|(ip, _)| ip))
            }
            6 => (asked.kind, asked.ciaddr) = (8, bound.map(|(ip, _)| ip)),
            7 => {
                (asked.kind, asked.requested, asked.server) =
                    (dice.pick(&[4, 7]), offered.map(|(ip, _)| ip), None)
            }
            _ => asked.kind = dice.pick(&[1, 3, 4, 7, 8, 2, 5, 6]),
        }
        let whims = dice.byte();
        let mut named = || Some(Ipv4Addr::from(dice.pick(&NAMED)));
        if whims & 1 != 0 {
            asked.ciaddr = named();
        }
        if whims & 2 != 0 {
            asked.requested = named();
        }
        if whims & 4 != 0 {
            asked.server = named();
        }
        if whims & 8 != 0 {
            asked.to = named();
        }
        if whims & 16 != 0 {
            asked.from = named();
        }
        asked.broadcast = whims & 32 != 0;
        if whims & 64 != 0 {
            asked.limit = Some(dice.word());
        }
        if whims & 128 != 0 {
            asked.client_id = Some(dice.bytes(60).to_vec()).filter(|id| id.len() >= 2);
        }
        asked
    }

    fn message(&self) -> Vec<u8> {
        let mut message = vec![0; 240];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[4..8].copy_from_slice(&self.xid.to_be_bytes());
        message[10] = u8::from(self.broadcast) << 7;
        message[12..16].copy_from_slice(&self.ciaddr.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        message[28..34].copy_from_slice(&MAC.0);
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        message.extend([53, 1, self.kind]);
        let address = |code: u8, ip: Option<Ipv4Addr>| ip.map(|ip| [&[code, 4][..], &ip.octets()].concat());
        message.extend(address(50, self.requested).unwrap_or_default());
        message.extend(address(54, self.server).unwrap_or_default());
        if self.rapid_commit {
            message.extend([80, 0]);
        }
        if let Some(limit) = self.limit {
            message.extend([57, 2]);
            message.extend(limit.to_be_bytes());
        }
        if let Some(id) = &self.client_id {
            message.extend([61, u8::try_from(id.len()).unwrap()]);
            message.extend(id);
        }
        message.push(255);
        message
    }

    /// What RFC 2131 section 4.3 has a server do that has this one lease, or none, for this client.
    fn expected(&self, port: &Port) -> Option<Trap> {
        let current = self.ciaddr.filter(|ip| !ip.is_unspecified());
        match self.kind {
            4 => return Some(Trap::DhcpDecline),
            7 => return Some(Trap::DhcpRelease),
            2 | 5 | 6 => return None,
            _ => {}
        }
        let lease = port.lease.as_ref()?;
        match self.kind {
            1 if self.rapid_commit => Some(Trap::DhcpAck),
            1 => Some(Trap::DhcpOffer),
            8 => current
                .filter(|ip| port.config.ips.contains(&CustomerIp(IpAddr::V4(*ip))))
                .map(|_| Trap::DhcpInform),
            _ => {
                let wanted = if self.server.is_some() {
                    self.requested.or(current)
                } else {
                    current.or(self.requested)
                };
                if wanted? != lease.address {
                    return Some(Trap::DhcpNak);
                }
                let chose_another =
                    self.server.is_some_and(|server| server != lease.gateway) && current.is_none();
                (!chose_another).then_some(Trap::DhcpAck)
            }
        }
    }
}

impl World {
    fn new() -> Self {
        let underlay = UnderlayConfig {
            physical_ips: vec!["192.0.2.1".parse().unwrap()],
            encapsulation: Encapsulation::Vxlan,
            mtu: Mtu::new(1600).unwrap(),
        };
        let (writer, mut readers) = DirectoryWriter::new(7, 1);
        let directory = readers.pop().unwrap();
        let tables = Tables::empty(underlay.into(), 1, 7);
        let mut world =
            Self { tables, directory, _writer: writer, now: Cell::new(1), offered: None, bound: None };
        world.move_to(PLACES[0]);
        world
    }

    fn move_to(&mut self, (network, ips): (u32, &[&str])) {
        let Generation(before) = self.tables.generation;
        let document = json!({"generation": before + 1, "networks": [
            {"vni": 100, "dns": ["10.0.0.53", "fd00::53"], "domain": "red.example", "subnets": [
                {"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"prefix": "10.0.1.0/24", "gateway": "10.0.1.1"},
                {"prefix": "fd00::/64", "gateway": "fd00::1"}]},
            {"vni": 200, "mtu": 700, "lease_seconds": 60, "subnets": [{"prefix": "10.2.0.0/24", "gateway": "10.2.0.1"}]},
            {"vni": 400, "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.2"}]}],
            "ports": [{"name": "a1", "network": network, "mac": MAC.to_string(), "ips": ips, "hostname": "guest"}]});
        let document = serde_json::from_value(document).unwrap();
        self.tables = self.tables.succeed(&document, 1).unwrap();
    }

    fn port(&self) -> Arc<Port> {
        self.tables.ports().next().unwrap().clone()
    }

    /// Sends one frame; the buffer has room for every answer.
    fn send(&self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buffer = vec![0xee; 128];
        buffer.extend(frame);
        let end = buffer.len();
        buffer.resize(end + 2048, 0xee);
        let mut packets = [Packet::within(&mut buffer, 128, end, Offload::NONE)];
        let mut verdicts = Verdicts::new();
        // A second between two messages: nobody has had its share of answers.
        self.now.set(self.now.get() + 1_000_000_000);
        let now = Nanos(self.now.get());
        let context = Context { tables: &self.tables, directory: &self.directory, now, worker: 0 };
        egress(&context, &self.port(), &mut packets, &mut verdicts);
        (verdicts[0], packets[0].frame().to_vec())
    }

    /// A DHCP frame with any bytes for a message, or with a good message spoiled: never a lease that is not the port's.
    fn garbage(&mut self, dice: &mut Dice<'_>) {
        let message = if dice.rarely(2) {
            dice.bytes(255).to_vec()
        } else {
            let mut message = Asked::any(dice, self).message();
            for _ in 0..=dice.byte() % 3 {
                let at = usize::from(dice.word()) % message.len();
                message[at] = dice.byte();
            }
            message.truncate(usize::from(dice.word()) + 200);
            message
        };
        let (verdict, answer) = self.send(&frame(&message, None, None));
        let is_dhcp =
            |trap| matches!(trap, Trap::DhcpOffer | Trap::DhcpAck | Trap::DhcpNak | Trap::DhcpInform);
        match verdict {
            Verdict::Reply(trap) if is_dhcp(trap) => drop(self.judge_answer(trap, &answer)),
            Verdict::Absorbed(Trap::DhcpDecline | Trap::DhcpRelease) | Verdict::Drop(_) => {}
            other => panic!("{other:?} of a DHCP message"),
        }
    }

    /// Says a well-formed message and judges what comes back.
    fn say(&mut self, asked: &Asked, dice: &mut Dice<'_>) {
        let port = self.port();
        // Said twice: a server without state says the same twice.
        let sent = frame(&asked.message(), asked.from, asked.to);
        let (verdict, answer) = self.send(&sent);
        assert_eq!((verdict, &answer), (self.send(&sent).0, &self.send(&sent).1));
        let expected = asked.expected(&port);
        match (verdict, expected) {
            (Verdict::Reply(trap), Some(expected)) => assert_eq!(trap, expected, "{asked:?}"),
            (Verdict::Absorbed(trap), Some(expected)) => {
                assert_eq!(trap, expected);
                return;
            }
            (Verdict::Drop(_), None) => return,
            (verdict, expected) => panic!("{verdict:?} where {expected:?} was due: {asked:?}"),
        }
        let trap = expected.unwrap();
        let told = self.judge_answer(trap, &answer);
        assert_eq!(told.xid(), asked.xid);
        let id = told.opts().get(OptionCode::ClientIdentifier).cloned();
        assert_eq!(id, asked.client_id.clone().map(DhcpOption::ClientIdentifier), "RFC 6842");
        assert_eq!(told.flags().broadcast(), asked.broadcast);
        let Some(&DhcpOption::ServerIdentifier(server)) = told.opts().get(OptionCode::ServerIdentifier)
        else {
            panic!("every answer names its server")
        };
        match trap {
            // A client that forgets is a client too.
            _ if dice.rarely(16) => (self.offered, self.bound) = (None, None),
            Trap::DhcpOffer => self.offered = Some((told.yiaddr(), server)),
            Trap::DhcpAck => self.bound = Some((told.yiaddr(), server)),
            Trap::DhcpNak => self.bound = None,
            _ => {}
        }
    }

    /// What holds for every answer, whatever was asked.
    fn judge_answer(&self, trap: Trap, answer: &[u8]) -> v4::Message {
        let port = self.port();
        let lease = port.lease.as_ref().expect("no lease, no answer");
        let headers = flow::check(answer).expect("an answer can be parsed");
        let (from, to) = headers.addresses().unwrap();
        let datagram = &answer[headers.transport_offset()..headers.end as usize];
        assert_eq!(sum::with_pseudo(from, to, 17, datagram), sum::VALID);
        assert!(headers.destination == MAC || headers.destination == MacAddr::BROADCAST);
        assert!(headers.ip_bytes() <= usize::from(lease.mtu.bytes()), "longer than the link takes");
        let told = v4::Message::decode(&mut Decoder::new(&answer[headers.payload_offset()..]))
            .expect("dhcproto reads it");
        assert_eq!((told.opcode(), told.chaddr()), (v4::Opcode::BootReply, &MAC.0[..]));
        let (kind, address) = match trap {
            Trap::DhcpOffer => (v4::MessageType::Offer, lease.address),
            Trap::DhcpAck => (v4::MessageType::Ack, lease.address),
            Trap::DhcpInform => (v4::MessageType::Ack, Ipv4Addr::UNSPECIFIED),
            _ => (v4::MessageType::Nak, Ipv4Addr::UNSPECIFIED),
        };
        assert_eq!(told.opts().msg_type(), Some(kind));
        assert_eq!(told.yiaddr(), address, "never another address than the port's");
        let has_times = matches!(trap, Trap::DhcpOffer | Trap::DhcpAck);
        for (option, is_due) in whole_lease(lease, has_times) {
            let found = told.opts().get(OptionCode::from(&option));
            if trap == Trap::DhcpNak {
                let is_server = matches!(option, DhcpOption::ServerIdentifier(_));
                assert!(is_server || found.is_none(), "a refusal says {option:?}");
            } else if is_due || found.is_some() {
                assert_eq!(found, Some(&option));
            }
        }
        told
    }

    fn a_proper_client_gets_its_address(&self) {
        let port = self.port();
        let discover = Asked { kind: 1, xid: 9, ..Asked::default() };
        let (verdict, answer) = self.send(&frame(&discover.message(), None, None));
        let Some(lease) = &port.lease else {
            assert!(matches!(verdict, Verdict::Drop(_)));
            return;
        };
        assert_eq!(verdict, Verdict::Reply(Trap::DhcpOffer));
        let offer = self.judge_answer(Trap::DhcpOffer, &answer);
        let request =
            Asked { kind: 3, requested: Some(offer.yiaddr()), server: Some(lease.gateway), ..discover };
        let (verdict, answer) = self.send(&frame(&request.message(), None, None));
        assert_eq!(verdict, Verdict::Reply(Trap::DhcpAck));
        self.judge_answer(Trap::DhcpAck, &answer);
        assert!(port.progress.lease_at().is_some());
    }
}

/// Every option that a lease brings; those that always have room are due.
fn whole_lease(lease: &Lease, has_times: bool) -> Vec<(DhcpOption, bool)> {
    let mask = u32::MAX.checked_shl(32 - u32::from(lease.prefix_len)).unwrap_or(0);
    let broadcast = Ipv4Addr::from(u32::from(lease.address) | !mask);
    let mut options = vec![
        (DhcpOption::ServerIdentifier(lease.gateway), true),
        (DhcpOption::SubnetMask(mask.into()), true),
        (DhcpOption::Router(vec![lease.gateway]), true),
        (DhcpOption::InterfaceMtu(lease.mtu.bytes()), true),
        (DhcpOption::BroadcastAddr(broadcast), false),
        (DhcpOption::ClasslessStaticRoute(lease.classless_routes.clone()), false),
        (DhcpOption::Hostname("guest".into()), false),
    ];
    if has_times {
        options.push((DhcpOption::AddressLeaseTime(lease.seconds), true));
        options.push((DhcpOption::Renewal(lease.seconds / 2), true));
        options.push((DhcpOption::Rebinding(lease.seconds - lease.seconds / 8), true));
    }
    if !lease.dns.is_empty() {
        options.push((DhcpOption::DomainNameServer(lease.dns.clone()), true));
    }
    options
}

/// A client's frame around a message.
fn frame(message: &[u8], from: Option<Ipv4Addr>, to: Option<Ipv4Addr>) -> Vec<u8> {
    let (from, to) = (from.unwrap_or(Ipv4Addr::UNSPECIFIED), to.unwrap_or(Ipv4Addr::BROADCAST));
    let length = u16::try_from(8 + message.len()).unwrap();
    let destination = if to.is_broadcast() { MacAddr::BROADCAST } else { MacAddr::ROUTER };
    let mut frame = [&destination.0[..], &MAC.0, &[8, 0, 0x45, 0]].concat();
    frame.extend((20 + length).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    let checksum = !sum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend([0, 68, 0, 67]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}
