//! The doors of the link: `Join`, `Renew`, `Attach`. Who may pass which one is decided here and nowhere else.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::codec::{self, LARGEST_MESSAGE};
use super::enrolment::{Claim, Enrolment, EnrolmentError, KeyHash};
use super::identity::{
    Authority, HostCertificate, IdentityError, Secret, ServerIdentity, request_key, server_config,
};
use super::listener::{self, Peer};
use super::presence::{HostStatus, Presence};
use super::proto::{self, fleet_server, from_host};
use super::session::{Greeting, IN_FLIGHT, MOST_NETWORKS, Pace, Session, Surroundings};
use super::source::{DesiredSource, DirectorySource, HostSink};
use crate::model::{Inventory, Problem};

/// How long a host may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);
/// How long sessions may take to end when the controller stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the controller's side of the link is made of.
#[derive(Clone)]
pub struct Fleet {
    /// Signs hosts' certificates.
    pub authority: Arc<Authority>,
    /// Who may join, and who still belongs.
    pub enrolment: Arc<dyn Enrolment>,
    /// What hosts should hold.
    pub desired: Arc<dyn DesiredSource>,
    /// The directories.
    pub directory: Arc<dyn DirectorySource>,
    /// Who is told what hosts say.
    pub sink: Arc<dyn HostSink>,
    /// How long sessions wait.
    pub pace: Pace,
}

/// The running link.
#[derive(Debug)]
pub struct FleetServer {
    presence: Arc<Presence>,
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Fleet {
    /// Serves hosts that dial `listener`.
    ///
    /// # Errors
    /// `Crypto` when there is no certificate for the controller.
    pub fn serve(self, listener: TcpListener) -> Result<FleetServer, IdentityError> {
        let identity = Arc::new(ServerIdentity::new(self.authority.clone(), Timestamp::now())?);
        let acceptor = TlsAcceptor::from(Arc::new(server_config(identity)?));
        let stopping = CancellationToken::new();
        let presence = Arc::new(Presence::default());
        let service = Service {
            authority: self.authority,
            enrolment: self.enrolment,
            around: Surroundings {
                desired: self.desired,
                directory: self.directory,
                sink: self.sink,
                pace: self.pace,
            },
            presence: presence.clone(),
            stopping: stopping.clone(),
        };
        let service = fleet_server::FleetServer::new(service)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let (links, incoming) = mpsc::channel(16);
        tokio::spawn(listener::accept(listener, acceptor, links, stopping.clone()));
        let stopped = stopping.clone().cancelled_owned();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(self.pace.ping))
            .http2_keepalive_timeout(Some(self.pace.silence))
            .http2_max_header_list_size(16 << 10)
            .http2_max_pending_accept_reset_streams(Some(16))
            .max_concurrent_streams(8)
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stopped);
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the link to the hosts has ended");
            }
        });
        Ok(FleetServer { presence, stopping, task })
    }
}

impl FleetServer {
    /// Which hosts are there, and how far they are.
    #[must_use]
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Ends all sessions; hosts will try to come back.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if timeout(FAREWELL, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for FleetServer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

struct Service {
    authority: Arc<Authority>,
    enrolment: Arc<dyn Enrolment>,
    around: Surroundings,
    presence: Arc<Presence>,
    stopping: CancellationToken,
}

/// An error as the host gets it: a sentence for eyes, and the problem in JSON for the program.
fn refusal(code: Code, problem: &Problem) -> Status {
    let details = serde_json::to_vec(problem).unwrap_or_default();
    Status::with_details(code, problem.to_string(), details.into())
}

fn refused(error: &EnrolmentError) -> Status {
    let code = match error {
        EnrolmentError::Unknown | EnrolmentError::Expired | EnrolmentError::Used => Code::Unauthenticated,
        EnrolmentError::OtherName => Code::PermissionDenied,
        EnrolmentError::NameTaken(_) => Code::AlreadyExists,
        EnrolmentError::Store(_) => Code::Unavailable,
    };
    refusal(code, &error.problem())
}

fn unsigned(error: &IdentityError) -> Status {
    let code = match error {
        IdentityError::Request { .. } => Code::InvalidArgument,
        _ => Code::Internal,
    };
    refusal(code, &error.problem())
}

fn garbled(place: &str, error: impl ToString) -> Status {
    let remedy = "use the `shunt` of the version that the controller runs";
    refusal(Code::InvalidArgument, &Problem::new(error.to_string(), place, remedy))
}

impl Service {
    /// The host that a request comes from: its certificate's, if it still belongs to the cluster.
    async fn member<T>(&self, request: &Request<T>) -> Result<HostCertificate, Status> {
        let peer = request.extensions().get::<Peer>();
        let host = peer.and_then(|peer| peer.host).filter(|says| says.not_after > Timestamp::now());
        let Some(says) = host else {
            let remedy = "join the cluster with a token first";
            return Err(refusal(
                Code::Unauthenticated,
                &Problem::new("no host's certificate was shown", "client certificate", remedy),
            ));
        };
        if !self.enrolment.admits(says.host).await.map_err(|error| refused(&error))? {
            let what = format!("host {} does not belong to the cluster any more", says.host);
            let remedy = "ask the controller for a token and join anew";
            return Err(refusal(Code::PermissionDenied, &Problem::new(what, "client certificate", remedy)));
        }
        Ok(says)
    }
}

#[tonic::async_trait]
impl fleet_server::Fleet for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<proto::ToHost, Status>> + Send>>;

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinAnswer>, Status> {
        let address = request.extensions().get::<Peer>().map(|peer| peer.address);
        let now = Timestamp::now();
        let proto::JoinRequest { secret, name, request } = request.into_inner();
        let secret = Secret::from_bytes(&secret).ok_or_else(|| refused(&EnrolmentError::Unknown))?;
        let name: crate::model::Name = name.parse().map_err(|error| garbled("name", error))?;
        // A request that cannot be signed must not use up a token.
        let key = KeyHash::of(&request_key(&request).map_err(|error| unsigned(&error))?);
        let claim = Claim { secret: secret.hash(), name: name.clone(), key, at: now };
        let host = self.enrolment.redeem(claim).await.map_err(|error| {
            tracing::warn!(?address, %name, %error, "a host is not let in");
            refused(&error)
        })?;
        let certificate =
            self.authority.sign_host(host, &request, now).map_err(|error| unsigned(&error))?.to_vec().into();
        tracing::info!(?address, %name, %host, "a host has joined");
        Ok(Response::new(proto::JoinAnswer { host: host.to_string(), certificate }))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewAnswer>, Status> {
        let says = self.member(&request).await?;
        let signed = self.authority.sign_host(says.host, &request.get_ref().request, Timestamp::now());
        let certificate = signed.map_err(|error| unsigned(&error))?.to_vec().into();
        tracing::info!(host = %says.host, "a host has a new certificate");
        Ok(Response::new(proto::RenewAnswer { certificate }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<proto::FromHost>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let HostCertificate { host, not_after, .. } = self.member(&request).await?;
        let mut inbound = request.into_inner();
        let first = timeout(GREETING, inbound.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no greeting came"))?;
        let Some(from_host::Message::Hello(hello)) = first.transpose()?.and_then(|first| first.message)
        else {
            return Err(garbled("greeting", "a stream begins with a greeting"));
        };
        let (inventory, greeting) = greeting(&hello).map_err(|error| garbled("greeting", error))?;
        let status = HostStatus { generation: greeting.generation, directories: BTreeMap::new() };
        let ticket = self.presence.seat(host, status);
        self.around
            .sink
            .hello(host, inventory)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let left = not_after.duration_since(Timestamp::now());
        let expires = Instant::now() + Duration::try_from(left).unwrap_or_default();
        let (outbound, messages) = mpsc::channel(IN_FLIGHT);
        let mut session = Session::new(host, self.around.clone(), ticket, greeting);
        let (sink, stopping) = (self.around.sink.clone(), self.stopping.clone());
        tokio::spawn(async move {
            tracing::info!(%host, "a host has come");
            let end = session.serve(inbound, outbound, expires, stopping).await;
            tracing::info!(%host, reason = %end, "a host has gone");
            if session.leave() {
                sink.gone(host).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

fn greeting(hello: &proto::Hello) -> Result<(Inventory, Greeting), codec::CodecError> {
    let inventory = codec::from_json("inventory", &hello.inventory_json)?;
    let mut held = BTreeMap::new();
    for directory in hello.directories.iter().take(MOST_NETWORKS) {
        held.insert(codec::vni(directory.vni)?, directory.version);
    }
    Ok((inventory, Greeting { generation: hello.generation, held }))
}

/// For logs.
impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("pace", &self.pace).finish_non_exhaustive()
    }
}
