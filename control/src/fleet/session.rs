//! One host's stream, seen from the controller.
//!
//! A session pulls: when there is room for a message, it asks the sources for the next thing that this host has not got.
//! Documents go before directories. What waits for a slow host is a cursor per network and never a queue; a cursor that has
//! fallen out of a directory's log begins again with a snapshot. Nothing here waits for any other host.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dataplane::types::{CustomerIp, Vni};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::StreamMap;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::codec::{self, LARGEST_PAGE, Parts};
use super::presence::Ticket;
use super::proto::{self, from_host, to_host};
use super::source::{Changes, DesiredSource, DirectorySource, HostSink, SourceError};
use crate::model::{HostId, Problem, VmFact, VmId};

/// Messages that are on their way to a host at most; each is at most a part of a document or a page long.
pub const IN_FLIGHT: usize = 4;
/// Networks that one host can be subscribed to.
pub const MOST_NETWORKS: usize = 4096;

/// How long a session waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two pings.
    pub ping: Duration,
    /// A host that says nothing for so long is gone.
    pub silence: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { ping: Duration::from_secs(10), silence: Duration::from_secs(35) }
    }
}

/// Where a host is in a network's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    /// It was sent everything up to this version.
    At(u64),
    /// It is being sent a snapshot that began at `version`, and has got it up to `after`.
    Paging { version: Option<u64>, after: Option<CustomerIp> },
}

/// A session's sources and sinks.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) desired: Arc<dyn DesiredSource>,
    pub(super) directory: Arc<dyn DirectorySource>,
    pub(super) sink: Arc<dyn HostSink>,
    pub(super) pace: Pace,
}

pub(super) struct Session {
    pub(super) host: HostId,
    around: Surroundings,
    ticket: Ticket,
    documents: watch::Receiver<u64>,
    /// The document that the host has, or is on its way to it.
    sent: Option<u64>,
    is_new: bool,
    parts: Option<Parts>,
    cursors: BTreeMap<Vni, Cursor>,
    versions: StreamMap<Vni, WatchStream<u64>>,
    /// Networks in which the host may be behind, each once, in turn.
    behind: VecDeque<Vni>,
    /// What the host said it holds of networks that it is not subscribed to yet.
    held: BTreeMap<Vni, u64>,
    pings: u64,
    ping_due: bool,
    /// Facts up to this message are kept, and the host does not know it yet.
    facts_kept: Option<u64>,
}

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the host ended the stream")]
    Closed,
    #[error("the host sent what is not understood: {0}")]
    Garbled(String),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the host said nothing for {0:?}")]
    Silent(Duration),
    #[error("another session of the host has taken over, or it was removed")]
    Replaced,
    #[error("the host's certificate has expired")]
    Expired,
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("the controller stops")]
    Stopping,
}

impl From<codec::CodecError> for End {
    fn from(error: codec::CodecError) -> Self {
        Self::Garbled(error.to_string())
    }
}

impl End {
    /// What the host is told.
    pub(super) fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::Closed | Self::Broken(_) => Status::cancelled(text),
            Self::Garbled(_) => Status::invalid_argument(text),
            Self::Source(_) | Self::Stopping => Status::unavailable(text),
            Self::Silent(_) => Status::deadline_exceeded(text),
            Self::Replaced => Status::aborted(text),
            Self::Expired => Status::unauthenticated(text),
        }
    }
}

/// What a host said first.
pub(super) struct Greeting {
    pub(super) generation: Option<u64>,
    pub(super) held: BTreeMap<Vni, u64>,
}

impl Session {
    pub(super) fn new(host: HostId, around: Surroundings, ticket: Ticket, greeting: Greeting) -> Self {
        let documents = around.desired.watch(host);
        Self {
            host,
            around,
            ticket,
            documents,
            sent: greeting.generation,
            is_new: true,
            parts: None,
            cursors: BTreeMap::new(),
            versions: StreamMap::new(),
            behind: VecDeque::new(),
            held: greeting.held,
            pings: 0,
            ping_due: false,
            facts_kept: None,
        }
    }

    /// Serves the host until one side ends it.
    pub(super) async fn serve<S>(
        &mut self,
        mut inbound: S,
        outbound: mpsc::Sender<Result<proto::ToHost, Status>>,
        expires: Instant,
        stopping: tokio_util::sync::CancellationToken,
    ) -> End
    where
        S: Stream<Item = Result<proto::FromHost, Status>> + Unpin,
    {
        let replaced = self.ticket.replaced.clone();
        let mut pings = tokio::time::interval(self.around.pace.ping);
        let mut heard = Instant::now();
        loop {
            let silent = heard + self.around.pace.silence;
            let step = tokio::select! {
                () = replaced.cancelled() => Err(End::Replaced),
                () = stopping.cancelled() => Err(End::Stopping),
                () = tokio::time::sleep_until(expires) => Err(End::Expired),
                () = tokio::time::sleep_until(silent) => Err(End::Silent(self.around.pace.silence)),
                message = inbound.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.hear(message).await,
                        Some(Err(status)) => Err(End::Broken(status.to_string())),
                        None => Err(End::Closed),
                    }
                }
                room = outbound.reserve(), if self.has_work() => match room {
                    Err(_) => Err(End::Closed),
                    Ok(room) => self.next().await.map(|message| {
                        if let Some(message) = message {
                            room.send(Ok(proto::ToHost { message: Some(message) }));
                        }
                    }),
                },
                _ = self.documents.changed() => Ok(()),
                Some((network, _)) = self.versions.next() => {
                    self.mark(network);
                    Ok(())
                }
                _ = pings.tick() => {
                    self.ping_due = true;
                    Ok(())
                }
            };
            if let Err(end) = step {
                // The last word may find no room: then the stream just ends.
                let _ = outbound.try_send(Err(end.status()));
                return end;
            }
        }
    }

    fn has_work(&self) -> bool {
        self.ping_due
            || self.facts_kept.is_some()
            || self.parts.is_some()
            || !self.behind.is_empty()
            || self.document_waits()
    }

    fn document_waits(&self) -> bool {
        let now = *self.documents.borrow();
        now != 0 && (self.is_new || self.sent != Some(now))
    }

    fn mark(&mut self, network: Vni) {
        if self.cursors.contains_key(&network) && !self.behind.contains(&network) {
            self.behind.push_back(network);
        }
    }

    /// The next message for the host; none if it turns out that there is nothing to say.
    async fn next(&mut self) -> Result<Option<to_host::Message>, End> {
        if std::mem::take(&mut self.ping_due) {
            self.pings += 1;
            return Ok(Some(to_host::Message::Ping(proto::Ping { number: self.pings })));
        }
        if let Some(number) = self.facts_kept.take() {
            return Ok(Some(to_host::Message::FactsAck(proto::FactsAck { number })));
        }
        if self.parts.is_none() && self.document_waits() {
            let change = self.around.desired.changes(self.host, self.sent).await?;
            let Some(change) = change else { return Ok(None) };
            self.is_new = false;
            let is_known = change.base == Some(change.generation);
            self.sent = Some(change.generation);
            if is_known {
                self.subscribe(change.networks.iter().map(|network| network.vni).collect());
            } else {
                self.parts = Some(Parts::new(change));
            }
        }
        if let Some(parts) = &mut self.parts {
            let part = parts.next_part()?;
            let Some((part, too_long)) = part else { return Ok(None) };
            if !part.more {
                // Directories follow the document that names their networks.
                let networks = parts.change().networks.iter().map(|network| network.vni).collect();
                self.parts = None;
                self.subscribe(networks);
            }
            for vm in too_long {
                let problem = too_long_for_a_message(vm);
                self.around.sink.refused(self.host, problem, Some(part.generation)).await?;
            }
            return Ok(Some(to_host::Message::Desired(part)));
        }
        match self.behind.pop_front() {
            Some(network) => self.directory(network).await,
            None => Ok(None),
        }
    }

    /// Begins and ends subscriptions, so that they are those of the document that was sent last.
    fn subscribe(&mut self, mut networks: Vec<Vni>) {
        networks.truncate(MOST_NETWORKS);
        networks.sort_unstable();
        let gone: Vec<Vni> =
            self.cursors.keys().filter(|network| networks.binary_search(network).is_err()).copied().collect();
        for network in gone {
            self.cursors.remove(&network);
            self.versions.remove(&network);
            self.behind.retain(|other| *other != network);
        }
        let mut resumed = BTreeMap::new();
        for network in networks {
            if self.cursors.contains_key(&network) {
                continue;
            }
            let held = self.held.remove(&network);
            resumed.extend(held.map(|version| (network, version)));
            let cursor = held.map_or(Cursor::Paging { version: None, after: None }, Cursor::At);
            self.cursors.insert(network, cursor);
            // Its first item comes at once.
            self.versions.insert(network, WatchStream::new(self.around.directory.watch(network)));
        }
        // What was held of networks that the host has no longer is not held any more.
        self.held.clear();
        let held: Vec<Vni> = self.cursors.keys().copied().collect();
        self.ticket.update(|status| {
            let before = std::mem::take(&mut status.directories);
            let version = |network| resumed.get(network).copied().or_else(|| *before.get(network)?);
            status.directories = held.iter().map(|network| (*network, version(network))).collect();
        });
    }

    /// The next page or delta of one directory.
    async fn directory(&mut self, network: Vni) -> Result<Option<to_host::Message>, End> {
        let Some(cursor) = self.cursors.get(&network).copied() else { return Ok(None) };
        let vni = network.value();
        let (version, after) = match cursor {
            Cursor::At(from) => match self.around.directory.changes(network, from, LARGEST_PAGE).await? {
                Changes::Delta { to, .. } if to == from => return Ok(None),
                Changes::Delta { to, puts, removes } => {
                    self.cursors.insert(network, Cursor::At(to));
                    // There may be more than fitted.
                    self.mark(network);
                    let puts = puts.iter().map(Into::into).collect();
                    let delta =
                        proto::DirectoryDelta { vni, from, to, puts, removes: codec::removed(&removes) };
                    return Ok(Some(to_host::Message::DirectoryDelta(delta)));
                }
                Changes::Compacted => (None, None),
            },
            Cursor::Paging { version, after } => (version, after),
        };
        let page = self.around.directory.page(network, after, LARGEST_PAGE).await?;
        let first = version.is_none();
        let version = version.unwrap_or(page.version);
        let next = match page.entries.last().filter(|_| page.more) {
            Some(last) => Cursor::Paging { version: Some(version), after: Some(last.ip) },
            None => Cursor::At(version),
        };
        self.cursors.insert(network, next);
        self.mark(network);
        let more = matches!(next, Cursor::Paging { .. });
        let entries = page.entries.iter().map(Into::into).collect();
        let snapshot = proto::DirectorySnapshot { vni, version, entries, first, more };
        Ok(Some(to_host::Message::DirectorySnapshot(snapshot)))
    }

    async fn hear(&mut self, message: proto::FromHost) -> Result<(), End> {
        match message.message {
            Some(from_host::Message::Ack(ack)) => {
                self.ticket.update(|status| status.generation = status.generation.max(Some(ack.generation)));
            }
            Some(from_host::Message::DirectoryAck(ack)) => {
                let network = codec::vni(ack.vni)?;
                self.ticket.update(|status| {
                    if let Some(held) = status.directories.get_mut(&network) {
                        *held = (*held).max(Some(ack.version));
                    }
                });
            }
            Some(from_host::Message::Facts(facts)) => {
                let facts_number = facts.number;
                if facts.fact_json.len() > codec::MOST_FACTS {
                    return Err(End::Garbled(format!("{} facts in one message", facts.fact_json.len())));
                }
                let facts: Result<Vec<VmFact>, _> =
                    facts.fact_json.iter().map(|json| codec::from_json("fact", json)).collect();
                self.around.sink.facts(self.host, facts?).await?;
                self.facts_kept = Some(facts_number);
            }
            Some(from_host::Message::Refused(refused)) => {
                let problem: Problem = codec::from_json("problem", &refused.problem_json)?;
                tracing::warn!(host = %self.host, %problem, "a host refuses what it should hold");
                self.around.sink.refused(self.host, problem, refused.generation).await?;
            }
            Some(from_host::Message::Pong(_)) => {}
            Some(from_host::Message::Hello(_)) => return Err(End::Garbled("a second greeting".to_owned())),
            // A later version's message: older controllers go on without it.
            None => {}
        }
        Ok(())
    }

    /// True when no other session of the host has taken over.
    pub(super) fn leave(&self) -> bool {
        self.ticket.leave()
    }
}

fn too_long_for_a_message(vm: VmId) -> Problem {
    Problem::new(
        format!("the machine's document is longer than {} bytes", codec::LARGEST_VM),
        format!("vm {vm}"),
        "make its files or its script smaller",
    )
}
