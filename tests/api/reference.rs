//! A reference over HTTP: it is uploaded like a checkpoint, proves what network the members are, and stays while a job needs it.

use std::collections::BTreeMap;

use engraft::exec::CpuNetwork;
use engraft::model::families;
use engraft::model::header::{CheckpointHeader, Dtype, TensorInfo};
use engraft::plan::parse::parse;
use engraft::tensors::StateDict;
use reqwest::header::LOCATION;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::app::TestApp;
use crate::common::weights;

fn header() -> CheckpointHeader {
    let shapes: [(&str, &[usize]); 4] =
        [("fc1.weight", &[16, 8]), ("fc1.bias", &[16]), ("fc2.weight", &[4, 16]), ("fc2.bias", &[4])];
    let tensor = |(name, shape): (&str, &[usize])| TensorInfo {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    CheckpointHeader::new(shapes.into_iter().map(tensor).collect())
}

fn bytes(app: &TestApp, state: &StateDict) -> Vec<u8> {
    let path = app.folder.path().join("upload");
    state.save(&path, &BTreeMap::new()).expect("a file");
    std::fs::read(path).expect("the file")
}

/// 32 inputs and what the member, taken for a network with `SiLU`, makes of them.
fn reference(member: &StateDict) -> StateDict {
    let job = parse(&json!({"members": ["m"], "architecture": {"activation": "silu"}})).expect("a job");
    let known = families::detect(&[&header()], &job.architecture, None).expect("a network");
    let mut network: CpuNetwork = CpuNetwork::compile(&known.graphs[0], 32, 1).expect("a network");
    network.load(member).expect("its weights");
    let inputs = weights::inputs(&[32, 8], 3);
    let logits = network.forward(&inputs).expect("a batch").to_vec();
    let mut state = StateDict::default();
    state.insert_f32("inputs", &[32, 8], inputs).expect("inputs");
    state.insert_f32("logits", &[32, 4], logits).expect("logits");
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_decides_and_the_job_s_plan_says_so() {
    let app = TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await;
    let members = [weights::state_dict(&header(), 1), weights::state_dict(&header(), 2)];
    let uploads = [("m0", &members[0]), ("m1", &members[1]), ("reference", &reference(&members[1]))];
    for (name, state) in uploads {
        let answer = app.put(&format!("/v1/checkpoints/{name}"), bytes(&app, state)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED, "{name}");
    }
    let body = json!({"members": ["m0", "m1"], "reference": {"name": "reference", "member": 1}});
    let post = |query: &str, body: &Value| app.request(Method::POST, &format!("/v1/jobs{query}")).json(body).send();
    let plan: Value = post("?validate_only=true", &body).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(plan["evidence"]["degree"], "ambiguous", "{plan:#}");
    assert_eq!(plan["evidence"]["open"][0]["setting"], "activation");

    let answer = post("", &body).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let job = answer.headers()[LOCATION].to_str().expect("text").to_owned();
    let mut view = Value::Null;
    for _ in 0..60 {
        let answer = app.get(&job).header("prefer", "wait=10").send().await.expect("an answer");
        view = answer.json().await.expect("JSON");
        if view["state"] != "queued" && view["state"] != "running" {
            break;
        }
    }
    assert_eq!(view["state"], "succeeded", "{view:#}");
    assert_eq!(view["plan"]["evidence"]["degree"], "proven", "{:#}", view["plan"]);
    assert_eq!(view["plan"]["evidence"]["settings"]["activation"], "silu");
    let roles: Vec<&str> =
        view["inputs"].as_array().expect("a list").iter().filter_map(|input| input["role"].as_str()).collect();
    assert_eq!(roles, ["member", "member", "reference"]);
    let graph = app.get(&format!("{job}/architecture")).send().await.expect("an answer");
    assert!(graph.text().await.expect("text").contains("\"silu\""));
    app.stop().await;
}

#[tokio::test]
async fn what_is_no_reference_is_refused_where_it_is_named() {
    let app = TestApp::start().await;
    let member = weights::state_dict(&header(), 1);
    app.put("/v1/checkpoints/m0", bytes(&app, &member)).send().await.expect("an answer");
    for (body, pointer) in [
        (json!({"members": ["m0"], "reference": "nobody"}), "/reference"),
        (json!({"members": ["m0"], "reference": {"name": "m0"}}), "/reference/name"),
        (json!({"members": ["m0"], "reference": {"name": "m0", "member": 1}}), "/reference/member"),
        (json!({"members": ["m0"], "accuracy": 0.9}), "/dataset"),
        (json!({"members": ["m0"], "architecture": {"strides": [2]}}), "/architecture/strides"),
    ] {
        let answer = app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem:#}");
    }
    let graph: Value = app.get("/v1/checkpoints/m0/graph").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(graph["nodes"][2]["op"], "relu", "{graph:#}");
    app.stop().await;
}
