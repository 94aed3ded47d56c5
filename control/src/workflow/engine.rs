//! The engine: takes one operation from where its journal says it is to its end.
//!
//! It never remembers anything but what the journal says. One transaction holds the rows that a step writes and the
//! record that it was done; a transaction that conflicts is put together anew from what is there now. So the engine may
//! die anywhere, and two engines that take the same operation for theirs cannot both do a step.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::time::{sleep, timeout};

use super::fail_point::FailPoint;
use super::journal::{self, Journal};
use super::step::{Context, Outcome, Step, StepError};
use super::{World, journeys};
use crate::model::{Operation, OperationId, OperationState, Problem, StepState};
use crate::store::rows::Versioned;
use crate::store::{Draft, Prefix, Revision};

/// How often a transaction that conflicts is put together anew before the engine pauses for longer.
const EAGER: u32 = 20;
/// How often a step that the store fails is tried before the engine lets go of the operation; whoever looks for
/// interrupted ones takes it up again.
const STORE_TRIES: u32 = 50;

/// Why an engine lets go of an operation that is not at its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such operation.
    #[error("there is no operation {0}")]
    NoSuchOperation(OperationId),
    /// Another controller carries it out.
    #[error("operation {0} is another controller's")]
    NotMine(OperationId),
    /// A fail point.
    #[error("stopped at a fail point")]
    Stopped,
    /// The store does not do its part.
    #[error("the store fails: {0}")]
    Store(StepError),
}

/// Takes an operation to its end.
///
/// # Errors
/// When it has to let go of it before.
pub async fn run(world: &World, id: OperationId) -> Result<Operation, EngineError> {
    let (mut conflicts, mut failures) = (0, 0);
    let mut held: Option<Held> = None;
    loop {
        let mut operation = match held.take() {
            Some(operation) => operation,
            None => match retried(&mut failures, journal::load(world, id).await)? {
                Some(read) => {
                    Held { operation: read.ok_or(EngineError::NoSuchOperation(id))?, unwritten: false }
                }
                None => continue,
            },
        };
        let row = &operation.operation.row;
        if row.state.is_final() && !operation.unwritten {
            return Ok(operation.operation.row);
        }
        if row.runner.as_deref() != Some(world.runner()) {
            return Err(EngineError::NotMine(id));
        }
        let turned = match row.state {
            OperationState::Undoing => backward(world, &mut operation).await,
            _ => forward(world, &mut operation).await,
        };
        match turned {
            Ok(()) => {
                (conflicts, failures) = (0, 0);
                held = Some(operation);
            }
            Err(Turn::Stopped) => return Err(EngineError::Stopped),
            // From here on what is held is not to be trusted: it is read anew.
            Err(Turn::Failed(error)) if error.is_conflict() => {
                conflicts += 1;
                // Who conflicts with many others gives them time, and not all the same.
                if conflicts > 2 {
                    let most = if conflicts > EAGER { 50_000 } else { 2_000 };
                    sleep(Duration::from_micros(chance(most))).await;
                }
            }
            Err(Turn::Failed(error)) => {
                retried::<()>(&mut failures, Err(error))?;
                sleep(Duration::from_millis(20 + chance(100))).await;
            }
        }
    }
}

/// An operation as it was read or written last, and what has happened since.
struct Held {
    operation: Versioned<Operation>,
    /// Steps were done that wrote nothing: the journal says so with the next transaction, or before the engine waits.
    unwritten: bool,
}

/// `None`: the store failed, and it is worth another try.
fn retried<T>(failures: &mut u32, result: Result<T, StepError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            *failures += 1;
            if *failures > STORE_TRIES { Err(EngineError::Store(error)) } else { Ok(None) }
        }
    }
}

/// Why a turn did not come to a commit.
enum Turn {
    Failed(StepError),
    Stopped,
}

impl<E: Into<StepError>> From<E> for Turn {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One step forward, or as much of it as there is to do now.
async fn forward(world: &World, held: &mut Held) -> Result<(), Turn> {
    let steps = journeys::steps(held.operation.row.kind);
    let place = Journal(&held.operation.row).done();
    let Some(step) = steps.get(place).copied() else {
        // All steps are done: a journey of fewer steps than an older program's had.
        journal::finish(&mut held.operation.row, OperationState::Done, None, world.now());
        return commit(world, held, Draft::new(), "", false).await;
    };
    // Of before the step reads anything, so that nothing which changes after its reading is overlooked.
    let seen = world.store().revision().await?;
    let operation = &mut held.operation.row;
    let began = journal::begin(operation, step.name(), world.now());
    if world.fail_points().refuses(operation.kind, step.name()) {
        let problem = Problem::new("refused by a test", step.name(), "none");
        return refuse(world, held, steps, place, problem).await;
    }
    match step.forward(&mut Context { world, operation, began }).await {
        Ok(Outcome::Done(draft)) => {
            journal::end(operation, StepState::Done, world.now(), None);
            match steps.get(place + 1) {
                Some(next) => drop(journal::begin(operation, next.name(), world.now())),
                None => journal::finish(operation, OperationState::Done, None, world.now()),
            }
            if draft.writes_nothing() && !operation.state.is_final() && !world.fail_points().are_set() {
                held.unwritten = true;
                return Ok(());
            }
            commit(world, held, draft, step.name(), false).await
        }
        Ok(Outcome::Again(draft)) => commit(world, held, draft, step.name(), false).await,
        Ok(Outcome::Instead(kind, draft)) => {
            journal::end(operation, StepState::Done, world.now(), Some(format!("instead: {kind}")));
            journal::restart(operation, kind);
            commit(world, held, draft, step.name(), false).await
        }
        Ok(Outcome::Wait(prefixes, limit)) => {
            // Whoever looks at the operation meanwhile shall see what is done.
            if held.unwritten {
                commit(world, held, Draft::new(), step.name(), false).await?;
            }
            wait(world, &prefixes, seen, limit).await
        }
        Err(StepError::Refused(problem)) => refuse(world, held, steps, place, problem).await,
        Err(error) => Err(Turn::Failed(error)),
    }
}

/// A step cannot be done: what was done before it is undone, or, past the point of no return, the journey ends here.
async fn refuse(
    world: &World,
    held: &mut Held,
    steps: &[&'static dyn Step],
    place: usize,
    problem: Problem,
) -> Result<(), Turn> {
    let (now, operation) = (world.now(), &mut held.operation.row);
    journal::end(operation, StepState::Failed, now, Some(problem.to_string()));
    let past = steps.iter().take(place).any(|step| step.is_point_of_no_return());
    let mut draft = Draft::new();
    if past {
        journeys::give_up(world, operation, &problem, &mut draft).await?;
        journal::finish(operation, OperationState::Failed, Some(problem), now);
    } else if place == 0 {
        journal::finish(operation, OperationState::Undone, Some(problem), now);
    } else {
        operation.problem = Some(problem);
        operation.state = OperationState::Undoing;
    }
    let name = steps.get(place).map_or("", |step| step.name());
    commit(world, held, draft, name, false).await
}

/// One step back.
async fn backward(world: &World, held: &mut Held) -> Result<(), Turn> {
    let operation = &mut held.operation.row;
    let steps = journeys::steps(operation.kind);
    let (mut draft, mut undone) = (Draft::new(), String::new());
    if let Some((name, began)) = Journal(operation).last_done() {
        if let Some(step) = steps.iter().copied().find(|step| step.name() == name) {
            let back = step.backward(&mut Context { world, operation, began }).await;
            draft = back?.unwrap_or_default();
        }
        journal::undo_last(operation, world.now());
        undone = name;
    }
    if Journal(operation).last_done().is_none() {
        let problem = operation.problem.clone();
        journal::finish(operation, OperationState::Undone, problem, world.now());
    }
    commit(world, held, draft, &undone, true).await
}

/// The rows of a step and the journal, together.
async fn commit(
    world: &World,
    held: &mut Held,
    mut draft: Draft,
    step: &str,
    backward: bool,
) -> Result<(), Turn> {
    pass(world, held, step, backward, false).await?;
    journal::save(&mut draft, &held.operation)?;
    held.operation.revision = world.store().commit(draft.finish()?).await?;
    held.unwritten = false;
    pass(world, held, step, backward, true).await
}

/// Past a point at which tests may have an engine stop or wait.
async fn pass(world: &World, held: &Held, step: &str, backward: bool, after: bool) -> Result<(), Turn> {
    let point = FailPoint { step: step.to_owned(), backward, after };
    if world.fail_points().stops(&point) {
        return Err(Turn::Stopped);
    }
    world.fail_points().pass(held.operation.row.kind, &point).await;
    Ok(())
}

/// Until something changes below one of the prefixes after revision `seen`, or the time is over: the step is then asked
/// again, and says what that means.
async fn wait(world: &World, prefixes: &[Prefix], seen: Revision, limit: Duration) -> Result<(), Turn> {
    let watches = prefixes.iter().map(|prefix| world.store().watch(prefix, seen));
    let mut all = select_all(watches);
    let _ = timeout(limit, all.next()).await;
    Ok(())
}

fn chance(below: u64) -> u64 {
    let (low, _) = uuid::Uuid::new_v4().as_u64_pair();
    low % below.max(1)
}
