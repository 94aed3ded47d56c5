//! A client of the controller's API. Connections belong to the network that the thread is in when it makes them.

use std::time::Duration;

use serde_json::{Value, json};

const WAIT_MS: u64 = 30_000;

/// One caller, with a connection of its own that is kept.
pub(crate) struct Api {
    agent: ureq::Agent,
    token: String,
}

impl Api {
    pub(crate) fn new(token: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .no_delay(true)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        let api = Self { agent: config.into(), token: format!("Bearer {token}") };
        // The connection is made before anything is timed.
        api.get("/v1/pools");
        api
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        answer(path, self.signed(self.agent.get(url(path)), path).call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.signed(self.agent.post(url(path)), path).content_type("application/json");
        answer(path, request.send(body.to_string()))
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Value {
        let request = self.signed(self.agent.patch(url(path)), path).content_type("application/json");
        answer(path, request.send(body.to_string()))
    }

    pub(crate) fn delete(&self, path: &str) -> Value {
        answer(path, self.signed(self.agent.delete(url(path)), path).call())
    }

    /// With the administrator's token; what belongs to a tenant belongs to one.
    fn signed<B>(&self, request: ureq::RequestBuilder<B>, path: &str) -> ureq::RequestBuilder<B> {
        let request = request.header("Authorization", &self.token);
        if path.starts_with("/v1/vms") || path.starts_with("/v1/networks") {
            request.header("Shunt-Tenant", "acme")
        } else {
            request
        }
    }

    /// The operation when it has ended well.
    pub(crate) fn done(&self, operation: &Value) -> Value {
        let path = format!("/v1/operations/{}?wait_ms={WAIT_MS}", text(operation, "id"));
        loop {
            let now = self.get(&path);
            match text(&now, "state") {
                "running" | "undoing" => {}
                "done" => return now,
                _ => panic!("an operation has failed: {now:#}"),
            }
        }
    }

    /// Asks for a machine; the operation when the machine is ready.
    pub(crate) fn machine(&self, wish: &Value) -> Value {
        self.done(&self.post("/v1/vms", wish))
    }

    /// Removes a machine and waits until nothing is left of it.
    pub(crate) fn remove(&self, id: &str) {
        self.done(&self.delete(&format!("/v1/vms/{id}")));
    }
}

fn url(path: &str) -> String {
    format!("http://{}{path}", control::dev::API)
}

fn answer(path: &str, result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut response = result.unwrap_or_else(|error| panic!("{path}: {error}"));
    let body = response.body_mut().read_to_string().unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(response.status().is_success(), "{path}: {} {body}", response.status());
    serde_json::from_str(&body).unwrap_or(Value::Null)
}

/// A text of an answer.
pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value:#}"))
}

/// What a machine is: `vcpus` tells combinations apart, so that there is one without a pool.
pub(crate) fn combination(vcpus: u8) -> Value {
    json!({"hypervisor": "netns", "image": "tiny", "vcpus": vcpus, "memory_mib": 64, "storage": "local"})
}
