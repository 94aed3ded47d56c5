//! Bad input: each answer is a problem document (the scene checks that), has the right status, and names the field.

use super::*;

#[tokio::test]
async fn bad_bodies_name_the_field() {
    let scene = Scene::new().await;
    scene.vm("web-1").await;
    let good = json!({"name": "web-2", "combination": combination(), "network": "blue"});
    let with = |pointer: &str, value: Value| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let mut body = good.clone();
        body.pointer_mut(parent).unwrap()[field] = value;
        body
    };
    let file = |path: &str, mode: &str, content: &str| json!({"files": [{"path": path, "mode": mode, "content_base64": content}]});
    for (body, field) in [
        (with("/name", json!("Web")), "name"),
        (with("/name", json!(7)), "name"),
        (with("/naem", json!("x")), "naem"),
        (with("/combination/vcpus", json!(0)), "combination.vcpus"),
        (with("/combination/vcpus", json!(70_000)), "combination.vcpus"),
        (with("/combination/memory_mib", json!(1)), "combination.memory_mib"),
        (with("/combination/ip_routing", json!("ipx")), "combination.ip_routing"),
        (with("/addresses", json!(["10.0.0"])), "addresses[0]"),
        (with("/addresses", json!(["10.0.0.5", "10.0.0.6"])), "addresses"),
        (with("/settings", file("etc/x", "0644", "")), "settings.files[0].path"),
        (with("/settings", file("/etc/../x", "0644", "")), "settings.files[0].path"),
        (with("/settings", file("/x", "99999", "")), "settings.files[0].mode"),
        (with("/settings", file("/x", "0644", "%%")), "settings.files[0].content_base64"),
        (with("/settings", json!({"script": "x".repeat(200_000)})), "settings"),
        (with("/rules", json!([{"direction": "in", "action": "allow", "ports": "1"}])), "ports"),
        (with("/rules", json!([{"direction": "up", "action": "allow"}])), "rules[0].direction"),
        (json!({"name": "web-2"}), "combination"),
    ] {
        let answer = scene.post("/v1/vms", &scene.acme, &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["field"]), (400, &json!(field)), "{}", answer.json);
    }
    for (body, field) in [
        (json!({"name": "x", "prefixes": []}), "prefixes"),
        (json!({"name": "x", "prefixes": ["10.0.0.1/24"]}), "prefixes"),
        (json!({"name": "x", "prefixes": ["10.0.0.0/24", "10.0.0.0/25"]}), "prefixes"),
        (json!({"name": "x", "prefixes": ["127.0.0.0/8"]}), "prefixes"),
        (json!({"name": "x", "prefixes": ["x"]}), "prefixes[0]"),
        (json!({"name": "x", "prefixes": ["10.0.0.0/24"], "mtu": 5}), "mtu"),
        (json!({"name": "x", "prefixes": ["10.0.0.0/24"], "lease_seconds": 1}), "lease_seconds"),
    ] {
        let answer = scene.post("/v1/networks", &scene.acme, &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["field"]), (400, &json!(field)), "{}", answer.json);
    }
    let rule = |more: Value| {
        let mut rule = json!({"direction": "in", "action": "allow"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    for (body, field) in [
        (rule(json!({"remote": "10.0.0.1/8"})), "remote"),
        (rule(json!({"protocol": "icmp", "remote": "fd00::/8"})), "remote"),
        (rule(json!({"ports": "80"})), "ports"),
        (rule(json!({"protocol": "tcp", "ports": "90-80"})), "ports"),
        (rule(json!({"icmp_type": 8})), "icmp_type"),
        (rule(json!({"protocol": "sctp?"})), "protocol"),
        (rule(json!({"remote": "10.0.0.0/8", "remote_vm": "web-1"})), "remote_vm"),
    ] {
        let answer = scene.post("/v1/vms/web-1/rules", &scene.acme, &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["field"]), (400, &json!(field)), "{}", answer.json);
    }
    for (sizing, field) in [
        (json!({"min": 2, "max": 1}), "sizing.min"),
        (json!({"min": 0, "max": 100_000}), "sizing.max"),
        (json!({"min": 0, "max": 1, "hit_rate": 1.5}), "sizing.hit_rate"),
        (json!({"min": 0, "max": 1, "budget_hours": -1.0}), "sizing.budget_hours"),
    ] {
        let body = json!({"name": "x", "combination": combination(), "sizing": sizing});
        let answer = scene.post("/v1/pools", &scene.admin, &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["field"]), (400, &json!(field)), "{}", answer.json);
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let scene = Scene::new().await;
    let bearer = format!("Bearer {}", scene.acme);
    let ask = async |method: &str, path: &str, more: &[(&str, &str)], body: Option<&str>| {
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(more);
        let answer = scene.call(method, path, &headers, body).await;
        (answer.status.as_u16(), answer.json["field"].clone())
    };
    let field = |text: &str| json!(text);
    let long = "x".repeat(1 << 20 | 1);
    assert_eq!(ask("POST", "/v1/networks", &[], Some("{")).await, (400, Value::Null));
    assert_eq!(ask("POST", "/v1/networks", &[], Some("{} x")).await.0, 400);
    assert_eq!(ask("POST", "/v1/networks", &[("Content-Type", "text/plain")], Some("{}")).await.0, 415);
    assert_eq!(ask("POST", "/v1/networks", &[], None).await.0, 415);
    assert_eq!(ask("POST", "/v1/networks", &[], Some(&long)).await.0, 413);
    assert_eq!(ask("PUT", "/v1/networks", &[], Some("{}")).await.0, 405);
    assert_eq!(ask("GET", "/v1/nothing", &[], None).await.0, 404);
    assert_eq!(ask("GET", "/", &[], None).await.0, 404);
    assert_eq!(ask("GET", "/v1/vms/%ff", &[], None).await.0, 404);
    assert_eq!(ask("GET", "/v1/vms/%00", &[], None).await.0, 404);
    assert_eq!(ask("GET", "/v1/vms/..%2f..%2ftoken", &[], None).await.0, 404);
    assert_eq!(ask("DELETE", "/v1/vms/x/rules/y", &[], None).await.0, 404);
    assert_eq!(ask("GET", "/v1/vms?limit=0", &[], None).await, (400, field("limit")));
    assert_eq!(ask("GET", "/v1/vms?limit=501", &[], None).await, (400, field("limit")));
    assert_eq!(ask("GET", "/v1/vms?limit=x", &[], None).await, (400, field("limit")));
    assert_eq!(ask("GET", "/v1/vms?after=x", &[], None).await, (400, field("after")));
    assert_eq!(ask("GET", "/v1/vms?lmit=1", &[], None).await, (400, field("lmit")));
    assert_eq!(ask("GET", "/v1/vms", &[("Shunt-Tenant", "other")], None).await.0, 403);
    assert_eq!(ask("GET", "/v1/vms", &[("Authorization", "Bearer x")], None).await.0, 401);
    let body = json!({"name": "x", "size_gib": 1}).to_string();
    let key = [("Idempotency-Key", "")];
    assert_eq!(ask("POST", "/v1/disks", &key, Some(&body)).await, (400, field("Idempotency-Key")));
    let operation = crate::model::OperationId::new();
    assert_eq!(ask("GET", &format!("/v1/operations/{operation}"), &[], None).await.0, 404);
    let path = format!("/v1/operations/{operation}?wait_ms=99999");
    assert_eq!(ask("GET", &path, &[], None).await, (400, field("wait_ms")));
}
