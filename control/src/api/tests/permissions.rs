//! Every route × who asks. The routes come from the OpenAPI document, so a new one cannot be forgotten.

use std::collections::BTreeSet;

use super::*;

/// Whose route it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Administrators only.
    Admins,
    /// Tenants, and administrators; without a thing of anybody's in the path.
    All,
    /// The tenant whose thing is in the path, and administrators.
    Owner,
}
use For::{Admins, All, Owner};

/// Method, path in the document, whose, a body that makes sense.
fn table() -> Vec<(&'static str, &'static str, For, Value)> {
    let none = || Value::Null;
    vec![
        ("get", "/v1/tenants", All, none()),
        ("post", "/v1/tenants", Admins, json!({"name": "third"})),
        ("get", "/v1/tenants/{tenant}", Owner, none()),
        ("patch", "/v1/tenants/{tenant}", Admins, json!({"quota": {"vms": 1, "networks": 1, "disks": 1}})),
        ("delete", "/v1/tenants/{tenant}", Admins, none()),
        ("get", "/v1/tokens", All, none()),
        ("post", "/v1/tokens", All, json!({"role": "read_only"})),
        ("delete", "/v1/tokens/{token}", Owner, none()),
        ("get", "/v1/networks", All, none()),
        ("post", "/v1/networks", All, json!({"name": "red", "prefixes": ["10.0.0.0/24"]})),
        ("get", "/v1/networks/{network}", Owner, none()),
        ("delete", "/v1/networks/{network}", Owner, none()),
        ("get", "/v1/pools", Admins, none()),
        (
            "post",
            "/v1/pools",
            Admins,
            json!({"name": "big", "combination": combination(), "sizing": {"min": 0, "max": 1}}),
        ),
        ("get", "/v1/pools/{pool}", Admins, none()),
        ("patch", "/v1/pools/{pool}", Admins, json!({"draining": true})),
        ("delete", "/v1/pools/{pool}", Admins, none()),
        ("get", "/v1/vms", All, none()),
        ("post", "/v1/vms", All, json!({"name": "web-2", "combination": combination(), "network": "blue"})),
        ("get", "/v1/vms/{vm}", Owner, none()),
        ("delete", "/v1/vms/{vm}", Owner, none()),
        ("post", "/v1/vms/{vm}/network-change", Owner, json!({"name": "web-3"})),
        ("post", "/v1/vms/{vm}/quarantine", Owner, json!({})),
        ("post", "/v1/vms/{vm}/release", Owner, json!({})),
        ("get", "/v1/vms/{vm}/rules", Owner, none()),
        ("post", "/v1/vms/{vm}/rules", Owner, json!({"direction": "in", "action": "deny"})),
        ("delete", "/v1/vms/{vm}/rules/{number}", Owner, none()),
        ("get", "/v1/disks", All, none()),
        ("post", "/v1/disks", All, json!({"name": "data-2", "size_gib": 1})),
        ("get", "/v1/disks/{disk}", Owner, none()),
        ("delete", "/v1/disks/{disk}", Owner, none()),
        ("post", "/v1/disks/{disk}/attach", Owner, json!({"vm": "web-1"})),
        ("post", "/v1/disks/{disk}/detach", Owner, none()),
        ("get", "/v1/hosts", Admins, none()),
        ("post", "/v1/hosts/tokens", Admins, json!({"name": "host-9"})),
        ("get", "/v1/hosts/{host}", Admins, none()),
        ("patch", "/v1/hosts/{host}", Admins, json!({"state": "cordoned"})),
        ("get", "/v1/operations", All, none()),
        ("get", "/v1/operations/{operation}", Owner, none()),
        ("get", "/v1/operations/{operation}/events", Owner, none()),
    ]
}

/// A scene with one of everything of acme's, and the path with those things in it.
async fn furnished(path: &str) -> (Scene, String) {
    let scene = Scene::new().await;
    scene.vm("web-1").await;
    let rule = json!({"direction": "in", "action": "allow"});
    assert_eq!(scene.post("/v1/vms/web-1/rules", &scene.acme, &rule).await.status, 201);
    let made = scene.post("/v1/disks", &scene.acme, &json!({"name": "data-1", "size_gib": 1})).await;
    let disk = made.json["id"].as_str().unwrap().to_owned();
    let pool = json!({"name": "small", "combination": combination(), "sizing": {"min": 0, "max": 1}});
    assert_eq!(scene.post("/v1/pools", &scene.admin, &pool).await.status, 201);
    let token = scene.post("/v1/tokens", &scene.acme, &json!({"role": "read_only"})).await;
    let token = token.json["token"]["id"].as_str().unwrap().to_owned();
    let vm = scene.get("/v1/vms/web-1", &scene.acme).await.json["id"].as_str().unwrap().to_owned();
    let network = scene.get("/v1/networks/blue", &scene.acme).await.json["id"].as_str().unwrap().to_owned();
    // Over by the time that anybody looks: events end.
    let operation = scene.post("/v1/vms/web-1/release", &scene.acme, &json!({})).await;
    let operation = operation.json["id"].as_str().unwrap().to_owned();
    let waited = scene.get(&format!("/v1/operations/{operation}?wait_ms=10000"), &scene.acme).await;
    assert_eq!(waited.json["state"], "undone", "{}", waited.json);
    let path = path
        .replace("{tenant}", &scene.acme_id.to_string())
        .replace("{token}", &token)
        .replace("{network}", &network)
        .replace("{pool}", "small")
        .replace("{vm}", &vm)
        .replace("{number}", "1")
        .replace("{disk}", &disk)
        .replace("{host}", "host-of-web-1")
        .replace("{operation}", &operation);
    (scene, path)
}

#[test]
fn the_table_has_every_route() {
    let document = serde_json::to_value(document()).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| key.len() <= 6);
            methods.map(|method| (method.clone(), path.clone()))
        })
        .collect();
    let tabled = table().into_iter().map(|(method, path, ..)| (method.into(), path.into())).collect();
    assert_eq!(described, tabled, "left: described; right: in the table of this test");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_knows_who_asks() {
    for (method, path, whose, body) in table() {
        let (scene, path) = furnished(path).await;
        let body = (!body.is_null()).then(|| body.to_string());
        let writes = method != "get";
        let ask = async |token: Option<&str>, tenant: Option<&str>| {
            let bearer = token.map(|token| format!("Bearer {token}"));
            let mut headers = Vec::new();
            headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
            headers.extend(tenant.map(|tenant| ("Shunt-Tenant", tenant)));
            scene.call(&method.to_uppercase(), &path, &headers, body.as_deref()).await.status.as_u16()
        };
        let at = format!("{method} {path}");
        // Nobody, and somebody with a wrong token.
        assert_eq!(ask(None, None).await, 401, "{at}: no token");
        assert_eq!(ask(Some("shunt_0000"), None).await, 401, "{at}: wrong token");
        assert_eq!(ask(Some("Basic"), None).await, 401, "{at}: no token at all");
        // Who may only look.
        let looked = ask(Some(&scene.looker), None).await;
        match (whose, writes) {
            (_, true) | (Admins, _) => assert_eq!(looked, 403, "{at}: read only"),
            _ => assert_eq!(looked, 200, "{at}: read only"),
        }
        // Another tenant: things of this one are not there, and it cannot pretend to be this one.
        let foreign = ask(Some(&scene.other), None).await;
        match whose {
            Admins => assert_eq!(foreign, 403, "{at}: another tenant"),
            Owner => assert_eq!(foreign, 404, "{at}: another tenant"),
            All => assert!(foreign < 300, "{at}: another tenant: {foreign}"),
        }
        assert_eq!(ask(Some(&scene.other), Some("acme")).await, 403, "{at}: pretending");
        assert_eq!(ask(Some(&scene.other), Some("nobody")).await, 403, "{at}: pretending to be nobody");
        // An administrator who acts for another tenant has that one's eyes, platform things aside.
        let as_other = ask(Some(&scene.admin), Some("other")).await;
        if whose == Owner && !path.starts_with("/v1/tenants/") {
            assert_eq!(as_other, 404, "{at}: an administrator for another tenant");
        }
        // The tenant itself. What has already been done above is a conflict at most.
        let own = ask(Some(&scene.acme), None).await;
        match whose {
            Admins => assert_eq!(own, 403, "{at}: the tenant"),
            _ => assert!(own < 300 || own == 409, "{at}: the tenant: {own}"),
        }
        // An administrator.
        let admin = ask(Some(&scene.admin), Some("acme")).await;
        let gone = method == "delete" && whose == Owner;
        assert!(admin < 300 || admin == 409 || gone && admin == 404, "{at}: an administrator: {admin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_hold_only_ones_own() {
    let (scene, _) = furnished("").await;
    for noun in ["vms", "networks", "disks", "operations", "tenants", "tokens"] {
        let path = format!("/v1/{noun}");
        let own = scene.get(&path, &scene.acme).await.json;
        let items = own["items"].as_array().unwrap();
        assert!(!items.is_empty(), "{noun}");
        for item in items {
            let owner = if noun == "tenants" { &item["id"] } else { &item["tenant"] };
            assert_eq!(*owner, scene.acme_id.to_string(), "{noun}");
        }
        let foreign = scene.get(&path, &scene.other).await.json;
        let text = foreign.to_string();
        assert!(!text.contains(&scene.acme_id.to_string()), "{noun}: {text}");
        // An administrator sees all of them.
        let all = scene.get(&path, &scene.admin).await.json;
        assert!(all["items"].as_array().unwrap().len() >= items.len(), "{noun}");
    }
}

/// A tenant's words for others' things: neither by name nor by id, neither in a path nor in a body.
#[tokio::test(flavor = "multi_thread")]
async fn others_things_cannot_be_named() {
    let (scene, _) = furnished("").await;
    let id = |json: &Value| json["id"].as_str().unwrap().to_owned();
    let vm = id(&scene.get("/v1/vms/web-1", &scene.acme).await.json);
    let blue = scene.get("/v1/networks/blue", &scene.acme).await.json;
    let disk = scene.post("/v1/disks", &scene.other, &json!({"name": "mine", "size_gib": 1})).await;
    assert_eq!(disk.status, 201);
    assert_eq!(scene.post("/v1/disks/mine/attach", &scene.other, &json!({"vm": vm})).await.status, 404);
    for network in
        [id(&blue), blue["moniker"].as_str().unwrap().into(), "placeholder".into(), "quarantine".into()]
    {
        let wish = json!({"name": "x", "combination": combination(), "network": network});
        assert_eq!(scene.post("/v1/vms", &scene.other, &wish).await.status, 404, "{network}");
        assert_eq!(
            scene.get(&format!("/v1/networks/{network}"), &scene.other).await.status,
            404,
            "{network}"
        );
    }
    let rule = json!({"direction": "in", "action": "allow", "remote_vm": vm});
    let wish = json!({"name": "x", "combination": combination(), "network": "blue", "rules": [rule]});
    assert_eq!(scene.post("/v1/vms", &scene.other, &wish).await.status, 404);
    // An administrator may not mix tenants either.
    let mine = scene.get("/v1/networks/blue", &scene.other).await.json;
    let change = json!({"network": id(&mine)});
    let path = format!("/v1/vms/{vm}/network-change");
    assert_eq!(scene.post(&path, &scene.admin, &change).await.status, 404);
    // And hosts are nobody's business but theirs.
    let seen = scene.get("/v1/vms/web-1", &scene.acme).await.json;
    assert!(seen.get("host").is_none() && seen.get("physical_ip").is_none(), "{seen}");
}

#[tokio::test]
async fn tokens_end() {
    let scene = Scene::new().await;
    let issued = scene.post("/v1/tokens", &scene.acme, &json!({"role": "tenant", "note": "ci"})).await;
    assert_eq!(issued.status, 201);
    let secret = issued.json["secret"].as_str().unwrap();
    let id = issued.json["token"]["id"].as_str().unwrap();
    assert_eq!(scene.get("/v1/vms", secret).await.status, 200);
    assert!(!scene.get("/v1/tokens", &scene.acme).await.json.to_string().contains(secret));
    assert_eq!(scene.delete(&format!("/v1/tokens/{id}"), &scene.acme).await.status, 204);
    assert_eq!(scene.get("/v1/vms", secret).await.status, 401);
    // No tenant makes administrators.
    assert_eq!(scene.post("/v1/tokens", &scene.acme, &json!({"role": "admin"})).await.status, 403);
    let past = json!({"role": "tenant", "expires_at": "2020-01-01T00:00:00Z"});
    assert_eq!(scene.post("/v1/tokens", &scene.acme, &past).await.json["field"], "expires_at");
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let scene = Scene::new().await;
    let all = scene.get("/v1/tokens", &scene.admin).await.json;
    let administrators: Vec<&str> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|token| token["role"] == "admin")
        .map(|token| token["id"].as_str().unwrap())
        .collect();
    assert_eq!(administrators.len(), 1);
    let last = format!("/v1/tokens/{}", administrators[0]);
    let refused = scene.delete(&last, &scene.admin).await;
    assert_eq!(refused.status, 409, "{}", refused.json);
    assert_eq!(scene.get("/v1/tokens", &scene.admin).await.status, 200);
    let other = scene.post("/v1/tokens", &scene.admin, &json!({"role": "admin"})).await;
    assert_eq!(other.status, 201);
    assert_eq!(scene.delete(&last, &scene.admin).await.status, 204);
    assert_eq!(scene.get("/v1/tokens", other.json["secret"].as_str().unwrap()).await.status, 200);
}
