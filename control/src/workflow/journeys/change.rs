//! The host carries the change out. When it has, there is no way back but by another change.

use async_trait::async_trait;

use super::forms::remember;
use super::subject::subject;
use crate::compute;
use crate::model::VmRunning;
use crate::store::Draft;
use crate::workflow::{Context, Outcome, Step, StepError};

/// See the module.
pub(super) struct Change;

#[async_trait]
impl Step for Change {
    fn name(&self) -> &'static str {
        "change"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let mut subject = subject(context.world, context.operation).await?;
        let vm = &subject.vm.row;
        let fact = compute::fact_of(context.world.store(), vm.id).await?.map(|fact| fact.row);
        let current = fact.filter(|fact| fact.generation >= vm.generation);
        match current.as_ref().map(|fact| &fact.running) {
            Some(VmRunning::Running) => {
                subject.memory.times = current.and_then(|fact| fact.times);
                remember(context.operation, &subject.memory);
                return Ok(Outcome::Done(Draft::new()));
            }
            Some(VmRunning::Failed { problem }) => return Err(StepError::Refused(problem.clone())),
            Some(VmRunning::Dead | VmRunning::Gone) => {
                return Err(StepError::refused(
                    "the machine has ended",
                    vm.name.as_str(),
                    "ask for another one",
                ));
            }
            Some(VmRunning::Pending) | None => {}
        }
        match context.left(context.world.limits().host) {
            Some(left) => Ok(Outcome::Wait(vec![compute::fact_prefix(vm.id)?], left)),
            None => {
                let what = "the host did not carry out the change in time";
                Err(StepError::refused(what, format!("host {}", vm.host), "look whether it is connected"))
            }
        }
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }

    fn is_point_of_no_return(&self) -> bool {
        true
    }
}
