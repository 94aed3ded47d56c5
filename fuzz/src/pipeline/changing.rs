//! The pipeline in a world that changes: guests of two hosts send, ports move while packets are between the hosts,
//! rules come and go, directories are told the truth or not, time passes.
//!
//! An operation is one arm of [`Changing::step`].

use dataplane::desired::Encapsulation;
use dataplane::packet::{Offload, Packet};
use dataplane::pipeline::{Context, DropReason, Outer, Verdict, Verdicts, egress, ingress};
use dataplane::types::{CustomerIp, MacAddr, PhysicalIp, Vni};
use serde_json::{Value, json};

use super::world::{self, HOST_A, HOST_B, HOST_C, Host, ON_A, ON_B, World};
use super::{Outcome, check_sent, frames, handle, tunnel};
use crate::dice::Dice;
use crate::flow;

const MOST_STEPS: usize = 20;
/// Between the hosts at once; the oldest is lost.
const MOST_UNDER_WAY: usize = 8;

/// Addresses by network that a guest can be given.
const PLACES: [(u32, &[&str]); 4] = [
    (
        100,
        &[
            "10.0.0.5",
            "10.0.0.15",
            "10.0.1.6",
            "10.0.0.200",
            "fd00:0:0:a::5",
            "fd00:0:0:a::15",
            "10.0.0.9",
            "10.0.0.1",
        ],
    ),
    (200, &["10.2.0.7", "10.2.0.17", "10.2.0.9"]),
    (300, &["10.3.0.1", "10.3.0.7"]),
    (400, &["10.0.0.5", "10.0.0.15", "fd00:0:0:a::5", "10.0.0.2"]),
];

/// All that holds for the pipeline holds at every moment of a changing world, by the tables and directories of that
/// moment; and what arrives was sent by a guest who had its source address when it was sent, in the network that it was
/// sent into, and goes to a port that is in this network now.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let mut changing = Changing::new(dice.pick(&[Encapsulation::Vxlan, Encapsulation::Geneve]));
    for _ in 0..MOST_STEPS {
        if dice.is_empty() {
            break;
        }
        changing.step(&mut dice);
    }
    while let Some(packet) = changing.under_way.pop() {
        changing.arrives(&packet);
    }
}

struct Changing {
    world: World,
    guests: Vec<Guest>,
    under_way: Vec<UnderWay>,
    /// Nothing has changed yet: all that was sent arrives.
    is_as_made: bool,
}

/// A guest as the documents have it.
#[derive(Clone)]
struct Guest {
    name: &'static str,
    is_on_b: bool,
    network: u32,
    mac: MacAddr,
    ips: Vec<&'static str>,
    rules: Vec<Value>,
}

/// A tunnel packet that was sent, and by whom: as it was then.
struct UnderWay {
    to_b: bool,
    packet: Vec<u8>,
    offload: Offload,
    traffic_class: u8,
    sent_into: Vni,
    sender: &'static str,
    sender_ips: Vec<CustomerIp>,
}

impl Changing {
    fn new(format: Encapsulation) -> Self {
        let guest = |is_on_b| {
            move |(name, network, last, ips): world::Guest| Guest {
                name,
                is_on_b,
                network,
                mac: world::mac(last),
                ips: ips.to_vec(),
                rules: vec![],
            }
        };
        let guests = ON_A.into_iter().map(guest(false)).chain(ON_B.into_iter().map(guest(true))).collect();
        Self { world: World::new(format), guests, under_way: vec![], is_as_made: true }
    }

    fn host(&mut self, is_b: bool) -> &mut Host {
        if is_b { &mut self.world.b } else { &mut self.world.a }
    }

    fn step(&mut self, dice: &mut Dice<'_>) {
        match dice.byte() % 16 {
            0..=6 => self.sends(dice),
            7 | 8 => {
                if !self.under_way.is_empty() {
                    let at = usize::from(dice.byte()) % self.under_way.len();
                    let packet = self.under_way.remove(at);
                    self.arrives(&packet);
                }
            }
            9 => self.forged(dice),
            10 | 11 => self.moves(dice),
            12 => self.leaves_or_comes(dice),
            13 => self.is_told(dice),
            14 => {
                let is_b = dice.byte() & 1 == 1;
                let nanos = u64::from(dice.word()) << (dice.byte() % 32);
                self.host(is_b).pass_time(nanos);
            }
            15 if dice.byte() & 1 == 1 => self.rules(dice),
            _ => {
                // The same packet twice.
                let twice = self.under_way.last().map(|packet| UnderWay {
                    packet: packet.packet.clone(),
                    sender_ips: packet.sender_ips.clone(),
                    ..*packet
                });
                self.under_way.extend(twice);
            }
        }
    }

    fn sends(&mut self, dice: &mut Dice<'_>) {
        let Some(guest) = self.guests.get(usize::from(dice.byte()) % self.guests.len().max(1)).cloned()
        else {
            return;
        };
        let (host, other) = match guest.is_on_b {
            false => (&self.world.a, &self.world.b),
            true => (&self.world.b, &self.world.a),
        };
        let port =
            host.tables.port_named(&guest.name.parse().unwrap()).expect("a guest has its port").clone();
        let batch: Vec<_> = (0..1 + dice.byte() % 3).map(|_| frames::frame(dice, &port)).collect();
        let act = |context: &Context<'_>, packets: &mut [Packet<'_>], verdicts: &mut Verdicts| {
            egress(context, &port, packets, verdicts);
        };
        for (outcome, owner) in handle(host, &batch, (128, 2048), act) {
            check_sent(host, &port, &outcome, owner);
            match outcome.verdict {
                Verdict::Deliver(id) => {
                    let receiver = host.tables.port(id).unwrap();
                    assert!(may_reach(port.vni, receiver.vni), "from {} into {}", port.vni, receiver.vni);
                    assert!(port.config.ips.contains(&source_of(&outcome.after)));
                }
                Verdict::Underlay(tunnel) if tunnel.to == other.ip => {
                    let (sent_into, _) = super::onward::unwrapped(&host.tables, &outcome.after).unwrap();
                    assert!(may_reach(port.vni, sent_into), "from {} into {sent_into}", port.vni);
                    if self.under_way.len() == MOST_UNDER_WAY {
                        self.under_way.remove(0);
                    }
                    self.under_way.push(UnderWay {
                        to_b: !guest.is_on_b,
                        packet: outcome.after,
                        offload: outcome.left,
                        traffic_class: tunnel.traffic_class,
                        sent_into,
                        sender: guest.name,
                        sender_ips: port.config.ips.clone(),
                    });
                }
                _ => {}
            }
        }
    }

    fn arrives(&mut self, sent: &UnderWay) {
        let (host, from) = match sent.to_b {
            true => (&self.world.b, &self.world.a),
            false => (&self.world.a, &self.world.b),
        };
        let outer = Outer { source: from.ip, traffic_class: sent.traffic_class };
        for outcome in arrive_at(host, outer, (sent.packet.clone(), sent.offload)) {
            if let Verdict::Deliver(id) = outcome.verdict {
                let receiver = host.tables.port(id).unwrap();
                assert_eq!(receiver.vni, sent.sent_into, "{} was heard in another network", sent.sender);
                let source = source_of(&outcome.after);
                assert!(sent.sender_ips.contains(&source), "{} was heard as {source}", sent.sender);
            } else if self.is_as_made {
                let is_absent = tunnel::receiver(host, &outcome.before).is_none();
                assert!(
                    is_absent && outcome.verdict == Verdict::Drop(DropReason::NotLocal),
                    "{:?}",
                    outcome.verdict
                );
            }
        }
    }

    /// Anything from anybody.
    fn forged(&mut self, dice: &mut Dice<'_>) {
        let is_to_b = dice.byte() & 1 == 1;
        let source: PhysicalIp =
            dice.pick(&[HOST_A, HOST_C, "198.51.100.9", HOST_B, "2001:db8::9"]).parse().unwrap();
        let outer = Outer { source, traffic_class: dice.byte() };
        let host = self.host(is_to_b);
        let ports: Vec<_> = host.tables.ports().cloned().collect();
        if ports.is_empty() {
            return;
        }
        let port = &ports[usize::from(dice.byte()) % ports.len()];
        let (inner, asked) = frames::frame(dice, port);
        let packet = tunnel::wrapped(dice, host.tables.underlay.encapsulation, port.vni, &inner);
        arrive_at(host, outer, (packet, asked));
    }

    /// A port gets another network, or other addresses. The directories learn of it, one of them, or none.
    fn moves(&mut self, dice: &mut Dice<'_>) {
        if self.guests.is_empty() {
            return;
        }
        let at = usize::from(dice.byte()) % self.guests.len();
        let (network, known) = dice.pick(&PLACES);
        let old = self.guests[at].clone();
        let ips = (0..1 + dice.byte() % 2).map(|_| dice.pick(known));
        self.guests[at] = Guest { network, ips: ips.collect(), ..old.clone() };
        if !self.publish(old.is_on_b) {
            self.guests[at] = old;
            return;
        }
        let new = self.guests[at].clone();
        let who_learns = dice.byte();
        for is_b in [false, true] {
            if who_learns >> u8::from(is_b) & 1 == 1 {
                self.tell_of(&new, is_b);
            }
            if who_learns >> (2 + u8::from(is_b)) & 1 == 1 {
                let gone = old.ips.iter().filter(|ip| old.network != new.network || !new.ips.contains(ip));
                gone.for_each(|ip| self.host(is_b).tell(old.network, ip, None));
            }
        }
    }

    /// A port has other rules from now on, or none. They may let anything pass, and nothing that would not pass without them.
    fn rules(&mut self, dice: &mut Dice<'_>) {
        if self.guests.is_empty() {
            return;
        }
        let at = usize::from(dice.byte()) % self.guests.len();
        let rules = (1..=dice.byte() % 4).map(|id| {
            let mut rule = json!({
                "id": id,
                "direction": dice.pick(&["in", "out"]),
                "action": dice.pick(&["allow", "deny"]),
                "priority": dice.byte() % 4,
            });
            let protocol = dice.pick(&["any", "tcp", "udp", "icmp", "icmpv6", "47"]);
            rule["protocol"] = protocol.into();
            match protocol {
                "tcp" | "udp" if dice.byte() & 1 == 1 => {
                    rule["ports"] = dice.pick(&["0-1023", "53", "1-2", "1024-65535"]).into();
                }
                "icmp" | "icmpv6" if dice.byte() & 1 == 1 => rule["icmp_type"] = dice.byte().into(),
                "any" => rule["remote"] = dice.pick(&["10.0.0.0/24", "fd00::/16", "0.0.0.0/0"]).into(),
                _ => {}
            }
            rule
        });
        self.guests[at].rules = rules.collect();
        let is_on_b = self.guests[at].is_on_b;
        assert!(self.publish(is_on_b), "rules that are right are accepted");
    }

    /// A port is removed, or one that was removed comes back, perhaps on the other host.
    fn leaves_or_comes(&mut self, dice: &mut Dice<'_>) {
        let is_on_b = dice.byte() & 1 == 1;
        let missing = ON_A
            .into_iter()
            .chain(ON_B)
            .find(|(name, ..)| self.guests.iter().all(|guest| guest.name != *name));
        match missing {
            Some((name, network, last, ips)) if dice.byte() & 1 == 1 => {
                self.guests.push(Guest {
                    name,
                    is_on_b,
                    network,
                    mac: world::mac(last),
                    ips: ips.to_vec(),
                    rules: vec![],
                });
                if self.publish(is_on_b) {
                    let new = self.guests.last().unwrap().clone();
                    self.tell_of(&new, false);
                    self.tell_of(&new, true);
                } else {
                    self.guests.pop();
                }
            }
            _ if self.guests.is_empty() => {}
            _ => {
                let at = usize::from(dice.byte()) % self.guests.len();
                let gone = self.guests.remove(at);
                assert!(self.publish(gone.is_on_b), "a port can always be removed");
            }
        }
    }

    /// Puts the guests of a host in force.
    fn publish(&mut self, is_b: bool) -> bool {
        let here = self.guests.iter().filter(|guest| guest.is_on_b == is_b);
        let ports: Vec<Value> = here
            .map(|guest| {
                let mut port = world::port(guest.name, guest.network, guest.mac, &guest.ips);
                port["rules"] = guest.rules.clone().into();
                port
            })
            .collect();
        let changed = self.host(is_b).change(&ports);
        self.is_as_made &= !changed;
        changed
    }

    fn tell_of(&mut self, guest: &Guest, is_b: bool) {
        let at = if guest.is_on_b { HOST_B } else { HOST_A };
        for ip in &guest.ips {
            self.host(is_b).tell(guest.network, ip, Some((at, guest.mac)));
        }
    }

    /// A directory entry changes, rightly or wrongly.
    fn is_told(&mut self, dice: &mut Dice<'_>) {
        let is_b = dice.byte() & 1 == 1;
        let (network, known) = dice.pick(&PLACES);
        let ip = dice.pick(known);
        let host = dice.pick(&[HOST_A, HOST_B, HOST_C, "2001:db8::9"]);
        let found = (!dice.rarely(3)).then_some((host, world::mac(dice.byte())));
        self.is_as_made = false;
        self.host(is_b).tell(network, ip, found);
    }
}

/// One packet from between the hosts, judged by the tables and the directory of this moment.
fn arrive_at(host: &Host, outer: Outer, packet: (Vec<u8>, Offload)) -> Vec<Outcome> {
    let act = |context: &Context<'_>, packets: &mut [Packet<'_>], verdicts: &mut Verdicts| {
        ingress(context, &outer, packets, verdicts);
    };
    let judged = handle(host, &[packet], (128, 2048), act).into_iter().map(|(outcome, owner)| {
        tunnel::check(host, &outer, &outcome, owner);
        outcome
    });
    judged.collect()
}

fn source_of(frame: &[u8]) -> CustomerIp {
    CustomerIp(flow::check(frame).expect("what is delivered can be parsed").addresses().unwrap().0)
}

/// Networks 100 and 200 are peers, 200 leads no further, and 400 is on its own: the scene's routes, by hand.
fn may_reach(from: Vni, into: Vni) -> bool {
    let (from, into) = (from.value(), into.value());
    from == into || matches!((from, into), (100, 200) | (200, 100 | 300))
}
