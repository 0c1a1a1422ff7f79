//! Sharded checkpoints that are uploaded file by file and put together.

use engraft::config::ByteSize;
use engraft::model::formats::read_layout;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::app::{TestApp, problem};
use crate::common::samples::{files, member, safetensors, sha256};
use crate::networks::finish;

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn shards() -> [(&'static str, Vec<u8>); 2] {
    [
        (FIRST, safetensors(&[("fc1.weight", &[5, 7]), ("fc1.bias", &[5])])),
        (SECOND, safetensors(&[("fc2.weight", &[3, 5])])),
    ]
}

fn index() -> Vec<u8> {
    let map = json!({"fc1.weight": FIRST, "fc1.bias": FIRST, "fc2.weight": SECOND});
    json!({"metadata": {"total_size": 220}, "weight_map": map}).to_string().into_bytes()
}

async fn upload(app: &TestApp, name: &str, bytes: Vec<u8>) -> Value {
    let put = app.put(&format!("/v1/checkpoints/{name}"), bytes).send().await.expect("an answer");
    assert_eq!(put.status(), StatusCode::CREATED, "{name}");
    put.json().await.expect("JSON")
}

async fn upload_all(app: &TestApp) {
    for (name, bytes) in shards() {
        upload(app, name, bytes).await;
    }
    upload(app, INDEX, self::index()).await;
}

fn assemble(app: &TestApp, body: &Value) -> reqwest::RequestBuilder {
    app.request(Method::POST, "/v1/checkpoints").json(body)
}

/// Checks that `body` is refused with this code; returns what is said about it.
async fn refused(app: &TestApp, body: &Value, code: &str) -> String {
    let (_, got, problem) = problem(assemble(app, body).send().await.expect("an answer")).await;
    assert_eq!(got, code, "{problem}");
    problem.to_string()
}

fn is_clean(app: &TestApp) -> bool {
    files(&app.folder.path().join("staging")).is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_become_one_checkpoint() {
    let app = TestApp::start().await;
    upload_all(&app).await;
    let shown: Value =
        app.get(&format!("/v1/checkpoints/{INDEX}")).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(shown["shards"][1], json!({"name": SECOND, "tensors": 1}));
    assert_eq!((&shown["tensors"], &shown["parameters"]), (&json!([]), &json!(0)));

    let graph = app.get(&format!("/v1/checkpoints/{INDEX}/graph")).send().await.expect("an answer");
    assert_eq!(problem(graph).await.1, "architecture_unknown");

    let body = json!({"index": INDEX, "name": "whole", "labels": {"run": "7"}});
    let made = assemble(&app, &body).header("Idempotency-Key", "once").send().await.expect("an answer");
    assert_eq!(made.status(), StatusCode::CREATED);
    let location = made.headers()["location"].to_str().expect("text").to_owned();
    let etag = made.headers()["etag"].clone();
    let first: Value = made.json().await.expect("JSON");
    assert_eq!((&first["parameters"], &first["architecture"]["family"]), (&json!(55), &json!("mlp")));
    assert_eq!(first["labels"]["run"], "7");
    let content =
        app.get(&format!("{location}/content")).send().await.expect("an answer").bytes().await.expect("bytes");
    assert_eq!(etag, format!("\"{}\"", sha256(&content)));
    let whole = read_layout(&content).expect("a checkpoint");
    assert_eq!(whole.metadata["engraft_shards"], json!([FIRST, SECOND]).to_string());
    for (name, bytes) in shards() {
        for (info, begin, end) in read_layout(&bytes).expect("a shard").spans() {
            let same = whole.spans().find(|(other, ..)| other.name == info.name).expect(name);
            assert_eq!(bytes[begin as usize..end as usize], content[same.1 as usize..same.2 as usize], "{}", info.name);
        }
    }
    assert!(is_clean(&app));

    let again = assemble(&app, &body).header("Idempotency-Key", "once").send().await.expect("an answer");
    assert_eq!(
        (again.status(), &again.headers()["idempotent-replayed"]),
        (StatusCode::CREATED, &"true".parse().expect("text"))
    );
    assert_eq!(again.headers()["location"], location);
    assert_eq!(again.json::<Value>().await.expect("JSON"), first);
    let other = json!({"index": INDEX, "name": "other"});
    let reused = assemble(&app, &other).header("Idempotency-Key", "once").send().await.expect("an answer");
    assert_eq!(problem(reused).await.1, "idempotency_key_reused");
    let unkeyed = assemble(&app, &body).send().await.expect("an answer");
    assert_eq!(unkeyed.status(), StatusCode::OK, "the same file is there already");
    assert!(is_clean(&app));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_may_have_any_name_where_they_are_named() {
    let app = TestApp::start().await;
    upload(&app, INDEX, index()).await;
    let mut ids = Vec::new();
    for (place, (_, bytes)) in shards().into_iter().enumerate() {
        ids.push(upload(&app, &format!("a-{place}"), bytes).await["id"].clone());
    }
    let error = refused(&app, &json!({"index": INDEX, "name": "whole"}), "invalid_request").await;
    assert!(error.contains(&format!("`{FIRST}` (2 tensors), `{SECOND}` (1 tensors)")), "{error}");
    let error = refused(&app, &json!({"index": INDEX, "name": "whole", "shards": [ids[1]]}), "invalid_request").await;
    assert!(error.contains(&format!("`{FIRST}` (2 tensors)")) && !error.contains(SECOND), "{error}");
    let mut changed = shards()[1].1.clone();
    *changed.last_mut().expect("a byte") ^= 1;
    let digest = sha256(&changed);
    let twin = upload(&app, "b-1", changed).await["id"].clone();
    let body = json!({"index": INDEX, "name": "whole", "shards": [ids[0], ids[1], twin]});
    let error = refused(&app, &body, "invalid_request").await;
    assert!(
        [ids[1].as_str(), twin.as_str(), Some(&*digest)].iter().all(|part| error.contains(part.expect("text"))),
        "{error}"
    );
    let body = json!({"index": INDEX, "name": "whole", "shards": [ids[1], ids[0]]});
    assert_eq!(assemble(&app, &body).send().await.expect("an answer").status(), StatusCode::CREATED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_named() {
    let app = TestApp::start().await;
    upload_all(&app).await;
    upload(&app, "member", member()).await;
    for (body, said) in [
        (json!({"index": "nothing", "name": "whole"}), "there is no checkpoint `nothing`"),
        (json!({"index": "member", "name": "whole"}), "is no index of shards"),
        (json!({"index": INDEX, "name": "whole", "shards": ["absent", FIRST]}), "`absent`"),
        (json!({"index": INDEX, "name": "whole", "shards": ["member", FIRST, SECOND]}), "`member` is no shard"),
        (json!({"index": INDEX, "name": "whole", "shards": [INDEX, FIRST, SECOND]}), "no tensor that the index names"),
        (json!({"index": INDEX, "name": "../whole"}), "/name"),
        (json!({"name": "whole", "shard": []}), "/shard"),
    ] {
        let error = refused(&app, &body, "invalid_request").await;
        assert!(error.contains(said), "{error}");
    }
    refused(&app, &json!({"index": INDEX, "name": "member"}), "name_taken").await;
    let job = json!({"members": [INDEX, "member"]});
    let (_, code, problem) =
        problem(app.request(Method::POST, "/v1/jobs").json(&job).send().await.expect("an answer")).await;
    assert_eq!(code, "invalid_request");
    assert!(problem.to_string().contains("is an index of shards"), "{problem}");
    for (name, bytes, said) in [
        ("other.json", b"{\"epochs\": 3}".to_vec(), "JSON"),
        ("bad.json", b"{\"weight_map\": {\"a\": \"../b\"}}".to_vec(), "is not the name of a file beside the index"),
    ] {
        let put = app.put(&format!("/v1/checkpoints/{name}"), bytes).send().await.expect("an answer");
        let (_, code, problem) = self::problem(put).await;
        assert_eq!(code, "invalid_checkpoint");
        assert!(problem.to_string().contains(said), "{problem}");
    }
    let alone = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/onnx/beside/resnet.onnx"))
        .expect("the fixture");
    let (_, _, problem) =
        self::problem(app.put("/v1/checkpoints/net.onnx", alone).send().await.expect("an answer")).await;
    assert!(problem.to_string().contains("pack the folder as one tar"), "{problem}");
    for archive in ["resnet.tar", "lenet_deflated.zip"] {
        let path = format!("{}/tests/fixtures/onnx/beside/{archive}", env!("CARGO_MANIFEST_DIR"));
        upload(&app, archive, std::fs::read(path).expect("the fixture")).await;
    }
    assert!(is_clean(&app));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_fails() {
    let app = TestApp::start().await;
    upload_all(&app).await;
    let begun = app.put("/v1/checkpoints/begun", vec![0_u8; 4]).header("content-range", "bytes 0-3/100");
    assert_eq!(begun.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    refused(&app, &json!({"index": INDEX, "name": "begun"}), "upload_in_progress").await;
    // Both shards are known to be whole when one of them loses its end.
    let made = assemble(&app, &json!({"index": INDEX, "name": "whole"})).send().await.expect("an answer");
    assert_eq!(made.status(), StatusCode::CREATED);
    let key = app
        .state
        .checkpoints
        .find(&"default".parse().expect("a tenant"), SECOND)
        .await
        .expect("a row")
        .expect("a shard")
        .file
        .blob_key;
    let path = app.state.blobs.path_of(&key).expect("a path");
    let whole = std::fs::read(&path).expect("reads");
    std::fs::write(&path, &whole[..whole.len() - 8]).expect("writes");
    let error = refused(&app, &json!({"index": INDEX, "name": "torn"}), "storage_failed").await;
    assert!(error.contains("Nothing of it is kept"), "{error}");
    std::fs::write(&path, &whole).expect("writes");
    let uploads: Value = app.get("/v1/uploads").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(uploads["data"].as_array().map(Vec::len), Some(1), "only the one that a client began: {uploads}");
    let folder = app.stop().await;
    let blobs = files(&folder.path().join("blobs/checkpoints")).len();

    let settings = |full: bool| {
        move |settings: &mut engraft::config::Configuration| {
            if full {
                settings.storage.keep_free = ByteSize(1 << 60);
            } else {
                settings.tenants.tenant_bytes = ByteSize(800);
            }
        }
    };
    let full = TestApp::builder().settings(settings(true)).folder(folder).start().await;
    let error = refused(&full, &json!({"index": INDEX, "name": "third"}), "disk_full").await;
    assert!(error.contains("Nothing of it is kept"), "{error}");
    let folder = full.stop().await;
    let small = TestApp::builder().settings(settings(false)).folder(folder).start().await;
    refused(&small, &json!({"index": INDEX, "name": "third"}), "quota_exceeded").await;
    assert_eq!(files(&small.folder.path().join("staging")).len(), 1);
    assert_eq!(files(&small.folder.path().join("blobs/checkpoints")).len(), blobs);
    small.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_shards_leaves_in_shards() {
    let app = TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await;
    upload_all(&app).await;
    let made = assemble(&app, &json!({"index": INDEX, "name": "whole"})).send().await.expect("an answer");
    assert_eq!(made.status(), StatusCode::CREATED);
    let tensors: [(&str, &[usize]); 3] = [("fc1.weight", &[5, 7]), ("fc1.bias", &[5]), ("fc2.weight", &[3, 5])];
    upload(&app, "one", safetensors(&tensors)).await;
    let model = async |members: &[&str], query: &str| {
        let architecture = json!({"activation": "relu", "assume": true});
        let (job, state) = finish(&app, &json!({"members": members, "architecture": architecture})).await;
        assert_eq!(state["state"], "succeeded", "{state:#}");
        let got = app.get(&format!("{job}/model{query}")).send().await.expect("an answer");
        assert_eq!(got.status(), StatusCode::OK);
        got.bytes().await.expect("bytes")
    };
    let sharded = model(&["whole"], "").await;
    assert_eq!(sharded.get(257..262), Some(&b"ustar"[..]), "a tar");
    for name in [INDEX, FIRST, SECOND] {
        assert!(sharded.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
    assert!(read_layout(&model(&["whole"], "?format=safetensors").await).is_ok(), "one file where that is said");
    assert!(read_layout(&model(&["whole", "one"], "").await).is_ok(), "one of the members came in one file");
    app.stop().await;
}
