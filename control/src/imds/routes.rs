//! Requests and answers. Every answer is a value; nothing here knows a socket.

use super::{
    documents::{Document, Documents},
    limits::{Admission, Limits},
    preamble::Preamble,
    report::{self, Received},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// The longest time that a request for a newer configuration is held.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// Versions of the instance document, oldest first; all are answered alike.
const VERSIONS: [&str; 5] = ["2019-06-01", "2020-09-01", "2021-02-01", "2021-08-01", "2023-07-01"];

type Answer = Response<Full<Bytes>>;

/// One connection's view of the service.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) documents: Documents,
    pub(super) reports: mpsc::Sender<Received>,
    pub(super) limits: Limits,
    pub(super) preamble: Preamble,
    pub(super) admission: Admission,
}

impl Routes {
    /// Answers one request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        if !self.admission.request(Instant::now()) {
            let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS, "this machine asks too often");
            answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            return answer;
        }
        if let Err(reason) = check(&request) {
            return refusal(StatusCode::BAD_REQUEST, reason);
        }
        let path = request.uri().path().to_owned();
        match (path.as_str(), request.method()) {
            ("/shunt/v1/config", &Method::GET) => self.config(request.uri().query()).await,
            ("/shunt/v1/report", &Method::POST) => self.report(request).await,
            ("/metadata/instance", &Method::GET) => self.instance(request.uri().query()),
            ("/shunt/v1/config" | "/metadata/instance", _) => not_allowed("GET"),
            ("/shunt/v1/report", _) => not_allowed("POST"),
            _ => refusal(StatusCode::NOT_FOUND, "there is no such document"),
        }
    }

    fn published(&self) -> Option<watch::Receiver<Option<Document>>> {
        self.documents.watch(&self.preamble.port, &self.preamble.label)
    }

    async fn config(&self, query: Option<&str>) -> Answer {
        let (after, wait) = match held(query) {
            Ok(held) => held,
            Err(reason) => return refusal(StatusCode::BAD_REQUEST, reason),
        };
        let Some(mut published) = self.published() else { return nothing() };
        let newer = |document: &Option<Document>| {
            document.as_ref().is_some_and(|document| after.is_none_or(|after| document.generation() > after))
        };
        match timeout(wait, published.wait_for(newer)).await {
            Ok(Ok(document)) => match &*document {
                Some(document) => json_answer(StatusCode::OK, document.config()),
                None => nothing(),
            },
            // It was taken back.
            Ok(Err(_)) => nothing(),
            Err(_) => empty(StatusCode::NOT_MODIFIED),
        }
    }

    async fn report(&self, request: Request<Incoming>) -> Answer {
        let body = Limited::new(request.into_body(), self.limits.report_bytes).collect();
        let body = match timeout(self.limits.read, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the report is longer than 64 KiB");
            }
            Ok(Err(_)) => return refusal(StatusCode::BAD_REQUEST, "the report broke off"),
            Err(_) => {
                return refusal(StatusCode::REQUEST_TIMEOUT, "the report did not come to its end in time");
            }
        };
        let report = match report::parse(&body) {
            Ok(report) => report,
            Err(reason) => return refusal(StatusCode::BAD_REQUEST, &reason),
        };
        let Preamble { port, label, .. } = self.preamble.clone();
        match self.reports.try_send(Received { port, label, report, at: Timestamp::now() }) {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "reports are not being read; try again"),
        }
    }

    fn instance(&self, query: Option<&str>) -> Answer {
        let asked = parameters(query).find(|(name, _)| *name == "api-version").map(|(_, value)| value);
        if !asked.is_some_and(|version| VERSIONS.contains(&version)) {
            let newest: Vec<_> = VERSIONS.iter().rev().collect();
            let body = json!({"error": "`api-version` is missing or not known", "newest-versions": newest});
            return json_answer(StatusCode::BAD_REQUEST, body.to_string().into());
        }
        let Some(published) = self.published() else { return nothing() };
        let document = published.borrow().clone();
        let Some(document) = document else { return nothing() };
        let mut instance = document.instance().clone();
        let extended = parameters(query).any(|pair| pair == ("extended", "true"));
        if let (false, Value::Object(fields)) = (extended, &mut instance) {
            fields.remove("extended");
        }
        json_answer(StatusCode::OK, instance.to_string().into())
    }
}

/// What holds for every request.
fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let headers: &HeaderMap = request.headers();
    let mut asked = headers.get_all("metadata").iter();
    if !matches!((asked.next(), asked.next()), (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"true"))
    {
        return Err("the header `Metadata: true` is missing");
    }
    if headers.contains_key("x-forwarded-for") {
        return Err("the header `X-Forwarded-For` is not allowed: this service is for the machine itself");
    }
    // Lengths are said in one way only: whatever stands between cannot see another end of the request than we do.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err("the header `Transfer-Encoding` is not allowed");
    }
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        return Err("the request names another server: this service is no proxy");
    }
    Ok(())
}

fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='))
}

/// What a request for the configuration waits for, and how long.
fn held(query: Option<&str>) -> Result<(Option<u64>, Duration), &'static str> {
    let (mut after, mut wait) = (None, Duration::ZERO);
    for (name, value) in parameters(query) {
        match name {
            "after" => after = Some(value.parse().map_err(|_| "`after` is not a generation")?),
            "wait_ms" => {
                let ms = value.parse().map_err(|_| "`wait_ms` is not a number of milliseconds")?;
                wait = Duration::from_millis(ms).min(LONGEST_HOLD);
            }
            _ => {}
        }
    }
    Ok((after, wait))
}

fn nothing() -> Answer {
    refusal(StatusCode::NOT_FOUND, "nothing is published for this machine")
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "this document is not used in this way");
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
    answer
}

/// An error; the connection ends with it, so that what is left of a wrong request is never taken for another one.
fn refusal(status: StatusCode, reason: &str) -> Answer {
    let mut answer = json_answer(status, json!({ "error": reason }).to_string().into());
    // Who asked for what is not there yet will ask again.
    if status != StatusCode::NOT_FOUND {
        answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    answer
}

fn json_answer(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::SERVER, header::HeaderValue::from_static("IMDS/shunt"));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
