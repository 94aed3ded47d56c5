//! Make before break: every other host that holds the new network learns where the addresses are, before the machine goes
//! there. A host that does not answer is not waited for longer than a moment: it will learn in its turn.

use async_trait::async_trait;

use super::subject::subject;
use crate::network::{self, Absent};
use crate::store::{Draft, Revision};
use crate::workflow::{Context, Outcome, Step, StepError};

/// See the module.
pub(super) struct Learn;

#[async_trait]
impl Step for Learn {
    fn name(&self) -> &'static str {
        "learn"
    }

    async fn forward(&self, context: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (world, store) = (context.world, context.world.store());
        let subject = subject(world, context.operation).await?;
        let Some(new) = subject.memory.new else { return Ok(Outcome::Done(Draft::new())) };
        let mut newest = Revision::default();
        for ip in &new.addresses {
            newest = newest.max(network::published_at(store, &new.network, *ip).await?.unwrap_or_default());
        }
        let own = Some(subject.vm.row.host);
        let known = network::everyone_knows(store, &new.network, newest, own, Absent::Skip).await?;
        match context.left(world.limits().learn) {
            Some(left) if !known => Ok(Outcome::Wait(vec![network::progress_prefix()?], left)),
            _ => Ok(Outcome::Done(Draft::new())),
        }
    }

    async fn backward(&self, _context: &mut Context<'_>) -> Result<Option<Draft>, StepError> {
        Ok(None)
    }
}
