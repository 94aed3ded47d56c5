//! What this host knows of its machines, until the controller has it. The last fact about a machine counts, so memory is
//! bounded by the number of machines; a death is told even if the machine runs again by then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::metadata::Report;
use crate::fleet::codec::MOST_FACTS;
use crate::model::{ChangeTimes, Phase, ReceivedReport, VmFact, VmId, VmRunning};

/// Messages of facts that may be on their way.
const MOST_UNKEPT: usize = 8;

/// All facts.
#[derive(Debug, Default)]
pub struct Facts {
    book: Mutex<Book>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Book {
    entries: BTreeMap<VmId, Entry>,
    /// Machines about which there is something to tell.
    untold: BTreeSet<VmId>,
    /// What was sent and not acknowledged: number, and what was told with which version.
    unkept: VecDeque<(u64, Vec<(VmId, u64)>)>,
    number: u64,
}

#[derive(Debug)]
struct Entry {
    fact: VmFact,
    /// Grows with each change of the fact.
    version: u64,
    /// A death that is not kept yet; it goes in a message before that of the fact, for the last one about a machine counts.
    death: Option<Death>,
}

#[derive(Debug)]
struct Death {
    fact: VmFact,
    /// The message that it went by.
    told_in: Option<u64>,
}

/// A message of facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number.
    pub number: u64,
    /// At most [`MOST_FACTS`].
    pub facts: Vec<VmFact>,
}

impl Facts {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, vm: VmId, change: impl FnOnce(&mut Entry)) {
        let mut book = self.book();
        let entry = book.entries.entry(vm).or_insert_with(|| Entry {
            fact: VmFact {
                vm,
                generation: 0,
                running: VmRunning::Pending,
                times: None,
                report: None,
                heard_at: None,
                died_at: None,
            },
            version: 0,
            death: None,
        });
        let before = entry.fact.clone();
        change(entry);
        if entry.fact != before || entry.death.is_some() || entry.version == 0 {
            entry.version += 1;
            book.untold.insert(vm);
            drop(book);
            self.news.notify_one();
        }
    }

    /// How a machine is. Times of an older generation are dropped, and what the guest said of an older configuration.
    pub fn is(&self, vm: VmId, generation: u64, config: u64, running: VmRunning, times: Option<ChangeTimes>) {
        self.change(vm, |entry| {
            let fact = &mut entry.fact;
            fact.report = fact.report.take().filter(|report| report.report.generation >= config);
            if fact.generation != generation || times.is_some() {
                fact.times = times;
            }
            (fact.generation, fact.running) = (generation, running);
        });
    }

    /// A machine has ended by itself.
    pub fn died(&self, vm: VmId, generation: u64) {
        self.change(vm, |entry| {
            (entry.fact.generation, entry.fact.running) = (generation, VmRunning::Dead);
            entry.death = Some(Death { fact: entry.fact.clone(), told_in: None });
        });
    }

    /// Times that became known later, if the machine is still at this generation.
    pub fn times(&self, vm: VmId, generation: u64, times: ChangeTimes) {
        if self.book().entries.get(&vm).is_some_and(|entry| entry.fact.generation == generation) {
            self.change(vm, |entry| entry.fact.times = Some(times));
        }
    }

    /// A guest has said something; `config` is the generation of the document that it should speak about.
    pub fn heard(&self, vm: VmId, config: u64, report: Report) {
        if !self.book().entries.contains_key(&vm) {
            return;
        }
        self.change(vm, |entry| {
            entry.fact.heard_at = Some(report.at);
            if report.report.phase != Phase::Alive && report.report.generation == config {
                entry.fact.report = Some(ReceivedReport { report: report.report, at: report.at });
            }
        });
    }

    /// Waits until there may be something to tell.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The next message; none if all is told, or enough is on its way.
    #[must_use]
    pub fn take(&self) -> Option<Batch> {
        let book = &mut *self.book();
        if book.untold.is_empty() || book.unkept.len() >= MOST_UNKEPT {
            return None;
        }
        book.number += 1;
        let (mut facts, mut told, mut later) = (Vec::new(), Vec::new(), Vec::new());
        while facts.len() < MOST_FACTS
            && let Some(vm) = book.untold.pop_first()
        {
            let Some(entry) = book.entries.get_mut(&vm) else { continue };
            if let Some(death) = entry.death.as_mut().filter(|death| death.told_in.is_none()) {
                death.told_in = Some(book.number);
                facts.push(death.fact.clone());
                // Not the fact's version: the message does not tell that.
                told.push((vm, 0));
                if death.fact != entry.fact {
                    later.push(vm);
                }
            } else {
                facts.push(entry.fact.clone());
                told.push((vm, entry.version));
            }
        }
        book.untold.extend(later);
        book.unkept.push_back((book.number, told));
        Some(Batch { number: book.number, facts })
    }

    /// The controller has kept all messages up to this one. Gives the machines that are gone and known to be.
    pub fn kept(&self, number: u64) -> Vec<VmId> {
        let book = &mut *self.book();
        let mut gone = Vec::new();
        while let Some((_, told)) = book.unkept.pop_front_if(|(sent, _)| *sent <= number) {
            for (vm, version) in told {
                let Some(entry) = book.entries.get_mut(&vm) else { continue };
                entry.death.take_if(|death| death.told_in.is_some_and(|by| by <= number));
                if entry.version == version && entry.fact.running == VmRunning::Gone {
                    book.entries.remove(&vm);
                    gone.push(vm);
                }
            }
        }
        self.news.notify_one();
        gone
    }

    /// A new stream begins: everything is to be told, for nobody knows what got through.
    pub fn again(&self) {
        let book = &mut *self.book();
        book.unkept.clear();
        book.untold = book.entries.keys().copied().collect();
        for death in book.entries.values_mut().filter_map(|entry| entry.death.as_mut()) {
            death.told_in = None;
        }
        self.news.notify_one();
    }

    /// What would be told of a machine now.
    #[must_use]
    pub fn of(&self, vm: VmId) -> Option<VmFact> {
        self.book().entries.get(&vm).map(|entry| entry.fact.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]
    use super::*;

    fn running(facts: &Facts, vm: VmId, generation: u64) {
        facts.is(vm, generation, generation, VmRunning::Running, None);
    }

    #[test]
    fn the_last_fact_counts_and_a_death_is_told_before_it() {
        let (facts, vm) = (Facts::default(), VmId::new());
        running(&facts, vm, 1);
        running(&facts, vm, 2);
        let first = facts.take().unwrap();
        assert_eq!(first.facts.iter().map(|fact| fact.generation).collect::<Vec<_>>(), [2]);
        assert_eq!(facts.take(), None);
        running(&facts, vm, 2);
        assert_eq!(facts.take(), None, "nothing is new");
        facts.died(vm, 2);
        running(&facts, vm, 2);
        let told = || {
            let batches = std::iter::from_fn(|| facts.take());
            batches.map(|batch| (batch.number, batch.facts[0].running.clone())).collect::<Vec<_>>()
        };
        let both = told();
        assert_eq!(
            both.iter().map(|(_, fact)| fact).collect::<Vec<_>>(),
            [&VmRunning::Dead, &VmRunning::Running]
        );
        // Not acknowledged: told again on the next stream, and then no more.
        facts.again();
        let again = told();
        assert_eq!(again.len(), 2);
        facts.kept(again[0].0);
        facts.again();
        assert_eq!(told().into_iter().map(|(_, fact)| fact).collect::<Vec<_>>(), [VmRunning::Running]);
        // One that stays dead is told of once.
        facts.died(vm, 3);
        assert_eq!(told().into_iter().map(|(_, fact)| fact).collect::<Vec<_>>(), [VmRunning::Dead]);
    }

    #[test]
    fn a_machine_that_is_gone_is_forgotten_when_that_is_known() {
        let (facts, vm) = (Facts::default(), VmId::new());
        facts.is(vm, 1, 1, VmRunning::Gone, None);
        let batch = facts.take().unwrap();
        assert_eq!(facts.kept(batch.number - 1), []);
        assert_eq!(facts.kept(batch.number), [vm]);
        assert_eq!(facts.of(vm), None);
        // A change after the message was sent is not acknowledged by it.
        facts.is(vm, 1, 1, VmRunning::Gone, None);
        let batch = facts.take().unwrap();
        running(&facts, vm, 2);
        assert_eq!(facts.kept(batch.number), []);
        assert_eq!(facts.of(vm).unwrap().running, VmRunning::Running);
    }

    #[test]
    fn messages_and_their_number_are_bounded() {
        let facts = Facts::default();
        for _ in 0..MOST_FACTS * (MOST_UNKEPT + 2) {
            facts.died(VmId::new(), 1);
        }
        let sent: Vec<_> = std::iter::from_fn(|| facts.take()).collect();
        assert_eq!(sent.len(), MOST_UNKEPT);
        assert!(sent.iter().all(|batch| batch.facts.len() <= MOST_FACTS));
        facts.kept(sent[0].number);
        assert!(facts.take().is_some() && facts.take().is_none());
    }
}
