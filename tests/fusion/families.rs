//! Every family is recognised from names and shapes alone, and computes what PyTorch does: fixtures of
//! `tests/fixtures/families/generate.py`, with weights that are generated from names and shapes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::common::app::TestApp;
use crate::common::shared_data::shared;
use crate::common::weights::{self, header};
use engraft::exec::CpuNetwork;
use engraft::export::onnx::write_onnx;
use engraft::fusion::Member;
use engraft::fusion::reference::verify::{Agreement, TOLERANCE, reference};
use engraft::kernels::Float;
use engraft::kernels::loss::Targets;
use engraft::model::families::{self, FAMILIES, inspect};
use engraft::model::graph::{Graph, Shape};
use engraft::model::header::{CheckpointHeader, TensorInfo};
use engraft::settings::Architecture;
use engraft::tensors::StateDict;
use serde::Deserialize;
use serde_json::{Value, json};

/// A network as PyTorch has it.
#[derive(Deserialize)]
struct Fixture {
    family: String,
    seed: u64,
    input: Shape,
    logits: Vec<Vec<f32>>,
    tensors: Value,
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names of the fixtures.
fn fixtures() -> Vec<String> {
    let folder = package().join("tests/fixtures/families");
    let files = std::fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut names: Vec<String> = files.filter(is_json).map(name).collect();
    names.sort_unstable();
    names
}

fn load(name: &str) -> Fixture {
    let path = package().join(format!("tests/fixtures/families/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("its form")
}

/// Recognises the fixture's network from names and shapes alone, and for the fixture's input; survives its JSON form.
fn recognise(name: &str, fixture: &Fixture, header: &CheckpointHeader) -> Graph {
    let found = inspect(header);
    let families: BTreeSet<&str> = found
        .network
        .iter()
        .map(|network| network.family.as_str())
        .chain(found.candidates.iter().map(|candidate| candidate.family.as_str()))
        .collect();
    assert_eq!(families, BTreeSet::from([fixture.family.as_str()]), "{name}: {:?}", found.unrecognised);
    let example = fixture.input[1..].to_vec();
    let mut detected = families::detect(&[header], &Architecture::default(), Some(&example)).expect(name);
    assert_eq!(detected.family, fixture.family, "{name}");
    let graph = detected.graphs.remove(0);
    let written = serde_json::to_value(&graph).expect("a JSON form");
    assert_eq!(serde_json::from_value::<Graph>(written).as_ref().ok(), Some(&graph), "{name}");
    graph
}

/// Compares the logits of the fixture's network with PyTorch's.
fn check_logits(name: &str, fixture: &Fixture) {
    let header = header(&fixture.tensors);
    let graph = recognise(name, fixture, &header);
    let weights = weights::state_dict(&header, fixture.seed);
    let inputs = weights::inputs(&fixture.input, fixture.seed);
    let got = reference(Member { graph: &graph, weights: &weights }, &inputs, fixture.input[0]).expect(name);
    let expected = fixture.logits.concat();
    let scale = expected.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
    let mut engine: CpuNetwork = compiled(&graph, &weights, fixture.input[0]);
    for (runner, got) in [("reference", &got[..]), ("training engine", engine.forward(&inputs).expect("a batch"))] {
        let agreement = Agreement { scale, ..Agreement::of(&expected, got) };
        assert!(agreement.holds(), "{name}, {runner}: {agreement:?}, at most {TOLERANCE} of the scale is allowed");
    }
}

fn compiled<T: Float>(graph: &Graph, weights: &StateDict, batch: usize) -> CpuNetwork<T> {
    let mut network = CpuNetwork::compile(graph, batch, 2).expect("a network");
    network.load(weights).expect("its weights");
    network
}

/// Compares the logits of all fixtures of some families.
fn check_families(families: &[&str]) {
    let mut left: BTreeSet<&str> = families.iter().copied().collect();
    for name in fixtures() {
        let fixture = load(&name);
        if families.contains(&fixture.family.as_str()) {
            left.remove(fixture.family.as_str());
            check_logits(&name, &fixture);
        }
    }
    assert!(left.is_empty(), "no fixtures of {left:?}");
}

/// One step of a network as PyTorch computes it in 64 bits: of each gradient the norm, then some values; see
/// `tests/fixtures/training/make_families.py`.
#[derive(Deserialize)]
struct Step {
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

/// Examples of a step.
const BATCH: usize = 4;

/// Compares loss and gradients of one step with PyTorch's.
fn check_step<T: Float>(name: &str, step: &Step, tolerance: f64) {
    let fixture = load(name);
    let header = header(&fixture.tensors);
    let graph = recognise(name, &fixture, &header);
    let mut network: CpuNetwork<T> = compiled(&graph, &weights::state_dict(&header, fixture.seed), BATCH);
    let shape = [&[BATCH], &fixture.input[1..]].concat();
    let inputs: Vec<T> =
        weights::inputs(&shape, fixture.seed).into_iter().map(|value| T::of(f64::from(value))).collect();
    let labels: Vec<u32> = (0..BATCH as u32).map(|i| (3 * i + 1) % 10).collect();
    let loss = network.gradients(&inputs, Targets::of(&labels)).expect("a batch").loss;
    assert!((loss - step.loss).abs() < tolerance * step.loss, "{name}: loss {loss} for {}", step.loss);
    // Gradients that are zero but for rounding, of biases before a BatchNorm, are held to the size of the others.
    let whole = step.gradients.values().map(|values| values[0].powi(2)).sum::<f64>().sqrt();
    assert_eq!(network.parameters().len(), step.gradients.len(), "{name}");
    network.update(|parameters| {
        for parameter in parameters {
            let expected = &step.gradients[&parameter.name];
            let gradient = parameter.values_and_gradient().1.to_vec();
            let gradient = parameter.to_pytorch(&gradient);
            let norm = gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let size = expected[0] + 0.01 * whole / (step.gradients.len() as f64).sqrt();
            assert!((norm - expected[0]).abs() < tolerance * size, "{name} {}: {norm} {expected:?}", parameter.name);
            let every = (gradient.len() / 4).max(1);
            let typical = size / (gradient.len() as f64).sqrt();
            for (got, expected) in gradient.iter().step_by(every).zip(&expected[1..]) {
                let (got, near) = (f64::from(*got), tolerance * expected.abs().max(typical));
                assert!((got - expected).abs() < near, "{name} {}: {got} for {expected}", parameter.name);
            }
        }
    });
}

/// In 64 bits; in 32 bits, too, but for DenseNet, whose gradients PyTorch's own 32 bits miss by 2 %.
#[test]
fn gradients_of_one_step_are_those_of_pytorch() {
    let file = package().join("tests/fixtures/training/families.json");
    let mut steps: BTreeMap<String, Value> =
        serde_json::from_slice(&std::fs::read(file).expect("the fixture")).expect("its form");
    steps.remove("versions");
    assert_eq!(steps.len(), 8);
    for (name, step) in steps {
        let step = Step::deserialize(step).expect("a step");
        check_step::<f64>(&name, &step, 2e-6);
        if name != "densenet121" {
            check_step::<f32>(&name, &step, 1e-4);
        }
    }
}

/// What is written as ONNX is read as the same tensors in a network that computes the same.
#[test]
fn every_network_survives_onnx() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("network.onnx");
    for name in fixtures() {
        let fixture = load(&name);
        let header = header(&fixture.tensors);
        let graph = recognise(&name, &fixture, &header);
        let weights = weights::state_dict(&header, fixture.seed);
        let mut file = std::fs::File::create(&path).expect("a file");
        write_onnx(&graph, &weights, None, &mut file).expect(&name);
        let read = engraft::tensors::Checkpoint::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shapes = |tensors: &[TensorInfo]| -> BTreeMap<String, Shape> {
            let floats = tensors.iter().filter(|info| info.dtype.is_float());
            floats.map(|info| (info.name.clone(), info.shape.clone())).collect()
        };
        assert_eq!(shapes(&read.header().tensors), shapes(&header.tensors), "{name}");
        let stated = serde_json::from_value(read.header().stated.clone().expect("a network")).expect("its form");
        let member = Member { graph: &stated, weights: &read };
        let inputs = weights::inputs(&fixture.input, fixture.seed);
        let got = reference(member, &inputs, fixture.input[0]).expect("logits");
        assert!(Agreement::of(&fixture.logits.concat(), &got).holds(), "{name}");
    }
}

#[test]
fn every_network_is_recognised() {
    for name in fixtures() {
        let fixture = load(&name);
        recognise(&name, &fixture, &header(&fixture.tensors));
    }
}

#[test]
fn chains_compute_what_pytorch_does() {
    check_families(&["mlp", "lenet", "cnn"]);
}

#[test]
fn residual_networks_compute_what_pytorch_does() {
    check_families(&["resnet", "wide_resnet"]);
}

#[test]
fn vggs_compute_what_pytorch_does() {
    check_families(&["vgg"]);
}

#[test]
fn densenets_compute_what_pytorch_does() {
    check_families(&["densenet"]);
}

#[test]
fn mobile_networks_compute_what_pytorch_does() {
    check_families(&["mobilenet_v2", "mobilenet_v3", "efficientnet"]);
}

#[test]
fn convnexts_and_transformers_compute_what_pytorch_does() {
    check_families(&["convnext", "vit"]);
}

/// The bits of `weights.tensor(name, shape, 7)` of the Python program beside the fixtures.
#[test]
fn the_generator_gives_the_numbers_of_the_python_one() {
    let cases: [(&str, &[usize], [u32; 2]); 6] = [
        ("fc1.weight", &[2, 3], [0x3f12_bf0f, 0xbf07_466c]),
        ("bn.running_var", &[2], [0x3fcf_d3dd, 0x3fa9_1b90]),
        ("dw.weight", &[2, 1, 3, 3], [0x3e92_fcfc, 0x3f6c_7d59]),
        ("pos_embed", &[1, 2, 2], [0xbeda_4b2a, 0xbd85_ab68]),
        ("a.bias", &[2], [0x3dfe_76f2, 0xbd7c_d7bc]),
        ("n.weight", &[2], [0x3f7d_86b2, 0x3f8a_879c]),
    ];
    let bits = |values: &[f32]| [values[0].to_bits(), values[1].to_bits()];
    for (name, shape, expected) in cases {
        let got = weights::tensor(name, shape, 7);
        assert_eq!(got.len(), shape.iter().product::<usize>());
        assert_eq!(bits(&got), expected, "{name}");
    }
    assert_eq!(bits(&weights::inputs(&[1, 3], 7)), [0xbf3b_9e30, 0x3f99_d0cf]);
}

#[test]
fn every_family_has_a_fixture_and_both_are_documented() {
    let page = std::fs::read_to_string(package().join("docs/families.md")).expect("docs/families.md");
    let fixtures = fixtures();
    for name in &fixtures {
        assert!(page.contains(&format!("`{name}`")), "docs/families.md lacks the fixture `{name}`");
    }
    let covered: BTreeSet<String> = fixtures.iter().map(|name| load(name).family).collect();
    for family in FAMILIES {
        assert!(page.contains(&format!("## `{}`", family.name)), "docs/families.md lacks the family `{}`", family.name);
        assert!(covered.contains(family.name), "the family `{}` has no fixture", family.name);
    }
}

#[test]
fn trained_members_are_recognised() {
    for (ensemble, family, input) in [
        ("mnist-mlp", "mlp", vec![784]),
        ("cifar-mlp", "mlp", vec![3072]),
        ("cifar-lenet", "lenet", vec![3, 32, 32]),
        ("cifar-resnet16", "resnet", vec![3, 32, 32]),
    ] {
        let file = format!("members/{ensemble}/m0.safetensors");
        let Some(file) = shared("trained_members_are_recognised", &file) else { continue };
        let found = inspect(engraft::tensors::Checkpoint::open(&file).expect("a checkpoint").header());
        let network =
            found.network.unwrap_or_else(|| panic!("{ensemble}: {:?} {:?}", found.candidates, found.unrecognised));
        assert_eq!((network.family.as_str(), network.input_shape), (family, input), "{ensemble}");
    }
}

fn engraft(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_engraft")).args(arguments).output().expect("the program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_shows_what_a_file_holds_or_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m0.safetensors");
    let fixture = load("mobilenet_v2");
    let weights = weights::state_dict(&header(&fixture.tensors), fixture.seed);
    weights.save(&path, &std::collections::BTreeMap::new()).expect("a file");
    let path = path.to_str().expect("a path");

    let (code, shown, _) = engraft(&["inspect", "--json", path]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((code, &shown["architecture"]["family"]), (Some(0), &Value::from("mobilenet_v2")));
    assert_eq!((&shown["name"], &shown["architecture"]["input_shape"][1]), (&"m0.safetensors".into(), &224.into()));
    assert_eq!(shown["tensors"].as_array().map(Vec::len), Some(314));
    let file = std::fs::read(path).expect("the file");
    assert_eq!(shown["sha256"], hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&file)));
    let (code, shown, _) = engraft(&["inspect", path]);
    assert!(
        code == Some(0) && shown.contains("inputs of shape [3, 224, 224]") && shown.contains("ambiguous: "),
        "{shown}"
    );

    std::fs::write(path, b"PK\x03\x04 a pickle in a zip").expect("a file");
    for wrong in [path, "absent.safetensors"] {
        let (code, shown, error) = engraft(&["inspect", wrong]);
        assert_eq!((code, shown.as_str()), (Some(1), ""), "{error}");
        assert!(
            error.contains(wrong)
                && error.contains("expected a file of safetensors, torch.save, torch.onnx.export or numpy.savez"),
            "{error}"
        );
    }
}

/// `state` as the bytes of a file.
fn file(state: &StateDict) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file.safetensors");
    state.save(&path, &BTreeMap::new()).expect("a file");
    std::fs::read(path).expect("the file")
}

/// Labelled noise, 3 x 32 x 32, in a training and a test split.
fn labelled_noise() -> StateDict {
    let mut data = StateDict::default();
    for (suffix, count) in [("", 24_usize), ("_test", 10)] {
        let images = weights::inputs(&[count, 3, 32, 32], count as u64);
        data.insert_f32(&format!("x{suffix}"), &[count, 3, 32, 32], images).expect("fits its shape");
        let labels: Vec<i64> = (0..count as i64).map(|index| index % 10).collect();
        let labels = candle_core::Tensor::from_vec(labels, count, &candle_core::Device::Cpu).expect("a tensor");
        data.insert(format!("y{suffix}"), labels);
    }
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mobile_network_is_fused_and_trained_over_http() {
    let app = TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await;
    let header = header(&load("mobilenet_v2").tensors);
    let put = async |path: &str, body: Vec<u8>| {
        let response = app.put(path, body).send().await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
    };
    for seed in 0..2 {
        put(&format!("/v1/checkpoints/m{seed}.safetensors"), file(&weights::state_dict(&header, seed))).await;
    }
    put("/v1/datasets/noise.safetensors", file(&labelled_noise())).await;
    assert_eq!(app.dataset("noise.safetensors").await["state"], "ready");
    let body = json!({
        "members": ["m0.safetensors", "m1.safetensors"],
        "architecture": {"assume": true},
        "dataset": "noise.safetensors",
        "finetune": {"epochs": 1, "batch_size": 8},
    });
    let response = app.request(reqwest::Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer");
    let queued: Value = response.json().await.expect("JSON");
    let job = format!("/v1/jobs/{}", queued["id"].as_str().unwrap_or_else(|| panic!("{queued:#}")));
    let mut view = queued;
    while !["succeeded", "failed"].contains(&view["state"].as_str().unwrap_or_default()) {
        let response = app.get(&job).header("Prefer", "wait=10").send().await.expect("an answer");
        view = response.json().await.expect("JSON");
    }
    assert_eq!(view["state"], "succeeded", "{view:#}");
    let report: Value = app.get(&format!("{job}/report")).send().await.expect("a report").json().await.expect("JSON");
    assert_eq!(report["architecture"], "mobilenet_v2");
    assert_eq!(report["epochs"].as_array().map(Vec::len), Some(2), "{:#}", report["epochs"]);
    let model = app.get(&format!("{job}/model")).send().await.expect("a model").bytes().await.expect("its bytes");
    let path = app.folder.path().join("fused.safetensors");
    std::fs::write(&path, model).expect("a file");
    let fused = engraft::tensors::Checkpoint::open(&path).expect("a checkpoint");
    let shapes = |header: &CheckpointHeader| -> BTreeMap<String, Shape> {
        header.tensors.iter().map(|info| (info.name.clone(), info.shape.clone())).collect()
    };
    assert_eq!(shapes(fused.header()), shapes(&header), "the members' own modules load it");
    app.stop().await;
}
