//! The table that connections stand in: a fixed number of slots in sets of eight, read and written by several workers
//! at once, none of which ever waits.
//!
//! A key may stand in either of two sets, so that sets fill evenly. A set's eight *state words* fill a cache line and tell
//! by a tag whether to look at an entry: a line of its own, with the epoch and the key. State words stand
//! together, apart from the entries: those of a whole port fit a near cache.
//!
//! **Who writes what.** A slot is taken by exchanging its state word for one that says "being written", with a new
//! version; then epoch and key are written, and the state word again, with release. A reader loads the state word
//! (acquire), compares the key, and looks at the state word once more: if the version moved meanwhile, the slot did not
//! hold what was read, and the reader goes on. A slot that is being written holds nothing that anybody may rely on yet,
//! so no reader has to come back. The models in `loom_models.rs` run this very code.
//!
//! What is given up: two workers that begin one connection at the same moment may both put it in. The second entry is never
//! found, and expires.

use super::Full;
use super::key::{Key, WORDS};
use super::state::{Rank, State};
use crate::directory::prefetch;
use crate::sync::{AtomicU64, Ordering, fence, zeroed};
use crate::types::{Generation, Nanos};

/// Slots of a set: their state words fill one cache line. In a model, one: whoever comes takes it from whoever is there.
const WAYS: usize = if cfg!(dataplane_loom) { 1 } else { 8 };
const LINE_WORDS: usize = 8;
/// Epoch, key, and nothing: an entry fills a line.
const ENTRY_WORDS: usize = LINE_WORDS;
/// How often a writer that others got ahead of tries again.
const TRIES: usize = 4;

/// Time in units of 2²⁸ ns (0.27 s): fine enough for timeouts, and coarse enough that a busy connection is rarely
/// written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    pub(super) fn of(now: Nanos) -> Self {
        // 36 years after the clock's start it stands still, and connections live on.
        Self(u32::try_from(now.0 >> 28).unwrap_or(u32::MAX))
    }

    #[inline]
    fn after(self, state: State) -> Self {
        // At least one whole tick: none would expire at once.
        let [.., last] = TIMEOUTS;
        Self(self.0.saturating_add(*TIMEOUTS.get(state as usize).unwrap_or(&last)))
    }
}

/// Whole ticks of some hours at most.
const fn ticks(seconds: u64) -> u32 {
    let [a, b, c, d, ..] = ((seconds * 1_000_000_000) >> 28).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The timeouts by the states' numbers, in ticks.
const TIMEOUTS: [u32; 16] = {
    let mut timeouts = [1; 16];
    let mut left: &[State] = &State::ALL;
    while let [state, rest @ ..] = left {
        timeouts[*state as usize] = ticks(state.timeout_seconds()) + 1;
        left = rest;
    }
    timeouts
};

/// A state word: expiry 32, version 16, tag 11, origin 1, state 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word(u64);

const STATE_BITS: u64 = 0xf;
const ORIGIN_BIT: u64 = 1 << 4;
const TAG_BITS: u64 = 0x7ff << 5;
const VERSION_BITS: u64 = 0xffff << 16;
const BEING_WRITTEN: u64 = 1;

impl Word {
    fn state(self) -> Option<State> {
        let [low, ..] = (self.0 & STATE_BITS).to_le_bytes();
        State::of(low)
    }

    const fn is_being_written(self) -> bool {
        self.0 & STATE_BITS == BEING_WRITTEN
    }

    const fn version(self) -> u64 {
        self.0 & VERSION_BITS
    }

    const fn next_version(self) -> u64 {
        self.0.wrapping_add(1 << 16) & VERSION_BITS
    }

    const fn expires(self) -> Tick {
        let [_, _, _, _, a, b, c, d] = self.0.to_le_bytes();
        Tick(u32::from_le_bytes([a, b, c, d]))
    }

    const fn origin_is_out(self) -> bool {
        self.0 & ORIGIN_BIT != 0
    }

    /// The same slot in another state.
    const fn with(self, state: State, expires: Tick) -> Self {
        let kept = self.0 & (VERSION_BITS | TAG_BITS | ORIGIN_BIT);
        Self(kept | state as u64 | (expires.0 as u64) << 32)
    }
}

/// A slot that held the wanted key when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    at: usize,
    word: Word,
    pub(super) state: State,
    pub(super) origin_is_out: bool,
    /// The generation of the rules that it was admitted under.
    pub(super) epoch: Generation,
}

/// A new connection.
pub(super) struct Entry<'a> {
    pub(super) key: &'a Key,
    pub(super) hash: u64,
    pub(super) state: State,
    pub(super) origin_is_out: bool,
    pub(super) epoch: Generation,
}

pub(super) struct Slots {
    words: Box<[AtomicU64]>,
    /// Where the state words begin, so that they fill lines.
    states: usize,
    /// Where the entries begin.
    entries: usize,
    /// Number of sets less one; sets are a power of two.
    mask: usize,
}

impl Slots {
    /// Room for at least `capacity` connections. Memory is only touched when it is used.
    pub(super) fn new(capacity: usize) -> Self {
        let sets = capacity.div_ceil(WAYS).next_power_of_two();
        let slots = sets * WAYS;
        let states_words = slots.next_multiple_of(LINE_WORDS);
        let words = zeroed(LINE_WORDS + states_words + slots * ENTRY_WORDS);
        let misplaced = words.as_ptr().addr() % 64 / 8;
        let states = (LINE_WORDS - misplaced) % LINE_WORDS;
        Self { words, states, entries: states + states_words, mask: sets - 1 }
    }

    /// The slot of `key`, if it is there and has not expired.
    #[inline]
    pub(super) fn find(&self, key: &Key, hash: u64, now: Tick) -> Option<Found> {
        let tag = tag(hash);
        self.sets(hash).find_map(|set| {
            let states: &[AtomicU64; WAYS] = self.words.get(self.states + set..)?.first_chunk()?;
            // Without a branch for each: which of them it is cannot be foretold.
            let mut candidates = 0_u32;
            for (way, cell) in states.iter().enumerate() {
                let fits = cell.load(Ordering::Relaxed) & TAG_BITS == tag;
                candidates |= u32::from(fits) << way;
            }
            while candidates != 0 {
                let way = candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                let found = self.verify(set + way, states.get(way)?, key, now);
                if found.is_some() {
                    return found;
                }
            }
            None
        })
    }

    /// Asks for the state words of the set that a key of this hash stands in, unless that was full.
    #[inline]
    pub(super) fn prefetch_states(&self, hash: u64) {
        if let Some(cell) = self.sets(hash).next().and_then(|set| self.word(set)) {
            prefetch(cell);
        }
    }

    /// The first slot with the tag of this hash, if there is one: its entry is asked for.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<usize> {
        let tag = tag(hash);
        self.sets(hash).find_map(|set| {
            let states: &[AtomicU64; WAYS] = self.words.get(self.states + set..)?.first_chunk()?;
            let mut candidates = 0_u32;
            for (way, cell) in states.iter().enumerate() {
                let fits = cell.load(Ordering::Relaxed) & TAG_BITS == tag;
                candidates |= u32::from(fits) << way;
            }
            let at = set + candidates.trailing_zeros() as usize;
            let [epoch, ..] = self.entry(at).filter(|_| candidates != 0)?;
            prefetch(epoch);
            Some(at)
        })
    }

    /// The slot of `key`, if that is `at`, and it has not expired.
    #[inline]
    pub(super) fn find_at(&self, at: usize, key: &Key, now: Tick) -> Option<Found> {
        self.verify(at, self.word(at)?, key, now)
    }

    #[inline]
    fn verify(&self, at: usize, cell: &AtomicU64, key: &Key, now: Tick) -> Option<Found> {
        let word = Word(cell.load(Ordering::Acquire));
        let state = word.state().filter(|_| word.expires() > now)?;
        let [epoch, stored @ ..] = self.entry(at)?;
        let words = key.words();
        let differ = |(cell, word): (&AtomicU64, u64)| cell.load(Ordering::Relaxed) ^ word;
        let [first @ .., _, _, _] = stored;
        let mut difference = first.iter().zip(words).map(differ).fold(0, |all, one| all | one);
        // The first word tells the family, and over IPv4 the last three are zero.
        if !key.is_v4() {
            difference |= stored.iter().zip(words).map(differ).fold(0, |all, one| all | one);
        }
        let is_it = difference == 0;
        let epoch = Generation(epoch.load(Ordering::Relaxed));
        // Pairs with the fence of a writer that took the slot meanwhile.
        fence(Ordering::Acquire);
        let again = Word(cell.load(Ordering::Relaxed));
        let found = Found { at, word, state, origin_is_out: word.origin_is_out(), epoch };
        (is_it && again.version() == word.version()).then_some(found)
    }

    /// Puts a found slot into the state that `next` makes of its present one, and prolongs it; empties it where `next` says
    /// `None`, and then answers false. What has changed hands is left alone.
    #[inline]
    pub(super) fn update(&self, found: &Found, now: Tick, next: impl Fn(State) -> Option<State>) -> bool {
        let (mut word, mut state) = (found.word, found.state);
        loop {
            let to = match next(state) {
                None => Word(word.next_version()),
                Some(next) if next == state && !state.is_prolonged() => return true,
                Some(next) => word.with(next, now.after(next)),
            };
            // The usual case: another packet within the same tick.
            if to == word {
                return true;
            }
            let Some(present) = self.exchange(found.at, word, to) else {
                return to.state().is_some();
            };
            // Another worker has moved it on. Each of them does so once and goes its way: nobody waits for anybody.
            word = present;
            state = match present.state().filter(|_| present.version() == found.word.version()) {
                Some(state) => state,
                // Who was about to begin another one has yet to ask.
                None => return to.state().is_some(),
            };
        }
    }

    /// Notes that a found slot has been judged by the rules of another generation.
    pub(super) fn set_epoch(&self, found: &Found, epoch: Generation) {
        let (Some([cell, ..]), Some(state)) = (self.entry(found.at), self.word(found.at)) else { return };
        let noted = cell.compare_exchange(found.epoch.0, epoch.0, Ordering::AcqRel, Ordering::Relaxed);
        fence(Ordering::Acquire);
        let now_there = Word(state.load(Ordering::Acquire));
        if noted.is_ok() && now_there.version() != found.word.version() {
            // It was another connection's: that one is to be judged again.
            cell.store(NEVER.0, Ordering::Release);
        }
    }

    /// Puts a connection in, in place of one that gives way if there is no free slot.
    ///
    /// # Errors
    /// [`Full`]: all slots that it could have are held by connections that do not give way.
    pub(super) fn insert(&self, new: &Entry<'_>, now: Tick) -> Result<(), Full> {
        for _ in 0..TRIES {
            let (at, old) = self.victim(new.hash, new.origin_is_out, now).ok_or(Full)?;
            let version = old.next_version();
            if self.exchange(at, old, Word(BEING_WRITTEN | version)).is_some() {
                continue;
            }
            // A reader that sees any of what follows also sees that the slot is being written.
            fence(Ordering::Release);
            let [epoch, key @ ..] = self.entry(at).ok_or(Full)?;
            // Exchanged, so that it stands in one order with those of workers that confirm who was here before.
            epoch.swap(new.epoch.0, Ordering::Relaxed);
            for (cell, word) in key.iter().zip(new.key.words()) {
                cell.store(word, Ordering::Relaxed);
            }
            let origin = if new.origin_is_out { ORIGIN_BIT } else { 0 };
            let word = Word(version | tag(new.hash) | origin).with(new.state, now.after(new.state));
            if let Some(cell) = self.word(at) {
                cell.store(word.0, Ordering::Release);
            }
            return Ok(());
        }
        Err(Full)
    }

    /// The states of all connections that have not expired.
    pub(super) fn live(&self, now: Tick) -> impl Iterator<Item = State> + '_ {
        (0..(self.mask + 1) * WAYS).filter_map(move |at| {
            let word = Word(self.word(at)?.load(Ordering::Relaxed));
            word.state().filter(|_| word.expires() > now)
        })
    }

    /// The slot to take: a free or expired one, else that of the lowest rank that was silent for longest.
    fn victim(&self, hash: u64, origin_is_out: bool, now: Tick) -> Option<(usize, Word)> {
        let mut best: Option<(Rank, Tick, usize, Word)> = None;
        // For the guest's own: one that its peers have begun. They could fill the table otherwise.
        let mut theirs: Option<(Tick, usize, Word)> = None;
        for at in self.sets(hash).flat_map(|set| set..set + WAYS) {
            let word = Word(self.word(at)?.load(Ordering::Relaxed));
            if word.is_being_written() {
                continue;
            }
            let Some(state) = word.state().filter(|_| word.expires() > now) else { return Some((at, word)) };
            let last_seen = Tick(word.expires().0.saturating_sub(now.after(state).0.saturating_sub(now.0)));
            let is_firm = now.0.saturating_sub(last_seen.0) < ticks(state.firm_seconds());
            if state.rank() == Rank::Established && is_firm {
                if origin_is_out && !word.origin_is_out() && theirs.is_none_or(|theirs| last_seen < theirs.0)
                {
                    theirs = Some((last_seen, at, word));
                }
                continue;
            }
            let candidate = (state.rank(), last_seen, at, word);
            if best.is_none_or(|best| (candidate.0, candidate.1) < (best.0, best.1)) {
                best = Some(candidate);
            }
        }
        best.map(|(_, _, at, word)| (at, word)).or(theirs.map(|(_, at, word)| (at, word)))
    }

    /// The first slots of the two sets that a key may stand in.
    #[inline]
    fn sets(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mask = self.mask as u64;
        // No more than `mask`, which was a usize.
        [hash, hash >> 32]
            .into_iter()
            .map(move |bits| usize::try_from(bits & mask).unwrap_or_default() * WAYS)
    }

    #[inline]
    fn entry(&self, at: usize) -> Option<&[AtomicU64; 1 + WORDS]> {
        self.words.get(self.entries + at * ENTRY_WORDS..)?.first_chunk()
    }

    #[inline]
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.words.get(self.states + at)
    }

    /// Replaces a state word; otherwise tells what stands there instead.
    #[inline]
    fn exchange(&self, at: usize, old: Word, new: Word) -> Option<Word> {
        let cell = self.word(at)?;
        cell.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).err().map(Word)
    }
}

/// No rules have this generation: documents begin at one.
pub(super) const NEVER: Generation = Generation(0);

/// Bits of the hash that choose no set.
const fn tag(hash: u64) -> u64 {
    hash.rotate_right(16) & TAG_BITS
}
