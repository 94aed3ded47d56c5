//! The connections of one port: what its rules have let begin, and may therefore go on.
//!
//! Bounded: a port has room for [`CAPACITY`] connections, and a new one takes the place of one that is over, else of one
//! that only one side has spoken on, else of one whose next packet would bring it back; never of an established one
//! that was heard of within five minutes, unless the newcomer is the guest's own and the other was begun by a peer. So a flood
//! of half-open connections displaces its own kind, and peers cannot take all the room. Time is an
//! argument, and there is no timer: an entry carries its end, and one that is past it is free room.
//!
//! Shared by all workers; nobody waits (see `slots`). Kept when the port's rules change, gone when its network does.
//! Never here: rules, frames.

mod key;
mod slots;
mod state;

use std::fmt;

pub use key::{Ends, Key};
pub use state::{Rank, Segment, State, Step};

use self::slots::{Entry, Slots, Tick};
use crate::desired::Direction;
use crate::types::{Generation, Nanos};

/// Connections that a port can have at once, at least.
pub const CAPACITY: usize = 32_768;

/// There is no room for another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The connections of one port.
pub struct Connections {
    slots: Slots,
    secret: u64,
}

/// A known connection.
#[derive(Clone, Copy)]
pub struct Known {
    found: slots::Found,
}

impl Known {
    /// The generation of the rules that it was last judged by.
    #[must_use]
    pub const fn epoch(&self) -> Generation {
        self.found.epoch
    }

    /// True if it is over, and this packet begins another one.
    #[must_use]
    pub fn is_begun_anew(&self, direction: Direction, segment: Segment) -> bool {
        self.found.state.next(self.origin() == direction, segment) == Step::Anew
    }

    /// Which way its first packet went.
    #[must_use]
    pub const fn origin(&self) -> Direction {
        if self.found.origin_is_out { Direction::Out } else { Direction::In }
    }
}

/// Where a connection may stand, by what was there a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess(u32);

impl Guess {
    /// No idea.
    pub const NONE: Self = Self(u32::MAX);
}

impl Connections {
    /// An empty table. `secret` is the process's own: guests choose what is looked up.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        Self::with_capacity(secret, CAPACITY)
    }

    fn with_capacity(secret: u64, capacity: usize) -> Self {
        Self { slots: Slots::new(capacity), secret }
    }

    /// The connection with this key.
    #[must_use]
    #[inline]
    pub fn find(&self, key: &Key, now: Nanos) -> Option<Known> {
        self.slots.find(key, key.hash(self.secret), Tick::of(now)).map(|found| Known { found })
    }

    /// The connection with this key, which may stand where it was guessed to stand; a wrong guess only costs time.
    #[must_use]
    #[inline]
    pub fn find_guessed(&self, key: &Key, guess: Guess, now: Nanos) -> Option<Known> {
        let there = usize::try_from(guess.0).ok().and_then(|at| self.slots.find_at(at, key, Tick::of(now)));
        match there {
            Some(found) => Some(Known { found }),
            None => self.find(key, now),
        }
    }

    /// Guesses where the connections of a batch's keys stand, one guess for each key, and has what stands there brought near:
    /// for all keys at once, so that each wait for memory is spent on the others.
    #[inline]
    pub fn guess<const N: usize>(&self, keys: impl Iterator<Item = Option<Key>>) -> [Guess; N] {
        let (mut hashes, mut guesses) = ([0; N], [Guess::NONE; N]);
        let mut count = 0;
        for (hash, key) in hashes.iter_mut().zip(keys) {
            if let Some(key) = key {
                *hash = key.hash(self.secret);
                self.slots.prefetch_states(*hash);
            }
            count += 1;
        }
        for (guess, hash) in guesses.iter_mut().zip(hashes).take(count) {
            if let Some(at) = self.slots.candidate(hash) {
                *guess = Guess(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        guesses
    }

    /// Moves a known connection on by a packet going `direction`. False when it was over, and the packet begins another one
    /// in its place: then it is gone, and the rules are to be asked.
    #[inline]
    pub fn follow(&self, known: &Known, direction: Direction, segment: Segment, now: Nanos) -> bool {
        let from_origin = known.origin() == direction;
        self.slots.update(&known.found, Tick::of(now), |state| match state.next(from_origin, segment) {
            Step::To(next) => Some(next),
            Step::Anew => None,
        })
    }

    /// A packet of a known connection was dropped: it is remembered for another while, as it was.
    pub fn hold(&self, known: &Known, now: Nanos) {
        self.slots.update(&known.found, Tick::of(now), Some);
    }

    /// Notes a connection that rules of generation `epoch` have let begin with a packet going `direction`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn admit(
        &self,
        key: &Key,
        direction: Direction,
        state: State,
        epoch: Generation,
        now: Nanos,
    ) -> Result<(), Full> {
        let origin_is_out = direction == Direction::Out;
        let entry = Entry { key, hash: key.hash(self.secret), state, origin_is_out, epoch };
        self.slots.insert(&entry, Tick::of(now))
    }

    /// Notes that rules of generation `epoch` would let a known connection begin.
    pub fn confirm(&self, known: &Known, epoch: Generation) {
        self.slots.set_epoch(&known.found, epoch);
    }

    /// How many connections there are, by how firmly they stand.
    #[must_use]
    pub fn count(&self, now: Nanos) -> Count {
        let mut count = Count::default();
        for state in self.slots.live(Tick::of(now)) {
            match state.rank() {
                Rank::Over => count.over += 1,
                Rank::HalfOpen => count.half_open += 1,
                Rank::Answered | Rank::Established => count.established += 1,
            }
        }
        count
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor a guest's peers belong into a log.
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// How many connections a port has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Both sides have spoken.
    pub established: usize,
    /// One has.
    pub half_open: usize,
    /// Closed, and not yet forgotten.
    pub over: usize,
}

#[cfg(test)]
#[cfg(dataplane_loom)]
mod loom_models;
#[cfg(test)]
#[cfg(not(dataplane_loom))]
mod tests;
