//! The guest follows: it reports that it waits in the pool, or that it has applied its customer's configuration.
//!
//! One that does not report in time has its link bounced once more. A machine that still does not, or that says it failed,
//! is replaced by another one of the pool if this is a hand-over, and kept in quarantine for inspection.

use std::time::Duration;

use async_trait::async_trait;

use super::claim::claim;
use super::forms::{recall, remember};
use super::subject::{Subject, subject};
use crate::model::{JourneyKind, Phase, Problem, Tenant, VmRunning, VmState};
use crate::store::Draft;
use crate::workflow::{Context, Outcome, Step, StepError};
use crate::{compute, network, storage};

/// It has applied its configuration.
pub(super) struct Ready;

/// It has booted and waits.
pub(super) struct Partial;

#[async_trait]
impl Step for Ready {
    fn name(&self) -> &'static str {
        "ready"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let limits = *context.world.limits();
        // Who comes from scratch has to boot first.
        let limit = if context.operation.kind == JourneyKind::VmCreate { limits.boot } else { limits.guest };
        let mut subject = subject(context.world, context.operation).await?;
        match told(context, &subject, Phase::Ready, limit).await? {
            Told::Yes => Ok(Outcome::Done(Draft::new())),
            Told::NotYet(wait) => Ok(wait),
            Told::Silent if !subject.memory.retried && context.operation.kind != JourneyKind::VmCreate => {
                subject.memory.retried = true;
                remember(context.operation, &subject.memory);
                // A guest that has said nothing has not run its owner's script either, as far as anybody knows.
                let runs = subject.vm.row.script_generation == subject.vm.row.config_generation;
                subject.vm.row.generation += 1;
                subject.vm.row.config_generation += 1;
                subject.vm.row.bounces += 1;
                if runs {
                    subject.vm.row.script_generation = subject.vm.row.config_generation;
                }
                let mut draft = Draft::new();
                compute::save_vm(&mut draft, &subject.vm)?;
                Ok(Outcome::Again(draft))
            }
            Told::Silent => {
                let what = "the guest did not report in time that it has applied its configuration";
                failed(context, subject, Problem::new(what, "guest", "look at its console")).await
            }
            Told::Failed(problem) => failed(context, subject, problem).await,
        }
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}

#[async_trait]
impl Step for Partial {
    fn name(&self) -> &'static str {
        "partial"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let subject = subject(context.world, context.operation).await?;
        match told(context, &subject, Phase::Partial, context.world.limits().boot).await? {
            Told::Yes => Ok(Outcome::Done(Draft::new())),
            Told::NotYet(wait) => Ok(wait),
            Told::Failed(problem) => Err(StepError::Refused(problem)),
            Told::Silent => {
                let what = "the guest did not report in time that it waits";
                Err(StepError::refused(what, "guest", "look at its console"))
            }
        }
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}

enum Told {
    Yes,
    NotYet(Outcome),
    Silent,
    Failed(Problem),
}

/// What the guest has said about its present configuration.
async fn told(
    context: &Context<'_>,
    subject: &Subject,
    phase: Phase,
    limit: Duration,
) -> Result<Told, StepError> {
    let vm = &subject.vm.row;
    let fact = compute::fact_of(context.world.store(), vm.id).await?.map(|fact| fact.row);
    if let Some(fact) = &fact {
        if matches!(fact.running, VmRunning::Dead | VmRunning::Gone) {
            return Ok(Told::Failed(Problem::new(
                "the machine has ended",
                vm.name.as_str(),
                "ask for another one",
            )));
        }
        let report = fact.report.as_ref().map(|received| &received.report);
        if let Some(report) = report.filter(|report| report.generation >= vm.config_generation) {
            if report.phase == phase {
                return Ok(Told::Yes);
            }
            if report.phase == Phase::Failed {
                let what =
                    report.detail.clone().unwrap_or_else(|| "the guest says that it failed".to_owned());
                return Ok(Told::Failed(Problem::new(
                    what,
                    "guest",
                    "mend what it was told to do, and ask again",
                )));
            }
        }
    }
    // The time counts from the last bounce.
    let limit = if subject.memory.retried { limit * 2 } else { limit };
    Ok(match context.left(limit) {
        Some(left) => Told::NotYet(Outcome::Wait(vec![compute::fact_prefix(vm.id)?], left)),
        None => Told::Silent,
    })
}

/// A machine that did not follow: replaced, or left as it is with its problem.
async fn failed(
    context: &mut Context<'_>,
    mut subject: Subject,
    problem: Problem,
) -> Result<Outcome, StepError> {
    let again = context.operation.replacements < context.world.limits().replacements;
    if context.operation.kind != JourneyKind::HandOver || !again {
        return Err(StepError::Refused(problem));
    }
    let mut draft = Draft::new();
    let quarantine = network::QUARANTINE
        .parse()
        .map_err(|error| StepError::refused(format!("{error}"), "network", "report this"))?;
    let (vm, nic) = (&mut subject.vm.row, &mut subject.nic.row);
    let mut memory = recall(context.operation);
    // The customer's addresses stay claimed: the successor takes them over, and the directory's word with them.
    network::let_go(&mut draft, &nic.binding.network, vm.host, nic.id)?;
    if let Some(old) = &memory.old {
        for ip in &old.addresses {
            network::withdraw(&mut draft, &old.network, *ip)?;
            network::release_address(&mut draft, &old.network, *ip, nic.id)?;
        }
        network::let_go(&mut draft, &old.network, vm.host, nic.id)?;
    }
    nic.binding = claim(context.world, &mut draft, &quarantine, &[], nic).await?;
    nic.tenant = Tenant::PLATFORM;
    network::hold(&mut draft, &quarantine, vm.host, nic.id)?;
    vm.tenant = Tenant::PLATFORM;
    if let Some(name) = &memory.old_name {
        vm.name = name.clone();
    }
    vm.settings = super::own::nothing();
    vm.rules = Vec::new();
    vm.state = VmState::Quarantined;
    vm.failure = Some(problem.clone());
    vm.operation = None;
    vm.generation += 1;
    vm.config_generation += 1;
    compute::save_vm(&mut draft, &subject.vm)?;
    compute::save_nic(&mut draft, &subject.nic)?;
    storage::change_owner(context.world.store(), &mut draft, subject.vm.row.id, Tenant::PLATFORM).await?;
    memory.inherited = Some(subject.nic.row.id);
    memory.replaced_for = Some(problem);
    memory.retried = false;
    memory.tainted = false;
    remember(context.operation, &memory);
    context.operation.replacements += 1;
    Ok(Outcome::Instead(JourneyKind::HandOver, draft))
}
