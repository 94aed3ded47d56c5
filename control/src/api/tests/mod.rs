//! The API over a store in memory, request by request.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what broke by panicking")]

mod behaviour;
mod input;
mod permissions;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use dataplane::types::CustomerIp;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::model::{
    Binding, Combination, Host, HostId, HostState, Inventory, Name, Nic, NicId, Quota, Role, Tenant,
    TenantId, Vm, VmId, VmState,
};
use crate::store::{Draft, MemoryStore, Store};
use crate::tenant::{self, Named};
use crate::workflow::{Limits, World};
use crate::{compute, network};

/// Two tenants, a machine of the first, an administrator.
pub(super) struct Scene {
    pub(super) router: Router,
    pub(super) store: Arc<dyn Store>,
    pub(super) runner: Runner,
    pub(super) admin: String,
    pub(super) acme: String,
    pub(super) acme_id: TenantId,
    pub(super) looker: String,
    pub(super) other: String,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) json: Value,
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn combination() -> Value {
    json!({"hypervisor": "netns", "image": "tiny", "vcpus": 1, "memory_mib": 64})
}

impl Scene {
    pub(super) async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let now = Timestamp::now();
        network::ensure_platform_networks(&*store, now).await.unwrap();
        let mut draft = Draft::new();
        let acme = tenant::create(&mut draft, &name("acme"), Quota::default(), now).unwrap().id;
        let other = tenant::create(&mut draft, &name("other"), Quota::default(), now).unwrap().id;
        draft.commit(&*store).await.unwrap();
        let token = async |tenant, role| {
            let (secret, _) = tenant::issue(&*store, tenant, role, "", now, None).await.unwrap();
            secret.reveal().to_owned()
        };
        let runner = Runner::new(World::new(store.clone(), "test", Limits::default()));
        let scene = Self {
            router: router(runner.clone(), Arc::new(NoTokens)),
            admin: token(Tenant::PLATFORM, Role::Admin).await,
            acme: token(acme, Role::Tenant).await,
            acme_id: acme,
            looker: token(acme, Role::ReadOnly).await,
            other: token(other, Role::Tenant).await,
            store,
            runner,
        };
        let network = json!({"name": "blue", "prefixes": ["10.0.0.0/24"]});
        for token in [&scene.acme, &scene.other] {
            assert_eq!(scene.post("/v1/networks", token, &network).await.status, 201);
        }
        scene
    }

    /// A running machine of acme's, in its network blue, on a host that is there.
    pub(super) async fn vm(&self, called: &str) -> VmId {
        let (vm, nic, host) = (VmId::new(), NicId::new(), HostId::new());
        let now = Timestamp::now();
        let blue = self.get("/v1/networks/blue", &self.acme).await.json["moniker"].clone();
        let inventory = Inventory {
            physical_ip: dataplane::types::PhysicalIp("192.0.2.1".parse().unwrap()),
            cpus: 2,
            memory_mib: 1024,
            hypervisors: vec![name("netns")],
            version: "test".into(),
        };
        let mut draft = Draft::new();
        let host_name = name(&format!("host-of-{called}"));
        compute::put_host(
            &mut draft,
            &Host { id: host, name: host_name, state: HostState::Ready, inventory, created_at: now },
        )
        .unwrap();
        let ip: CustomerIp = "10.0.0.9".parse().unwrap();
        let binding = Binding { network: blue.as_str().unwrap().parse().unwrap(), addresses: vec![ip] };
        let nic = Nic {
            id: nic,
            tenant: self.acme_id,
            vm,
            mac: compute::new_mac(),
            physical_ip: dataplane::types::PhysicalIp("192.0.2.1".parse().unwrap()),
            port: compute::new_port(vm),
            binding,
        };
        let row = Vm {
            id: vm,
            tenant: self.acme_id,
            name: name(called),
            state: VmState::Running,
            combination: Combination {
                hypervisor: name("netns"),
                image: name("tiny"),
                vcpus: 1,
                memory_mib: 64,
                storage: name("local"),
                ip_routing: name("ipv4"),
            },
            host,
            pool: None,
            generation: 1,
            config_generation: 1,
            script_generation: 1,
            bounces: 0,
            partial: false,
            settings: crate::model::Settings::default(),
            rules: Vec::new(),
            nic: nic.id,
            operation: None,
            before_quarantine: None,
            failure: None,
            watched_until: None,
            created_at: now,
        };
        compute::put_new(&mut draft, &row, &nic).unwrap();
        tenant::take_name(&mut draft, Named::Vm, self.acme_id, &row.name, vm.uuid()).unwrap();
        draft.commit(&*self.store).await.unwrap();
        vm
    }

    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "Content-Type") {
            request = request.header("Content-Type", "application/json");
        }
        let request = request.body(Body::from(body.unwrap_or_default().to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 4 << 20).await.unwrap();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.as_u16() >= 400 {
            assert_eq!(headers["content-type"], PROBLEM_JSON, "{method} {path}: {status}");
            let document: ProblemDocument = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(document.status, status.as_u16());
            assert!(!document.detail.is_empty() && !document.remedy.is_empty(), "{json}");
        }
        Answer { status, headers, json }
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, &[("Authorization", &format!("Bearer {token}"))], None).await
    }

    pub(super) async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        self.call("POST", path, &[("Authorization", &bearer)], Some(&body.to_string())).await
    }

    pub(super) async fn delete(&self, path: &str, token: &str) -> Answer {
        self.call("DELETE", path, &[("Authorization", &format!("Bearer {token}"))], None).await
    }
}

/// `SHUNT_WRITE_DOCS=1 cargo test -p control --lib openapi` writes the document anew.
#[test]
fn the_committed_openapi_document_is_the_present_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi.json");
    let text = super::openapi::text();
    if std::env::var_os("SHUNT_WRITE_DOCS").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        committed == text,
        "docs/reference/openapi.json is not what the code says; `SHUNT_WRITE_DOCS=1 cargo test -p control --lib openapi` writes it anew"
    );
}

/// Makes one token, always the same.
struct NoTokens;

#[async_trait::async_trait]
impl super::JoinTokens for NoTokens {
    async fn issue(&self, _: Option<Name>) -> Result<String, crate::model::Problem> {
        Ok("shunt-join-test".to_owned())
    }
}
