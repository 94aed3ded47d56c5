//! A port's rules in the form that packets are judged by.
//!
//! Each dimension of a packet (protocol, remote address, port or ICMP type) is cut into the pieces between the rules'
//! borders, and each piece knows, as a bit set in the order of judgement, which rules cover it. A packet's piece is found by binary
//! search; the first bit that the sets of all dimensions share is the rule that decides. So hundreds of rules cost a few steps
//! more than one. Immutable once built; never here: connections.

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use ipnet::IpNet;

use crate::desired::{Action, Direction, PortConfig, RuleConfig, RuleProtocol};
use crate::stats::Counter;
use crate::types::Generation;
use crate::wire::Protocol;

/// What rules ask of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The other end's address.
    pub remote: IpAddr,
    /// The destination port of TCP and UDP, the type of ICMP and ICMPv6, else zero.
    pub selector: u16,
}

/// All rules of a port, both directions.
#[derive(Debug)]
pub struct RuleSet {
    /// The generation that changed them last: what a connection was admitted under.
    pub epoch: Generation,
    inward: Classifier,
    outward: Classifier,
}

/// How often one rule has decided.
#[derive(Debug)]
pub struct Hits(Box<[CachePadded<Counter>]>);

impl Hits {
    fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers.max(1)).map(|_| CachePadded::default()).collect()))
    }

    fn add(&self, worker: usize) {
        if let Some(counter) = self.0.get(worker).or_else(|| self.0.first()) {
            counter.add(1);
        }
    }

    /// Over all workers.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|counter| counter.value()).sum()
    }
}

impl RuleSet {
    /// The rules of `port`; `None` if it has none. `before` are those of the tables before: what did not change keeps its
    /// counters, and the whole its epoch if nothing changed.
    pub(super) fn succeed(
        before: Option<&Arc<Self>>,
        unchanged: bool,
        port: &PortConfig,
        epoch: Generation,
        workers: usize,
    ) -> Option<Arc<Self>> {
        if port.rules.is_empty() {
            return None;
        }
        if let Some(before) = before.filter(|_| unchanged) {
            return Some(before.clone());
        }
        let of = |direction| {
            let mut rules: Vec<RuleConfig> =
                port.rules.iter().filter(|rule| rule.direction == direction).copied().collect();
            rules.sort_by_key(|rule| (rule.priority, rule.id));
            let hits = |rule: &RuleConfig| {
                let kept = before.and_then(|before| before.hits(rule)).cloned();
                Rule { config: *rule, hits: kept.unwrap_or_else(|| Hits::new(workers)) }
            };
            Classifier::build(rules.iter().map(hits).collect())
        };
        Some(Arc::new(Self { epoch, inward: of(Direction::In), outward: of(Direction::Out) }))
    }

    /// What the first rule that matches says; what none matches may pass. Counted for `worker`.
    #[must_use]
    pub fn judge(&self, direction: Direction, subject: &Subject, worker: usize) -> Action {
        match self.of(direction).first_match(subject) {
            Some(rule) => {
                rule.hits.add(worker);
                rule.config.action
            }
            None => Action::Allow,
        }
    }

    /// The counter of this very rule, if it is here.
    #[must_use]
    pub fn hits(&self, rule: &RuleConfig) -> Option<&Arc<Hits>> {
        self.of(rule.direction).rules.iter().find(|known| known.config == *rule).map(|known| &known.hits)
    }

    const fn of(&self, direction: Direction) -> &Classifier {
        match direction {
            Direction::In => &self.inward,
            Direction::Out => &self.outward,
        }
    }
}

#[derive(Debug)]
struct Rule {
    config: RuleConfig,
    hits: Arc<Hits>,
}

/// The rules of one direction.
#[derive(Debug)]
struct Classifier {
    /// In the order of judgement.
    rules: Vec<Rule>,
    /// Of 64 bits, in each bit set.
    words: usize,
    protocols: Pieces<u8>,
    v4: Pieces<u32>,
    v6: Pieces<u128>,
    selectors: Pieces<u16>,
}

impl Classifier {
    fn build(rules: Vec<Rule>) -> Self {
        let words = rules.len().div_ceil(64);
        let ranges = |of: fn(&RuleConfig) -> Covered<u128>| {
            rules.iter().map(|rule| of(&rule.config)).collect::<Vec<_>>()
        };
        Self {
            words,
            protocols: Pieces::build(words, &ranges(protocols)),
            v4: Pieces::build(words, &ranges(v4)),
            v6: Pieces::build(words, &ranges(v6)),
            selectors: Pieces::build(words, &ranges(selectors)),
            rules,
        }
    }

    fn first_match(&self, subject: &Subject) -> Option<&Rule> {
        let protocols = self.protocols.covering(subject.protocol.0, self.words);
        let remotes = match subject.remote {
            IpAddr::V4(ip) => self.v4.covering(ip.to_bits(), self.words),
            IpAddr::V6(ip) => self.v6.covering(ip.to_bits(), self.words),
        };
        let selectors = self.selectors.covering(subject.selector, self.words);
        let sets = protocols.iter().zip(remotes).zip(selectors);
        let (word, common) = sets
            .map(|((protocols, remotes), selectors)| protocols & remotes & selectors)
            .enumerate()
            .find(|&(_, common)| common != 0)?;
        // At most 63.
        self.rules.get(word * 64 + common.trailing_zeros() as usize)
    }
}

/// What a rule covers of one dimension: both ends included; `None`: nothing.
type Covered<N> = Option<(N, N)>;

const fn protocols(rule: &RuleConfig) -> Covered<u128> {
    match rule.protocol {
        RuleProtocol::Any => Some((0, u8::MAX as u128)),
        RuleProtocol::One(protocol) => Some((protocol.0 as u128, protocol.0 as u128)),
    }
}

fn v4(rule: &RuleConfig) -> Covered<u128> {
    match rule.remote {
        None => Some((0, u32::MAX.into())),
        Some(IpNet::V4(net)) => Some((net.network().to_bits().into(), net.broadcast().to_bits().into())),
        Some(IpNet::V6(_)) => None,
    }
}

fn v6(rule: &RuleConfig) -> Covered<u128> {
    match rule.remote {
        None => Some((0, u128::MAX)),
        Some(IpNet::V6(net)) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        Some(IpNet::V4(_)) => None,
    }
}

fn selectors(rule: &RuleConfig) -> Covered<u128> {
    // A protocol has either ports or types, and the set of the protocol tells which are meant.
    match (rule.ports, rule.icmp_type) {
        (Some(ports), _) => Some((ports.first().into(), ports.last().into())),
        (None, Some(kind)) => Some((kind.into(), kind.into())),
        (None, None) => Some((0, u16::MAX.into())),
    }
}

/// One dimension, cut at the rules' borders.
#[derive(Debug)]
struct Pieces<N> {
    /// Where each piece begins, in order; the first at zero.
    starts: Vec<N>,
    /// The bit set of each piece, one after the other.
    sets: Vec<u64>,
}

impl<N: Copy + Ord + TryFrom<u128>> Pieces<N> {
    fn build(words: usize, covered: &[Covered<u128>]) -> Self {
        let borders = covered.iter().flatten().flat_map(|&(first, last)| [Some(first), last.checked_add(1)]);
        let mut starts: Vec<u128> = borders.flatten().chain([0]).collect();
        starts.sort_unstable();
        starts.dedup();
        // The border behind the last number is none.
        starts.retain(|&start| N::try_from(start).is_ok());
        let mut sets = vec![0; starts.len() * words];
        if words > 0 {
            for (start, set) in starts.iter().zip(sets.chunks_exact_mut(words)) {
                for (index, range) in covered.iter().enumerate() {
                    if range.is_some_and(|(first, last)| (first..=last).contains(start))
                        && let Some(word) = set.get_mut(index / 64)
                    {
                        *word |= 1 << (index % 64);
                    }
                }
            }
        }
        Self { starts: starts.into_iter().filter_map(|start| N::try_from(start).ok()).collect(), sets }
    }

    /// The bit set of the piece that `number` lies in.
    fn covering(&self, number: N, words: usize) -> &[u64] {
        let piece = self.starts.partition_point(|start| *start <= number).saturating_sub(1);
        self.sets.get(piece * words..(piece + 1) * words).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
