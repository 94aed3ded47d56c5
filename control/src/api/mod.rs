//! The API of a cluster: REST and JSON under `/v1`, one file per noun, its OpenAPI document made from the same code.
//!
//! Changes that hosts and guests have to follow answer with an operation (202) that can be waited for or followed as
//! events. Every handler gets a [`Caller`] from `caller.rs`, the one place that decides whose things are there; every
//! error is a problem document made in `error.rs`, the one place that chooses statuses. Never here: hosts, journeys'
//! steps, decisions of managers.

mod caller;
mod disks;
mod error;
mod extract;
mod hosts;
mod networks;
mod once;
mod openapi;
mod operations;
mod page;
mod pools;
mod rules;
mod server;
mod tenants;
mod tokens;
mod vms;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use caller::{Caller, TENANT_HEADER};
pub use disks::{AttachDisk, DiskView, NewDisk};
pub use error::{ApiError, PROBLEM_JSON, ProblemDocument};
pub use hosts::{ChangeHost, HostView, JoinTokenView, JoinTokens, NewJoinToken};
pub use networks::{NetworkView, NewNetwork, SubnetView};
pub use openapi::document;
pub use operations::{OperationView, ProblemView, StepView, TimesView};
pub use page::{Page, Paging};
pub use pools::{ChangePool, CombinationForm, IpRouting, NewPool, PoolView, SizingForm};
pub use rules::{NewRule, RuleView};
pub use server::serve;
pub use tenants::{ChangeTenant, NewTenant, QuotaForm, TenantView, UsageView};
pub use tokens::{IssuedToken, NewToken, TokenView};
pub use vms::{FileForm, GuestView, MoveVm, NewVm, Reason, SettingsForm, UserForm, VmView};

use crate::store::Store;
use crate::workflow::Runner;

/// Longest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Tries of a change against others that change the same.
const TRIES: usize = 16;

/// What handlers work with.
#[derive(Clone)]
pub struct ApiState {
    runner: Runner,
    join_tokens: Arc<dyn JoinTokens>,
    document: Arc<str>,
}

impl ApiState {
    fn store(&self) -> &dyn Store {
        self.runner.world().store()
    }

    fn now(&self) -> Timestamp {
        self.runner.world().now()
    }
}

/// All routes that there are, with their descriptions.
fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show, tenants::change, tenants::delete))
        .routes(routes!(tokens::list, tokens::issue))
        .routes(routes!(tokens::revoke))
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::show, networks::delete))
        .routes(routes!(pools::list, pools::create))
        .routes(routes!(pools::show, pools::change, pools::delete))
        .routes(routes!(vms::list, vms::create))
        .routes(routes!(vms::show, vms::delete))
        .routes(routes!(vms::change_network))
        .routes(routes!(vms::quarantine))
        .routes(routes!(vms::release))
        .routes(routes!(rules::list, rules::create))
        .routes(routes!(rules::delete))
        .routes(routes!(disks::list, disks::create))
        .routes(routes!(disks::show, disks::delete))
        .routes(routes!(disks::attach))
        .routes(routes!(disks::detach))
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::token))
        .routes(routes!(hosts::show, hosts::change))
        .routes(routes!(operations::list))
        .routes(routes!(operations::show))
        .routes(routes!(operations::events))
}

/// The whole API, to be served by [`serve`].
pub fn router(runner: Runner, join_tokens: Arc<dyn JoinTokens>) -> Router {
    let (router, _) = routes().split_for_parts();
    let state = ApiState { runner, join_tokens, document: openapi::text().into() };
    let router = router
        .route("/v1/openapi.json", get(description))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method);
    server::bounded(router).with_state(state)
}

async fn description(State(state): State<ApiState>) -> Response {
    let headers = [(axum::http::header::CONTENT_TYPE, "application/json")];
    (headers, state.document.to_string()).into_response()
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::no_such_path(uri.path())
}

async fn no_such_method(method: Method, request: Request) -> ApiError {
    ApiError::no_such_method(method.as_str(), request.uri().path())
}

/// Does `$attempt` until nobody else changes the same meanwhile.
macro_rules! contended {
    ($attempt:expr) => {{
        let mut tries = 0;
        loop {
            match $attempt {
                Err(error) if error.is_contended() && tries < $crate::api::TRIES => tries += 1,
                ended => break ended,
            }
        }
    }};
}
use contended;

#[cfg(test)]
mod tests;
