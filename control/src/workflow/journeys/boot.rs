//! A new machine comes up, and is finished: the customer's, or the pool's.

use async_trait::async_trait;

use super::forms::{FillPool, request};
use super::subject::subject;
use crate::model::{VmRunning, VmState};
use crate::store::Draft;
use crate::workflow::{Context, Outcome, Step, StepError};
use crate::{compute, pool};

/// The host has started it.
pub(super) struct Boot;

#[async_trait]
impl Step for Boot {
    fn name(&self) -> &'static str {
        "boot"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let subject = subject(context.world, context.operation).await?;
        let vm = &subject.vm.row;
        let fact = compute::fact_of(context.world.store(), vm.id).await?.map(|fact| fact.row);
        match fact.filter(|fact| fact.generation >= vm.generation).map(|fact| fact.running) {
            Some(VmRunning::Running) => return Ok(Outcome::Done(Draft::new())),
            Some(VmRunning::Failed { problem }) => return Err(StepError::Refused(problem)),
            Some(VmRunning::Dead | VmRunning::Gone) => {
                return Err(StepError::refused(
                    "the machine ended while it booted",
                    vm.name.as_str(),
                    "try again",
                ));
            }
            Some(VmRunning::Pending) | None => {}
        }
        match context.left(context.world.limits().boot) {
            Some(left) => Ok(Outcome::Wait(vec![compute::fact_prefix(vm.id)?], left)),
            None => {
                let what = "the host did not start the machine in time";
                Err(StepError::refused(what, format!("host {}", vm.host), "look whether it is connected"))
            }
        }
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}

/// It is its owner's.
pub(super) struct Finish;

#[async_trait]
impl Step for Finish {
    fn name(&self) -> &'static str {
        "finish"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let mut subject = subject(context.world, context.operation).await?;
        subject.vm.row.state = VmState::Running;
        subject.vm.row.operation = None;
        subject.vm.row.watched_until = context.watched_until();
        let mut draft = Draft::new();
        compute::save_vm(&mut draft, &subject.vm)?;
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}

/// It waits for a customer.
pub(super) struct Stock;

#[async_trait]
impl Step for Stock {
    fn name(&self) -> &'static str {
        "stock"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let mut subject = subject(context.world, context.operation).await?;
        let wish: FillPool = request(context.operation)?;
        let pool = pool::pool(context.world.store(), wish.pool).await?;
        if pool.is_none_or(|pool| pool.row.draining) {
            return Err(StepError::refused("the pool is gone", "pool", "nothing needs to be done"));
        }
        subject.vm.row.state = VmState::Pooled;
        subject.vm.row.operation = None;
        let mut draft = Draft::new();
        pool::put_in_stock(&mut draft, wish.pool, subject.vm.row.id)?;
        compute::save_vm(&mut draft, &subject.vm)?;
        Ok(Outcome::Done(draft))
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}
