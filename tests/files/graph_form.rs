//! The JSON form of networks: the documented examples run, the published schema says what the code reads, and whatever is
//! wrong with a graph, the answer names the node.

use std::collections::{BTreeMap, BTreeSet};

use engraft::domain::problem::{Code, Problem};
use engraft::fusion::reference::verify;
use engraft::fusion::{self, Ensemble, Member};
use engraft::model::costs::Costs;
use engraft::model::graph::{Graph, MAX_NODES, json};
use engraft::model::groups::Couplings;
use engraft::model::header::{CheckpointHeader, Dtype, TensorInfo};
use engraft::model::parameters;
use engraft::model::plan::FusionPlan;
use engraft::model::precision::Precision;
use engraft::plan::network::JobFiles;
use engraft::plan::parse::parse as parse_job;
use engraft::plan::resolve::resolve;
use engraft::settings::{Size, Target};
use engraft::train::init;
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

fn docs(file: &str) -> String {
    std::fs::read_to_string(format!("{}/docs/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The JSON blocks of `docs/graph.md`.
fn examples() -> Vec<Value> {
    let text = docs("graph.md");
    let blocks = text.split("```json").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap()).collect()
}

/// One node of every operation, each behind an input that suits it.
fn nodes() -> Vec<(Value, Value)> {
    let image = json!([4, 8, 6]);
    let tokens = json!([4, 9]);
    let names = json!({"query": "q", "key": "k", "value": "v", "output": "o"});
    let window = json!({"kernel": [3, 2], "stride": 2, "padding": [1, 0], "ceil_mode": true});
    let with = |op: &str, fields: &Value| {
        let mut node = fields.clone();
        node["op"] = json!(op);
        node
    };
    let mut list = vec![
        (json!([4]), json!({"op": "linear", "in_features": 4, "out_features": 3})),
        (
            tokens.clone(),
            json!({"op": "conv1d", "in_channels": 4, "out_channels": 2, "kernel": 3, "groups": 2, "bias": true}),
        ),
        (image.clone(), json!({"op": "conv2d", "in_channels": 4, "out_channels": 8, "kernel": 3, "dilation": [1, 2]})),
        (image.clone(), json!({"op": "group_norm", "groups": 2, "features": 4})),
        (image.clone(), json!({"op": "gelu", "approximate": "tanh"})),
        (image.clone(), json!({"op": "leaky_relu", "negative_slope": 0.2})),
        (image.clone(), json!({"op": "elu", "alpha": 0.5})),
        (image.clone(), json!({"op": "dropout", "p": 0.1})),
        (image.clone(), json!({"op": "reshape", "positions": [48]})),
        (image.clone(), json!({"op": "layer_scale", "features": 4, "unit_axes": 2})),
        (image.clone(), json!({"op": "add", "inputs": ["input", "input"]})),
        (image.clone(), json!({"op": "multiply", "inputs": ["input", "input"]})),
        (image.clone(), json!({"op": "concat", "inputs": ["input", "input"]})),
        (tokens.clone(), json!({"op": "max_pool1d", "kernel": 2})),
        (tokens.clone(), json!({"op": "avg_pool1d", "kernel": 2, "count_include_pad": false})),
        (tokens.clone(), json!({"op": "class_token", "features": 4})),
        (tokens.clone(), json!({"op": "positional_embedding", "features": 4, "tokens": 9})),
        (tokens.clone(), json!({"op": "attention", "features": 4, "heads": 2, "projections": names, "bias": false})),
        (tokens.clone(), json!({"op": "token_mean"})),
        (tokens, json!({"op": "token_select", "index": 8})),
    ];
    for op in ["layer_norm", "global_response_norm"] {
        list.push((image.clone(), json!({"op": op, "features": 4, "eps": 1e-3})));
    }
    list.push((image.clone(), json!({"op": "batch_norm", "affine": false, "features": 4, "eps": 1e-3})));
    list.push((image.clone(), json!({"op": "scale", "factor": 0.5})));
    list.push((image.clone(), json!({"op": "zero_pad", "begin": [0, 1], "end": [2, 0]})));
    list.push((image.clone(), json!({"op": "zeros", "features": 3})));
    for op in ["adaptive_avg_pool2d", "adaptive_max_pool2d"] {
        list.push((image.clone(), json!({"op": op, "output": [2, 3]})));
    }
    list.push((image.clone(), json!({"op": "blur_pool2d", "kernel": 5, "stride": 1})));
    for op in ["max_pool2d", "avg_pool2d"] {
        list.push((image.clone(), with(op, &window)));
    }
    let plain =
        "relu relu6 silu hardswish sigmoid hardsigmoid tanh selu mish softplus softmax global_avg_pool2d flatten";
    list.extend(plain.split(' ').map(|op| (image.clone(), json!({"op": op}))));
    list
}

fn one_node((shape, node): (Value, Value)) -> Value {
    let mut node = node;
    node["name"] = json!("it");
    let mut nodes = vec![json!({"name": "input", "op": "input", "shape": shape}), node];
    if nodes[1]["op"] == "zeros" {
        nodes.push(json!({"name": "both", "op": "concat", "inputs": ["input", "it"]}));
    }
    json!({"nodes": nodes})
}

fn plan(graphs: &[Graph], target: &Target) -> Result<FusionPlan, Problem> {
    FusionPlan::new(graphs, target, &Precision::default(), None)
}

fn noise(len: usize) -> Vec<f32> {
    (0..len).map(|at| ((at * 7919) % 101) as f32 / 50.0 - 1.0).collect()
}

#[test]
fn the_documented_examples_run_and_fuse() {
    let examples = examples();
    assert_eq!(examples.len(), 3);
    for example in &examples {
        let graph = json::parse(example).unwrap();
        let states = [1, 2].map(|seed| init(&graph, seed).unwrap());
        let members: Vec<Member<'_>> = states.iter().map(|weights| Member { graph: &graph, weights }).collect();
        let inputs = noise(2 * graph.input_shape().iter().product::<usize>());
        let logits = verify::reference(members[0], &inputs, 2).unwrap();
        assert_eq!(logits.len(), 20);
        assert!(logits.iter().all(|logit| logit.is_finite()) && (logits[0] - logits[10]).abs() > 1e-6);
        let planned = plan(&[graph.clone(), graph.clone()], &Target::default()).unwrap();
        assert_eq!(planned.fused, graph);
        let ensemble = Ensemble::new(members.clone()).unwrap();
        let mean = verify::mean_of_members(&ensemble, &inputs, 2).unwrap();
        assert!(verify::Agreement::of(&mean, &verify::concatenation(&ensemble, &inputs, 2).unwrap()).holds());
        assert_eq!(fusion::joint(&members, &planned.targets).unwrap().graph, graph);
    }
}

#[test]
fn the_schema_says_what_the_code_reads() {
    let schema: Value = serde_json::from_str(&docs("graph.schema.json")).unwrap();
    let published = published();
    let fault = |graph: &Value| published.validate(graph).err().map(|error| error.to_string());
    for graph in examples().into_iter().chain(nodes().into_iter().map(one_node)) {
        let read = json::parse(&graph).unwrap_or_else(|faults| panic!("{graph}: {faults:?}"));
        assert_eq!(fault(&graph), None, "{graph}");
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(fault(&written), None, "{written}");
    }
    // Every operation of the code with all its fields, and no more.
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for graph in nodes().into_iter().map(one_node) {
        let written = serde_json::to_value(json::parse(&graph).unwrap()).unwrap();
        for node in written["nodes"].as_array().unwrap() {
            let keys = node.as_object().unwrap().keys().cloned().collect();
            fields.insert(node["op"].as_str().unwrap().to_owned(), keys);
        }
    }
    let described = schema["$defs"]["node"]["oneOf"].as_array().unwrap().iter().map(|node| {
        let keys = node["properties"].as_object().unwrap().keys().cloned().collect();
        (node["properties"]["op"]["const"].as_str().unwrap().to_owned(), keys)
    });
    assert_eq!(described.collect::<BTreeMap<String, BTreeSet<String>>>(), fields);
    let unknown = json::parse(&one_node((json!([4]), json!({"op": "swish"})))).unwrap_err();
    let known = unknown[0].detail.split_once("expected one of ").unwrap().1;
    let known = known.split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(known, fields.keys().cloned().collect());
}

#[test]
fn the_schema_refuses_what_no_graph_may_say() {
    let published = published();
    let changes = [
        ("/nodes/1/kernel", json!(0)),
        ("/nodes/1/kernel", json!([3, 3, 3])),
        ("/nodes/1/in_channels", json!(-3)),
        ("/nodes/1/bias", json!("yes")),
        ("/nodes/2/features", json!("eight")),
        ("/nodes/2/op", json!("swish")),
        ("/nodes/2/eps", json!(-1.0)),
        ("/nodes/9/inputs", json!(["block.bn2"])),
        ("/nodes/9/inputs", json!([1, 2])),
        ("/nodes/3/name", json!("")),
        ("/nodes/3/slope", json!(1)),
        ("/nodes/0/shape", json!([])),
        ("/nodes", json!([])),
        ("/edges", json!([])),
    ];
    for (pointer, value) in changes {
        let mut graph = examples().remove(1);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        graph.pointer_mut(parent).unwrap()[key] = value;
        assert!(!published.is_valid(&graph), "{pointer}");
        assert!(json::parse(&graph).is_err(), "{pointer}");
    }
}

/// The published schema of networks.
fn published() -> Validator {
    jsonschema::validator_for(&serde_json::from_str(&docs("graph.schema.json")).unwrap()).unwrap()
}

/// The header of a checkpoint that has a network's tensors.
fn header(graph: &Graph) -> CheckpointHeader {
    let tensor = |parameters::Parameter { name, shape, .. }| TensorInfo { name, dtype: Dtype::F32, shape };
    CheckpointHeader::new(parameters::of_graph(graph).into_iter().map(tensor).collect())
}

/// A job for two members of the third example with `graph` as its architecture.
fn planned(graph: &Value) -> Result<Graph, Problem> {
    let member = header(&json::parse(&examples()[2]).unwrap());
    let body = json!({"members": ["a", "b"], "architecture": {"graph": graph}});
    let inputs = JobFiles { members: vec![&member, &member], ..JobFiles::default() };
    let resolved = resolve(parse_job(&body).map_err(Problem::faults)?, &inputs)?;
    Ok(resolved.planned.unwrap().network.fusion.fused)
}

#[test]
fn a_job_takes_a_graph_and_names_the_node_at_fault() {
    let graph = examples().remove(2);
    assert_eq!(planned(&graph).unwrap(), json::parse(&graph).unwrap());
    let refused = |pointer: &str, value: Value| {
        let mut graph = graph.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        graph.pointer_mut(parent).unwrap()[key] = value;
        let problem = planned(&graph).unwrap_err();
        assert_eq!(problem.code, Code::InvalidRequest, "{problem}");
        let below = format!("/architecture/graph{}", pointer.rsplitn(2, '/').last().unwrap());
        assert!(problem.errors[0].pointer.starts_with(&below), "{problem}");
        problem.errors[0].detail.clone()
    };
    let cycle = refused("/nodes/14/inputs", json!(["gate", "sum"]));
    assert!(cycle.contains("`gated`") && cycle.contains("no node `sum` before it"), "{cycle}");
    let itself = refused("/nodes/16/inputs", json!(["project", "sum"]));
    assert!(itself.contains("`sum`"), "{itself}");
    let dangling = refused("/nodes/4/inputs", json!(["nowhere"]));
    assert!(dangling.contains("`expand_bn`") && dangling.contains("`nowhere`"), "{dangling}");
    let unread = refused("/nodes/4/inputs", json!(["stem"]));
    assert!(unread.contains("expected 24 channels, got 8") && unread.contains("`expand_bn`"), "{unread}");
    let shapes = refused("/nodes/15/in_channels", json!(23));
    assert!(shapes.contains("`project`") && shapes.contains("expected 23 input channels, got 24"), "{shapes}");
    let groups = refused("/nodes/6/groups", json!(5));
    assert!(groups.contains("`depthwise`") && groups.contains("divides"), "{groups}");
    assert!(refused("/nodes/2/op", json!("swish")).contains("`stem_act`"));
    assert!(refused("/nodes/1/out_channels", json!(1_u64 << 62)).contains("`stem`"));
    assert!(refused("/nodes/1/padding", json!(1_u64 << 40)).contains("`stem`"));
    assert!(refused("/nodes/20/out_features", json!(1_u64 << 34)).contains("`classifier`"));
    assert!(refused("/nodes/9/output", json!([1 << 20, 1 << 20])).contains("`pool`"));
    assert!(refused("/nodes/2/op", json!("x".repeat(100_000))).len() < 1000);
}

#[test]
fn graphs_beyond_all_bounds_are_refused() {
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(serde_json::from_str::<Value>(&nested).is_err(), "the reader of JSON has a limit of its own");
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let faults = json::parse(&one_node((json!([4]), json!({"op": "linear", "in_features": deep, "out_features": 3}))));
    assert!(faults.unwrap_err()[0].detail.contains("`it`"));
    let many: Vec<Value> = (0..=MAX_NODES).map(|at| json!({"name": format!("n{at}"), "op": "relu"})).collect();
    assert!(json::parse(&json!({ "nodes": many })).unwrap_err()[0].detail.contains("at most"));
    let wrong: Vec<Value> = (0..MAX_NODES).map(|at| json!({"name": format!("n{at}"), "op": "swish"})).collect();
    assert_eq!(json::parse(&json!({ "nodes": wrong })).unwrap_err().len(), 100);
    let mut doubling = vec![json!({"name": "n0", "op": "input", "shape": [1]})];
    doubling.extend((1..64).map(|at| {
        let before = format!("n{}", at - 1);
        json!({"name": format!("n{at}"), "op": "concat", "inputs": [before, before]})
    }));
    let fault = &json::parse(&json!({ "nodes": doubling })).unwrap_err()[0];
    assert!(fault.detail.contains("`n29`"), "{}", fault.detail);
    let wide = json::parse(&json!({ "nodes": doubling[..24] })).unwrap();
    assert_eq!(Couplings::of(&wide).unwrap_err().node, "n22");
}

/// Replaces something somewhere in a graph.
fn mutated(graph: &Value, node: usize, field: usize, with: &Value) -> Value {
    let mut graph = graph.clone();
    let nodes = graph["nodes"].as_array_mut().unwrap();
    let count = nodes.len();
    let node = nodes[node % count].as_object_mut().unwrap();
    let fields =
        ["inputs", "op", "kernel", "stride", "groups", "padding", "dilation", "features", "positions", "output"];
    let keys: Vec<String> = node.keys().cloned().chain(fields.map(str::to_owned)).collect();
    node.insert(keys[field % keys.len()].clone(), with.clone());
    graph
}

fn anything() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("input"),
        Just("stem"),
        Just("sum"),
        Just("gate"),
        Just("add"),
        Just("multiply"),
        Just("concat"),
        Just("flatten"),
        Just("group_norm"),
        Just("softmax"),
        Just("token_mean"),
        Just("reshape"),
        Just("attention"),
        Just("conv2d"),
    ];
    let number = prop_oneof![0_u64..10, Just(24), Just(1 << 16), Just(1 << 32), Just(u64::MAX)];
    prop_oneof![
        name.clone().prop_map(|name| json!(name)),
        prop::collection::vec(name, 0..3).prop_map(|names| json!(names)),
        number.clone().prop_map(|number| json!(number)),
        prop::collection::vec(number, 0..4).prop_map(|numbers| json!(numbers)),
        any::<f64>().prop_map(|number| json!(number)),
        Just(Value::Null),
        any::<bool>().prop_map(|flag| json!(flag)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a graph says, it is read or refused, and so are the plans for it; nothing panics.
    #[test]
    fn wrong_graphs_are_answered(
        example in 0_usize..3,
        changes in prop::collection::vec((0_usize..32, 0_usize..16, anything()), 1..4),
    ) {
        let graph = examples().remove(example);
        let graph = changes.iter().fold(graph, |graph, (node, field, with)| mutated(&graph, *node, *field, with));
        match json::parse(&graph) {
            Ok(graph) => {
                let _ = Costs::of(&graph, &Precision::default());
                let planned = plan(&[graph.clone(), graph.clone()], &Size::Factor(0.5).into());
                let single = plan(std::slice::from_ref(&graph), &Target::default());
                if let Ok(plan) = single {
                    prop_assert_eq!(plan.fused, graph);
                }
                prop_assert!(planned.is_ok() || planned.is_err_and(|problem| !problem.detail.is_empty()));
            }
            Err(faults) => prop_assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.detail.is_empty())),
        }
    }
}
