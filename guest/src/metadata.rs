//! HTTP towards the metadata service: read the configuration, hold a request until there is a newer one, report.
//!
//! One [`Metadata`] belongs to one life of the network: after a change its connections lead nowhere, it is shut down and
//! another one made. Never here: what a configuration leads to.

use crate::config::{CONFIG_BYTES, ConfigError, GuestConfig, GuestReport};
use std::{io, time::Duration};
use thiserror::Error;

/// A first SYN may be lost while addresses change; asking anew is quicker than the kernel's second after a second.
const CONNECT: Duration = Duration::from_millis(250);
/// For one exchange, a held request aside.
const EXCHANGE: Duration = Duration::from_secs(3);

/// The service, over connections of its own.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    agent: ureq::Agent,
    base: String,
}

/// An answer about the configuration.
#[derive(Debug)]
pub(crate) enum Answer {
    /// There it is.
    Config(Box<GuestConfig>),
    /// Nothing newer.
    Unchanged,
    /// Nothing is published for this port.
    Nothing,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum MetadataError {
    /// Nobody answers at all: perhaps the lease is another network's.
    #[error("nobody answers: {0}")]
    Silence(ureq::Error),
    /// Somebody is there, but the exchange broke off.
    #[error("the connection broke: {0}")]
    Broken(ureq::Error),
    /// The service refuses.
    #[error("the metadata service answers with status {0}")]
    Status(u16),
    /// A document that is not understood. The generation, where that much could be read.
    #[error("{problem}")]
    Malformed {
        /// Of the document.
        generation: Option<u64>,
        /// What is wrong.
        problem: String,
    },
}

impl Metadata {
    /// A service whose paths begin with `base`.
    pub(crate) fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The environment's proxy is for the world, not for this link.
            .proxy(None)
            .no_delay(true)
            .user_agent(concat!("shunt-guest/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .build();
        Self { agent: config.into(), base: base.trim_end_matches('/').to_owned() }
    }

    /// Ends all exchanges, also those that another thread waits in.
    pub(crate) fn shutdown(&self) {
        self.agent.clone().shutdown();
    }

    /// Reads the configuration.
    pub(crate) fn config(&self) -> Result<Answer, MetadataError> {
        self.get(format!("{}/shunt/v1/config", self.base), EXCHANGE)
    }

    /// Waits at most `wait` for a configuration newer than `after`.
    pub(crate) fn config_after(&self, after: u64, wait: Duration) -> Result<Answer, MetadataError> {
        let wait_ms = wait.as_millis();
        self.get(format!("{}/shunt/v1/config?after={after}&wait_ms={wait_ms}", self.base), wait + EXCHANGE)
    }

    fn get(&self, url: String, limit: Duration) -> Result<Answer, MetadataError> {
        let request = self.agent.get(url).header("Metadata", "true");
        let mut response = request.config().timeout_global(Some(limit)).build().call().map_err(broken)?;
        match response.status().as_u16() {
            200 => {
                let body =
                    response.body_mut().with_config().limit(CONFIG_BYTES).read_to_vec().map_err(broken)?;
                parse(&body).map(|config| Answer::Config(Box::new(config)))
            }
            304 => Ok(Answer::Unchanged),
            404 => Ok(Answer::Nothing),
            status => Err(MetadataError::Status(status)),
        }
    }

    /// Reports.
    pub(crate) fn report(&self, report: &GuestReport) -> Result<(), MetadataError> {
        let body = serde_json::to_vec(report)
            .map_err(|error| MetadataError::Malformed { generation: None, problem: error.to_string() })?;
        let request = self.agent.post(format!("{}/shunt/v1/report", self.base));
        let request = request.header("Metadata", "true").content_type("application/json");
        let response = request.config().timeout_global(Some(EXCHANGE)).build().send(&body).map_err(broken)?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(MetadataError::Status(status)),
        }
    }
}

fn parse(body: &[u8]) -> Result<GuestConfig, MetadataError> {
    let generation = || {
        serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|value| value.get("generation")?.as_u64())
    };
    let malformed = |problem: String| MetadataError::Malformed { generation: generation(), problem };
    let config: GuestConfig = serde_json::from_slice(body)
        .map_err(|error| malformed(format!("the configuration cannot be read: {error}")))?;
    config.check().map_err(|error: ConfigError| malformed(error.to_string()))?;
    Ok(config)
}

fn broken(error: ureq::Error) -> MetadataError {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, TimedOut};
    let silent = match &error {
        ureq::Error::Timeout(timeout) => matches!(timeout, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        ureq::Error::Io(error) => {
            matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable | TimedOut)
        }
        _ => false,
    };
    if silent { MetadataError::Silence(error) } else { MetadataError::Broken(error) }
}
