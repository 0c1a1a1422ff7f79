//! Tenants share a server: each in its turn, none more than its limits.

use std::time::{Duration, Instant};

use crate::common::app::{TestApp, problem};
use crate::common::samples::{member, safetensors, script};
use engraft::config::ByteSize;
use engraft::domain::access::{Scope, Tenant};
use engraft::domain::quota::TenantResource;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_no_more_bytes_and_files_than_it_may() {
    let file = member();
    let length = file.len() as u64;
    let app = TestApp::builder().settings(|settings| settings.tenants.tenant_bytes = ByteSize(2 * length + 10));
    let app = app.start().await;
    let put = |name: &str, bytes: Vec<u8>| app.put(&format!("/v1/checkpoints/{name}"), bytes).send();
    for name in ["a", "b", "a"] {
        assert!(put(name, file.clone()).await.expect("an answer").status().is_success(), "{name}");
    }
    let (status, code, body) = problem(put("c", file.clone()).await.expect("an answer")).await;
    assert_eq!((status.as_u16(), code.as_str()), (507, "quota_exceeded"));
    let detail = body["detail"].as_str().expect("text");
    assert!(detail.contains(&format!("{} are there", 2 * length)) && detail.contains("adds"), "{detail}");

    // A body of unknown length ends at the last byte that the tenant may have, and leaves nothing.
    let parts = file.chunks(16).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect::<Vec<_>>();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
    let (status, code, _) = problem(app.put("/v1/checkpoints/d", body).send().await.expect("an answer")).await;
    assert_eq!((status.as_u16(), code.as_str()), (507, "quota_exceeded"));
    let left: Value = app.get("/v1/uploads").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(left["data"], json!([]));

    let gone = app.request(Method::DELETE, "/v1/checkpoints/b").send().await.expect("an answer");
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert_eq!(put("c", file.clone()).await.expect("an answer").status(), StatusCode::CREATED, "there is room again");

    // A limit of its own comes before the default, at once.
    app.state.tenants.set(&Tenant::default(), TenantResource::Bytes, Some(0)).await.expect("writes");
    app.state.tenants.set(&Tenant::default(), TenantResource::Files, Some(3)).await.expect("writes");
    let larger = safetensors(&[("w", &[9, 9])]);
    assert_eq!(put("e", larger.clone()).await.expect("an answer").status(), StatusCode::CREATED);
    let (_, code, body) = problem(put("f", larger).await.expect("an answer")).await;
    assert_eq!(code, "quota_exceeded");
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("At most 3 checkpoints")), "{body}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_listed_limited_and_deleted_by_their_owner() {
    let app = TestApp::builder().settings(|settings| settings.tenants.tenant_uploads = 2).start().await;
    let (mine, other) = (app.key("vision", Scope::Write).await, app.key("audio", Scope::Write).await);
    let begin = |key: &str, name: &str| {
        let range = format!("bytes 0-9/{}", member().len());
        let put = app.put(&format!("/v1/checkpoints/{name}"), member()[..10].to_vec());
        put.bearer_auth(key).header("content-range", range).send()
    };
    for name in ["a", "b"] {
        assert!(begin(&mine, name).await.expect("an answer").status().is_success());
    }
    let refused = begin(&mine, "c").await.expect("an answer");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(problem(refused).await.1, "too_many");
    assert!(begin(&other, "c").await.expect("an answer").status().is_success(), "the limit is each tenant's");

    let list = |key: &str| app.get("/v1/uploads").bearer_auth(key).send();
    let listed: Value = list(&mine).await.expect("an answer").json().await.expect("JSON");
    let names: Vec<&str> =
        listed["data"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((&listed["data"][0]["offset"], &listed["data"][0]["bytes"]), (&json!(10), &json!(member().len())));
    let address = format!("/v1/uploads/{}", listed["data"][0]["id"].as_str().expect("an id"));
    let delete = |key: &str| app.request(Method::DELETE, &address).bearer_auth(key).send();
    assert_eq!(problem(delete(&other).await.expect("an answer")).await.1, "not_found", "it is another tenant's");
    assert_eq!(delete(&mine).await.expect("an answer").status(), StatusCode::NO_CONTENT);
    assert_eq!(problem(delete(&mine).await.expect("an answer")).await.1, "not_found");
    assert!(begin(&mine, "c").await.expect("an answer").status().is_success(), "there is room again");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_asks_too_fast_is_slowed_down_alone() {
    let app = TestApp::start().await;
    let (fast, other) = (app.key("fast", Scope::Read).await, app.key("other", Scope::Read).await);
    let tenant: Tenant = "fast".parse().expect("a tenant");
    app.state.tenants.set(&tenant, TenantResource::RequestsPerSecond, Some(2)).await.expect("writes");
    let ask = |key: &str| app.get("/v1/jobs").bearer_auth(key).send();
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(ask(&fast).await.expect("an answer").status().as_u16());
    }
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert!((20..=30).contains(&passed), "ten seconds' worth at once: {statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
    assert_eq!(ask(&other).await.expect("an answer").status(), StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_datasets_of_one_tenant_do_not_hold_up_anothers() {
    let folder = tempfile::tempdir().expect("a folder");
    // Reading takes as long as the file says.
    let slow = script(
        folder.path(),
        "for file; do :; done\nsleep $(head -c 2 \"$file\")\necho '{\"Err\": {\"code\": \"dataset_invalid\", \"detail\": \"read\", \"errors\": []}}'",
    );
    let app = TestApp::builder().settings(|settings| settings.program = Some(slow)).start().await;
    let (many, one) = (app.key("many", Scope::Write).await, app.key("one", Scope::Write).await);
    for index in 0..4 {
        let sent = app.put(&format!("/v1/datasets/d{index}"), "30").bearer_auth(&many).send().await.expect("an answer");
        assert!(sent.status().is_success());
    }
    let since = Instant::now();
    let sent = app.put("/v1/datasets/mine", "0 ").bearer_auth(&one).send().await.expect("an answer");
    assert!(sent.status().is_success());
    loop {
        let view = app.get("/v1/datasets/mine").bearer_auth(&one).send().await.expect("an answer");
        let view: Value = view.json().await.expect("JSON");
        if view["state"] == "invalid" {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "it waits for the other tenant's: {view}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_says_whose_key_queued_it_and_a_repeated_one_too() {
    let app = TestApp::start().await;
    let keys = [app.key("vision", Scope::Write).await, app.key("vision", Scope::Write).await];
    for name in ["m0", "m1"] {
        let sent = app.put(&format!("/v1/checkpoints/{name}"), member()).bearer_auth(&keys[0]).send().await;
        assert!(sent.expect("an answer").status().is_success());
    }
    let post = async |path: &str, body: Value| -> Value {
        let sent = app.request(Method::POST, path).bearer_auth(&keys[0]).json(&body).send().await.expect("an answer");
        assert!(sent.status().is_success(), "{path}: {}", sent.status());
        sent.json().await.expect("JSON")
    };
    let job = post("/v1/jobs", json!({"members": ["m0", "m1"], "architecture": {"assume": true}})).await;
    assert_eq!(job["owner"], "test", "what is written on the key");
    let path = format!("/v1/jobs/{}", job["id"].as_str().expect("an id"));
    post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(post(&format!("{path}/retry"), json!({})).await["owner"], "test");
    let list = app.get("/v1/jobs").bearer_auth(&keys[1]).send().await.expect("an answer");
    let list: Value = list.json().await.expect("JSON");
    assert!(list["data"].as_array().expect("jobs").iter().all(|job| job["owner"] == "test"), "{list}");
    app.stop().await;
}
