//! The client against a served API, over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what broke by panicking")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use clap::Parser;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::client::path;
use super::*;
use crate::api::{self, NetworkView, NewDisk, OperationView, TenantView};
use crate::cli::Cli;
use crate::model::{JourneyKind, Operation, OperationId, OperationState, Quota, Role, Tenant, TenantId};
use crate::store::rows;
use crate::store::{Draft, MemoryStore, Store};
use crate::tenant;
use crate::workflow::{Limits, Runner, World, new_operation, operation_key};

/// A served API, which ends with this.
struct Served {
    address: SocketAddr,
    store: Arc<dyn Store>,
    world: World,
    acme: TenantId,
    admin: String,
    dir: tempfile::TempDir,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let world = World::new(Arc::clone(&store), "test", Limits::default());
        let (end, ended) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let (served, runner) = (Arc::clone(&store), Runner::new(world.clone()));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let now = Timestamp::now();
                let mut draft = Draft::new();
                let acme =
                    tenant::create(&mut draft, &"acme".parse().unwrap(), Quota::default(), now).unwrap().id;
                draft.commit(&*served).await.unwrap();
                let (secret, _) =
                    tenant::issue(&*served, Tenant::PLATFORM, Role::Admin, "", now, None).await.unwrap();
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send((listener.local_addr().unwrap(), acme, secret.reveal().to_owned())).unwrap();
                api::serve(listener, api::router(runner, Arc::new(NoTokens)), async { drop(ended.await) })
                    .await;
            });
        });
        let (address, acme, admin) = told.recv().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { address, store, world, acme, admin, dir, end: Some(end), thread: Some(thread) }
    }

    fn client(&self, secret: &str, tenant: Option<&str>) -> Client {
        let file = self.dir.path().join("token");
        writeln!(std::fs::File::create(&file).unwrap(), "{secret}").unwrap();
        let server = Server {
            server: format!("http://{}/", self.address),
            token_file: Some(file),
            tenant: tenant.map(String::from),
        };
        Client::new(&server).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn refusal(failure: &Failure) -> (String, String) {
    let Failure::Told { refusal, .. } = failure else { panic!("{failure:?}") };
    (refusal.what.clone(), refusal.place.clone())
}

#[test]
fn the_client_asks_and_is_told() {
    let served = Served::new();
    let client = served.client(&served.admin, Some("acme"));
    let tenants = client.list::<TenantView>(&path(&["tenants"])).unwrap();
    assert_eq!(tenants.items.len(), 1);
    let new = serde_json::json!({"name": "blue", "prefixes": ["10.0.0.0/24"]});
    let network: NetworkView = client.post(&path(&["networks"]), &new).unwrap();
    assert_eq!(network.tenant, served.acme.to_string());
    client.remove(&path(&["networks", "blue"])).unwrap();
    let missing = client.get::<NetworkView>(&path(&["networks", "blue"])).unwrap_err();
    assert_eq!(refusal(&missing), ("there is no network `blue`".into(), "network".into()));
    let small = NewDisk { name: "x".parse().unwrap(), size_gib: 0 };
    let refused = client.post::<serde_json::Value>(&path(&["disks"]), &small).unwrap_err();
    assert_eq!(refusal(&refused).1, "size_gib");
    let unknown = served.client("shunt_x", None).get::<TenantView>(&path(&["tenants", "acme"])).unwrap_err();
    assert_eq!(refusal(&unknown).1, "Authorization");
}

#[test]
fn all_pages_of_a_list_are_one() {
    let served = Served::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for first in (0..1200).step_by(100) {
            let mut draft = Draft::new();
            for _ in first..first + 100 {
                let id = OperationId::new();
                let row = new_operation(
                    id,
                    served.acme,
                    JourneyKind::Release,
                    serde_json::Value::Null,
                    None,
                    &served.world,
                );
                draft.create(&operation_key(id).unwrap(), &row);
            }
            draft.commit(&*served.store).await.unwrap();
        }
    });
    let client = served.client(&served.admin, None);
    let page = client.list::<OperationView>(&path(&["operations"])).unwrap();
    assert_eq!((page.items.len(), page.next), (1200, None));
}

#[test]
fn an_operation_is_followed_to_its_end() {
    let served = Served::new();
    let id = OperationId::new();
    let key = operation_key(id).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let row = new_operation(
            id,
            served.acme,
            JourneyKind::Release,
            serde_json::Value::Null,
            None,
            &served.world,
        );
        let mut draft = Draft::new();
        draft.create(&key, &row);
        draft.commit(&*served.store).await.unwrap();
    });
    let client = served.client(&served.admin, None);
    let mut seen = Vec::new();
    let last = client
        .follow(&id.to_string(), |view| {
            seen.push(view.state);
            // Each form that is seen brings the next one about.
            let state = if seen.len() == 1 { OperationState::Undoing } else { OperationState::Undone };
            let change =
                move |row: &Operation| (!row.state.is_final()).then(|| Operation { state, ..row.clone() });
            let (store, key) = (Arc::clone(&served.store), key.clone());
            let changing = async move { rows::update(&*store, &key, change).await.map(drop) };
            runtime.spawn(changing);
        })
        .unwrap();
    assert_eq!(seen, [OperationState::Running, OperationState::Undoing, OperationState::Undone]);
    assert_eq!(last.state, OperationState::Undone);
    assert!(timeline::verdict(&last).is_err());
}

#[test]
fn who_is_not_there_is_named() {
    let served = Served::new();
    let client = served.client(&served.admin, None);
    let address = served.address.to_string();
    drop(served);
    let (what, place) = refusal(&client.get::<TenantView>(&path(&["tenants", "acme"])).unwrap_err());
    assert!(what.starts_with("cannot ask the controller") && place.contains(&address), "{what} {place}");
}

#[test]
fn addresses_and_tokens_are_checked_before_anything_is_asked() {
    let server = |server: &str| Server {
        server: server.into(),
        token_file: Some("/nowhere/token".into()),
        tenant: None,
    };
    for bad in ["https://x:1", "x", "http://", "http://x/path", ""] {
        assert_eq!(refusal(&Client::new(&server(bad)).err().unwrap()).1, "--server", "{bad}");
    }
    assert_eq!(refusal(&Client::new(&server("http://x")).err().unwrap()).1, "/nowhere/token");
}

#[test]
fn the_grammar_is_sound() {
    crate::cli::command().debug_assert();
    for line in [
        "tenant list",
        "tenant show acme --tenant other",
        "tenant create acme --vms 3",
        "token create --role read-only --expires-at 2030-01-01T00:00:00Z",
        "network create blue --prefix 10.0.0.0/24 --server http://x:1",
        "pool create small --image tiny --min 1 --max 2",
        "vm create web-1 --network blue --image tiny --wait",
        "vm move web-1 --network red --ip 10.0.0.4 --wait",
        "vm delete web-1",
        "rule add --vm web-1 --direction in --action allow --remote-vm db-1",
        "disk attach data --vm web-1",
        "host cordon h-1",
        "operation list --open --vm web-1",
        "operation show 0 --output json",
    ] {
        let words = std::iter::once("shunt").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
    for line in ["vm move web-1", "vm create Web --network blue --image tiny", "rule add --vm x"] {
        let words = std::iter::once("shunt").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}

/// Makes one token, always the same.
struct NoTokens;

#[async_trait::async_trait]
impl api::JoinTokens for NoTokens {
    async fn issue(&self, _: Option<crate::model::Name>) -> Result<String, crate::model::Problem> {
        Ok("shunt-join-test".to_owned())
    }
}
