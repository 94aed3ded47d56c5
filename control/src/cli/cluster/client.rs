//! HTTP to the controller: one request, one value, errors as the API words them.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use dataplane::ctl::Refusal;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::Server;
use crate::api::{OperationView, Page, ProblemDocument, TENANT_HEADER};
use crate::cli::failure::Failure;

/// Longest answer, in bytes: a page of 500 with room to spare.
const MOST: usize = 32 << 20;
/// Longest time until a connection is there.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time until an answer is there; the controller's own limit is shorter.
const ANSWER: Duration = Duration::from_secs(90);
/// Longest line of events, in bytes.
const LONGEST_EVENT: usize = 4 << 20;

/// A cluster's API, for one caller.
pub(super) struct Client {
    runtime: Runtime,
    http: Http<HttpConnector, Full<Bytes>>,
    server: String,
    headers: Vec<(HeaderName, String)>,
}

/// A path under `/v1`, with its variable parts escaped.
pub(super) fn path(parts: &[&str]) -> String {
    let mut path = String::from("/v1");
    for part in parts {
        path.push('/');
        for byte in part.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    path.push(char::from(byte))
                }
                other => path.push_str(&format!("%{other:02X}")),
            }
        }
    }
    path
}

impl Client {
    pub(super) fn new(server: &Server) -> Result<Self, Failure> {
        let base = server.server.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|error| {
            Failure::usage(
                format!("`{base}` is no URL: {error}"),
                "--server",
                "give one such as http://127.0.0.1:9480",
            )
        })?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() || uri.path().len() > 1 {
            let remedy = "give http://HOST:PORT; behind a proxy that ends TLS, ask at the proxy's inner side";
            return Err(Failure::usage(
                format!("`{base}` is not of the form http://HOST:PORT"),
                "--server",
                remedy,
            ));
        }
        let mut headers = vec![(AUTHORIZATION, format!("Bearer {}", secret(server)?))];
        if let Some(tenant) = &server.tenant {
            headers.push((HeaderName::from_static(TENANT_HEADER), tenant.clone()));
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
                Failure::usage(format!("cannot begin: {error}"), "this machine", "look at its limits")
            })?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let http = Http::builder(TokioExecutor::new()).build(connector);
        Ok(Self { runtime, http, server: base, headers })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, None::<&()>, None)
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        // A key of its own makes it safe to send again, should anything between us do that.
        let key = uuid::Uuid::new_v4().to_string();
        self.ask(Method::POST, path, Some(body), Some(key))
    }

    pub(super) fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.ask(Method::PATCH, path, Some(body), None)
    }

    /// A deletion that is an operation.
    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::DELETE, path, None::<&()>, None)
    }

    /// A deletion that is done when it is answered.
    pub(super) fn remove(&self, path: &str) -> Result<(), Failure> {
        self.runtime.block_on(async { self.send(Method::DELETE, path, None::<&()>, None).await.map(drop) })
    }

    /// All pages of a list.
    pub(super) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Page<T>, Failure> {
        let join = if path.contains('?') { '&' } else { '?' };
        let mut whole = Page { items: Vec::new(), next: None };
        let mut at = format!("{path}{join}limit=500");
        loop {
            let page: Page<T> = self.get(&at)?;
            whole.items.extend(page.items);
            match page.next {
                Some(next) => at = format!("{path}{join}limit=500&after={next}"),
                None => return Ok(whole),
            }
        }
    }

    /// Shows each form of an operation until its last, which is returned.
    pub(super) fn follow(
        &self,
        id: &str,
        mut see: impl FnMut(&OperationView),
    ) -> Result<OperationView, Failure> {
        loop {
            let path = path(&["operations", id, "events"]);
            let ended = self.runtime.block_on(async {
                let response = self.send(Method::GET, &path, None::<&()>, None).await?;
                self.events(response, &mut see).await
            })?;
            if let Some(last) = ended {
                return Ok(last);
            }
            // The stream ended before the operation did: it begins anew with the present form.
        }
    }

    async fn events(
        &self,
        response: Response<Incoming>,
        see: &mut impl FnMut(&OperationView),
    ) -> Result<Option<OperationView>, Failure> {
        let (mut body, mut text) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failed(&error))?;
            text.extend(frame.into_data().unwrap_or_default());
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let Some(data) = line.strip_prefix(b"data: ") else { continue };
                let view: OperationView =
                    serde_json::from_slice(data).map_err(|error| self.strange(&error))?;
                see(&view);
                if view.state.is_final() {
                    return Ok(Some(view));
                }
            }
            if text.len() > LONGEST_EVENT {
                return Err(self.strange(&"an event without an end"));
            }
        }
        Ok(None)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        key: Option<String>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let response = self.send(method, path, body, key).await?;
            let bytes = self.bytes(response).await?;
            serde_json::from_slice(&bytes).map_err(|error| self.strange(&error))
        })
    }

    /// The answer, if it is one of success.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        key: Option<String>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        request = request.header(ACCEPT, "application/json, application/problem+json, text/event-stream");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json");
            bytes = serde_json::to_vec(body).map_err(|error| self.strange(&error))?.into();
        }
        let request = request.body(Full::new(bytes)).map_err(|error| {
            Failure::usage(
                format!("the token or the tenant cannot be sent: {error}"),
                "SHUNT_TOKEN, --token-file, --tenant",
                "give them without line breaks and other control characters",
            )
        })?;
        let response = tokio::time::timeout(ANSWER, self.http.request(request)).await;
        let response = response
            .map_err(|_| self.failed(&"no answer in time"))?
            .map_err(|error| self.failed(&chain(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.bytes(response).await?;
        let document: ProblemDocument = serde_json::from_slice(&bytes)
            .map_err(|_| self.strange(&format!("status {status} without a problem document")))?;
        let place = document.field.filter(|field| !field.is_empty()).unwrap_or(document.place);
        Err(Failure::failed(Refusal { what: document.detail, place, remedy: document.remedy }))
    }

    async fn bytes(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let whole = Limited::new(response.into_body(), MOST).collect().await;
        Ok(whole.map_err(|error| self.failed(&error))?.to_bytes())
    }

    fn failed(&self, error: &impl std::fmt::Display) -> Failure {
        Failure::failed(Refusal {
            what: format!("cannot ask the controller: {error}"),
            place: self.server.clone(),
            remedy: "look whether it runs there, or name another one with --server or SHUNT_SERVER".into(),
        })
    }

    fn strange(&self, error: &impl std::fmt::Display) -> Failure {
        Failure::failed(Refusal {
            what: format!("the answer cannot be understood: {error}"),
            place: self.server.clone(),
            remedy: "look whether a controller of this version answers there".into(),
        })
    }
}

fn secret(server: &Server) -> Result<String, Failure> {
    let remedy = "set SHUNT_TOKEN, or name a file with --token-file";
    match &server.token_file {
        Some(file) => {
            let text = fs::read_to_string(file).map_err(|error| {
                Failure::usage(format!("cannot read the token: {error}"), file.display().to_string(), remedy)
            })?;
            Ok(text.trim().to_owned())
        }
        None => std::env::var("SHUNT_TOKEN")
            .map_err(|_| Failure::usage("there is no token", "SHUNT_TOKEN", remedy)),
    }
}

/// An error with its causes: the client's own says only that it failed to connect.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn what_people_type_stays_one_part_of_a_path() {
        assert_eq!(path(&["vms", "web-1", "rules"]), "/v1/vms/web-1/rules");
        assert_eq!(path(&["vms", "../tokens?x#ä"]), "/v1/vms/..%2Ftokens%3Fx%23%C3%A4");
    }
}
