//! What is known of a connection, and what a packet of it changes. Pure: a table of transitions.
//!
//! TCP is followed by its control bits alone, without sequence numbers: a forged segment would need the port's own addresses
//! (nobody else can send from them) or the other end's. Everything else has pseudo-states: one side has spoken, or both.

use crate::wire::tcp::Flags;

/// A connection's state. "Origin" is the side whose packet began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// TCP: the origin has sent SYN.
    SynSent = 2,
    /// TCP: the other side has answered SYN and ACK.
    SynReceived = 3,
    /// TCP: both sides have acknowledged.
    Established = 4,
    /// TCP: the origin has sent FIN.
    OriginClosed = 5,
    /// TCP: the other side has sent FIN.
    ReplyClosed = 6,
    /// TCP: both have sent FIN.
    Closed = 7,
    /// TCP: one side has sent RST.
    Reset = 8,
    /// TCP: seen for the first time in the middle of its life, and from one side only.
    PickedUp = 9,
    /// Not TCP: the origin has spoken.
    Started = 10,
    /// Not TCP: both sides have spoken.
    Answered = 11,
    /// Not a connection: the later pieces of a datagram whose first piece has passed.
    Pieces = 12,
}

/// What a packet is to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// TCP.
    Tcp(Flags),
    /// Anything else.
    Datagram,
}

/// What a packet does to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on in this state.
    To(State),
    /// It is over, and this packet begins another one with the same addresses.
    Anew,
}

/// How willingly a connection gives way to another when there is no room: the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// It is over.
    Over,
    /// One side has spoken: what a flood is made of.
    HalfOpen,
    /// Both have, and the next packet of an allowed flow would bring it back.
    Answered,
    /// A handshake was seen through.
    Established,
}

impl State {
    pub(super) const ALL: [Self; 11] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::OriginClosed,
        Self::ReplyClosed,
        Self::Closed,
        Self::Reset,
        Self::PickedUp,
        Self::Started,
        Self::Answered,
        Self::Pieces,
    ];

    /// The state with this number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        let index = number.checked_sub(Self::SynSent as u8)?;
        Self::ALL.get(usize::from(index)).copied()
    }

    /// The state after the packet that begins a connection; `None` when there is nothing to follow (a reset of nothing).
    #[must_use]
    pub const fn first(segment: Segment) -> Option<Self> {
        match segment {
            Segment::Datagram => Some(Self::Started),
            Segment::Tcp(flags) if flags.contains(Flags::RST) => None,
            Segment::Tcp(flags) if is_opening(flags) => Some(Self::SynSent),
            Segment::Tcp(_) => Some(Self::PickedUp),
        }
    }

    /// What one more packet does.
    #[must_use]
    pub const fn next(self, from_origin: bool, segment: Segment) -> Step {
        match segment {
            Segment::Datagram => Step::To(match self {
                Self::Started if !from_origin => Self::Answered,
                other => other,
            }),
            Segment::Tcp(flags) => self.next_tcp(from_origin, flags),
        }
    }

    const fn next_tcp(self, from_origin: bool, flags: Flags) -> Step {
        if flags.contains(Flags::RST) {
            return Step::To(Self::Reset);
        }
        if matches!(self, Self::Closed | Self::Reset) {
            return if is_opening(flags) { Step::Anew } else { Step::To(self) };
        }
        let has_syn = flags.contains(Flags::SYN);
        let handshake = match (self, from_origin) {
            // The second is a simultaneous open (RFC 9293 section 3.5).
            (Self::SynSent, false) if has_syn => Self::SynReceived,
            (Self::SynReceived, true) if flags.contains(Flags::ACK) && !has_syn => Self::Established,
            (Self::PickedUp, false) => Self::Established,
            (other, _) => other,
        };
        Step::To(match (handshake, from_origin, flags.contains(Flags::FIN)) {
            // Nobody ends what has not begun: an end without the acknowledgement would look like a handshake seen through.
            (Self::SynSent | Self::SynReceived, _, _) => handshake,
            (Self::OriginClosed, false, true) | (Self::ReplyClosed, true, true) => Self::Closed,
            (Self::OriginClosed | Self::ReplyClosed, _, _) | (_, _, false) => handshake,
            (_, true, true) => Self::OriginClosed,
            (_, false, true) => Self::ReplyClosed,
        })
    }

    /// How long it is remembered after its last packet, in seconds.
    #[must_use]
    #[inline]
    pub const fn timeout_seconds(self) -> u64 {
        match self {
            Self::SynSent | Self::Started | Self::Pieces => 30,
            Self::SynReceived | Self::ReplyClosed | Self::OriginClosed => 240, // RFC 5382 section 5, transitory
            Self::PickedUp => 300,
            Self::Established => 7440, // RFC 5382 section 5
            Self::Closed => 120,       // TIME-WAIT, RFC 9293 section 3.3.2, at the common MSL
            Self::Reset => 10,
            Self::Answered => 180, // RFC 4787 section 4.3: at least 120
        }
    }

    /// True if a packet makes it remembered for another while.
    #[must_use]
    pub const fn is_prolonged(self) -> bool {
        !matches!(self, Self::Closed | Self::Reset)
    }

    /// How long a connection of rank [`Rank::Established`] may be silent before it gives way when there is no room, in seconds.
    #[must_use]
    pub const fn firm_seconds(self) -> u64 {
        match self {
            Self::OriginClosed | Self::ReplyClosed => 60,
            _ => 300,
        }
    }

    /// See [`Rank`].
    #[must_use]
    pub const fn rank(self) -> Rank {
        match self {
            Self::Closed | Self::Reset => Rank::Over,
            Self::SynSent | Self::SynReceived | Self::PickedUp | Self::Started | Self::Pieces => {
                Rank::HalfOpen
            }
            Self::Answered => Rank::Answered,
            Self::Established | Self::OriginClosed | Self::ReplyClosed => Rank::Established,
        }
    }
}

const fn is_opening(flags: Flags) -> bool {
    flags.contains(Flags::SYN) && !flags.contains(Flags::ACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: Flags = Flags::SYN;
    const SYN_ACK: Flags = Flags::SYN.union(Flags::ACK);
    const ACK: Flags = Flags::ACK;
    const FIN: Flags = Flags::FIN.union(Flags::ACK);
    const RST: Flags = Flags::RST;

    fn run(steps: &[(bool, Flags)]) -> State {
        let mut steps = steps.iter();
        let &(_, first) = steps.next().unwrap();
        let first = State::first(Segment::Tcp(first)).unwrap();
        steps.fold(first, |state, &(from_origin, flags)| match state.next(from_origin, Segment::Tcp(flags)) {
            Step::To(next) => next,
            Step::Anew => State::first(Segment::Tcp(flags)).unwrap(),
        })
    }

    #[test]
    fn tcp_is_followed_from_its_first_segment_to_its_last() {
        let (o, r) = (true, false);
        let table: &[(&[(bool, Flags)], State)] = &[
            (&[(o, SYN)], State::SynSent),
            (&[(o, SYN), (o, SYN)], State::SynSent),
            // What an unasked acknowledgement of the other side (a challenge) proves is nothing.
            (&[(o, SYN), (r, ACK)], State::SynSent),
            (&[(o, SYN), (r, FIN)], State::SynSent),
            (&[(o, SYN), (r, SYN_ACK)], State::SynReceived),
            (&[(o, SYN), (r, SYN)], State::SynReceived),
            (&[(o, SYN), (r, SYN_ACK), (o, SYN)], State::SynReceived),
            (&[(o, SYN), (r, SYN_ACK), (r, ACK)], State::SynReceived),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK)], State::Established),
            (&[(o, SYN), (r, SYN_ACK), (o, FIN)], State::OriginClosed),
            (&[(o, SYN), (r, SYN_ACK), (o, Flags::FIN)], State::SynReceived),
            (&[(o, SYN), (r, SYN_ACK), (r, FIN)], State::SynReceived),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (r, ACK)], State::Established),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (r, SYN)], State::Established),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (o, FIN)], State::OriginClosed),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (r, FIN)], State::ReplyClosed),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (o, FIN), (o, FIN)], State::OriginClosed),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (o, FIN), (r, ACK)], State::OriginClosed),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (o, FIN), (r, FIN)], State::Closed),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (r, FIN), (o, FIN)], State::Closed),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (r, FIN), (o, FIN), (r, ACK)], State::Closed),
            (&[(o, SYN), (r, RST)], State::Reset),
            (&[(o, SYN), (r, SYN_ACK), (o, ACK), (r, RST)], State::Reset),
            (&[(o, SYN), (r, RST), (o, ACK)], State::Reset),
            // The same ports once more.
            (&[(o, SYN), (r, RST), (o, SYN)], State::SynSent),
            // In the middle of its life.
            (&[(o, ACK)], State::PickedUp),
            (&[(o, ACK), (o, ACK)], State::PickedUp),
            (&[(o, ACK), (r, ACK)], State::Established),
            (&[(o, FIN), (r, FIN)], State::ReplyClosed),
            (&[(o, SYN_ACK)], State::PickedUp),
        ];
        for (steps, state) in table {
            assert_eq!(run(steps), *state, "{steps:?}");
        }
        assert_eq!(State::first(Segment::Tcp(RST)), None);
        assert_eq!(State::Closed.next(false, Segment::Tcp(SYN)), Step::Anew);
        assert_eq!(State::Established.next(true, Segment::Tcp(SYN)), Step::To(State::Established));
    }

    #[test]
    fn everything_else_is_answered_or_not() {
        let first = State::first(Segment::Datagram).unwrap();
        assert_eq!(first, State::Started);
        assert_eq!(first.next(true, Segment::Datagram), Step::To(State::Started));
        assert_eq!(first.next(false, Segment::Datagram), Step::To(State::Answered));
        assert_eq!(State::Answered.next(true, Segment::Datagram), Step::To(State::Answered));
    }

    #[test]
    fn numbers_are_states_and_back() {
        for number in 0..=u8::MAX {
            match State::of(number) {
                Some(state) => assert_eq!(state as u8, number),
                None => assert!(!(2..=12).contains(&number), "{number}"),
            }
        }
    }

    #[test]
    fn what_a_flood_is_made_of_gives_way_to_what_was_answered() {
        assert!(State::Reset.rank() < State::SynSent.rank());
        for flood in [State::SynSent, State::Started, State::PickedUp, State::Pieces, State::SynReceived] {
            assert!(flood.rank() < State::Answered.rank());
            assert!(flood.rank() < State::Established.rank());
        }
    }
}
