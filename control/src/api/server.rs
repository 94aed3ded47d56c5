//! Serving: connections, and the bounds that every request has.
//!
//! Never here: what requests mean.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use super::MAX_BODY_BYTES;

/// Longest time until an answer begins; waiting for an operation included.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest time that a client may take for its headers.
const HEADERS: Duration = Duration::from_secs(10);
/// Most connections at once; others wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// How long running requests may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(5);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The bounds of all requests.
pub(super) fn bounded<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER))
        .layer(TraceLayer::new_for_http())
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
}

/// Answers at the listener until `end` is there, then lets running requests finish for a while.
pub async fn serve(listener: TcpListener, router: Router, end: impl Future<Output = ()>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut end = std::pin::pin!(end);
    loop {
        let permit = tokio::select! {
            () = &mut end => break,
            permit = Arc::clone(&connections).acquire_owned() => permit,
        };
        let stream = tokio::select! {
            () = &mut end => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: those who have connections give some back.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (stop, router) = (stop.clone(), router.clone());
        tasks.spawn(async move {
            let _permit = permit;
            answer(stream, router, &stop).await;
        });
    }
    drop(listener);
    stop.cancel();
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

async fn answer(stream: TcpStream, router: Router, stop: &CancellationToken) {
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 << 10);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // What a client does wrong at this level is its own affair.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
