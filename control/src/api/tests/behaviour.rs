//! Pages, keys, entity tags, waiting, events.

use super::*;
use crate::model::{JourneyKind, Operation, OperationId, OperationState};
use crate::store::rows::{self, Versioned};
use crate::workflow::{new_operation, operation_key};

#[tokio::test]
async fn lists_come_in_pages() {
    let scene = Scene::new().await;
    for number in 0..5 {
        let disk = json!({"name": format!("data-{number}"), "size_gib": 1});
        for token in [&scene.acme, &scene.other] {
            assert_eq!(scene.post("/v1/disks", token, &disk).await.status, 201);
        }
    }
    let (mut names, mut path, mut pages) = (Vec::new(), "/v1/disks?limit=2".to_owned(), 0);
    loop {
        let page = scene.get(&path, &scene.acme).await.json;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/disks?limit=2&after={next}");
    }
    assert_eq!((names.join(" ").as_str(), pages), ("data-0 data-1 data-2 data-3 data-4", 3));
    let whole = scene.get("/v1/disks?limit=5", &scene.acme).await.json;
    assert_eq!((whole["items"].as_array().unwrap().len(), &whole["next"]), (5, &Value::Null));
}

#[tokio::test]
async fn the_same_key_is_the_same_wish() {
    let scene = Scene::new().await;
    let bearer = format!("Bearer {}", scene.acme);
    let ask = async |path: &str, key: &str, body: &Value| {
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", key)];
        scene.call("POST", path, &headers, Some(&body.to_string())).await
    };
    let disk = json!({"name": "data", "size_gib": 1});
    let first = ask("/v1/disks", "one", &disk).await;
    let again = ask("/v1/disks", "one", &disk).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.json, again.json);
    assert_eq!(ask("/v1/disks", "one", &json!({"name": "data", "size_gib": 2})).await.status, 422);
    assert_eq!(ask("/v1/disks", "two", &disk).await.status, 409);
    assert_eq!(scene.get("/v1/tenants/acme", &scene.acme).await.json["usage"]["disks"], 1);
    // The same words of another tenant are another wish.
    let other = format!("Bearer {}", scene.other);
    let headers = [("Authorization", other.as_str()), ("Idempotency-Key", "one")];
    let theirs = scene.call("POST", "/v1/disks", &headers, Some(&disk.to_string())).await;
    assert_eq!(theirs.status, 201);
    assert_ne!(theirs.json["id"], first.json["id"]);
    // Operations likewise.
    let vm = json!({"name": "web", "combination": combination(), "network": "blue"});
    let first = ask("/v1/vms", "vm", &vm).await;
    let again = ask("/v1/vms", "vm", &vm).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202));
    assert_eq!(first.json["id"], again.json["id"]);
    let location = format!("/v1/operations/{}", first.json["id"].as_str().unwrap());
    assert_eq!(first.headers["location"], location);
}

#[tokio::test]
async fn keys_of_long_ago_are_forgotten() {
    use crate::api::once::Once;
    let scene = Scene::new().await;
    let start = Timestamp::now();
    let mut most = 0;
    // Ten keys an hour for ten days: about a day's worth stays.
    for hour in 0..240 {
        let now = start + jiff::SignedDuration::from_hours(hour);
        for turn in 0..10 {
            let once = Once::new(scene.acme_id, Some(&format!("{hour}-{turn}")), "test", &()).unwrap();
            let mut draft = Draft::new();
            once.note(&*scene.store, &mut draft, uuid::Uuid::new_v4(), now).await.unwrap();
            draft.commit(&*scene.store).await.unwrap();
            assert!(once.before(&*scene.store).await.unwrap().is_some());
        }
        let prefix = crate::store::Prefix::of(["made", &scene.acme_id.to_string()]).unwrap();
        most = most.max(scene.store.list(&prefix, None, 1000).await.unwrap().entries.len());
    }
    assert!((240..480).contains(&most), "{most}");
}

#[tokio::test]
async fn many_with_one_key_make_one_thing() {
    let scene = Arc::new(Scene::new().await);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move {
                let bearer = format!("Bearer {}", scene.acme);
                let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
                let body = json!({"name": "red", "prefixes": ["10.0.0.0/24"]}).to_string();
                let answer = scene.call("POST", "/v1/networks", &headers, Some(&body)).await;
                assert_eq!(answer.status, 201, "{}", answer.json);
                answer.json["id"].clone()
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn entity_tags_guard_changes() {
    let scene = Scene::new().await;
    scene.vm("web-1").await;
    let bearer = format!("Bearer {}", scene.acme);
    let tag = scene.get("/v1/vms/web-1", &scene.acme).await.headers["etag"].to_str().unwrap().to_owned();
    let rule = json!({"direction": "in", "action": "deny"}).to_string();
    let add = async |tag: &str| {
        let headers = [("Authorization", bearer.as_str()), ("If-Match", tag)];
        scene.call("POST", "/v1/vms/web-1/rules", &headers, Some(&rule)).await.status.as_u16()
    };
    assert_eq!(add(&tag).await, 201);
    assert_eq!(add(&tag).await, 412);
    assert_eq!(add("\"999\"").await, 412);
    assert_eq!(add("*").await, 201);
    let rules = scene.get("/v1/vms/web-1/rules", &scene.acme).await.json;
    assert_eq!(rules["items"].as_array().unwrap().len(), 2);
    // The host follows: the generation has grown with each.
    let vm = scene.get("/v1/vms/web-1", &scene.acme).await.json;
    assert_eq!((&vm["generation"], &vm["rules"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn quotas_and_names_are_kept() {
    let scene = Scene::new().await;
    let bearer = format!("Bearer {}", scene.admin);
    let quota = json!({"quota": {"vms": 0, "networks": 1, "disks": 1}}).to_string();
    let headers = [("Authorization", bearer.as_str())];
    assert_eq!(scene.call("PATCH", "/v1/tenants/acme", &headers, Some(&quota)).await.status, 200);
    let network = json!({"name": "red", "prefixes": ["10.0.0.0/24"]});
    let refused = scene.post("/v1/networks", &scene.acme, &network).await;
    assert_eq!((refused.status.as_u16(), &refused.json["where"]), (409, &json!("quota")));
    // Who removes may have again; a name is free when its thing is gone.
    assert_eq!(scene.delete("/v1/networks/blue", &scene.acme).await.status, 204);
    assert_eq!(scene.get("/v1/networks/blue", &scene.acme).await.status, 404);
    assert_eq!(scene.post("/v1/networks", &scene.acme, &network).await.status, 201);
    assert_eq!(scene.delete("/v1/networks/red", &scene.acme).await.status, 204);
    // A tenant with nothing left can go, and its tokens with it.
    assert_eq!(scene.delete("/v1/tenants/other", &scene.admin).await.status, 409);
    assert_eq!(scene.delete("/v1/tenants/acme", &scene.admin).await.status, 204);
    assert_eq!(scene.get("/v1/vms", &scene.acme).await.status, 401);
    assert_eq!(scene.post("/v1/tenants", &scene.admin, &json!({"name": "acme"})).await.status, 201);
}

#[tokio::test]
async fn disks_are_attached_and_detached() {
    let scene = Scene::new().await;
    let vm = scene.vm("web-1").await;
    scene.vm("web-2").await;
    let made = scene.post("/v1/disks", &scene.acme, &json!({"name": "data", "size_gib": 1})).await;
    assert_eq!(made.status, 201);
    let attach = async |vm: &str| scene.post("/v1/disks/data/attach", &scene.acme, &json!({"vm": vm})).await;
    assert_eq!(attach("web-1").await.json["vm"], vm.to_string());
    assert_eq!(attach("web-1").await.status, 200);
    assert_eq!(attach("web-2").await.status, 409);
    assert_eq!(crate::storage::disks_of(&*scene.store, vm).await.unwrap().len(), 1);
    assert_eq!(scene.delete("/v1/disks/data", &scene.acme).await.status, 409);
    assert_eq!(scene.post("/v1/disks/data/detach", &scene.acme, &Value::Null).await.json["vm"], Value::Null);
    assert!(crate::storage::disks_of(&*scene.store, vm).await.unwrap().is_empty());
    assert_eq!(scene.delete("/v1/disks/data", &scene.acme).await.status, 204);
}

#[tokio::test]
async fn a_pool_is_emptied_before_it_goes() {
    let scene = Scene::new().await;
    let pool = json!({"name": "small", "combination": combination(), "sizing": {"min": 0, "max": 0}});
    assert_eq!(scene.post("/v1/pools", &scene.admin, &pool).await.status, 201);
    assert_eq!(scene.post("/v1/pools", &scene.admin, &pool).await.status, 409);
    assert_eq!(scene.delete("/v1/pools/small", &scene.admin).await.status, 409);
    let bearer = format!("Bearer {}", scene.admin);
    let headers = [("Authorization", bearer.as_str())];
    let drained = scene.call("PATCH", "/v1/pools/small", &headers, Some(r#"{"draining": true}"#)).await;
    assert_eq!(drained.json["draining"], true);
    assert_eq!(scene.delete("/v1/pools/small", &scene.admin).await.status, 204);
    assert_eq!(scene.get("/v1/pools/small", &scene.admin).await.status, 404);
}

/// An operation that only this test moves.
async fn held(scene: &Scene) -> Versioned<Operation> {
    let id = OperationId::new();
    let request = json!({"secret": "in here"});
    let row = new_operation(id, scene.acme_id, JourneyKind::Quarantine, request, None, scene.runner.world());
    let key = operation_key(id).unwrap();
    let mut draft = Draft::new();
    draft.create(&key, &row);
    let revision = draft.commit(&*scene.store).await.unwrap();
    Versioned { key, row, revision }
}

async fn move_to(scene: &Scene, key: &crate::store::Key, state: OperationState) {
    let change = |row: &Operation| {
        let ended_at = state.is_final().then(Timestamp::now);
        Some(Operation { state, ended_at, ..row.clone() })
    };
    rows::update(&*scene.store, key, change).await.unwrap();
}

#[tokio::test]
async fn operations_are_waited_for() {
    let scene = Arc::new(Scene::new().await);
    let operation = held(&scene).await;
    let path = format!("/v1/operations/{}", operation.row.id);
    let short = scene.get(&format!("{path}?wait_ms=1"), &scene.acme).await;
    assert_eq!(short.json["state"], "running");
    assert!(!short.json.to_string().contains("secret"), "a request is not told: {}", short.json);
    let waiting = tokio::spawn({
        let (scene, path) = (scene.clone(), format!("{path}?wait_ms=30000"));
        async move { scene.get(&path, &scene.acme).await.json }
    });
    move_to(&scene, &operation.key, OperationState::Undoing).await;
    move_to(&scene, &operation.key, OperationState::Undone).await;
    let ended = waiting.await.unwrap();
    assert_eq!(ended["state"], "undone");
    assert!(ended["ms"].as_f64().is_some());
}

#[tokio::test]
async fn operations_are_followed_as_events() {
    let scene = Scene::new().await;
    let operation = held(&scene).await;
    let path = format!("/v1/operations/{}/events", operation.row.id);
    let request = Request::get(&path).header("Authorization", format!("Bearer {}", scene.acme));
    let response = scene.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    move_to(&scene, &operation.key, OperationState::Undoing).await;
    move_to(&scene, &operation.key, OperationState::Failed).await;
    // It ends by itself.
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let states: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states, ["running", "undoing", "failed"]);
    assert_eq!(text.matches("event: operation").count(), 3);
}
