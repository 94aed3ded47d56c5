//! What goes wrong, as the caller is told it: problem documents (RFC 9457). HTTP statuses are chosen here alone.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::Problem;
use crate::network::NetworkError;
use crate::store::rows::RowError;
use crate::store::{CommitError, DraftError, KeyError, ReadError};
use crate::tenant::{QuotaError, TokenError};
use crate::workflow::{StepError, SubmitError};

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document (RFC 9457), with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// Which kind of problem: a URN that never changes.
    #[serde(rename = "type")]
    #[schema(example = "urn:shunt:problem:not-found")]
    pub kind: String,
    /// The kind, for people.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong.
    pub detail: String,
    /// Where: a field, a thing, a header.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do about it.
    pub remedy: String,
    /// The field of the request that is wrong, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError(Box<Told>);

/// In a box of its own, so that results stay small.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    problem: Problem,
    field: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, problem: Problem) -> Self {
        Self(Box::new(Told { status, kind, title, problem, field: None }))
    }

    fn about(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// A field, parameter or header that makes no sense.
    pub(super) fn invalid(field: impl Into<String>, what: impl Into<String>, remedy: &str) -> Self {
        let field = field.into();
        let problem = Problem::new(what, field.clone(), remedy);
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid", "The request makes no sense", problem);
        error.about(field)
    }

    /// A request that is no request of this API at all.
    pub(super) fn malformed(what: impl Into<String>, place: &str, remedy: &str) -> Self {
        let problem = Problem::new(what, place, remedy);
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", problem)
    }

    /// No token, or one that is worth nothing.
    pub(super) fn unauthenticated() -> Self {
        let problem = Problem::new(
            "there is no valid token",
            "Authorization",
            "send `Authorization: Bearer TOKEN`, with a token that has neither ended nor been revoked",
        );
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Who asks is not known", problem)
    }

    /// A token that does not allow this.
    pub(super) fn forbidden(what: impl Into<String>, remedy: &str) -> Self {
        let problem = Problem::new(what, "Authorization", remedy);
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The token does not allow this", problem)
    }

    /// A thing that is not there, or that is nobody's business who asks: both sound the same.
    pub(super) fn not_found(noun: &str, text: &str) -> Self {
        let shown: String = text.chars().take(80).collect();
        let what = format!("there is no {noun} `{shown}`");
        let problem = Problem::new(what, noun, "look at the list of those that there are");
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", problem)
    }

    /// A path that is no path of this API.
    pub(super) fn no_such_path(path: &str) -> Self {
        let shown: String = path.chars().take(80).collect();
        let problem = Problem::new(format!("there is nothing at {shown}"), "path", "see /v1/openapi.json");
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", problem)
    }

    /// A method that the path does not have.
    pub(super) fn no_such_method(method: &str, path: &str) -> Self {
        let shown: String = path.chars().take(80).collect();
        let problem =
            Problem::new(format!("{shown} has no method {method}"), "method", "see /v1/openapi.json");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "The path has no such method", problem)
    }

    /// The thing is not in a state in which this can be done.
    pub(super) fn conflict(problem: Problem) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "This cannot be done now", problem)
    }

    /// A name that somebody has.
    pub(super) fn taken(noun: &str, name: &str) -> Self {
        let what = format!("there is a {noun} with the name {name} already");
        let error = Self::conflict(Problem::new(what, "name", "choose another name"));
        error.about("name")
    }

    /// Others changed the same at the same time, again and again.
    pub(super) fn contended() -> Self {
        let problem = Problem::new("others changed the same at the same time", "store", "try again");
        Self::new(StatusCode::CONFLICT, "contended", "Somebody else was faster", problem)
    }

    /// `If-Match` names another revision than there is.
    pub(super) fn changed(noun: &str) -> Self {
        let problem = Problem::new(
            format!("the {noun} has changed since it was read"),
            "If-Match",
            "read it again, and decide again",
        );
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", "It is not as it was read", problem)
    }

    /// A body that is too long.
    pub(super) fn too_large() -> Self {
        let problem = Problem::new("the body is too long", "body", "send less than 1 MiB");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too long", problem)
    }

    /// A body that is not JSON.
    pub(super) fn media_type() -> Self {
        let problem = Problem::new("the body is not JSON", "Content-Type", "send application/json");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body has another form", problem)
    }

    /// An idempotency key that was used for something else.
    pub(super) fn key_reused() -> Self {
        let problem = Problem::new(
            "the idempotency key was used for another request",
            "Idempotency-Key",
            "use a new key for each request",
        );
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "key-reused",
            "The key belongs to another request",
            problem,
        )
    }

    /// The store does not answer.
    pub(super) fn unavailable(error: &impl std::fmt::Display) -> Self {
        tracing::warn!(%error, "a request failed for want of the store");
        let problem = Problem::new("the store does not answer", "store", "try again in a moment");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The cluster cannot answer", problem)
    }

    /// A mistake of the program. What exactly is for the log, not for the caller.
    pub(super) fn internal(error: &impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed by a mistake of this program");
        let problem = Problem::new("a mistake of the controller", "controller", "report it, with its log");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The controller failed", problem)
    }

    /// What a manager refused because of a field.
    pub(super) fn invalid_as(problem: Problem) -> Self {
        let field = problem.place.clone();
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid", "The request makes no sense", problem);
        error.about(field)
    }

    /// True when doing it again from the start may end better.
    pub(super) fn is_contended(&self) -> bool {
        self.0.kind == "contended"
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            kind: format!("urn:shunt:problem:{}", self.0.kind),
            title: self.0.title.into(),
            status: self.0.status.as_u16(),
            detail: self.0.problem.what.clone(),
            place: self.0.problem.place.clone(),
            remedy: self.0.problem.remedy.clone(),
            field: self.0.field.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.0.status, Json(self.document())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        if error.is_conflict() { Self::contended() } else { Self::unavailable(&error) }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::unavailable(&error)
    }
}

impl From<DraftError> for ApiError {
    fn from(error: DraftError) -> Self {
        match error {
            DraftError::ValueTooLarge { .. } | DraftError::TooLarge { .. } => Self::too_large(),
            other => Self::internal(&other),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        Self::internal(&error)
    }
}

impl From<RowError> for ApiError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Read(error) => error.into(),
            RowError::Commit(error) => error.into(),
            RowError::Draft(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<NetworkError> for ApiError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Read(error) => error.into(),
            NetworkError::Commit(error) => error.into(),
            NetworkError::Row(error) => error.into(),
            NetworkError::Draft(error) => error.into(),
            NetworkError::Key(error) => error.into(),
            NetworkError::NoSuchNetwork(moniker) => Self::not_found("network", moniker.as_str()),
            other => Self::conflict(other.problem()),
        }
    }
}

impl From<QuotaError> for ApiError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Exhausted(problem) => Self::conflict(problem),
            QuotaError::NoSuchTenant(id) => Self::not_found("tenant", &id.to_string()),
            QuotaError::Row(error) => error.into(),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid => Self::unauthenticated(),
            TokenError::LastOfAdministrators => Self::conflict(Problem::new(
                "without this token nobody could administer the platform",
                "token",
                "make another administrator's token first (`shunt token create --role admin`)",
            )),
            TokenError::Row(error) => error.into(),
            TokenError::Commit(error) => error.into(),
            TokenError::Draft(error) => error.into(),
        }
    }
}

impl From<StepError> for ApiError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Refused(problem) => Self::conflict(problem),
            StepError::Read(error) => error.into(),
            StepError::Commit(error) => error.into(),
            StepError::Row(error) => error.into(),
            StepError::Draft(error) => error.into(),
            StepError::Key(error) => error.into(),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::KeyReused => Self::key_reused(),
            SubmitError::Store(error) => error.into(),
        }
    }
}
