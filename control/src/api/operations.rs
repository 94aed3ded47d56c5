//! `/v1/operations`: what was asked for and how far it has come; to be waited for, or followed as events.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::extract::{At, Params, Tagged};
use super::{ApiError, ApiState, Caller, Page, Paging};
use crate::model::{ChangeTimes, JourneyKind, Operation, OperationState, Problem, StepRecord, StepState};
use crate::store::rows::{self, Versioned};
use crate::store::{Change, Revision, Store, Watch, WatchItem};
use crate::workflow;

/// Longest wait for an operation.
const LONGEST_WAIT_MS: u64 = 30_000;

/// An operation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What it does.
    #[schema(value_type = KindForm)]
    pub kind: JourneyKind,
    /// Where it stands.
    #[schema(value_type = StateForm)]
    pub state: OperationState,
    /// The machine that it is about, once known.
    pub vm: Option<String>,
    /// The steps begun so far, in order.
    pub steps: Vec<StepView>,
    /// Times that the machine's host has measured, once known.
    pub times: Option<TimesView>,
    /// Why it did not succeed.
    pub problem: Option<ProblemView>,
    /// When it was asked for (RFC 3339).
    pub created_at: String,
    /// When it ended (RFC 3339).
    pub ended_at: Option<String>,
    /// How long it took, in milliseconds.
    pub ms: Option<f64>,
}

/// A step of an operation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[schema(value_type = StepStateForm)]
    pub state: StepState,
    /// When it began, in milliseconds since the operation was asked for.
    pub start_ms: f64,
    /// How long it took, in milliseconds; null while it runs.
    pub ms: Option<f64>,
    /// What there is to say about it.
    pub detail: Option<String>,
}

/// Times of a change, since the switch received it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TimesView {
    /// Until the new snapshot was stored, in nanoseconds.
    pub swap_ns: u64,
    /// Until all workers had passed it, in nanoseconds.
    pub settled_ns: u64,
    /// Until the lease was sent, in milliseconds.
    pub lease_ms: Option<f64>,
    /// Until the first packet from a new address, in milliseconds.
    pub first_packet_ms: Option<f64>,
}

/// Why something failed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProblemView {
    /// What is wrong.
    pub what: String,
    /// Where.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do about it.
    pub remedy: String,
}

macro_rules! described {
    ($($(#[$doc:meta])* $name:ident { $($word:ident),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        #[expect(dead_code, reason = "only described")]
        pub(super) enum $name { $($word),+ }
    )+};
}

described! {
    /// What an operation does.
    KindForm { VmCreate, PoolFill, HandOver, NetworkChange, Quarantine, Release, VmDelete }
    /// Where an operation stands: `done`, `undone` and `failed` are ends.
    StateForm { Running, Undoing, Done, Undone, Failed }
    /// Where a step stands.
    StepStateForm { Running, Done, Failed, Undone }
}

impl From<&Problem> for ProblemView {
    fn from(Problem { what, place, remedy }: &Problem) -> Self {
        Self { what: what.clone(), place: place.clone(), remedy: remedy.clone() }
    }
}

fn ms_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

impl OperationView {
    /// What a caller is told of an operation: not its request, which may hold secrets.
    #[must_use]
    pub fn of(operation: &Operation) -> Self {
        let began = operation.created_at;
        let times = operation.memory.get("times").cloned();
        let times: Option<ChangeTimes> = times.and_then(|times| serde_json::from_value(times).ok());
        Self {
            id: operation.id.to_string(),
            tenant: operation.tenant.to_string(),
            kind: operation.kind,
            state: operation.state,
            vm: operation.vm.map(|vm| vm.to_string()),
            steps: operation.steps.iter().map(|step| StepView::of(step, began)).collect(),
            times: times.map(|ChangeTimes { swap_ns, settled_ns, lease_ms, first_packet_ms }| TimesView {
                swap_ns,
                settled_ns,
                lease_ms,
                first_packet_ms,
            }),
            problem: operation.problem.as_ref().map(Into::into),
            created_at: began.to_string(),
            ended_at: operation.ended_at.map(|at| at.to_string()),
            ms: operation.ended_at.map(|at| ms_between(began, at)),
        }
    }
}

impl StepView {
    fn of(step: &StepRecord, began: Timestamp) -> Self {
        Self {
            name: step.name.clone(),
            state: step.state,
            start_ms: ms_between(began, step.started_at),
            ms: step.ended_at.map(|at| ms_between(step.started_at, at)),
            detail: step.detail.clone(),
        }
    }
}

/// Which operations.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Most items of the answer [default: 100].
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// `next` of the page before.
    #[param(max_length = 64)]
    after: Option<String>,
    /// Only those that are about this machine: its id or name.
    #[param(max_length = 64)]
    vm: Option<String>,
    /// Only those that have not ended.
    open: Option<bool>,
}

/// How long to wait.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// Milliseconds to wait for the operation's end before the answer is sent.
    #[param(maximum = 30_000)]
    wait_ms: Option<u64>,
}

/// The operations
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(Filter), responses((status = 200, body = Page<OperationView>)))]
pub(super) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<OperationView>>, ApiError> {
    let store = state.store();
    let vm = match &filter.vm {
        Some(text) => Some(caller.vm(store, text).await?.row.id),
        None => None,
    };
    let paging = Paging::new(filter.limit, filter.after);
    let page = paging
        .of::<Operation>(store, |operation| {
            caller.sees(operation.tenant)
                && vm.is_none_or(|vm| operation.vm == Some(vm))
                && !(filter.open == Some(true) && operation.state.is_final())
        })
        .await?;
    Ok(Json(page.map(|operation| OperationView::of(&operation.row))))
}

/// An operation; with `wait_ms`, when it has ended or the wait is over
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "operations", params(("operation" = String, Path), Waiting), responses((status = 200, body = OperationView)))]
pub(super) async fn show(
    caller: Caller,
    State(state): State<ApiState>,
    At(id): At<String>,
    Params(waiting): Params<Waiting>,
) -> Result<Tagged<OperationView>, ApiError> {
    let store = state.store();
    let wait_ms = waiting.wait_ms.unwrap_or(0);
    if wait_ms > LONGEST_WAIT_MS {
        return Err(ApiError::invalid("wait_ms", format!("a wait of {wait_ms} ms"), "ask for 30000 at most"));
    }
    let mut operation = caller.operation(store, &id).await?;
    let end = Instant::now() + Duration::from_millis(wait_ms);
    while wait_ms > 0 && !operation.row.state.is_final() {
        let mut news = News::of(store, &operation)?;
        match timeout_at(end, news.next()).await {
            Ok(Some(newer)) => operation = newer,
            // The watch fell behind: what stands there now is as good.
            Ok(None) => operation = caller.operation(store, &id).await?,
            Err(_) => break,
        }
    }
    Ok(Tagged(operation.revision, OperationView::of(&operation.row)))
}

/// What happens to one operation from a revision on.
struct News {
    watch: Watch,
    of: Versioned<Operation>,
}

impl News {
    fn of(store: &dyn Store, operation: &Versioned<Operation>) -> Result<Self, ApiError> {
        let watch = store.watch(&workflow::operation_prefix()?, operation.revision);
        Ok(Self { watch, of: operation.clone() })
    }

    /// The next form of the row; `None` when the watch ends, or the row is gone.
    async fn next(&mut self) -> Option<Versioned<Operation>> {
        loop {
            let WatchItem::Changes { changes, .. } = self.watch.next().await? else { return None };
            match changes.into_iter().find(|change| *change.key() == self.of.key) {
                Some(Change::Put(entry)) => return rows::decode(&entry).ok(),
                Some(Change::Delete { .. }) => return None,
                None => {}
            }
        }
    }
}

/// An event of the stream that follows an operation: its fields, for descriptions.
#[derive(Serialize, ToSchema)]
pub(super) struct OperationEvent {
    #[schema(pattern = "^operation$")]
    event: String,
    /// Grows from event to event.
    id: String,
    /// The operation's whole present form, as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// The operation as events (SSE): each event `operation` has its whole present form; the stream ends with the operation
#[utoipa::path(
    get, path = "/v1/operations/{operation}/events", tag = "operations", params(("operation" = String, Path)),
    responses((status = 200, body = OperationEvent, content_type = "text/event-stream", description = "A stream of such events"))
)]
pub(super) async fn events(
    caller: Caller,
    State(state): State<ApiState>,
    At(id): At<String>,
) -> Result<impl IntoResponse, ApiError> {
    let first = caller.operation(state.store(), &id).await?;
    let news = News::of(state.store(), &first)?;
    let stream = follow(first, news).map(|(revision, view)| {
        let event = Event::default().event("operation").id(revision.to_string());
        Ok::<_, Infallible>(event.json_data(view).unwrap_or_default())
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// The present form, then each later one, until the last. A watch that falls behind ends the stream: clients connect
/// anew, as SSE has it.
fn follow(first: Versioned<Operation>, news: News) -> impl Stream<Item = (Revision, OperationView)> {
    stream::unfold(Some((Some(first), news)), |place| async {
        let (known, mut news) = place?;
        let operation = match known {
            Some(operation) => operation,
            None => news.next().await?,
        };
        let item = (operation.revision, OperationView::of(&operation.row));
        let rest = if operation.row.state.is_final() { None } else { Some((None, news)) };
        Some((item, rest))
    })
}
