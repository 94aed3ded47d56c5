//! The whole pipeline: the input chooses a tunnel format and a few steps, in each of which a guest of host A sends a
//! small batch, or something arrives at host B from between the hosts. What A sends to B arrives there too.

mod changing;
mod frames;
mod onward;
mod replies;
mod tunnel;
mod world;

use std::cell::OnceCell;
use std::sync::Arc;

use dataplane::desired::Encapsulation;
use dataplane::packet::{Offload, Packet};
use dataplane::pipeline::{Context, DropReason, Outer, Trap, Verdict, Verdicts, egress, ingress};
use dataplane::stats::Totals;
use dataplane::tables::Port;
use dataplane::types::{PhysicalIp, PortId};

pub use self::changing::check as check_changing;
use self::world::{HOST_A, HOST_B, HOST_C, Host, World};
use crate::dice::Dice;

/// Steps of one input; more would only make it slower to understand.
const STEPS: usize = 6;

/// Exactly one verdict per packet; what ends is counted once, where it belongs, and nothing else is; no byte outside of a
/// frame gets into what leaves; what leaves is the guest's own and goes where network, routes and directory say; a switch
/// delivers what its peer sent, and nothing of a stranger.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    run(input);
}

/// As [`check`]; tells what became of all packets.
///
/// # Panics
/// When the truth does not hold.
pub fn run(input: &[u8]) -> Vec<Verdict> {
    thread_local! {
        static WORLDS: [OnceCell<World>; 2] = const { [const { OnceCell::new() }; 2] };
    }
    let mut dice = Dice::new(input);
    let format = dice.pick(&[Encapsulation::Vxlan, Encapsulation::Geneve]);
    WORLDS.with(|worlds| {
        let world = worlds[usize::from(format == Encapsulation::Geneve)].get_or_init(|| World::new(format));
        let mut seen = vec![];
        for _ in 0..STEPS {
            if dice.is_empty() {
                break;
            }
            match dice.byte() % 4 {
                3 => arrive(world, &mut dice, &mut seen),
                _ => send(world, &mut dice, &mut seen),
            }
        }
        seen
    })
}

/// A packet before and after.
pub(crate) struct Outcome {
    pub(crate) before: Vec<u8>,
    pub(crate) asked: Offload,
    pub(crate) verdict: Verdict,
    pub(crate) after: Vec<u8>,
    pub(crate) left: Offload,
}

/// Bytes around a frame in its buffer: in front and behind.
type Room = (usize, usize);

fn send(world: &World, dice: &mut Dice<'_>, seen: &mut Vec<Verdict>) {
    let ports: Vec<&Arc<Port>> = world.a.tables.ports().collect();
    let port = dice.pick(&ports);
    let room = dice.pick(&[(128, 2048), (128, 0), (8, 2048), (0, 0), (48, 300)]);
    let batch: Vec<_> = (0..1 + dice.byte() % 3).map(|_| frames::frame(dice, port)).collect();
    let act = |context: &Context<'_>, packets: &mut [Packet<'_>], verdicts: &mut Verdicts| {
        egress(context, port, packets, verdicts);
    };
    for (outcome, owner) in handle(&world.a, &batch, room, act) {
        seen.push(outcome.verdict);
        check_sent(&world.a, port, &outcome, owner);
        if let Verdict::Underlay(tunnel) = outcome.verdict
            && tunnel.to == world.b.ip
        {
            pass(world, &outcome, tunnel.traffic_class, seen);
        }
    }
}

/// What may become of what a guest sends.
fn check_sent(host: &Host, port: &Port, outcome: &Outcome, owner: Option<Option<PortId>>) {
    assert!(owner.is_none_or(|owner| owner == Some(port.id)), "counted for the sender");
    match outcome.verdict {
        Verdict::Deliver(_) | Verdict::Underlay(_) => onward::check(host, port, outcome),
        Verdict::Reply(trap) => replies::check(host, port, trap, outcome),
        Verdict::Detour => panic!("these hosts have no metadata service"),
        Verdict::Absorbed(trap) => assert!(
            matches!(trap, Trap::AddressProbe | Trap::DhcpRelease | Trap::DhcpDecline),
            "{} wants an answer",
            trap.name()
        ),
        Verdict::Drop(reason) => assert!(!is_of_others(reason), "{}", reason.name()),
    }
}

/// Drops that are not the egress pipeline's to make.
fn is_of_others(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::Moved
            | DropReason::StaleReply
            | DropReason::TrapRateLimited
            | DropReason::DhcpRateLimited
            | DropReason::PeerRateLimited
            | DropReason::MetadataFull
            | DropReason::InnerSourceInvalid
            | DropReason::InnerSourceForged
            | DropReason::UnderlaySourceUnknown
            | DropReason::TunnelMalformed
            | DropReason::TunnelNoVni
            | DropReason::TunnelCriticalOption
            | DropReason::TunnelEcn
            | DropReason::VniAbsent
            | DropReason::NotLocal
            | DropReason::UnderlaySend
            | DropReason::PortSend
            | DropReason::PortDown
    )
}

/// What host A sent to host B, as it was sent.
fn pass(world: &World, sent: &Outcome, traffic_class: u8, seen: &mut Vec<Verdict>) {
    let outer = Outer { source: world.a.ip, traffic_class };
    let act = |context: &Context<'_>, packets: &mut [Packet<'_>], verdicts: &mut Verdicts| {
        ingress(context, &outer, packets, verdicts);
    };
    for (outcome, owner) in handle(&world.b, &[(sent.after.clone(), sent.left)], (0, 0), act) {
        seen.push(outcome.verdict);
        tunnel::check(&world.b, &outer, &outcome, owner);
        let is_absent = tunnel::receiver(&world.b, &outcome.before).is_none();
        match outcome.verdict {
            Verdict::Drop(DropReason::NotLocal) if is_absent => {}
            Verdict::Deliver(_) => {}
            other => panic!("a switch delivers what its peer sent: {other:?}"),
        }
    }
}

/// Anything from anybody.
fn arrive(world: &World, dice: &mut Dice<'_>, seen: &mut Vec<Verdict>) {
    let source: PhysicalIp =
        dice.pick(&[HOST_A, HOST_C, "198.51.100.9", HOST_B, "2001:db8::9"]).parse().unwrap();
    let outer = Outer { source, traffic_class: dice.byte() };
    let ports: Vec<&Arc<Port>> = world.a.tables.ports().collect();
    let port = dice.pick(&ports);
    let room = dice.pick(&[(128, 2048), (0, 0), (8, 0)]);
    let (inner, asked) = frames::frame(dice, port);
    let packet = tunnel::wrapped(dice, world.b.tables.underlay.encapsulation, port.vni, &inner);
    let act = |context: &Context<'_>, packets: &mut [Packet<'_>], verdicts: &mut Verdicts| {
        ingress(context, &outer, packets, verdicts);
    };
    for (outcome, owner) in handle(&world.b, &[(packet, asked)], room, act) {
        seen.push(outcome.verdict);
        tunnel::check(&world.b, &outer, &outcome, owner);
    }
}

/// Handles a batch twice, in buffers that differ in every byte outside of the frames, and holds the counters against the
/// verdicts. Tells for each packet who it was counted for, if it was.
fn handle(
    host: &Host,
    batch: &[(Vec<u8>, Offload)],
    room: Room,
    act: impl Fn(&Context<'_>, &mut [Packet<'_>], &mut Verdicts),
) -> Vec<(Outcome, Option<Option<PortId>>)> {
    let before = host.counters();
    let first = handle_once(host, batch, room, 0x00, &act);
    let after = host.counters();
    let second = handle_once(host, batch, room, 0xff, &act);
    // Rules remember what they have let begin: the second time may find what the first has begun.
    let remembers = host.tables.ports().any(|port| port.guard.is_some());
    for (one, other) in first.iter().zip(&second) {
        if remembers && one.verdict != other.verdict {
            continue;
        }
        assert_eq!(
            (one.verdict, one.left),
            (other.verdict, other.left),
            "a verdict hangs on bytes outside of the frame"
        );
        assert_eq!(one.after, other.after, "bytes from outside of the frame get into {:?}", one.verdict);
    }
    let owners = judge_counters(&first, &before, &after);
    first.into_iter().zip(owners).collect()
}

fn handle_once(
    host: &Host,
    batch: &[(Vec<u8>, Offload)],
    (front, behind): Room,
    fill: u8,
    act: &impl Fn(&Context<'_>, &mut [Packet<'_>], &mut Verdicts),
) -> Vec<Outcome> {
    let mut buffers: Vec<Vec<u8>> = batch
        .iter()
        .map(|(frame, _)| [&vec![fill; front][..], frame, &vec![fill; behind]].concat())
        .collect();
    let mut packets: Vec<Packet<'_>> = buffers
        .iter_mut()
        .zip(batch)
        .map(|(buffer, (frame, offload))| Packet::within(buffer, front, front + frame.len(), *offload))
        .collect();
    let mut verdicts = Verdicts::new();
    act(&host.context(), &mut packets, &mut verdicts);
    assert_eq!(verdicts.len(), batch.len(), "one verdict per packet");
    let outcomes = batch.iter().zip(&packets).zip(verdicts);
    outcomes
        .map(|(((before, asked), packet), verdict)| {
            assert!(packet.len() <= front + before.len() + behind, "a packet stays in its buffer");
            Outcome {
                before: before.clone(),
                asked: *asked,
                verdict,
                after: packet.frame().to_vec(),
                left: packet.offload,
            }
        })
        .collect()
}

/// For each verdict, in order, takes one count from what the counters moved by; nothing may be left.
fn judge_counters(
    outcomes: &[Outcome],
    before: &[(Option<PortId>, Totals)],
    after: &[(Option<PortId>, Totals)],
) -> Vec<Option<Option<PortId>>> {
    let mut moved: Vec<_> = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before != after)
        .map(|((owner, before), (_, after))| (*owner, moves(before, after)))
        .collect();
    let owners = outcomes.iter().map(|outcome| {
        let name = match outcome.verdict {
            Verdict::Deliver(_) | Verdict::Underlay(_) | Verdict::Detour => return None,
            Verdict::Drop(reason) => ("drop", reason.name()),
            Verdict::Reply(trap) | Verdict::Absorbed(trap) => ("trap", trap.name()),
        };
        let found = moved.iter_mut().find_map(|(owner, counts)| {
            let count = counts.iter_mut().find(|(other, count)| *other == name && *count > 0)?;
            count.1 -= 1;
            Some(*owner)
        });
        Some(found.unwrap_or_else(|| panic!("{name:?} was not counted")))
    });
    let owners = owners.collect();
    assert!(
        moved.iter().all(|(_, counts)| counts.iter().all(|(_, count)| *count == 0)),
        "also counted: {moved:?}"
    );
    owners
}

/// What was counted in between, by kind and name.
fn moves(before: &Totals, after: &Totals) -> Vec<((&'static str, &'static str), u64)> {
    let frames = |totals: &Totals| {
        [totals.received_packets, totals.received_bytes, totals.sent_packets, totals.sent_bytes]
    };
    assert_eq!(frames(before), frames(after), "packets and bytes are counted by whoever sends them");
    let drops =
        after.drops.iter().map(|&(reason, count)| (("drop", reason.name()), count - before.dropped(reason)));
    let traps = after.traps.iter().map(|&(trap, count)| {
        let earlier = before.traps.iter().find(|(other, _)| *other == trap).map_or(0, |&(_, count)| count);
        (("trap", trap.name()), count - earlier)
    });
    drops.chain(traps).collect()
}
