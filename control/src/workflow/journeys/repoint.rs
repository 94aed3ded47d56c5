//! Rules that name the machine are re-pointed to where it is now: the hosts of the machines that have such rules are told
//! anew. The rows of the rules name the machine and not its address, so that taking this step back is taking it again.

use async_trait::async_trait;

use super::subject::subject;
use crate::compute;
use crate::model::{Remote, VmState};
use crate::store::Draft;
use crate::workflow::{Context, Outcome, Step, StepError};

/// So many machines are told in one transaction.
const AT_ONCE: usize = 40;

/// See the module.
pub(super) struct Repoint;

#[async_trait]
impl Step for Repoint {
    fn name(&self) -> &'static str {
        "repoint"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        Ok(Outcome::Done(tell_anew(context).await?))
    }

    async fn backward(&self, context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        tell_anew(context).await.map(Some)
    }
}

async fn tell_anew(context: &Context<'_>) -> Result<Draft, StepError> {
    let subject = subject(context.world, context.operation).await?;
    let store = context.world.store();
    let mut draft = Draft::new();
    let mut told = 0;
    for id in compute::naming(store, subject.vm.row.id).await? {
        let Some(mut peer) = compute::load_vm(store, id).await? else { continue };
        let names = |rule: &crate::model::VmRule| rule.remote == Remote::Vm(subject.vm.row.id);
        if peer.row.state == VmState::Deleting || !peer.row.rules.iter().any(names) || told == AT_ONCE {
            continue;
        }
        peer.row.generation += 1;
        compute::save_vm(&mut draft, &peer)?;
        told += 1;
    }
    Ok(draft)
}
