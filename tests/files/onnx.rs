//! Networks as PyTorch's exporters write them to ONNX: `tests/fixtures/onnx/make.py`; and files that are no such.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use engraft::exec::CpuNetwork;
use engraft::fusion::Member;
use engraft::fusion::reference::verify::{Agreement, reference};
use engraft::model::families::{Degree, inspect};
use engraft::model::formats::onnx::{OnnxError, read};
use engraft::model::formats::protobuf::{put_bytes, put_integer};
use engraft::model::graph::{Graph, Shape};
use engraft::tensors::Checkpoint;
use serde::Deserialize;

use crate::common::weights;

/// Examples in a fixture's batch.
const BATCH: usize = 2;

#[derive(Deserialize)]
struct Expected {
    seed: u64,
    networks: BTreeMap<String, Network>,
}

#[derive(Deserialize)]
struct Network {
    input: Shape,
    logits: Vec<f32>,
    tensors: BTreeMap<String, Shape>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx")
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).expect("the fixture")).expect("its form")
}

/// Every file with the names of its network and of the way in which it was exported.
fn files() -> Vec<(String, String, PathBuf)> {
    let entries = std::fs::read_dir(folder()).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".onnx")?;
            let (network, variant) = name.split_once('.')?;
            Some((network.to_owned(), variant.to_owned(), path.clone()))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn exported_networks_compute_what_pytorch_does() {
    let Expected { seed, networks } = expected();
    let mut seen = BTreeMap::new();
    for (network, variant, path) in files() {
        let name = format!("{network}.{variant}");
        let Network { input, logits, tensors } = &networks[&network];
        let checkpoint = Checkpoint::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        checkpoint.check_finite().expect("weights");
        let found = inspect(checkpoint.header());
        assert_eq!(found.evidence.expect("evidence").degree, Degree::Certain, "{name}");
        let graph = found.network.expect("a network").graph;
        assert_eq!(graph.input_shape(), input, "{name}");
        let inputs = weights::inputs(&[&[BATCH], &input[..]].concat(), seed);
        let member = Member { graph: &graph, weights: &checkpoint };
        let plain = reference(member, &inputs, BATCH).expect("logits");
        let mut fast = CpuNetwork::<f32>::compile(&graph, BATCH, 1).expect("a network");
        fast.load(&checkpoint).expect("its weights");
        for (how, got) in [("plainly", &plain[..]), ("fast", fast.forward(&inputs).expect("logits"))] {
            let agreement = Agreement::of(logits, got);
            assert!(agreement.max_difference < 1e-5 * agreement.scale, "{name}, {how}: {agreement:?}");
        }
        check_names(&name, &checkpoint, tensors);
        *seen.entry(network).or_insert(0) += 1;
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), networks.keys().collect::<Vec<_>>());
}

/// Tensors have the names and shapes of the `state_dict`, but for what exporters fold into others.
fn check_names(name: &str, checkpoint: &Checkpoint, expected: &BTreeMap<String, Shape>) {
    // Matrices and factors that were computed while the file was read.
    let computed = |name: &str| name.starts_with("choice") || name.starts_with("affine");
    let own: Vec<_> = checkpoint.header().tensors.iter().filter(|info| !computed(&info.name)).collect();
    let known = own.iter().filter(|info| expected.get(&info.name) == Some(&info.shape)).count();
    // A bias that a BatchNorm became, or a constant of the network's own code.
    let is_bias = |name: &str| name.rsplit('.').next() == Some("bias");
    let others = own.iter().map(|info| info.name.as_str()).filter(|name| !expected.contains_key(*name));
    let strange: Vec<&str> = others.filter(|name| !is_bias(name)).collect();
    let allowed: &[&str] = if name.starts_with("normalised") { &["conv3.weight"] } else { &[] };
    assert_eq!(strange, allowed, "{name}");
    let folded = own.iter().filter(|info| !expected.contains_key(&info.name)).count();
    assert_eq!(known + folded, own.len(), "{name}: shapes differ");
    if name.ends_with("_raw") {
        assert_eq!((known, own.len()), (expected.len(), expected.len()), "{name} folds nothing");
    }
}

/// The graph of a small model with these nodes, each with an operator, operands and an output.
pub(crate) fn model(nodes: &[(&str, &[&str], &str)], tensors: &[Vec<u8>], shape: &[i64]) -> Vec<u8> {
    let mut graph = Vec::new();
    for (operator, inputs, output) in nodes {
        let mut node = Vec::new();
        for input in *inputs {
            put_bytes(&mut node, 1, input.as_bytes());
        }
        put_bytes(&mut node, 2, output.as_bytes());
        put_bytes(&mut node, 3, format!("/{output}/{operator}").as_bytes());
        put_bytes(&mut node, 4, operator.as_bytes());
        put_bytes(&mut graph, 1, &node);
    }
    for tensor in tensors {
        put_bytes(&mut graph, 5, tensor);
    }
    let mut axes = Vec::new();
    for size in shape {
        let mut axis = Vec::new();
        put_integer(&mut axis, 1, *size);
        put_bytes(&mut axes, 1, &axis);
    }
    let mut kind = Vec::new();
    put_integer(&mut kind, 1, 1);
    put_bytes(&mut kind, 2, &axes);
    let mut of_tensor = Vec::new();
    put_bytes(&mut of_tensor, 1, &kind);
    let mut input = Vec::new();
    put_bytes(&mut input, 1, b"x");
    put_bytes(&mut input, 2, &of_tensor);
    put_bytes(&mut graph, 11, &input);
    let mut output = Vec::new();
    put_bytes(&mut output, 1, b"y");
    put_bytes(&mut graph, 12, &output);
    let mut bytes = Vec::new();
    put_integer(&mut bytes, 1, 8);
    put_bytes(&mut bytes, 2, b"pytorch");
    let mut opset = Vec::new();
    put_integer(&mut opset, 2, 17);
    put_bytes(&mut bytes, 8, &opset);
    put_bytes(&mut bytes, 7, &graph);
    bytes
}

/// A tensor of a shape and data of any length.
fn tensor(name: &str, data_type: i64, shape: &[i64], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for axis in shape {
        put_integer(&mut bytes, 1, *axis);
    }
    put_integer(&mut bytes, 2, data_type);
    put_bytes(&mut bytes, 8, name.as_bytes());
    put_bytes(&mut bytes, 9, data);
    bytes
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes).expect_err("it is refused").to_string()
}

#[test]
fn what_is_not_read_is_named() {
    let weight = tensor("fc.weight", 1, &[3, 2], &floats(&[1.0; 6]));
    let linear = ("MatMul", &["x", "fc.weight"][..], "y");
    let transposed = tensor("fc.weight", 1, &[2, 3], &floats(&[1.0; 6]));
    let graph: Graph = read(&model(&[linear], std::slice::from_ref(&transposed), &[1, 2])).expect("a network").graph;
    assert_eq!((graph.nodes()[1].name.as_str(), graph.classes()), ("fc", 3));
    let unknown = refusal(&model(&[("TopK", &["x"], "y")], &[], &[1, 2]));
    assert!(unknown.contains("`/y/TopK`") && unknown.contains("TopK") && unknown.contains("`y`"), "{unknown}");
    let misfit = refusal(&model(&[linear], std::slice::from_ref(&weight), &[1, 2]));
    assert!(misfit.contains("3 channels meets 2"), "{misfit}");
    // In a circle, or after their use.
    let circle = [("Add", &["x", "b"][..], "a"), ("Relu", &["a"], "b"), ("Relu", &["b"], "y")];
    assert!(refusal(&model(&circle, &[], &[1, 2])).contains("operand `b` is not there"));
    let twice = [("Relu", &["x"][..], "a"), ("Tanh", &["x"], "a"), ("Relu", &["a"], "y")];
    assert!(refusal(&model(&twice, &[], &[1, 2])).contains("`a` is taken"));
    assert!(refusal(&model(&[("Relu", &["x"], "a")], &[], &[1, 2])).contains("`y` is not computed"));
    // Functions that are no activation, and layers that see the batch.
    let squared = [("Mul", &["x", "x"][..], "a"), ("Erf", &["a"], "y")];
    assert!(refusal(&model(&squared, &[], &[1, 2])).contains("`/y/Erf`"));
    // A matrix over tokens that all channels share.
    let mixer = refusal(&model(&[linear], std::slice::from_ref(&transposed), &[1, 3, 2]));
    assert!(mixer.contains("it mixes tokens"), "{mixer}");
}

#[test]
fn sizes_that_no_file_has_are_refused() {
    let linear = [("MatMul", &["x", "w"][..], "y")];
    for shape in [&[i64::MAX, 2][..], &[i64::MAX, i64::MAX], &[-1, 2], &[1 << 40, 1 << 40], &[2; 9], &[2, 4]] {
        let error = refusal(&model(&linear, &[tensor("w", 1, shape, &[0; 8])], &[1, 2]));
        assert!(error.contains("tensor `w`"), "{shape:?}: {error}");
    }
    assert!(refusal(&model(&linear, &[tensor("w", 8, &[1], b"a")], &[1, 2])).contains("number 8"));
    for shape in [&[1, i64::MAX][..], &[1, 1 << 20, 1 << 20], &[0, 2], &[1], &[1, 2, 3, 4, 5], &[1, 0], &[1, -4]] {
        assert!(read(&model(&[("Relu", &["x"], "y")], &[], shape)).is_err(), "{shape:?}");
    }
    let shape = tensor("s", 7, &[2], &[i64::MAX.to_le_bytes(), 2_i64.to_le_bytes()].concat());
    for operator in ["Reshape", "Expand", "Tile"] {
        assert!(read(&model(&[(operator, &["x", "s"], "y")], std::slice::from_ref(&shape), &[1, 2])).is_err());
    }
    // Lists of more parts than memory holds, and sums of sizes that overflow.
    let one = tensor("one", 1, &[1], &floats(&[1.0]));
    let endless = tensor("s", 7, &[1], &i64::MAX.to_le_bytes());
    for operator in ["SplitToSequence", "Concat"] {
        let nodes = [("Expand", &["one", "s"][..], "a"), (operator, &["a", "a"], "b"), ("Add", &["x", "b"], "y")];
        assert!(read(&model(&nodes, &[one.clone(), endless.clone()], &[1, 2])).is_err(), "{operator}");
        let nodes = [("Expand", &["one", "s"][..], "a"), (operator, &["a"], "b"), ("Add", &["x", "b"], "y")];
        assert!(read(&model(&nodes, &[one.clone(), endless.clone()], &[1, 2])).is_err(), "{operator}");
    }
    // A constant that grows with every node.
    let large = tensor("s", 7, &[1], &(1_i64 << 16).to_le_bytes());
    let names: Vec<String> = (0..2000).map(|index| format!("c{index}")).collect();
    let mut nodes = vec![("Expand", vec!["one", "s"], names[0].as_str())];
    for pair in names.windows(2) {
        nodes.push(("Add", vec![pair[0].as_str(), pair[0].as_str()], pair[1].as_str()));
    }
    nodes.push(("Add", vec!["x", names[names.len() - 1].as_str()], "y"));
    let nodes: Vec<(&str, &[&str], &str)> = nodes.iter().map(|(op, inputs, out)| (*op, &inputs[..], *out)).collect();
    assert!(refusal(&model(&nodes, &[one, large], &[1, 2])).contains("elements are computed"));
}

#[test]
fn chains_of_any_length_are_read_or_refused() {
    let names: Vec<String> = (0..3000).map(|index| format!("v{index}")).collect();
    let mut nodes: Vec<(&str, [&str; 1], &str)> = vec![("Tanh", ["x"], &names[0])];
    nodes.extend(names.windows(2).map(|pair| ("Tanh", [pair[0].as_str()], pair[1].as_str())));
    nodes.push(("Tanh", [names[names.len() - 1].as_str()], "y"));
    let nodes: Vec<(&str, &[&str], &str)> = nodes.iter().map(|(op, inputs, out)| (*op, &inputs[..], *out)).collect();
    assert!(refusal(&model(&nodes, &[], &[1, 2])).contains("functions"));
}

#[test]
fn broken_files_are_refused_without_harm() {
    let bytes = std::fs::read(folder().join("mlp.script.onnx")).expect("a fixture");
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "the first {end} bytes");
    }
    let mut accepted = 0;
    for at in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            accepted += usize::from(read(&changed).is_ok());
        }
    }
    assert!(accepted > 0, "weights may be anything");
    assert!(matches!(read(&[0x3a, 0x00]), Err(OnnxError::Model(_))));
    // Lengths without end.
    let mut bomb = Vec::new();
    for _ in 0..1000 {
        let mut outer = Vec::new();
        put_bytes(&mut outer, 7, &bomb);
        bomb = outer;
    }
    assert!(read(&bomb).is_err());
}

#[test]
fn a_file_that_is_no_network_is_refused_by_the_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broken.onnx");
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(&model(&[("TopK", &["x"], "y")], &[], &[1, 2])).expect("its bytes");
    let command = || std::process::Command::new(env!("CARGO_BIN_EXE_engraft"));
    let output = command().arg("inspect").arg(&path).output().expect("the program");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("TopK"), "{error}");
}

#[test]
fn the_command_converts_and_replaces_nothing_unasked() {
    let from = folder().join("resnet.script.onnx");
    let place = tempfile::tempdir().expect("a folder");
    let to = place.path().join("out.onnx");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_engraft"));
        let output = command.arg("convert").arg(&from).arg(&to).args(arguments).output().expect("the program");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&[]), (true, String::new()));
    let own = std::fs::read(&to).expect("the file");
    let tensors = |path: &Path| Checkpoint::open(path).expect("a checkpoint").header().tensors.clone();
    assert_eq!(tensors(&to), tensors(&from));
    let (done, error) = run(&["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]);
    assert!(!done && error.contains("--force") && std::fs::read(&to).expect("the file") == own, "{error}");
    let (done, error) = run(&["--force", "--mean", "0.5,0.5", "--std", "0.25,0.25"]);
    assert!(!done && error.contains("3 means"), "{error}");
    assert!(run(&["--force", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]).0);
    assert_ne!(std::fs::read(&to).expect("the file"), own);
}
