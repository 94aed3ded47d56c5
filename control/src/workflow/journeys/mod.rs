//! The journeys: for each kind of operation the steps in their order. Fail points, undo tests and the timeline come from
//! these tables, so that a new step cannot be forgotten.

mod boot;
mod change;
mod claim;
mod create;
mod delete;
mod follow;
mod forget;
mod forms;
mod isolate;
mod learn;
mod own;
mod reassign;
mod repoint;
mod subject;

use super::step::{Step, StepError};
use super::world::World;
use crate::model::{JourneyKind, Operation, Problem, VmState};
use crate::store::Draft;

/// The forms of requests.
pub mod requests {
    pub use super::forms::{ChangeNetwork, CreateVm, FillPool, OneVm};
}

/// The steps of a journey, in order.
#[must_use]
pub fn steps(kind: JourneyKind) -> &'static [&'static dyn Step] {
    match kind {
        JourneyKind::VmCreate => &[&create::Place, &boot::Boot, &follow::Ready, &boot::Finish],
        JourneyKind::PoolFill => &[&create::Place, &boot::Boot, &follow::Partial, &boot::Stock],
        JourneyKind::HandOver => {
            &[&claim::Claim, &learn::Learn, &own::Own, &change::Change, &follow::Ready, &forget::Forget]
        }
        JourneyKind::NetworkChange => &[
            &reassign::Reassign,
            &learn::Learn,
            &reassign::Bind,
            &repoint::Repoint,
            &change::Change,
            &follow::Ready,
            &forget::Forget,
        ],
        JourneyKind::Quarantine => {
            &[&isolate::Isolate, &repoint::Repoint, &change::Change, &isolate::Quarantined]
        }
        JourneyKind::Release => &[
            &isolate::Restore,
            &learn::Learn,
            &reassign::Bind,
            &repoint::Repoint,
            &change::Change,
            &forget::Forget,
        ],
        JourneyKind::VmDelete => &[&delete::Stop, &delete::Gone],
    }
}

/// An operation has failed where there is no way back: its machine is let go of, and says why.
pub(super) async fn give_up(
    world: &World,
    operation: &mut Operation,
    problem: &Problem,
    draft: &mut Draft,
) -> Result<(), StepError> {
    let Some(id) = operation.vm else { return Ok(()) };
    let Some((mut vm, _)) = subject::machine(world, id).await? else { return Ok(()) };
    if vm.row.operation == Some(operation.id) {
        vm.row.operation = None;
        vm.row.state = VmState::Failed;
        vm.row.failure = Some(problem.clone());
        crate::compute::save_vm(draft, &vm)?;
    }
    Ok(())
}
