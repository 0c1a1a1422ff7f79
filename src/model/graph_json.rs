//! The JSON form of a network: `{"nodes": [{"name", "op", "inputs", …}, …]}`, in order of computation.
//!
//! Operands go by name; a node without `inputs` reads the node before it. `stride`, `padding` and `bias` may be left out
//! (1, or the window's size for pools; 0; false), and a square `kernel`, `stride` or `padding` may be one number.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::domain::problem::Fault;
use crate::model::graph::{Graph, MAX_NODES, Node, NodeId, Op};

/// Reads the JSON form. Faults carry pointers relative to `value`.
///
/// # Errors
/// All nodes that cannot be read, each by name; or, when all can, the first that does not fit the others.
pub fn parse(value: &Value) -> Result<Graph, Vec<Fault>> {
    let fail = |code: &str, detail: String| vec![Fault::new("", code, detail)];
    let Some(object) = value.as_object() else {
        return Err(fail("invalid_type", "expected an object with a list `nodes`".to_owned()));
    };
    if let Some(unknown) = object.keys().find(|key| *key != "nodes") {
        return Err(fail("unknown_field", format!("unknown field `{unknown}`; a graph has only `nodes`")));
    }
    let Some(list) = object.get("nodes").and_then(Value::as_array) else {
        return Err(fail("missing_field", "expected a list `nodes`".to_owned()));
    };
    if list.len() > MAX_NODES {
        return Err(fail(
            "too_large",
            format!("a graph may have at most {MAX_NODES} nodes, this one has {}", list.len()),
        ));
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
                let label = if name.is_empty() { format!("node {index}") } else { format!("node `{name}`") };
                faults.push(Fault::new(format!("/nodes/{index}{field}"), "invalid_node", format!("{label}: {detail}")));
            }
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
        vec![Fault::new(pointer, "invalid_graph", error.to_string())]
    })
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
    fill_defaults(&mut fields);
    let op: Op = serde_json::from_value(Value::Object(fields)).map_err(|error| ("", error.to_string()))?;
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

/// Puts in what may be left out, and turns single numbers into pairs.
fn fill_defaults(fields: &mut Map<String, Value>) {
    let op = fields.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
    if op == "conv2d" || op == "linear" {
        fields.entry("bias").or_insert(json!(false));
    }
    if !matches!(op.as_str(), "conv2d" | "max_pool2d" | "avg_pool2d") {
        return;
    }
    for field in ["kernel", "stride", "padding"] {
        if let Some(number) = fields.get(field).filter(|value| value.is_number()).cloned() {
            fields.insert(field.to_owned(), json!([number, number]));
        }
    }
    let stride = if op == "conv2d" { json!([1, 1]) } else { fields.get("kernel").cloned().unwrap_or(Value::Null) };
    fields.entry("stride").or_insert(stride);
    fields.entry("padding").or_insert(json!([0, 0]));
}

/// A node as it is written.
#[derive(Serialize)]
struct NodeForm<'a> {
    name: &'a str,
    inputs: Vec<&'a str>,
    #[serde(flatten)]
    op: &'a Op,
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct GraphForm<'a> {
            nodes: Vec<NodeForm<'a>>,
        }
        let nodes = self.nodes().iter().map(|node| NodeForm {
            name: &node.name,
            inputs: node.inputs.iter().map(|id| self.node(*id).name.as_str()).collect(),
            op: &node.op,
        });
        GraphForm { nodes: nodes.collect() }.serialize(serializer)
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
