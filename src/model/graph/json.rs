//! The JSON form of a network: `{"nodes": [{"name", "op", "inputs", …}, …]}`, in order of computation.
//!
//! Operands go by name; a node without `inputs` reads the node before it. What has a default in PyTorch may be left out,
//! and a square `kernel`, `stride`, `padding` or `dilation` may be one number.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::domain::problem::{Fault, FaultCode};
use crate::model::graph::{Graph, MAX_NODES, Node, NodeId, Op};

/// Most faults that are listed.
const MAX_FAULTS: usize = 100;
/// Most characters of what is wrong with one node.
const MAX_DETAIL: usize = 800;

/// Reads the JSON form. Faults carry pointers relative to `value`.
///
/// # Errors
/// The nodes that cannot be read, each by name, up to 100 of them; or, when all can, the first that does not fit the others.
pub fn parse(value: &Value) -> Result<Graph, Vec<Fault>> {
    let fail = |code: FaultCode, detail: String| vec![Fault::new("", code, detail)];
    let Some(object) = value.as_object() else {
        return Err(fail(FaultCode::InvalidType, "expected an object with a list `nodes`".to_owned()));
    };
    if let Some(unknown) = object.keys().find(|key| *key != "nodes") {
        return Err(fail(FaultCode::UnknownField, format!("unknown field `{unknown}`; a graph has only `nodes`")));
    }
    let Some(list) = object.get("nodes").and_then(Value::as_array) else {
        return Err(fail(FaultCode::MissingField, "expected a list `nodes`".to_owned()));
    };
    if let Some(first) = list.get(MAX_NODES) {
        let name = short(first.get("name").and_then(Value::as_str).unwrap_or_default());
        let detail = format!(
            "node `{name}` is one too many: a graph may have at most {MAX_NODES} nodes, this one has {}",
            list.len()
        );
        return Err(vec![Fault::new(format!("/nodes/{MAX_NODES}"), FaultCode::TooManyNodes, detail)]);
    }
    let mut names: Vec<&str> = Vec::with_capacity(list.len());
    let mut places = std::collections::HashMap::with_capacity(list.len());
    let mut nodes = Vec::with_capacity(list.len());
    let mut faults = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
        match parse_node(value, &places, index) {
            Ok(node) => nodes.push(node),
            Err((field, detail)) => {
                let label = if name.is_empty() { format!("node {index}") } else { format!("node `{}`", short(name)) };
                let detail = format!("{label}: {}", short(&detail));
                faults.push(Fault::new(format!("/nodes/{index}{field}"), FaultCode::InvalidNode, detail));
            }
        }
        if faults.len() == MAX_FAULTS {
            return Err(faults);
        }
        names.push(name);
        places.entry(name).or_insert(NodeId(index));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Graph::new(nodes).map_err(|error| {
        let index = names.iter().rposition(|name| *name == error.node);
        let pointer = index.map_or_else(|| "/nodes".to_owned(), |index| format!("/nodes/{index}"));
        vec![Fault::new(pointer, FaultCode::InvalidGraph, error.to_string())]
    })
}

/// At most [`MAX_DETAIL`] characters of `text`.
fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What is wrong with one node: pointer below the node, and the text.
type NodeFault = (&'static str, String);

/// Reads the node at `index`; `places` are the nodes before it.
fn parse_node(
    value: &Value,
    places: &std::collections::HashMap<&str, NodeId>,
    index: usize,
) -> Result<Node, NodeFault> {
    let mut fields = value.as_object().ok_or(("", "expected an object".to_owned()))?.clone();
    let name = match fields.remove("name") {
        Some(Value::String(name)) if !name.is_empty() && name.len() <= 256 => name,
        _ => return Err(("/name", "expected a name of 1 to 256 bytes".to_owned())),
    };
    let inputs = match fields.remove("inputs") {
        Some(inputs) => parse_inputs(&inputs, places)?,
        None if fields.get("op") == Some(&json!("input")) => Vec::new(),
        None => index.checked_sub(1).map(NodeId).into_iter().collect(),
    };
    fill_defaults(&mut fields)?;
    let given: Vec<String> = fields.keys().cloned().collect();
    let op: Op = serde_json::from_value(Value::Object(fields)).map_err(|error| ("", error.to_string()))?;
    // An operation without fields would take any.
    let known = serde_json::to_value(&op).map_err(|error| ("", error.to_string()))?;
    if let Some(unknown) = given.iter().find(|field| known.get(field.as_str()).is_none()) {
        return Err(("", format!("unknown field `{unknown}`")));
    }
    Ok(Node { name, op, inputs })
}

/// Looks the operands up among the earlier nodes.
fn parse_inputs(value: &Value, places: &std::collections::HashMap<&str, NodeId>) -> Result<Vec<NodeId>, NodeFault> {
    let names: Vec<String> =
        Vec::deserialize(value).map_err(|_| ("/inputs", "expected a list of node names".to_owned()))?;
    let find = |name: &String| {
        let place = places.get(name.as_str()).copied();
        place.ok_or_else(|| {
            ("/inputs", format!("there is no node `{name}` before it; list nodes in order of computation"))
        })
    };
    names.iter().map(find).collect()
}

/// Puts in what may be left out, turns single numbers into pairs and PyTorch's `groups` into the width of a group.
fn fill_defaults(fields: &mut Map<String, Value>) -> Result<(), NodeFault> {
    let op = fields.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
    if fields.contains_key("group_width") {
        return Err(("/group_width", "unknown field `group_width`; give the number of `groups`".to_owned()));
    }
    if let Some(channels) = grouped_channels(&op) {
        put_group_width(fields, channels)?;
    }
    // What is usual is not written.
    if op == "batch_norm" && fields.get("affine") == Some(&json!(true)) {
        fields.remove("affine");
    }
    let pairs = if op.ends_with("2d") && op != "blur_pool2d" {
        &["kernel", "stride", "padding", "dilation", "output"][..]
    } else {
        &[]
    };
    for field in pairs {
        if let Some(number) = fields.get(*field).filter(|value| value.is_number()).cloned() {
            fields.insert((*field).to_owned(), json!([number, number]));
        }
    }
    let pool = ["max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"].contains(&op.as_str());
    if pool || op == "conv1d" || op == "conv2d" {
        let all = |number: usize| if op.ends_with("2d") { json!([number, number]) } else { json!(number) };
        let stride = if pool { fields.get("kernel").cloned().unwrap_or(Value::Null) } else { all(1) };
        fields.entry("stride").or_insert(stride);
        fields.entry("padding").or_insert(all(0));
        fields.entry("dilation").or_insert(all(1));
    }
    Ok(())
}

/// The field that counts the channels which fall into groups, of operations with groups.
fn grouped_channels(op: &str) -> Option<&'static str> {
    match op {
        "conv1d" | "conv2d" => Some("in_channels"),
        "group_norm" => Some("features"),
        _ => None,
    }
}

/// Replaces `groups` by `group_width`; one group of all channels has none.
fn put_group_width(fields: &mut Map<String, Value>, channels: &str) -> Result<(), NodeFault> {
    let all = fields.get(channels).and_then(Value::as_u64).unwrap_or_default();
    let groups = match fields.remove("groups") {
        None if channels == "features" => return Err(("", "missing field `groups`".to_owned())),
        None => 1,
        Some(value) => value.as_u64().unwrap_or_default(),
    };
    if groups == 0 || !all.is_multiple_of(groups) {
        let detail = format!("expected a number of groups from 1 that divides `{channels}` ({all})");
        return Err(("/groups", detail));
    }
    fields.insert("group_width".to_owned(), if groups == 1 { Value::Null } else { json!(all / groups) });
    Ok(())
}

/// The fields of `op` as they are written: the inverse of [`fill_defaults`].
fn written(op: &Op) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(op)?;
    if let Some(fields) = value.as_object_mut() {
        let channels = fields.get("op").and_then(Value::as_str).and_then(grouped_channels);
        let number = |field| fields.get(field).and_then(Value::as_u64);
        if let Some(all) = channels.and_then(number) {
            let groups = number("group_width").and_then(|width| all.checked_div(width)).unwrap_or(1);
            fields.remove("group_width");
            fields.insert("groups".to_owned(), json!(groups));
        }
    }
    Ok(value)
}

/// A node as it is written.
#[derive(Serialize)]
struct NodeForm<'a> {
    name: &'a str,
    inputs: Vec<&'a str>,
    #[serde(flatten)]
    op: Value,
}

fn form<'a>(graph: &'a Graph, node: &'a Node) -> Result<NodeForm<'a>, serde_json::Error> {
    let inputs = node.inputs.iter().map(|id| graph.node(*id).name.as_str()).collect();
    Ok(NodeForm { name: &node.name, inputs, op: written(&node.op)? })
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct GraphForm<'a> {
            nodes: Vec<NodeForm<'a>>,
        }
        let nodes = self.nodes().iter().map(|node| form(self, node)).collect::<Result<_, _>>();
        let nodes = nodes.map_err(serde::ser::Error::custom)?;
        GraphForm { nodes }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        parse(&value).map_err(|faults| {
            let details: Vec<String> = faults.into_iter().map(|fault| fault.detail).collect();
            serde::de::Error::custom(details.join("; "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lenet() -> Value {
        json!({"nodes": [
            {"name": "input", "op": "input", "shape": [1, 28, 28]},
            {"name": "conv1", "op": "conv2d", "in_channels": 1, "out_channels": 6, "kernel": 5, "padding": 2},
            {"name": "bn1", "op": "batch_norm", "features": 6, "eps": 1e-5},
            {"name": "relu1", "op": "relu"},
            {"name": "pool1", "op": "max_pool2d", "kernel": [2, 2]},
            {"name": "twice", "op": "add", "inputs": ["pool1", "pool1"]},
            {"name": "mean", "op": "global_avg_pool2d"},
            {"name": "flatten", "op": "flatten"},
            {"name": "fc", "op": "linear", "in_features": 6, "out_features": 10, "bias": true},
        ]})
    }

    #[test]
    fn the_form_reads_with_defaults_and_survives_writing() {
        let graph = parse(&lenet()).unwrap();
        assert_eq!(graph.shape(NodeId(4)), &vec![6, 14, 14]);
        let written = serde_json::to_value(&graph).unwrap();
        assert_eq!(serde_json::from_value::<Graph>(written).unwrap(), graph);
    }

    #[test]
    fn every_operation_reads_with_its_defaults_and_survives_writing() {
        let image = [
            json!({"op": "conv2d", "in_channels": 4, "out_channels": 8, "kernel": [3, 1], "padding": 2, "dilation": 2, "groups": 4}),
            json!({"op": "batch_norm", "features": 8}),
            json!({"op": "layer_norm", "features": 8, "eps": 1e-6}),
            json!({"op": "group_norm", "features": 8, "groups": 2}),
            json!({"op": "group_norm", "features": 8, "groups": 1}),
            json!({"op": "relu"}),
            json!({"op": "relu6"}),
            json!({"op": "leaky_relu"}),
            json!({"op": "gelu"}),
            json!({"op": "gelu", "approximate": "tanh"}),
            json!({"op": "silu"}),
            json!({"op": "hardswish"}),
            json!({"op": "sigmoid"}),
            json!({"op": "hardsigmoid"}),
            json!({"op": "tanh"}),
            json!({"op": "elu"}),
            json!({"op": "selu"}),
            json!({"op": "mish"}),
            json!({"op": "softplus"}),
            json!({"op": "softmax"}),
            json!({"op": "layer_scale", "features": 8, "unit_axes": 2}),
            json!({"op": "linear", "in_features": 8, "out_features": 8}),
            json!({"op": "max_pool2d", "kernel": 3, "stride": 2, "padding": 1, "ceil_mode": true}),
            json!({"op": "avg_pool2d", "kernel": 2, "count_include_pad": false}),
            json!({"op": "blur_pool2d", "stride": 1}),
            json!({"op": "adaptive_avg_pool2d", "output": 4}),
            json!({"op": "adaptive_max_pool2d", "output": [4, 2]}),
            json!({"op": "dropout", "p": 0.1}),
            json!({"op": "reshape", "positions": [8]}),
            json!({"op": "class_token", "features": 8}),
            json!({"op": "positional_embedding", "tokens": 9, "features": 8}),
            json!({"op": "attention", "features": 8, "heads": 2}),
            json!({"op": "attention", "features": 8, "heads": 4, "bias": false,
                   "projections": {"query": "q", "key": "k", "value": "v", "output": "o"}}),
            json!({"op": "conv1d", "in_channels": 8, "out_channels": 8, "kernel": 3, "padding": 1, "groups": 8}),
            json!({"op": "max_pool1d", "kernel": 2}),
            json!({"op": "avg_pool1d", "kernel": 2, "stride": 1}),
            json!({"op": "multiply", "inputs": ["n36", "n36"]}),
            json!({"op": "concat", "inputs": ["n37", "n36", "n37"]}),
            json!({"op": "token_select", "index": 2}),
        ];
        let mut nodes = vec![json!({"name": "n0", "op": "input", "shape": [4, 8, 8]})];
        for (index, mut node) in image.into_iter().enumerate() {
            node["name"] = json!(format!("n{}", index + 1));
            nodes.push(node);
        }
        let graph = parse(&json!({ "nodes": nodes })).unwrap();
        assert_eq!(graph.shape(graph.output()), &vec![24]);
        let written = serde_json::to_value(&graph).unwrap();
        assert_eq!(written["nodes"][1]["groups"], 4);
        assert_eq!(written["nodes"][4]["groups"], 2);
        assert_eq!(serde_json::from_value::<Graph>(written).unwrap(), graph);
    }

    #[test]
    fn wrong_graphs_name_the_node() {
        let fault = |pointer: &str, value: Value| {
            let mut graph = lenet();
            *graph.pointer_mut(pointer).unwrap() = value;
            let faults = parse(&graph).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            (faults[0].pointer.clone(), faults[0].detail.clone())
        };
        let (pointer, detail) = fault("/nodes/1/in_channels", json!(3));
        assert_eq!(pointer, "/nodes/1");
        assert!(detail.contains("`conv1`") && detail.contains("expected 3 input channels, got 1"), "{detail}");
        assert!(fault("/nodes/3/op", json!("swish")).1.contains("`relu1`"));
        assert!(fault("/nodes/5/inputs", json!(["pool1", "fc"])).1.contains("no node `fc` before it"));
        assert!(fault("/nodes/5/inputs", json!(["pool1"])).1.contains("expected 2 operands, got 1"));
        assert!(fault("/nodes/6/name", json!("conv1")).1.contains("taken"));
        assert!(fault("/nodes/1/kernel", json!(1e9)).1.contains("`conv1`"));
        assert!(fault("/nodes/1/out_channels", json!(1_u64 << 60)).1.contains("`conv1`"));
        assert!(fault("/nodes/8/in_features", json!(-6)).1.contains("`fc`"));
        assert!(fault("/nodes/2/features", json!("six")).1.contains("`bn1`"));
        assert_eq!(fault("/nodes", json!(7)).0, "");
        let mut unknown = lenet();
        unknown["nodes"][1]["kernels"] = json!(5);
        assert!(parse(&unknown).unwrap_err()[0].detail.contains("kernels"));
    }
}
