//! The host's end of the link: dials, greets, and from then on hears documents and directories and tells facts, until it
//! breaks; then again, after a pause that grows and that no two hosts share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::agent::{Errands, Shop};
use super::directory::{Directories, DirectoryFault, Update};
use super::joining::{Membership, MembershipError};
use super::ledger::{LedgerError, Refusal};
use super::machine::Around;
use super::networks::Networks;
use crate::fleet::codec::{self, CodecError, Gathered};
use crate::fleet::identity::client_config;
use crate::fleet::proto::{self, FromHost, ToHost, from_host, to_host};
use crate::fleet::{DesiredChange, DialError, Pace, dial, renew};
use crate::model::{Inventory, Problem};

/// Messages that wait to be sent.
const OUTBOUND: usize = 32;
/// The shortest and the longest pause before dialling again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// How often it is looked whether the certificate is due.
const CALENDAR: Duration = Duration::from_secs(3600);
/// Before an update is offered again to a switch that did not take it.
const AGAIN: Duration = Duration::from_millis(500);

/// An update of a directory on its way to the switch.
pub(super) struct Errand {
    update: Update,
    /// Where the acknowledgement goes.
    reply: mpsc::Sender<FromHost>,
    /// Cancelled when the stream that it came by has ended, or must.
    session: CancellationToken,
}

/// The link.
pub(super) struct Link {
    state_dir: PathBuf,
    member: Membership,
    inventory: Inventory,
    pace: Pace,
    /// When the present stream was opened.
    attached: Option<Instant>,
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the controller ended the stream")]
    Closed,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the controller sent what is not understood: {0}")]
    Garbled(#[from] CodecError),
    #[error("the ledger cannot be written: {0}")]
    Ledger(String),
    #[error("the document does not follow from the one that is held")]
    OtherBase,
    #[error("what the switch holds must be told anew")]
    Anew,
    #[error("the controller said nothing for {0:?}")]
    Silent(Duration),
    #[error("there is a new certificate")]
    Renewed,
}

impl Link {
    pub(super) fn new(
        state_dir: &Path,
        controllers: Vec<String>,
        inventory: Inventory,
        pace: Pace,
    ) -> Result<Self, MembershipError> {
        let member = Membership::load(state_dir, controllers)?;
        Ok(Self { state_dir: state_dir.into(), member, inventory, pace, attached: None })
    }

    /// Keeps the link up for ever.
    pub(super) async fn run(
        mut self,
        shop: Arc<Shop>,
        directories: Arc<tokio::sync::Mutex<Directories>>,
        errands: mpsc::Sender<Errand>,
        session: Arc<Mutex<CancellationToken>>,
    ) {
        let mut failures = 0;
        let mut last = String::new();
        loop {
            let token = CancellationToken::new();
            *session.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
            self.attached = None;
            let end = self.attach(&shop, &directories, &errands, &token).await;
            // Updates of this stream that still wait are not for the next one.
            token.cancel();
            let Err(end) = end;
            let text = end.to_string();
            // A controller that is away for hours is told of once.
            if text != last {
                tracing::warn!(reason = %text, "no link to a controller");
            }
            last = text;
            if matches!(end, End::Renewed | End::Anew) {
                continue;
            }
            let held = self.attached.map(|at| at.elapsed());
            if held.is_some_and(|held| held > PAUSES.1) {
                last = String::new();
            }
            failures = failures_since(failures, held);
            sleep(pause(failures)).await;
            failures += 1;
        }
    }

    /// One stream, from greeting to end.
    async fn attach(
        &mut self,
        shop: &Arc<Shop>,
        directories: &tokio::sync::Mutex<Directories>,
        errands: &mpsc::Sender<Errand>,
        session: &CancellationToken,
    ) -> Result<std::convert::Infallible, End> {
        self.renew_if_due().await;
        let config = client_config(&self.member.credentials).map_err(DialError::from)?;
        let mut client = dial(&self.member.controllers, Arc::new(config), self.pace).await?;
        // A switch that does not answer holds nothing that could be told.
        let held = directories.lock().await.held().await.unwrap_or_default();
        let versions =
            held.into_iter().map(|(vni, version)| proto::DirectoryVersion { vni: vni.value(), version });
        let hello = proto::Hello {
            inventory_json: codec::to_json("inventory", &self.inventory)?,
            generation: shop.around.ledger.held().generation,
            directories: versions.collect(),
        };
        let (out, said) = mpsc::channel(OUTBOUND);
        say(&out, from_host::Message::Hello(hello)).await?;
        let inbound = client.attach(ReceiverStream::new(said)).await.map_err(DialError::from)?.into_inner();
        self.attached = Some(Instant::now());
        tracing::info!("attached to a controller");
        shop.around.facts.again();
        self.converse(shop, inbound, &out, errands, session).await
    }

    async fn converse(
        &mut self,
        shop: &Arc<Shop>,
        mut inbound: Streaming<ToHost>,
        out: &mpsc::Sender<FromHost>,
        errands: &mpsc::Sender<Errand>,
        session: &CancellationToken,
    ) -> Result<std::convert::Infallible, End> {
        let mut gathered = Gathered::default();
        let mut calendar = interval(CALENDAR);
        calendar.tick().await;
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                () = session.cancelled() => return Err(End::Anew),
                () = sleep_until(heard + self.pace.silence) => return Err(End::Silent(self.pace.silence)),
                message = inbound.message() => {
                    heard = Instant::now();
                    let message = message.map_err(DialError::from)?.ok_or(End::Closed)?;
                    hear(shop, message, &mut gathered, out, errands, session).await?;
                }
                () = shop.around.facts.news() => {
                    while let Some(batch) = shop.around.facts.take() {
                        let facts = batch.facts.iter().map(|fact| codec::to_json("fact", fact));
                        let fact_json = facts.collect::<Result<_, _>>()?;
                        say(out, from_host::Message::Facts(proto::Facts { fact_json, number: batch.number })).await?;
                    }
                }
                _ = calendar.tick() => {
                    if self.renew_if_due().await {
                        return Err(End::Renewed);
                    }
                }
            }
        }
    }

    /// A new certificate when two thirds of the old one's life are over; true when there is one.
    async fn renew_if_due(&mut self) -> bool {
        if !self.member.credentials.says().is_due(Timestamp::now()) {
            return false;
        }
        match renew(&self.member.controllers, &self.member.credentials).await {
            Ok(fresh) => match fresh.save(&self.state_dir) {
                Ok(()) => {
                    self.member.credentials = fresh;
                    tracing::info!("this host has a new certificate");
                    return true;
                }
                Err(error) => tracing::error!(%error, "the new certificate cannot be kept"),
            },
            Err(error) => tracing::warn!(%error, "no new certificate"),
        }
        false
    }
}

async fn say(out: &mpsc::Sender<FromHost>, message: from_host::Message) -> Result<(), End> {
    out.send(FromHost { message: Some(message) }).await.map_err(|_| End::Closed)
}

async fn refuse(out: &mpsc::Sender<FromHost>, problem: &Problem, generation: Option<u64>) -> Result<(), End> {
    tracing::warn!(%problem, "what the controller sent is refused");
    let problem_json = codec::to_json("problem", problem)?;
    say(out, from_host::Message::Refused(proto::Refused { problem_json, generation })).await
}

async fn hear(
    shop: &Arc<Shop>,
    message: ToHost,
    gathered: &mut Gathered,
    out: &mpsc::Sender<FromHost>,
    errands: &mpsc::Sender<Errand>,
    session: &CancellationToken,
) -> Result<(), End> {
    let update = match message.message {
        Some(to_host::Message::Desired(part)) => {
            return match gathered.add(&part)? {
                Some(change) => accept(shop, change, out).await,
                None => Ok(()),
            };
        }
        Some(to_host::Message::Ping(ping)) => {
            return say(out, from_host::Message::Pong(proto::Pong { number: ping.number })).await;
        }
        Some(to_host::Message::FactsAck(ack)) => {
            let gone = shop.around.facts.kept(ack.number);
            let ledger = shop.around.ledger.clone();
            let struck = tokio::task::spawn_blocking(move || ledger.gone(&gone)).await;
            return match struck {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(End::Ledger(error.to_string())),
                Err(error) => Err(End::Ledger(error.to_string())),
            };
        }
        Some(to_host::Message::DirectorySnapshot(page)) => Update::Page {
            network: codec::vni(page.vni)?,
            version: page.version,
            entries: codec::entries(&page.entries)?,
            first: page.first,
            more: page.more,
        },
        Some(to_host::Message::DirectoryDelta(delta)) => Update::Delta {
            network: codec::vni(delta.vni)?,
            from: delta.from,
            to: delta.to,
            puts: codec::entries(&delta.puts)?,
            removes: codec::removes(&delta.removes)?,
        },
        // A later version's message: older hosts go on without it.
        None => return Ok(()),
    };
    let errand = Errand { update, reply: out.clone(), session: session.clone() };
    errands.send(errand).await.map_err(|_| End::Closed)
}

/// Writes a document down, and only then works by it.
async fn accept(shop: &Arc<Shop>, change: DesiredChange, out: &mpsc::Sender<FromHost>) -> Result<(), End> {
    let generation = change.generation;
    let ledger = shop.around.ledger.clone();
    let judged = tokio::task::spawn_blocking(move || ledger.accept(change)).await;
    match judged.map_err(|error| End::Ledger(error.to_string()))? {
        Ok(accepted) => {
            shop.apply(accepted);
            say(out, from_host::Message::Ack(proto::Ack { generation })).await
        }
        Err(LedgerError::Refused(Refusal::Base { .. })) => Err(End::OtherBase),
        Err(error @ LedgerError::Refused(_)) => refuse(out, &error.problem(), Some(generation)).await,
        Err(error) => {
            refuse(out, &error.problem(), Some(generation)).await?;
            Err(End::Ledger(error.to_string()))
        }
    }
}

/// Carries updates to the switch, in order; what is left of networks that are gone is removed in between.
pub(super) async fn carry(
    around: Arc<Around>,
    directories: Arc<tokio::sync::Mutex<Directories>>,
    mut inbox: Errands,
) {
    let mut forgetting = None;
    loop {
        tokio::select! {
            biased;
            errand = inbox.recv() => match errand {
                Some(errand) => run(&around, &directories, errand).await,
                None => return,
            },
            network = next_to_forget(forgetting, &around.networks) => {
                let done = directories.lock().await.forget_some(network).await;
                if let Err(fault) = &done {
                    tracing::warn!(%network, problem = %fault.problem(), "a directory cannot be removed yet");
                    sleep(AGAIN).await;
                }
                forgetting = (!matches!(done, Ok(true))).then_some(network);
            }
        }
    }
}

async fn next_to_forget(
    forgetting: Option<dataplane::types::Vni>,
    networks: &Networks,
) -> dataplane::types::Vni {
    match forgetting {
        Some(network) => network,
        None => networks.emptied().await,
    }
}

async fn run(around: &Around, directories: &tokio::sync::Mutex<Directories>, errand: Errand) {
    let Errand { update, reply, session } = errand;
    let (Update::Page { network, .. } | Update::Delta { network, .. }) = &update;
    let network = *network;
    loop {
        let mut directories = directories.lock().await;
        // A stream that has ended has said all it will; and a network that has gone since is nobody's.
        if session.is_cancelled() || around.ledger.network(network).is_none() {
            return;
        }
        let taken = directories.take(update.clone()).await;
        drop(directories);
        match taken {
            Ok(None) => return,
            Ok(Some((network, version))) => {
                let ack = proto::DirectoryAck { vni: network.value(), version };
                // The stream may end at any time; the next greeting says the version.
                let _ = say(&reply, from_host::Message::DirectoryAck(ack)).await;
                return;
            }
            Err(fault @ DirectoryFault::OutOfOrder { .. }) => {
                let _ = refuse(&reply, &fault.problem(), None).await;
                session.cancel();
                return;
            }
            Err(fault) => {
                let _ = refuse(&reply, &fault.problem(), None).await;
                tokio::select! {
                    () = session.cancelled() => return,
                    () = sleep(AGAIN) => {}
                }
            }
        }
    }
}

/// How many failures count for the next pause, after a stream that held so long. One that held longer than that pause would
/// be was not cut by a controller that cuts every stream at once: dialling begins anew.
fn failures_since(failures: u32, held: Option<Duration>) -> u32 {
    if held.is_some_and(|held| held > longest_pause(failures)) { 0 } else { failures }
}

fn longest_pause(failures: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << failures.min(10)).min(PAUSES.1)
}

/// A pause of which half is chance: hosts that lost the same controller do not come back at the same moment.
fn pause(failures: u32) -> Duration {
    let whole = longest_pause(failures);
    let chance = u32::from(uuid::Uuid::new_v4().as_bytes().first().copied().unwrap_or_default());
    whole / 2 + whole / 2 * chance / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for failures in 0..40 {
            let whole = longest_pause(failures);
            let found = pause(failures);
            assert!(found >= whole / 2 && found <= whole, "{found:?} of {whole:?}");
        }
        let found: std::collections::HashSet<_> = (0..64).map(|_| pause(5)).collect();
        assert!(found.len() > 8);
    }

    #[test]
    fn a_stream_that_held_for_a_while_begins_the_pauses_anew_and_one_that_broke_at_once_does_not() {
        let mut failures = 0;
        for _ in 0..20 {
            failures = failures_since(failures, Some(Duration::from_millis(20))) + 1;
            assert!(failures_since(failures, None) == failures);
        }
        assert_eq!(longest_pause(failures), PAUSES.1, "a controller that ends every stream at once");
        assert_eq!(failures_since(failures, Some(PAUSES.1 + Duration::from_millis(1))), 0);
        // A controller that is started again every few seconds, as in an upgrade.
        let mut failures = 0;
        for _ in 0..20 {
            failures = failures_since(failures, Some(Duration::from_secs(3))) + 1;
            assert_eq!(failures, 1);
        }
    }
}
