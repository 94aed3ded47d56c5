//! The journal: an operation's row, and how its steps are written into it.

use jiff::Timestamp;

use super::World;
use super::step::StepError;
use crate::model::{
    JourneyKind, Operation, OperationId, OperationState, Problem, StepRecord, StepState, TenantId, VmId,
};
use crate::store::rows::{self, Row, Versioned};
use crate::store::{Draft, Key, KeyError, Prefix};

impl Row for Operation {
    const KIND: &'static str = "operation";
    const SCHEMA: u32 = 1;
}

/// Where an operation's row is.
///
/// # Errors
/// Never.
pub fn key(id: OperationId) -> Result<Key, KeyError> {
    Key::of(["operation", &id.to_string()])
}

/// All operations.
///
/// # Errors
/// Never.
pub fn prefix() -> Result<Prefix, KeyError> {
    Prefix::of(["operation"])
}

/// Where an operation is listed until it has ended.
pub(super) fn open_key(id: OperationId) -> Result<Key, KeyError> {
    Key::of(["open", &id.to_string()])
}

/// All operations that have not ended: few, however many there were.
pub(super) async fn open(world: &World) -> Result<Vec<Versioned<Operation>>, StepError> {
    let (prefix, mut after, mut all) = (Prefix::of(["open"])?, None::<Key>, Vec::new());
    loop {
        let page = world.store().list(&prefix, after.as_ref(), usize::MAX).await?;
        for entry in &page.entries {
            let Some(id) = entry.key.segments().nth(1).and_then(|text| text.parse().ok()) else { continue };
            all.extend(load(world, id).await?);
        }
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            return Ok(all);
        }
    }
}

/// An operation that has not begun; `request` is in its journey's form.
#[must_use]
pub fn new(
    id: OperationId,
    tenant: TenantId,
    kind: JourneyKind,
    request: serde_json::Value,
    vm: Option<VmId>,
    world: &World,
) -> Operation {
    Operation {
        id,
        tenant,
        kind,
        state: OperationState::Running,
        request,
        memory: serde_json::Value::Null,
        steps: Vec::new(),
        first_step: 0,
        vm,
        runner: Some(world.runner().to_owned()),
        replacements: 0,
        problem: None,
        created_at: world.now(),
        ended_at: None,
    }
}

pub(super) async fn load(world: &World, id: OperationId) -> Result<Option<Versioned<Operation>>, StepError> {
    Ok(rows::load(world.store(), &key(id)?).await?)
}

/// Adds the row to a transaction that needs it to be as it was read.
pub(super) fn save(draft: &mut Draft, operation: &Versioned<Operation>) -> Result<(), KeyError> {
    let key = key(operation.row.id)?;
    draft.require(&key, operation.revision).put_row(&key, &operation.row);
    if operation.row.state.is_final() {
        draft.delete(&open_key(operation.row.id)?);
    }
    Ok(())
}

/// The present journey's part of the journal.
pub(super) struct Journal<'a>(pub(super) &'a Operation);

impl Journal<'_> {
    fn steps(&self) -> impl DoubleEndedIterator<Item = &StepRecord> {
        self.0.steps.iter().skip(self.0.first_step)
    }

    /// How many steps are done.
    pub(super) fn done(&self) -> usize {
        self.steps().filter(|step| step.state == StepState::Done).count()
    }

    /// The last step that is done and not undone, and when it began.
    pub(super) fn last_done(&self) -> Option<(String, Timestamp)> {
        let done = self.steps().rev().find(|step| step.state == StepState::Done);
        done.map(|step| (step.name.clone(), step.started_at))
    }
}

/// The step is running, from now on or from when the journal says that it began.
pub(super) fn begin(operation: &mut Operation, name: &str, now: Timestamp) -> Timestamp {
    let last = operation.steps.get(operation.first_step..).and_then(<[StepRecord]>::last);
    if let Some(step) = last.filter(|step| step.state == StepState::Running && step.name == name) {
        return step.started_at;
    }
    operation.steps.push(StepRecord {
        name: name.to_owned(),
        state: StepState::Running,
        started_at: now,
        ended_at: None,
        detail: None,
    });
    now
}

/// The running step ends.
pub(super) fn end(operation: &mut Operation, state: StepState, now: Timestamp, detail: Option<String>) {
    if let Some(step) = operation.steps.last_mut() {
        step.state = state;
        step.ended_at = Some(now);
        if detail.is_some() {
            step.detail = detail;
        }
    }
}

/// The last step that was done is undone.
pub(super) fn undo_last(operation: &mut Operation, now: Timestamp) {
    let done = operation.steps.iter_mut().skip(operation.first_step).rev();
    let mut done = done.filter(|step| step.state == StepState::Done);
    if let Some(step) = done.next() {
        step.state = StepState::Undone;
        step.ended_at = Some(now);
    }
}

/// Another journey takes the present one's place.
pub(super) fn restart(operation: &mut Operation, kind: JourneyKind) {
    operation.kind = kind;
    operation.first_step = operation.steps.len();
}

/// It is over.
pub(super) fn finish(
    operation: &mut Operation,
    state: OperationState,
    problem: Option<Problem>,
    now: Timestamp,
) {
    operation.state = state;
    operation.problem = problem;
    operation.ended_at = Some(now);
}
