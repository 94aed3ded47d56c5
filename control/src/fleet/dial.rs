//! The host's way to a controller: one TLS connection to the first address that answers, and the calls that are made once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use super::codec::LARGEST_MESSAGE;
use super::identity::{
    CONTROLLER_NAME, Credentials, HostKey, IdentityError, JoinToken, client_config, joining_config,
};
use super::proto::{self, fleet_client::FleetClient};
use super::session::Pace;
use crate::model::{Name, Problem};

/// How long an address may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What may be on its way to a host, in bytes: more would make a document wait behind the pages of a long directory.
const WINDOW: u32 = 256 << 10;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address answers.
    #[error("no controller answers: {why}")]
    Unreachable {
        /// What each address said.
        why: String,
    },
    /// A controller answers, and refuses.
    #[error("the controller refuses: {}", .0.what)]
    Refused(Problem),
    /// The link broke, or the controller cannot now.
    #[error("the controller does not answer: {0}")]
    Broken(String),
    /// Keys or certificates are not what they should be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl DialError {
    /// What, where, and what to do about it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::Identity(error) => error.problem(),
            Self::Unreachable { .. } => Problem::new(
                self.to_string(),
                "controllers",
                "see that a controller runs there, and that this host can reach it",
            ),
            Self::Broken(_) => Problem::new(self.to_string(), "controller", "look at the controller's log"),
        }
    }

    /// True when trying again with the same words gets the same answer.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Identity(_))
    }
}

impl From<Status> for DialError {
    fn from(status: Status) -> Self {
        let final_code = matches!(
            status.code(),
            Code::Unauthenticated | Code::PermissionDenied | Code::AlreadyExists | Code::InvalidArgument
        );
        match serde_json::from_slice::<Problem>(status.details()) {
            Ok(problem) if final_code => Self::Refused(problem),
            Ok(problem) => Self::Broken(problem.to_string()),
            Err(_) => Self::Broken(format!("{}: {}", status.code(), status.message())),
        }
    }
}

/// Connects to the first of `addresses` (`HOST:PORT`) that answers and proves to be a controller of the cluster.
///
/// # Errors
/// `Unreachable`.
pub async fn dial(
    addresses: &[String],
    config: Arc<ClientConfig>,
    pace: Pace,
) -> Result<FleetClient<Channel>, DialError> {
    let mut whys = Vec::new();
    for address in addresses {
        let connected = timeout(PATIENCE, connect(address, config.clone())).await;
        let stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => {
                whys.push(format!("{address}: {error}"));
                continue;
            }
        };
        // One connection for one channel: when it ends, we dial anew ourselves, with the certificate of that time.
        let mut once = Some(TokioIo::new(stream));
        let connector = service_fn(move |_| {
            let stream = once.take();
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let endpoint = Endpoint::from_static("http://controller.shunt.internal")
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .http2_keep_alive_interval(pace.ping)
            .keep_alive_timeout(pace.silence)
            .keep_alive_while_idle(true);
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => {
                return Ok(FleetClient::new(channel)
                    .max_decoding_message_size(LARGEST_MESSAGE)
                    .max_encoding_message_size(LARGEST_MESSAGE));
            }
            Err(error) => whys.push(format!("{address}: {error}")),
        }
    }
    Err(DialError::Unreachable { why: whys.join("; ") })
}

async fn connect(address: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(CONTROLLER_NAME).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Joins the cluster: the token's secret and our key for a certificate. The same key may ask again when an answer got lost.
///
/// # Errors
/// Why not.
pub async fn join(token: &JoinToken, name: &Name, key: HostKey) -> Result<Credentials, DialError> {
    let config = Arc::new(joining_config(&token.authority)?);
    let mut client = dial(&token.addresses, config, Pace::default()).await?;
    let request = proto::JoinRequest {
        secret: token.secret.bytes().to_vec().into(),
        name: name.to_string(),
        request: key.request()?.into(),
    };
    let answer = client.join(request).await?.into_inner();
    let certificate = CertificateDer::from(answer.certificate.to_vec());
    Ok(Credentials::new(key, certificate, token.authority.clone())?)
}

/// Asks for a new certificate for a new key.
///
/// # Errors
/// Why not.
pub async fn renew(addresses: &[String], credentials: &Credentials) -> Result<Credentials, DialError> {
    let config = Arc::new(client_config(credentials)?);
    let mut client = dial(addresses, config, Pace::default()).await?;
    let key = HostKey::new()?;
    let request = proto::RenewRequest { request: key.request()?.into() };
    let answer = client.renew(request).await?.into_inner();
    let certificate = CertificateDer::from(answer.certificate.to_vec());
    Ok(Credentials::new(key, certificate, credentials.authority().clone())?)
}
