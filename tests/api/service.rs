//! What holds for every request: problems, request ids, keys and tenants, health, figures, the description.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::common::app::{TestApp, problem};
use crate::common::samples::member;
use engraft::app::Application;
use engraft::config::Configuration;
use engraft::domain::access::Scope;
use engraft::domain::clock::SystemClock;
use engraft::runtime::lifecycle::Shutdown;
use reqwest::{Method, StatusCode};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_is_a_problem_with_a_request_id() {
    let app = TestApp::start().await;
    let answer = |method: Method, path: &str| app.request(method, path).header("x-request-id", "my-id").send();
    let missing = answer(Method::GET, "/v1/nothing").await.expect("an answer");
    assert_eq!(missing.headers()["x-request-id"], "my-id", "the client's id is taken over");
    let (status, code, body) = problem(missing).await;
    assert_eq!(
        (status, code.as_str(), &body["request_id"]),
        (StatusCode::NOT_FOUND, "not_found", &Value::from("my-id"))
    );
    assert_eq!(body["type"], "urn:engraft:problem:not_found");

    let method = answer(Method::PATCH, "/v1/checkpoints").await.expect("an answer");
    assert!(method.headers()["allow"].to_str().expect("text").contains("GET"));
    assert_eq!(problem(method).await.1, "method_not_allowed");
    let query = answer(Method::GET, "/v1/checkpoints?limit=1000&colour=red").await.expect("an answer");
    let (status, _, body) = problem(query).await;
    assert_eq!((status, body["errors"].as_array().map(Vec::len)), (StatusCode::UNPROCESSABLE_ENTITY, Some(2)));

    let unprintable = app.get("/healthz").header("x-request-id", "a b").send().await.expect("an answer");
    assert_ne!(unprintable.headers()["x-request-id"], "a b");
    assert_eq!(unprintable.headers()["x-content-type-options"], "nosniff");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_what_their_scope_and_tenant_allow() {
    let app = TestApp::start().await;
    let open = app.get("/v1/checkpoints").send().await.expect("an answer");
    assert_eq!(open.status(), StatusCode::OK, "without any key, loopback is open");
    let (mine, reader, other, admin) = (
        app.key("vision", Scope::Write).await,
        app.key("vision", Scope::Read).await,
        app.key("audio", Scope::Write).await,
        app.key("vision", Scope::Admin).await,
    );
    let none = app.get("/v1/checkpoints").send().await.expect("an answer");
    assert!(none.headers()["www-authenticate"].to_str().expect("text").starts_with("Bearer"));
    assert_eq!(problem(none).await.1, "unauthorized");
    for header in
        ["Bearer engraft_00", "Basic abc", "Bearer", &format!("Bearer {}", "engraft_".to_owned() + &"0".repeat(64))]
    {
        let wrong = app.get("/v1/checkpoints").header("authorization", header).send().await.expect("an answer");
        assert_eq!(problem(wrong).await.0, StatusCode::UNAUTHORIZED, "{header}");
    }

    let put = |key: &str| app.put("/v1/checkpoints/m0", member()).bearer_auth(key).send();
    assert_eq!(problem(put(&reader).await.expect("an answer")).await.1, "forbidden");
    let created = put(&mine).await.expect("an answer");
    assert_eq!(created.status(), StatusCode::CREATED);
    let address = created.headers()["location"].to_str().expect("text").to_owned();
    let status = async |key: &str, method: Method, path: &str| {
        app.request(method, path).bearer_auth(key).send().await.expect("an answer").status()
    };
    assert_eq!(status(&reader, Method::GET, &address).await, StatusCode::OK);
    for path in [address.as_str(), "/v1/checkpoints/m0", &format!("{address}/content")] {
        assert_eq!(status(&other, Method::GET, path).await, StatusCode::NOT_FOUND, "{path} is another tenant's");
    }
    assert_eq!(status(&other, Method::DELETE, &address).await, StatusCode::NOT_FOUND);
    assert_eq!(put(&other).await.expect("an answer").status(), StatusCode::CREATED, "names are per tenant");
    assert_eq!(status(&mine, Method::GET, "/metrics").await, StatusCode::FORBIDDEN);
    assert_eq!(status(&admin, Method::GET, "/metrics").await, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_key_needs_no_database() {
    let secret = format!("engraft_{}", "ab".repeat(32));
    let app = TestApp::builder().settings(|settings| settings.bootstrap_key = Some(secret.clone())).start().await;
    assert_eq!(problem(app.get("/v1/checkpoints").send().await.expect("an answer")).await.1, "unauthorized");
    let with = app.get("/metrics").bearer_auth(&secret).send().await.expect("an answer");
    assert_eq!(with.status(), StatusCode::OK);
    app.stop().await;
}

#[tokio::test]
async fn without_a_key_the_server_refuses_to_leave_loopback() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = Configuration::default();
    settings.server.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    settings.storage.data_dir = folder.path().into();
    let refused = Application::build(settings, Arc::new(SystemClock), Shutdown::new()).await.expect_err("no key");
    let text = refused.to_string();
    assert!(text.contains("engraft keys create") && text.contains("ENGRAFT_API_KEY"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_gets_nothing_from_a_server_without_keys() {
    let app = TestApp::start().await;
    app.put("/v1/checkpoints/m0", member()).send().await.expect("an answer");
    let code = async |request: reqwest::RequestBuilder| problem(request.send().await.expect("an answer")).await.1;
    let rebound = |method: Method, path: &str| app.request(method, path).header("host", "evil.example");
    assert_eq!(code(rebound(Method::GET, "/v1/checkpoints")).await, "host_not_allowed");
    assert_eq!(code(rebound(Method::DELETE, "/v1/checkpoints/m0")).await, "host_not_allowed");
    for path in ["/healthz", "/readyz"] {
        let health = rebound(Method::GET, path).send().await.expect("an answer");
        assert_eq!(health.status(), StatusCode::OK, "monitors ask {path} by any name");
    }
    let foreign = app.request(Method::POST, "/v1/jobs/any/cancel").header("origin", "http://evil.example");
    assert_eq!(code(foreign.header("content-type", "text/plain").body("x")).await, "cross_origin");
    let form = app.request(Method::POST, "/v1/jobs/any/cancel").header("content-type", "text/plain").body("x");
    assert_eq!(code(form).await, "unsupported_media_type");
    assert_eq!(app.get("/v1/checkpoints/m0").send().await.expect("an answer").status(), StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_allowed_origins_use_the_api_and_read_its_refusals() {
    let ours = "http://ui.example:5173";
    let allow = |settings: &mut Configuration| settings.server.allow_origin = ours.parse().expect("an origin");
    let app = TestApp::builder().settings(allow).start().await;
    let preflight = async |origin: &str| {
        let asked = app.request(Method::OPTIONS, "/v1/jobs").header("origin", origin);
        let asked = asked
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,idempotency-key");
        asked.send().await.expect("an answer")
    };
    let allowed = preflight(ours).await;
    assert!(allowed.status().is_success(), "{}", allowed.status());
    let header =
        |answer: &reqwest::Response, name: &str| answer.headers().get(name).map(|value| value.as_bytes().to_vec());
    assert_eq!(header(&allowed, "access-control-allow-origin").as_deref(), Some(ours.as_bytes()));
    assert_eq!(header(&allowed, "access-control-allow-credentials"), None, "no cookies");
    let sent = allowed.headers()["access-control-allow-headers"].to_str().expect("text").to_owned();
    assert!(["authorization", "idempotency-key", "upload-offset"].iter().all(|name| sent.contains(name)), "{sent}");
    assert_eq!(header(&preflight("http://evil.example").await, "access-control-allow-origin"), None);

    let page = app.get("/v1/checkpoints/none").header("origin", ours).header("sec-fetch-site", "cross-site");
    let refused = page.send().await.expect("an answer");
    assert_eq!(header(&refused, "access-control-allow-origin").as_deref(), Some(ours.as_bytes()));
    assert!(refused.headers()["vary"].to_str().expect("text").contains("origin"));
    assert_eq!(problem(refused).await.1, "not_found");
    let foreign = app.get("/v1/checkpoints").header("origin", "http://evil.example").send().await.expect("an answer");
    assert_eq!(header(&foreign, "access-control-allow-origin"), None);
    assert_eq!(problem(foreign).await.1, "cross_origin");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_shows_health_figures_and_description() {
    let app = TestApp::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(app.get(path).send().await.expect("an answer").status(), StatusCode::OK, "{path}");
    }
    app.get("/v1/nothing").send().await.expect("an answer");
    app.put("/v1/checkpoints/m0", member()).send().await.expect("an answer");
    let metrics = app.get("/metrics").send().await.expect("an answer").text().await.expect("text");
    for part in [
        "engraft_http_requests_total{route=\"/v1/checkpoints/{name}\",method=\"PUT\",status=\"201\",code=\"\"} 1",
        "engraft_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"404\",code=\"not_found\"} 1",
        "engraft_connections ",
        "engraft_uploaded_bytes_total{kind=\"checkpoint\"}",
        "engraft_jobs{state=\"queued\"} 0",
    ] {
        assert!(metrics.contains(part), "{part} is not in\n{metrics}");
    }
    assert!(!metrics.contains("ckpt_"), "ids must not become labels");
    let document: Value = app.get("/openapi.json").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let families: Value = app.get("/v1/architectures").send().await.expect("an answer").json().await.expect("JSON");
    assert!(families["data"].as_array().expect("a list").iter().any(|family| family["name"] == "mlp"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_look_at_its_disk_is_not_ready() {
    let app = TestApp::start().await;
    std::fs::rename(app.folder.path(), app.folder.path().with_extension("elsewhere")).expect("renames");
    let unready = app.get("/readyz").send().await.expect("an answer");
    assert_eq!(unready.headers()["retry-after"], "5");
    let (status, code, body) = problem(unready).await;
    assert_eq!((status, code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert!(body["detail"].as_str().expect("text").contains("free space"), "{body}");
    std::fs::rename(app.folder.path().with_extension("elsewhere"), app.folder.path()).expect("renames back");
    assert_eq!(app.get("/readyz").send().await.expect("an answer").status(), StatusCode::OK);
    app.stop().await;
}
