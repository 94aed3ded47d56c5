//! The rules' stage: may this packet of this port pass?
//!
//! It stands at every place where a packet enters or leaves a port. A packet between two ports of one host is judged
//! twice: as the sender's outgoing and as the receiver's incoming one. A port without rules costs one look.
//!
//! | the packet | passes |
//! |---|---|
//! | belongs to a connection that these rules have admitted | yes |
//! | belongs to one that earlier rules have admitted | if these would admit it too, in the direction in which it began |
//! | begins a connection | if the rules allow it; a TCP segment from the middle of one begins it as well |
//! | is an ICMP error about a packet of a connection that these rules have admitted | yes |
//! | is another ICMP message | if the rules allow it |
//! | is a later fragment | if its datagram's first fragment has passed |
//!
//! What the switch itself answers (DHCP, ARP, neighbour discovery, the gateway's echo) is not asked for here.

use std::net::Ipv4Addr;

use super::Context;
use crate::conntrack::{Connections, Ends, Guess, Key, Known, Segment, State};
use crate::desired::{Action, Direction};
use crate::drops::DropReason;
use crate::packet::Packet;
use crate::tables::{Guard, Port, Subject};
use crate::wire::flow::{Fragment, Headers, Network, Transport};
use crate::wire::quote::Quote;
use crate::wire::{Protocol, ethernet, icmpv4, ipv6};

/// Lets a packet pass, or says why not.
#[inline]
pub(super) fn judge(
    context: &Context<'_>,
    port: &Port,
    direction: Direction,
    frame: &[u8],
    headers: &Headers,
    guess: Guess,
) -> Result<(), DropReason> {
    match &port.guard {
        None => Ok(()),
        Some(guard) => Case { context, guard, direction, frame, headers, guess }.judge(),
    }
}

/// How many packets are looked ahead at together: as many cache lines as a core waits for at a time. More of them push each
/// other out again.
pub(super) const AHEAD: usize = 16;

/// Looks ahead at up to [`AHEAD`] packets of a port's outgoing batch: guesses where the connections of plain TCP and UDP packets over IPv4 stand, frame
/// by frame, for [`judge`]. Nothing that it reads was checked, and nothing but time depends on it.
#[inline]
pub(super) fn look_ahead(port: &Port, packets: &[Packet<'_>]) -> [Guess; AHEAD] {
    match &port.guard {
        None => [Guess::NONE; AHEAD],
        Some(guard) => guard.connections.guess(packets.iter().map(|packet| plain_key(packet.frame()))),
    }
}

/// The key of a guest's frame, if it is an Ethernet frame with IPv4 without options and then ports.
#[inline]
fn plain_key(frame: &[u8]) -> Option<Key> {
    const PORTS: usize = ethernet::HEADER_BYTES + 20;
    let &[_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, 0x45, .., p0, p1, q0, q1] =
        frame.first_chunk::<{ PORTS + 4 }>()?
    else {
        return None;
    };
    let protocol = Protocol(*frame.get(ethernet::HEADER_BYTES + 9)?);
    let &[s0, s1, s2, s3, d0, d1, d2, d3] = frame.get(ethernet::HEADER_BYTES + 12..)?.first_chunk()?;
    matches!(protocol, Protocol::TCP | Protocol::UDP).then(|| {
        let source = (Ipv4Addr::new(s0, s1, s2, s3), u16::from_be_bytes([p0, p1]));
        let destination = (Ipv4Addr::new(d0, d1, d2, d3), u16::from_be_bytes([q0, q1]));
        Key::flow_v4(protocol, Direction::Out, source, destination)
    })
}

/// A packet before a port's rules.
struct Case<'a> {
    context: &'a Context<'a>,
    guard: &'a Guard,
    direction: Direction,
    frame: &'a [u8],
    headers: &'a Headers,
    guess: Guess,
}

/// What a packet is to the connections.
enum Sort {
    /// It belongs to one, or begins one.
    Flow(Key),
    /// It speaks of one.
    ErrorAbout(Option<Key>),
    /// It is a message of its own.
    Single,
}

impl Case<'_> {
    #[inline]
    fn judge(&self) -> Result<(), DropReason> {
        if let (Network::V4 { source, destination }, Fragment::Whole, Some((source_port, destination_port))) =
            (self.headers.network, self.headers.fragment, self.headers.ports())
        {
            let (from, to) = ((source, source_port), (destination, destination_port));
            let key = Key::flow_v4(self.headers.protocol, self.direction, from, to);
            return self.judge_flow(&key, self.segment());
        }
        self.judge_any()
    }

    #[inline(never)]
    fn judge_any(&self) -> Result<(), DropReason> {
        let Some(ends) = self.ends() else { return Ok(()) };
        if self.headers.fragment == Fragment::Later {
            return self.judge_later_fragment(ends);
        }
        if self.headers.fragment == Fragment::First && !self.shows_its_transport() {
            return Err(DropReason::FragmentUnmatched);
        }
        match self.sort(ends) {
            Sort::Flow(key) => self.judge_any_flow(&key, self.segment())?,
            Sort::ErrorAbout(Some(key)) if self.is_admitted(&key) => {}
            Sort::ErrorAbout(_) | Sort::Single => self.ask(self.direction)?,
        }
        if self.headers.fragment == Fragment::First { self.expect_pieces(ends) } else { Ok(()) }
    }

    #[inline(never)]
    fn judge_any_flow(&self, key: &Key, segment: Segment) -> Result<(), DropReason> {
        self.judge_flow(key, segment)
    }

    #[inline(always)]
    fn judge_flow(&self, key: &Key, segment: Segment) -> Result<(), DropReason> {
        let connections = self.connections();
        let now = self.context.now;
        if let Some(known) = connections.find_guessed(key, self.guess, now) {
            if known.epoch() != self.guard.rules.epoch && !known.is_begun_anew(self.direction, segment) {
                self.judge_again(&known)?;
            }
            if connections.follow(&known, self.direction, segment, now) {
                return Ok(());
            }
        }
        self.begin(key, segment)
    }

    #[inline(never)]
    fn begin(&self, key: &Key, segment: Segment) -> Result<(), DropReason> {
        self.ask(self.direction)?;
        match State::first(segment) {
            Some(state) => self
                .connections()
                .admit(key, self.direction, state, self.guard.rules.epoch, self.context.now)
                .map_err(|_| DropReason::ConnectionsFull),
            None => Ok(()),
        }
    }

    #[inline]
    const fn segment(&self) -> Segment {
        match self.headers.transport {
            Transport::Tcp { flags, .. } => Segment::Tcp(flags),
            _ => Segment::Datagram,
        }
    }

    fn ends(&self) -> Option<Ends> {
        let (source, destination) = self.headers.addresses()?;
        Some(Ends::of(self.direction, source, destination))
    }

    /// The rules have changed since the connection was admitted: would it be today?
    ///
    /// One that would not is kept, as it was, for as long as either side goes on: forgotten, it could be begun anew by the side
    /// that the rules would let begin.
    #[cold]
    fn judge_again(&self, known: &Known) -> Result<(), DropReason> {
        if self.ask(known.origin()).is_ok() {
            self.connections().confirm(known, self.guard.rules.epoch);
            return Ok(());
        }
        self.connections().hold(known, self.context.now);
        // What is dropped now is this packet, whichever way the connection began.
        Err(denied(self.direction))
    }

    #[cold]
    fn judge_later_fragment(&self, ends: Ends) -> Result<(), DropReason> {
        let known = self.identification().is_some_and(|identification| {
            let key = Key::pieces(self.direction, self.headers.protocol, ends, identification);
            self.is_admitted(&key)
        });
        if known { Ok(()) } else { Err(DropReason::FragmentUnmatched) }
    }

    /// The first fragment has passed, so the others may.
    #[cold]
    fn expect_pieces(&self, ends: Ends) -> Result<(), DropReason> {
        let Some(identification) = self.identification() else { return Ok(()) };
        let key = Key::pieces(self.direction, self.headers.protocol, ends, identification);
        self.connections()
            .admit(&key, self.direction, State::Pieces, self.guard.rules.epoch, self.context.now)
            .map_err(|_| DropReason::ConnectionsFull)
    }

    /// Asks the rules about a connection between the packet's ends that begins in `direction`.
    fn ask(&self, direction: Direction) -> Result<(), DropReason> {
        let Some(ends) = self.ends() else { return Ok(()) };
        let selector = match (self.headers.transport, direction == self.direction) {
            (Transport::Tcp { destination, .. } | Transport::Udp { destination, .. }, true) => destination,
            (Transport::Tcp { source, .. } | Transport::Udp { source, .. }, false) => source,
            (Transport::Icmp { kind, .. }, true) => kind.into(),
            // Of an answer that is here, the query that was the connection's first packet.
            (Transport::Icmp { kind, .. }, false) => {
                query(self.headers.protocol, kind).unwrap_or(kind).into()
            }
            (Transport::Other, _) => 0,
        };
        let subject = Subject { protocol: self.headers.protocol, remote: ends.remote, selector };
        match self.guard.rules.judge(direction, &subject, self.context.worker) {
            Action::Allow => Ok(()),
            Action::Deny => Err(denied(direction)),
        }
    }

    fn sort(&self, ends: Ends) -> Sort {
        let protocol = self.headers.protocol;
        let by_direction = |source, destination| match self.direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        match self.headers.transport {
            Transport::Tcp { source, destination, .. } | Transport::Udp { source, destination } => {
                Sort::Flow(Key::flow(protocol, ends, by_direction(source, destination)))
            }
            Transport::Other => Sort::Flow(Key::flow(protocol, ends, (0, 0))),
            Transport::Icmp { kind, .. } => match query(protocol, kind) {
                Some(query) => {
                    let asked = asked(query, kind, self.direction);
                    Sort::Flow(Key::flow(protocol, ends, (self.icmp_identifier(), asked)))
                }
                None if is_error(protocol, kind) => Sort::ErrorAbout(self.quoted(ends)),
                None => Sort::Single,
            },
        }
    }

    /// The connection that an ICMP error speaks of: one of this port, and of the error's own receiver.
    #[cold]
    fn quoted(&self, ends: Ends) -> Option<Key> {
        let quote = Quote::parse(self.frame.get(self.headers.payload_offset()..)?)?;
        // The quoted packet went the other way.
        let quoted = Ends::of(self.direction.reverse(), quote.source, quote.destination);
        let told = match self.direction {
            Direction::In => quoted.local == ends.local,
            Direction::Out => quoted.remote == ends.remote,
        };
        let ports = match quote.protocol {
            Protocol::TCP | Protocol::UDP => match (self.direction, quote.ports()) {
                (Direction::In, ports) => ports,
                (Direction::Out, (source, destination)) => (destination, source),
            },
            Protocol::ICMPV4 | Protocol::ICMPV6 => {
                let [kind, _, _, _, i0, i1, ..] = quote.transport;
                let query = query(quote.protocol, kind)?;
                (u16::from_be_bytes([i0, i1]), asked(query, kind, self.direction.reverse()))
            }
            _ => (0, 0),
        };
        told.then(|| Key::flow(quote.protocol, quoted, ports))
    }

    fn icmp_identifier(&self) -> u16 {
        let header = self.frame.get(self.headers.transport_offset()..).and_then(|bytes| bytes.first_chunk());
        header.map_or(0, |&[_, _, _, _, i0, i1]| u16::from_be_bytes([i0, i1]))
    }

    /// False for a first fragment over IPv6 with extension headers behind its fragment header. Later fragments name the first of
    /// those as their protocol, and could overwrite from there on what was judged here.
    #[cold]
    fn shows_its_transport(&self) -> bool {
        let Network::V6 { .. } = self.headers.network else { return true };
        let packet = self.frame.get(ethernet::HEADER_BYTES..).unwrap_or_default();
        let transport = self.headers.transport_offset() - ethernet::HEADER_BYTES;
        let mut next = packet.get(6).copied().unwrap_or_default();
        let mut at = ipv6::HEADER_BYTES;
        while Protocol(next) != Protocol::FRAGMENT {
            let Some(&[following, length]) = packet.get(at..).and_then(|header| header.first_chunk()) else {
                return false;
            };
            (next, at) = (following, at + 8 + usize::from(length) * 8);
            if at >= transport {
                return false;
            }
        }
        at + 8 == transport
    }

    /// What the fragments of a datagram have in common.
    fn identification(&self) -> Option<u32> {
        let packet = self.frame.get(ethernet::HEADER_BYTES..)?;
        match self.headers.network {
            Network::V4 { .. } => {
                let &[_, _, _, _, i0, i1] = packet.first_chunk()?;
                Some(u16::from_be_bytes([i0, i1]).into())
            }
            Network::V6 { .. } => {
                let first = Protocol(*packet.get(6)?);
                ipv6::walk(packet, first).ok()?.fragment.map(|fragment| fragment.identification)
            }
            Network::Other => None,
        }
    }

    /// True for a connection that these very rules have admitted or confirmed: what merely speaks of it does not confirm it.
    fn is_admitted(&self, key: &Key) -> bool {
        let known = self.connections().find(key, self.context.now);
        known.is_some_and(|known| known.epoch() == self.guard.rules.epoch)
    }

    fn connections(&self) -> &Connections {
        &self.guard.connections
    }
}

const fn denied(direction: Direction) -> DropReason {
    match direction {
        Direction::Out => DropReason::RuleDeniedOut,
        Direction::In => DropReason::RuleDeniedIn,
    }
}

/// The query that a message is, or is the answer to: echo and the old timestamp, information and mask requests.
const fn query(protocol: Protocol, kind: u8) -> Option<u8> {
    match (protocol, kind) {
        (Protocol::ICMPV4, icmpv4::ECHO_REQUEST | icmpv4::ECHO_REPLY) => Some(icmpv4::ECHO_REQUEST),
        (Protocol::ICMPV4, 13 | 14) => Some(13),
        (Protocol::ICMPV4, 15 | 16) => Some(15),
        (Protocol::ICMPV4, 17 | 18) => Some(17),
        (Protocol::ICMPV6, 128 | 129) => Some(128),
        _ => None,
    }
}

/// The query, and which side asks it: a query of the other side is no answer.
fn asked(query: u8, kind: u8, direction: Direction) -> u16 {
    let asker = if kind == query { direction } else { direction.reverse() };
    u16::from(query) | if asker == Direction::Out { 0x100 } else { 0 }
}

/// Messages that quote a packet.
const fn is_error(protocol: Protocol, kind: u8) -> bool {
    match protocol {
        Protocol::ICMPV4 => matches!(kind, 3 | 4 | 11 | 12),
        Protocol::ICMPV6 => matches!(kind, 1..=4),
        _ => false,
    }
}
