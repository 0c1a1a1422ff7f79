//! `/v1/jobs` over HTTP. What computes is a shell script that speaks the child's protocol, so that each answer of the
//! API can be provoked.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::app::{TestApp, problem};
use crate::common::samples::{member, script, sha256};
use engraft::config::Seconds;
use engraft::domain::access::Scope;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// Does what the job's seed says: 1 waits until it is stopped, 2 fails, anything else succeeds.
const CHILD: &str = r#"
test "$1" = run-job || exit 9
say() { printf '%s\n' "$1"; }
file() { printf '%s' "$2" > "$1"; printf '{"name":"%s","path":"%s/%s","sha256":"%s","bytes":%d,"media_type":"%s"}' "$1" "$PWD" "$1" "$(printf '%s' "$2" | sha256sum | cut -d' ' -f1)" ${#2} "$3"; }
read -r task
say '{"type":"phase","phase":"load"}'
say '{"type":"log","level":"warning","message":"a word of warning"}'
case "$task" in
*'"seed":1,'*|*'"seed":1}'*) read -r command && say '{"type":"stopped"}'; exit ;;
*'"seed":2,'*|*'"seed":2}'*) say '{"type":"failed","problem":{"code":"non_finite_weights","detail":"fc1.weight has NaN"}}'; exit ;;
esac
say '{"type":"phase","phase":"finetune"}'
say '{"type":"metric","epoch":1,"train_loss":0.5,"train_accuracy":0.75,"validation":null,"test":null,"lr":0.5,"images_per_s":9.5}'
say "{\"type\":\"finished\",\"artifacts\":[$(file model 'fused weights' application/octet-stream),$(file report '{"candidates":[]}' application/json),$(file architecture '{"nodes":[]}' application/json),$(file provenance '{"units":[]}' application/json)]}"
"#;

struct Lab {
    app: TestApp,
    _script: tempfile::TempDir,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = script(folder.path(), CHILD);
        let app = TestApp::builder()
            .settings(|settings| {
                settings.program = Some(program);
                settings.workers.workers = 1;
                settings.workers.heartbeat = Seconds(Duration::from_millis(50));
            })
            .start()
            .await;
        for name in ["m0.safetensors", "m1.safetensors"] {
            let response = app.put(&format!("/v1/checkpoints/{name}"), member()).send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::CREATED);
        }
        Self { app, _script: folder }
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.app.request(reqwest::Method::POST, path).json(body)
    }

    async fn get(&self, path: &str) -> Response {
        self.app.get(path).send().await.expect("an answer")
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        let status = response.status();
        let text = response.text().await.expect("a body");
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Queues a job with this seed and returns its path.
    async fn queue(&self, seed: u64) -> String {
        let response = self.post("/v1/jobs", &body(seed)).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        response.headers()[LOCATION].to_str().expect("text").to_owned()
    }

    /// Waits, as a client would, until the job is in one of `states`.
    async fn wait(&self, job: &str, states: &[&str]) -> Value {
        for _ in 0..100 {
            let response = self.app.get(job).header("Prefer", "wait=5").send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            let ended = response.headers().get(RETRY_AFTER).is_none();
            let view: Value = response.json().await.expect("JSON");
            let state = view["state"].as_str().expect("a state");
            assert_eq!(ended, ["succeeded", "failed", "cancelled"].contains(&state), "Retry-After until the end");
            if states.contains(&state) {
                return view;
            }
            assert!(!ended, "{view:#}");
        }
        panic!("{job} was never {states:?}: {:#}", self.json(job).await)
    }
}

fn body(seed: u64) -> Value {
    json!({"members": ["m0.safetensors", "m1.safetensors"], "architecture": {"assume": true}, "seed": seed, "labels": {"team": "vision", "seed": seed.to_string()}})
}

fn pointers(problem: &Value) -> BTreeSet<&str> {
    problem["errors"].as_array().into_iter().flatten().filter_map(|fault| fault["pointer"].as_str()).collect()
}

#[tokio::test]
async fn a_job_is_planned_queued_followed_and_downloaded() {
    let lab = Lab::new().await;
    let plan = lab.post("/v1/jobs?validate_only=true", &body(0)).send().await.expect("an answer");
    assert_eq!(plan.status(), StatusCode::OK);
    let plan: Value = plan.json().await.expect("JSON");
    assert_eq!(plan["architecture"], "mlp", "{plan:#}");
    assert_eq!(lab.json("/v1/jobs").await["data"], json!([]), "nothing was queued");

    let job = lab.queue(0).await;
    let view = lab.wait(&job, &["succeeded"]).await;
    assert_eq!(view["plan"], plan);
    assert_eq!(view["attempt"], 1);
    assert_eq!(view["resolved"]["seed"], 0);
    assert_eq!(view["inputs"][1]["name"], "m1.safetensors");
    assert_eq!(view["inputs"][1]["sha256"], sha256(&member()));
    assert_eq!(view["phases"][1]["name"], "finetune");
    assert!(view["phases"][1]["ended"].is_string(), "{view:#}");
    assert_eq!(view["error"], Value::Null);
    assert_eq!(view["queue_position"], Value::Null);
    assert!(view.get("logs").is_none());

    let names: Vec<&str> =
        view["artifacts"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["architecture", "model", "provenance", "report"]);
    let digest = sha256(b"fused weights");
    let model = lab.get(&format!("{job}/model")).await;
    assert_eq!(model.headers()[ETAG], format!("\"{digest}\""));
    assert_eq!(model.headers()["content-disposition"], "attachment; filename=\"fused.safetensors\"");
    assert_eq!(model.text().await.expect("a body"), "fused weights");
    let part = lab.app.get(&format!("{job}/model")).header(RANGE, "bytes=6-").send().await.expect("an answer");
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[CONTENT_RANGE], "bytes 6-12/13");
    assert_eq!(part.text().await.expect("a body"), "weights");
    let sum = lab.get(&format!("{job}/model.sha256")).await.text().await.expect("a body");
    assert_eq!(sum, format!("{digest}  fused.safetensors\n"));
    assert_eq!(lab.json(&format!("{job}/report")).await, json!({"candidates": []}));
    assert_eq!(lab.json(&format!("{job}/architecture")).await, json!({"nodes": []}));
    assert_eq!(lab.json(&format!("{job}/provenance")).await, json!({"units": []}));

    let deleted = lab.app.request(reqwest::Method::DELETE, &job).send().await.expect("an answer");
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let (status, code, _) = problem(lab.get(&format!("{job}/model")).await).await;
    assert_eq!((status, code.as_str()), (StatusCode::NOT_FOUND, "not_found"));
    let blobs = lab.app.state.blobs.list("jobs").await.expect("lists");
    assert!(blobs.is_empty(), "{blobs:?}");
    lab.app.stop().await;
}

#[tokio::test]
async fn a_jobs_history_metrics_and_log_can_be_read_in_several_forms() {
    let lab = Lab::new().await;
    let job = lab.queue(0).await;
    let live =
        lab.app.get(&format!("{job}/events")).header(ACCEPT, "text/event-stream").send().await.expect("an answer");
    assert_eq!(live.headers()[CONTENT_TYPE], "text/event-stream");
    let text = live.text().await.expect("the stream ends with the job");
    lab.wait(&job, &["succeeded"]).await;
    let progress = &lab.json(&job).await["progress"];
    assert_eq!([&progress["fraction"], &progress["job_fraction"]], [1.0, 1.0]);
    assert!(progress["eta_s"].is_null() && progress["job_eta_s"].is_null(), "{progress}");

    let page = lab.json(&format!("{job}/events")).await;
    let events = page["data"].as_array().expect("a list");
    let types: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types, ["state", "state", "progress", "warning", "progress", "metric", "state"]);
    let ids: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7], "{text}");
    assert!(text.contains("event: metric\n"), "{text}");

    let replay = lab.app.get(&format!("{job}/events")).header(ACCEPT, "text/event-stream").header("Last-Event-ID", "5");
    let text = replay.send().await.expect("an answer").text().await.expect("a body");
    let ids: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, [6, 7], "{text}");
    let page = lab.json(&format!("{job}/events?after=2&limit=2")).await;
    assert_eq!((page["data"][0]["seq"].clone(), page["has_more"].clone()), (json!(3), json!(true)));
    assert_eq!(page["next_after"], "4");

    assert_eq!(lab.json(&format!("{job}/metrics")).await["data"][0]["train_loss"], 0.5);
    let table = lab.app.get(&format!("{job}/metrics")).header(ACCEPT, "text/csv").send().await.expect("an answer");
    assert_eq!(table.text().await.expect("a body").lines().nth(1), Some("1,0.5,0.75,,,,,0.5,9.5"));

    let log = lab.json(&format!("{job}/logs?tail=5")).await;
    assert_eq!(log["data"][0]["message"], "a word of warning");
    assert_eq!(log["data"][0]["level"], "warning");
    let seq = log["data"][0]["seq"].as_i64().expect("a number");
    assert_eq!(lab.json(&format!("{job}/logs?after={seq}")).await["data"], json!([]));
    let plain = lab.app.get(&format!("{job}/logs")).header(ACCEPT, "text/plain").send().await.expect("an answer");
    assert!(plain.text().await.expect("a body").ends_with("[job 1] a word of warning\n"));
    for path in ["logs?tail=0", "logs?head=1", "events?after=x", "events?limit=1001"] {
        let (status, code, _) = problem(lab.get(&format!("{job}/{path}")).await).await;
        assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request"), "{path}");
    }
    lab.app.stop().await;
}

#[tokio::test]
async fn a_job_has_an_entity_tag_and_waiting_ends_when_its_state_changes() {
    let lab = Lab::new().await;
    let job = lab.queue(1).await;
    lab.wait(&job, &["running"]).await;
    let waiting = lab.app.get(&job).header("Prefer", "wait=30").send();
    let (waited, cancelled) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        lab.post(&format!("{job}/cancel"), &json!({})).send().await.expect("an answer")
    });
    assert_eq!(cancelled.status(), StatusCode::ACCEPTED);
    let state: Value = waited.expect("an answer").json().await.expect("JSON");
    assert!(["cancelling", "cancelled"].contains(&state["state"].as_str().expect("a state")), "{state:#}");
    lab.wait(&job, &["cancelled"]).await;

    let first = lab.get(&job).await;
    let tag = first.headers()[ETAG].clone();
    let again = lab.app.get(&job).header(IF_NONE_MATCH, tag).send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    lab.app.stop().await;
}

#[tokio::test]
async fn cancelling_retrying_and_deleting_depend_on_the_state() {
    let lab = Lab::new().await;
    let job = lab.queue(1).await;
    let queued_behind = lab.queue(1).await;
    lab.wait(&job, &["running"]).await;
    let view = lab.json(&queued_behind).await;
    assert_eq!((view["state"].clone(), view["queue_position"].clone()), (json!("queued"), json!(1)));
    for (path, code) in
        [("/model", "job_not_finished"), ("/model.sha256", "job_not_finished"), ("/report", "job_not_finished")]
    {
        let (status, found, _) = problem(lab.get(&format!("{job}{path}")).await).await;
        assert_eq!((status, found.as_str()), (StatusCode::CONFLICT, code));
    }
    let delete = async |path: &str| lab.app.request(reqwest::Method::DELETE, path).send().await.expect("an answer");
    assert_eq!(problem(delete(&job).await).await.1, "job_active");
    assert_eq!(problem(delete("/v1/checkpoints/m0.safetensors").await).await.1, "in_use");
    let retry = lab.post(&format!("{job}/retry"), &json!({})).send().await.expect("an answer");
    assert_eq!(problem(retry).await.1, "job_active");

    let cancel = async |path: &str| lab.post(&format!("{path}/cancel"), &json!({})).send().await.expect("an answer");
    let ended: Value = cancel(&queued_behind).await.json().await.expect("JSON");
    assert_eq!(ended["state"], "cancelled", "a queued job ends at once");
    assert_eq!(cancel(&job).await.status(), StatusCode::ACCEPTED);
    lab.wait(&job, &["cancelled"]).await;
    assert_eq!(cancel(&job).await.status(), StatusCode::OK);
    assert_eq!(problem(lab.get(&format!("{job}/model")).await).await.1, "job_not_succeeded");

    let wrong = lab.post(&format!("{job}/retry?from=middle"), &json!({})).send().await.expect("an answer");
    assert_eq!(problem(wrong).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let retried = lab.post(&format!("{job}/retry?from=start"), &json!({})).send().await.expect("an answer");
    assert_eq!(retried.status(), StatusCode::ACCEPTED);
    let retried: Value = retried.json().await.expect("JSON");
    assert_eq!(retried["retry_of"].as_str(), job.strip_prefix("/v1/jobs/"));
    let id = retried["id"].as_str().expect("an id");
    cancel(&format!("/v1/jobs/{id}")).await;
    lab.wait(&format!("/v1/jobs/{id}"), &["cancelled"]).await;
    assert_eq!(delete("/v1/checkpoints/m0.safetensors").await.status(), StatusCode::NO_CONTENT);
    let gone = lab.post(&format!("{job}/retry"), &json!({})).send().await.expect("an answer");
    let (status, _, body) = problem(gone).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body["detail"].as_str().expect("text").contains("m0.safetensors"), "{body:#}");
    lab.app.stop().await;
}

#[tokio::test]
async fn a_failed_job_shows_its_problem() {
    let lab = Lab::new().await;
    let job = lab.queue(2).await;
    let view = lab.wait(&job, &["failed"]).await;
    assert_eq!(view["error"]["code"], "non_finite_weights");
    assert_eq!(view["error"]["detail"], "fc1.weight has NaN");
    let (_, code, body) = problem(lab.get(&format!("{job}/report")).await).await;
    assert_eq!(code, "job_not_succeeded");
    assert!(body["detail"].as_str().expect("text").contains("NaN"), "{body:#}");
    lab.app.stop().await;
}

#[tokio::test]
async fn every_fault_of_a_job_is_named_at_once() {
    let lab = Lab::new().await;
    for validate_only in ["", "?validate_only=true"] {
        let body = json!({
            "members": ["m0.safetensors", "nobody"], "device": "cuda:7",
            "dataset": {"name": "missing.npz", "test": "missing-too.npz"},
        });
        let response = lab.post(&format!("/v1/jobs{validate_only}"), &body).send().await.expect("an answer");
        let (status, code, body) = problem(response).await;
        assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request"), "{body:#}");
        assert_eq!(pointers(&body), BTreeSet::from(["/dataset/name", "/dataset/test", "/device", "/members/1"]));
    }
    let body = json!({"members": ["m0.safetensors"], "device": "cuda:7"});
    let response = lab.post("/v1/jobs", &body).send().await.expect("an answer");
    let (_, code, body) = problem(response).await;
    assert_eq!(code, "no_such_device");
    let why = lab.app.state.gpus.get().and_then(|gpus| gpus.why_not.clone()).unwrap_or_else(|| "cuda:7".to_owned());
    assert!(body["detail"].as_str().expect("text").contains(&why), "what is missing is said: {body:#}");
    let body = json!({"members": ["m0.safetensors"], "precision": "f64", "deterministic": "yes"});
    let (_, _, body) = problem(lab.post("/v1/jobs", &body).send().await.expect("an answer")).await;
    assert_eq!(pointers(&body), BTreeSet::from(["/deterministic", "/precision"]));
    let body = json!({"members": [], "colour": "red", "finetune": {"epochs": 0}});
    let (_, _, body) = problem(lab.post("/v1/jobs", &body).send().await.expect("an answer")).await;
    assert!(pointers(&body).is_superset(&BTreeSet::from(["/colour", "/members"])), "{body:#}");
    let not_json =
        lab.app.request(reqwest::Method::POST, "/v1/jobs").header(CONTENT_TYPE, "application/json").body("{");
    assert_eq!(problem(not_json.send().await.expect("an answer")).await.1, "invalid_json");
    for id in ["job_0", "ckpt_01932", "%00", "job_00000000000000000000000000000000"] {
        let (status, code, _) = problem(lab.get(&format!("/v1/jobs/{id}")).await).await;
        assert_eq!((status, code.as_str()), (StatusCode::NOT_FOUND, "not_found"), "{id}");
    }
    lab.app.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_queues_one_job() {
    let lab = Lab::new().await;
    let send = async |seed: u64| {
        let request = lab.post("/v1/jobs", &body(seed)).header("Idempotency-Key", "once");
        request.send().await.expect("an answer")
    };
    let first: Value = send(0).await.json().await.expect("JSON");
    let second = send(0).await;
    assert_eq!(second.status(), StatusCode::ACCEPTED);
    let second: Value = second.json().await.expect("JSON");
    assert_eq!(first, second);
    assert_eq!(problem(send(2).await).await.1, "idempotency_key_reused");
    assert_eq!(lab.json("/v1/jobs").await["data"].as_array().map(Vec::len), Some(1));
    lab.app.stop().await;
}

#[tokio::test]
async fn lists_are_filtered_paged_and_each_tenants_own() {
    let lab = Lab::new().await;
    for seed in [0, 2, 3] {
        let job = lab.queue(seed).await;
        lab.wait(&job, &["succeeded", "failed"]).await;
    }
    let seeds = async |query: &str| {
        let page = lab.json(&format!("/v1/jobs{query}")).await;
        let jobs = page["data"].as_array().expect("a list").clone();
        jobs.into_iter().map(|job| job["labels"]["seed"].as_str().expect("a label").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seeds("").await, ["3", "2", "0"], "newest first");
    assert_eq!(seeds("?state=failed").await, ["2"]);
    assert_eq!(seeds("?label=team=vision&label=seed=3").await, ["3"]);
    assert_eq!(seeds("?label=team=audio").await, [""; 0]);
    let page = lab.json("/v1/jobs?limit=2").await;
    assert_eq!(page["has_more"], true);
    let after = page["next_after"].as_str().expect("an id");
    assert_eq!(seeds(&format!("?limit=2&after={after}")).await, ["0"]);
    let (status, ..) = problem(lab.get("/v1/jobs?state=lost").await).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);

    let workers = lab.json("/v1/workers").await;
    assert_eq!(workers["data"][0]["slots"], 1, "{workers:#}");
    assert!(workers["data"][0]["devices"].as_array().expect("a list").contains(&json!("cpu")));

    let path = format!("/v1/jobs/{}", page["data"][0]["id"].as_str().expect("an id"));
    let stranger = lab.app.key("stranger", Scope::Write).await;
    for tail in ["", "/events", "/logs", "/metrics", "/model", "/model.sha256", "/report"] {
        let request = lab.app.get(&format!("{path}{tail}")).bearer_auth(&stranger);
        let (status, code, _) = problem(request.send().await.expect("an answer")).await;
        assert_eq!((status, code.as_str()), (StatusCode::NOT_FOUND, "not_found"), "{tail}");
    }
    for tail in ["/cancel", "/retry"] {
        let request = lab.post(&format!("{path}{tail}"), &json!({})).bearer_auth(&stranger);
        assert_eq!(problem(request.send().await.expect("an answer")).await.0, StatusCode::NOT_FOUND, "{tail}");
    }
    let reader = lab.app.key("default", Scope::Read).await;
    let refused = lab.post("/v1/jobs", &body(0)).bearer_auth(&reader).send().await.expect("an answer");
    assert_eq!(problem(refused).await.0, StatusCode::FORBIDDEN);
    assert_eq!(problem(lab.get(&path).await).await.0, StatusCode::UNAUTHORIZED, "there is a key now");
    lab.app.stop().await;
}

#[tokio::test]
async fn draining_ends_event_streams_and_gives_the_job_back() {
    let lab = Lab::new().await;
    let job = lab.queue(1).await;
    lab.wait(&job, &["running"]).await;
    let stream =
        lab.app.get(&format!("{job}/events")).header(ACCEPT, "text/event-stream").send().await.expect("an answer");
    let jobs = lab.app.state.jobs.clone();
    let id = job.strip_prefix("/v1/jobs/").expect("an id").parse().expect("an id");
    let folder = lab.app.stop().await;
    assert!(stream.text().await.is_ok(), "the stream ends in order");
    drop(jobs);
    let app = TestApp::builder().folder(folder).start().await;
    let glimpse = app.state.jobs.watch(id).await.expect("the job");
    assert_eq!(glimpse.state, "queued");
    app.stop().await;
}

#[tokio::test]
async fn one_member_is_planned_within_a_budget_and_a_budget_too_small_names_the_smallest() {
    let lab = Lab::new().await;
    let plan = |target: Value| {
        let body = json!({"members": ["m0.safetensors"], "target": target});
        lab.post("/v1/jobs?validate_only=true", &body).send()
    };
    // Each of the eight units costs 4 + 1 weights before it and 3 behind; the outputs have 3 biases.
    let answer = plan(json!({"params": 30})).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!((&answer["layers"][0]["width_after"], &answer["parameters"]["fused"]), (&json!(3), &json!(27)));
    assert!(answer["memory_basis"].is_string() && answer["seconds_basis"].is_string(), "{answer:#}");
    let (status, code, body) = problem(plan(json!({"params": 10})).await.expect("an answer")).await;
    assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request"));
    assert_eq!(body["errors"][0]["code"], "budget_too_small");
    assert!(body["detail"].as_str().expect("text").contains("at least 11,"), "{body:#}");
    let nodes = json!([
        {"name": "input", "op": "input", "shape": [4]},
        {"name": "fc1", "op": "linear", "in_features": 4, "out_features": 8, "bias": true},
        {"name": "curve", "op": "gelu"},
        {"name": "fc2", "op": "linear", "in_features": 8, "out_features": 3, "bias": true},
    ]);
    let later = json!({
        "members": ["m0.safetensors"], "architecture": {"graph": {"nodes": nodes}}, "method": {"compensate": "data_free"},
    });
    let answer = lab.post("/v1/jobs?validate_only=true", &later).send().await.expect("an answer");
    let (status, code, _) = problem(answer).await;
    assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "not_supported_yet"));
    lab.app.stop().await;
}
