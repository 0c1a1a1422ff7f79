//! Networks over HTTP and on the command line, from the request to the fused model: spelled out as JSON, of different widths
//! and depths, one alone. Wrong ones are answered with the node at fault, in bounded memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use crate::common::app::{TestApp, problem};
use crate::common::samples::safetensors;
use engraft::model::graph::{Graph, MAX_NODES, json as graph_json};
use engraft::model::groups::MAX_UNITS;
use engraft::model::parameters;
use engraft::tensors::{Checkpoint, Weights};
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, IF_RANGE, LOCATION, RANGE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A stem whose outputs are put beside those of another convolution, and a sum over both; then a gate. `a`, `b` and
/// `gate` are the widths.
fn network(a: usize, b: usize, gate: usize) -> Value {
    let conv = |name: &str, from: usize, to: usize, input: &str| {
        json!({"name": name, "op": "conv2d", "in_channels": from, "out_channels": to, "kernel": 3, "padding": 1,
            "inputs": [input]})
    };
    let both = a + b;
    json!({"nodes": [
        {"name": "input", "op": "input", "shape": [3, 8, 8]},
        conv("stem", 3, a, "input"),
        {"name": "stem_bn", "op": "batch_norm", "features": a},
        {"name": "act", "op": "silu"},
        conv("branch", a, b, "act"),
        {"name": "beside", "op": "concat", "inputs": ["act", "branch"]},
        conv("whole", a, both, "act"),
        {"name": "sum", "op": "add", "inputs": ["beside", "whole"]},
        {"name": "pool", "op": "adaptive_avg_pool2d", "output": 1},
        {"name": "squeeze", "op": "conv2d", "in_channels": both, "out_channels": gate, "kernel": 1, "bias": true},
        {"name": "excite", "op": "conv2d", "in_channels": gate, "out_channels": both, "kernel": 1, "bias": true},
        {"name": "open", "op": "hardsigmoid"},
        {"name": "gated", "op": "multiply", "inputs": ["open", "sum"]},
        {"name": "mean", "op": "global_avg_pool2d"},
        {"name": "flatten", "op": "flatten"},
        {"name": "fc", "op": "linear", "in_features": both, "out_features": 4, "bias": true}
    ]})
}

/// A file with all tensors of a graph.
fn file(graph: &Value) -> Vec<u8> {
    let graph = graph_json::parse(graph).expect("a graph");
    let tensors = parameters::of_graph(&graph);
    let tensors: Vec<(&str, &[usize])> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    safetensors(&tensors)
}

/// A server with a worker.
async fn start() -> TestApp {
    TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await
}

async fn upload(app: &TestApp, graphs: &[Value]) -> Vec<String> {
    let mut names = Vec::new();
    for (index, graph) in graphs.iter().enumerate() {
        let name = format!("m{index}.safetensors");
        let answer = app.put(&format!("/v1/checkpoints/{name}"), file(graph)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
        names.push(name);
    }
    names
}

/// The same graph with another value at `pointer`.
fn changed(graph: &Value, pointer: &str, value: Value) -> Value {
    let mut graph = graph.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    graph.pointer_mut(parent).expect("a parent")[key] = value;
    graph
}

/// Graphs that are wrong, each with the node that the answer names.
fn wrong() -> Vec<(Value, String)> {
    let graph = network(4, 3, 2);
    let mut wrong: Vec<(Value, String)> = [
        ("/nodes/4/inputs", json!(["sum"]), "branch"),
        ("/nodes/7/inputs", json!(["beside", "sum"]), "sum"),
        ("/nodes/6/inputs", json!(["nowhere"]), "whole"),
        ("/nodes/6/out_channels", json!(6), "sum"),
        ("/nodes/15/in_features", json!(8), "fc"),
        ("/nodes/3/op", json!("swish"), "act"),
        ("/nodes/1/out_channels", json!(1_u64 << 40), "stem"),
        ("/nodes/1/out_channels", json!(u64::MAX), "stem"),
        ("/nodes/0/shape", json!([3, 1_u64 << 40, 1_u64 << 40]), "input"),
        ("/nodes/1/padding", json!(1_u64 << 40), "stem"),
        ("/nodes/1/kernel", json!([1_u64 << 33, 1]), "stem"),
        ("/nodes/15/out_features", json!(1_u64 << 40), "fc"),
        ("/nodes/8/output", json!(1 << 30), "pool"),
    ]
    .into_iter()
    .map(|(pointer, value, node)| (changed(&graph, pointer, value), node.to_owned()))
    .collect();
    // Twice as wide with every node.
    let mut doubling = vec![json!({"name": "n0", "op": "input", "shape": [1]})];
    doubling.extend((1..64).map(|at| {
        let before = format!("n{}", at - 1);
        json!({"name": format!("n{at}"), "op": "concat", "inputs": [before, before]})
    }));
    wrong.push((json!({ "nodes": doubling }), "n29".to_owned()));
    let mut many = vec![json!({"name": "n0", "op": "input", "shape": [1]})];
    many.extend((1..30_000).map(|at| json!({"name": format!("n{at}"), "op": "tanh"})));
    wrong.push((json!({ "nodes": many }), format!("n{MAX_NODES}")));
    wrong
}

#[tokio::test]
async fn a_network_spelled_out_is_planned_fused_and_downloaded() {
    let app = start().await;
    let (first, second) = (network(4, 3, 2), network(6, 5, 3));
    let members = upload(&app, &[first.clone(), second]).await;
    let body = json!({"members": members, "architecture": {"graph": first}, "target": {"width": {"member": 0}}});
    let post = |path: &str| app.request(Method::POST, path).json(&body);
    let plan: Value = post("/v1/jobs?validate_only=true").send().await.expect("an answer").json().await.expect("JSON");
    let layers: BTreeMap<&str, (&Value, &Value)> = plan["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| (layer["name"].as_str().expect("a name"), (&layer["group"], &layer["width_after"])))
        .collect();
    assert_eq!(layers["branch"], (&json!("branch"), &json!(3)), "{plan:#}");
    assert_eq!(layers["stem"], (&json!("stem"), &json!(4)));
    assert_eq!(layers["whole"], (&json!("stem, branch"), &json!(7)));
    assert_eq!(layers["fc"], (&Value::Null, &json!(4)));

    let artifacts = run(&app, &body).await;
    let written: Value = serde_json::from_slice(&artifacts["architecture"]).expect("JSON");
    let fused = graph_json::parse(&written).expect("the graph of the fused network");
    assert_eq!(fused, graph_json::parse(&first).expect("a graph"));
    check_tensors(&app, &artifacts["model"], &fused);
    let report: Value = serde_json::from_slice(&artifacts["report"]).expect("JSON");
    let layers = report["layers"].as_array().expect("layers");
    let kept = |name: &str| {
        let layer = layers.iter().find(|layer| layer["name"] == name).expect("the layer");
        layer["kept_per_member"].as_array().expect("numbers").iter().filter_map(Value::as_u64).sum::<u64>()
    };
    assert_eq!((kept("stem"), kept("branch"), kept("whole")), (4, 3, 7));
    app.stop().await;
}

#[tokio::test]
async fn a_fused_model_leaves_in_every_format_and_comes_back() {
    let app = start().await;
    let (first, second) = (network(4, 3, 2), network(4, 3, 2));
    let members = upload(&app, &[first.clone(), second]).await;
    let body = json!({"members": members, "architecture": {"graph": first}});
    let (job, _) = finish(&app, &body).await;
    let get = |format: &str| app.get(&format!("{job}/model?format={format}"));
    let mut tags = BTreeSet::new();
    for (format, media_type) in [
        ("safetensors", "octet-stream"),
        ("safetensors&shards=2", "octet-stream"),
        ("pt", "octet-stream"),
        ("onnx", "octet-stream"),
        ("py", "python"),
        ("json", "json"),
    ] {
        let answer = get(format).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{format}");
        let header = |name| answer.headers()[name].to_str().expect("text").to_owned();
        assert!(header(CONTENT_TYPE).contains(media_type), "{format}");
        assert!(tags.insert(header(ETAG)), "{format}: its own tag");
        let end = if format.contains("shards") { "tar" } else { format };
        assert!(header(CONTENT_DISPOSITION).ends_with(&format!(".{end}\"")), "{format}");
        let (tag, whole) = (header(ETAG), answer.bytes().await.expect("bytes"));
        let rest = get(format).header(RANGE, "bytes=7-").header(IF_RANGE, tag).send().await.expect("an answer");
        assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT, "{format}");
        assert_eq!(rest.bytes().await.expect("bytes"), whole[7..], "{format}: the same bytes again");
        if let "pt" | "onnx" | "tar" = end {
            // The whole way in: a member like any other.
            let name = format!("fused.{end}");
            let put = app.put(&format!("/v1/checkpoints/{name}"), whole.to_vec()).send().await.expect("an answer");
            assert_eq!(put.status(), StatusCode::CREATED, "{format}");
            let again = json!({"members": [name, members[0]], "architecture": {"graph": first}});
            let (_, state) = finish(&app, &again).await;
            assert_eq!(state["state"], "succeeded", "{format}: {state:#}");
        }
    }
    let card = app.get(&format!("{job}/card")).send().await.expect("an answer").text().await.expect("text");
    assert!(card.contains("license: unknown") && card.contains("model.py"), "{card}");
    for (query, pointer) in [
        ("format=h5", "/query/format"),
        ("normalize=true", "/query/normalize"),
        ("x=1", "/query/x"),
        ("shards=0", "/query/shards"),
        ("format=pt&shards=2", "/query/shards"),
    ] {
        let answer = app.get(&format!("{job}/model?{query}")).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem:#}");
    }
    app.stop().await;
}

/// Runs a job to its end; where it is, and how it has ended.
pub(crate) async fn finish(app: &TestApp, body: &Value) -> (String, Value) {
    let answer = app.request(Method::POST, "/v1/jobs").json(body).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let job = answer.headers()[LOCATION].to_str().expect("text").to_owned();
    let mut state = Value::Null;
    for _ in 0..60 {
        let wait = app.get(&job).header("prefer", "wait=10").send().await.expect("an answer");
        state = wait.json().await.expect("JSON");
        if state["state"] != "queued" && state["state"] != "running" {
            break;
        }
    }
    (job, state)
}

/// Runs a job to its end and downloads what it made.
async fn run(app: &TestApp, body: &Value) -> BTreeMap<&'static str, Vec<u8>> {
    let (job, state) = finish(app, body).await;
    assert_eq!(state["state"], "succeeded", "{state:#}");
    let mut artifacts = BTreeMap::new();
    for name in ["architecture", "model", "report"] {
        let answer = app.get(&format!("{job}/{name}")).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
        artifacts.insert(name, answer.bytes().await.expect("bytes").to_vec());
    }
    artifacts
}

/// Checks that a model has the tensors of `graph`, all finite; their bytes.
fn check_tensors(app: &TestApp, model: &[u8], graph: &Graph) -> u64 {
    let path = app.folder.path().join("fused.safetensors");
    std::fs::write(&path, model).expect("writes");
    let file = Checkpoint::open(&path).expect("a checkpoint");
    for tensor in parameters::of_graph(graph) {
        assert_eq!(file.header().get(&tensor.name).expect("the tensor").shape, tensor.shape, "{}", tensor.name);
        assert!(file.f32(&tensor.name).expect("floats").iter().all(|value| value.is_finite()));
    }
    let floats = file.header().tensors.iter().filter(|info| info.dtype.is_float());
    floats.map(|info| (info.elements() * info.dtype.size()) as u64).sum()
}

#[tokio::test]
async fn members_of_different_depth_are_fused_and_one_alone_becomes_smaller() {
    let app = start().await;
    let deep: [(&str, &[usize]); 6] = [
        ("fc1.weight", &[8, 6]),
        ("fc1.bias", &[8]),
        ("fc2.weight", &[7, 8]),
        ("fc2.bias", &[7]),
        ("fc3.weight", &[3, 7]),
        ("fc3.bias", &[3]),
    ];
    let shallow: [(&str, &[usize]); 4] =
        [("fc1.weight", &[9, 6]), ("fc1.bias", &[9]), ("fc2.weight", &[3, 9]), ("fc2.bias", &[3])];
    for (name, tensors) in [("deep.safetensors", &deep[..]), ("shallow.safetensors", &shallow)] {
        let answer = app.put(&format!("/v1/checkpoints/{name}"), safetensors(tensors)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
    let plan = async |body: &Value| -> Value {
        let answer = app.request(Method::POST, "/v1/jobs?validate_only=true").json(body).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.expect("JSON")
    };
    let body = json!({"members": ["shallow.safetensors", "deep.safetensors"], "architecture": {"activation": "relu"}, "target": {"width": {"member": 1}}});
    let planned = plan(&body).await;
    assert!(planned["warnings"].to_string().contains("`shallow.safetensors` has fewer layers"), "{planned:#}");
    let artifacts = run(&app, &body).await;
    let fused = graph_json::parse(&serde_json::from_slice(&artifacts["architecture"]).expect("JSON")).expect("a graph");
    let widths: Vec<usize> = parameters::of_graph(&fused).iter().map(|tensor| tensor.shape[0]).collect();
    assert_eq!(widths, [8, 8, 7, 7, 3, 3]);
    check_tensors(&app, &artifacts["model"], &fused);

    for limit in [150, 300, 468] {
        let body = json!({"members": ["deep.safetensors"], "architecture": {"activation": "relu"}, "target": {"bytes": limit}});
        let planned = plan(&body).await;
        let artifacts = run(&app, &body).await;
        let fused = serde_json::from_slice(&artifacts["architecture"]).expect("JSON");
        let bytes = check_tensors(&app, &artifacts["model"], &graph_json::parse(&fused).expect("a graph"));
        assert_eq!(planned["bytes"]["fused"], bytes);
        assert!(bytes <= limit && bytes + 60 > limit, "{bytes} of {limit}");
    }
    app.stop().await;
}

#[tokio::test]
async fn wrong_networks_are_answered_with_the_node_at_fault() {
    let app = start().await;
    let members = upload(&app, &[network(4, 3, 2)]).await;
    let post = |graph: &Value, query: &str| {
        let body = json!({"members": members, "architecture": {"graph": graph}});
        app.request(Method::POST, &format!("/v1/jobs{query}")).json(&body).send()
    };
    let before = memory("VmRSS:");
    for (graph, node) in wrong() {
        for query in ["", "?validate_only=true"] {
            let (status, code, body) = problem(post(&graph, query).await.expect("an answer")).await;
            assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request"), "{body:#}");
            let fault = &body["errors"][0];
            assert!(fault["detail"].as_str().expect("text").contains(&format!("`{node}`")), "{body:#}");
            assert!(fault["pointer"].as_str().expect("text").starts_with("/architecture/graph/nodes/"), "{body:#}");
        }
    }
    // Right as a graph, but wider than groups are worked out for; and what has no concatenation.
    let wide = json!({"nodes": [
        {"name": "input", "op": "input", "shape": [4]},
        {"name": "wide", "op": "linear", "in_features": 4, "out_features": MAX_UNITS},
        {"name": "fc", "op": "linear", "in_features": MAX_UNITS, "out_features": 4}]});
    let (status, code, body) = problem(post(&wide, "").await.expect("an answer")).await;
    assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "members_incompatible"));
    assert!(body["errors"].to_string().contains("wide.weight"), "{body:#}");
    let mut bent = network(4, 3, 2);
    bent["nodes"].as_array_mut().expect("nodes").push(json!({"name": "probabilities", "op": "softmax"}));
    let (status, code, body) = problem(post(&bent, "").await.expect("an answer")).await;
    assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "not_supported_yet"));
    assert!(body["detail"].as_str().expect("text").contains("`probabilities`"), "{body:#}");
    // A million nodes are more than a request may say.
    let body = job(&members, &million());
    let many = app.request(Method::POST, "/v1/jobs").header(CONTENT_TYPE, "application/json").body(body);
    let (status, code, _) = problem(many.send().await.expect("an answer")).await;
    assert_eq!((status, code.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    if let (Some(before), Some(peak)) = (before, memory("VmHWM:")) {
        // The client's million nodes are part of it.
        assert!(peak - before < 600_000, "{} MB", (peak - before) / 1000);
    }
    app.stop().await;
}

/// A graph of a million nodes, as text.
fn million() -> String {
    let nodes: Vec<String> = (0..1_000_000).map(|at| format!(r#"{{"name":"n{at}","op":"relu"}}"#)).collect();
    format!(r#"{{"nodes":[{}]}}"#, nodes.join(","))
}

/// A job on these members with this graph.
fn job(members: &[String], graph: &str) -> String {
    format!(r#"{{"members":{},"architecture":{{"graph":{graph}}}}}"#, json!(members))
}

/// A figure of this process's memory in kB, where the system reports it.
fn memory(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_command_line_takes_graphs_and_names_the_node_at_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let graph = network(4, 3, 2);
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("m0.safetensors"), file(&graph)).expect("writes");
    std::fs::write(path("m1.safetensors"), file(&network(5, 4, 2))).expect("writes");
    let members = ["m0.safetensors", "m1.safetensors"].map(path);
    let engraft = |command: &str, graph: &str, more: &[&str]| -> Output {
        std::fs::write(path("job.json"), job(&members, graph)).expect("writes");
        let job = path("job.json");
        let program = Command::new(env!("CARGO_BIN_EXE_engraft")).args([command, "--job", &job]).args(more).output();
        program.expect("the program")
    };
    let planned = engraft("plan", &graph.to_string(), &["--width", "0.5"]);
    assert!(planned.status.success(), "{planned:?}");
    assert!(String::from_utf8_lossy(&planned.stdout).contains("stem, branch"), "{planned:?}");
    let fused = engraft("fuse", &graph.to_string(), &["--params", "600", "--out", &path("fused.safetensors")]);
    assert!(fused.status.success(), "{fused:?}");
    let file = Checkpoint::open(Path::new(&path("fused.safetensors"))).expect("a checkpoint");
    let statistics = |name: &str| name.ends_with("running_mean") || name.ends_with("running_var");
    let trained = file.header().tensors.iter().filter(|info| !statistics(&info.name));
    let spent: usize = trained.map(engraft::model::header::TensorInfo::elements).sum();
    assert!((300..=600).contains(&spent), "{spent}");
    let wrong = wrong().into_iter().map(|(graph, node)| (graph.to_string(), node));
    for (graph, node) in wrong.chain([(million(), format!("n{MAX_NODES}"))]) {
        let refused = engraft("plan", &graph, &[]);
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(&format!("`{node}`")), "{node}: {said}");
    }
}
