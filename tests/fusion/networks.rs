//! Never wrong: hundreds of networks that PyTorch computed (`tests/fixtures/networks/generate.py`), many of them twins with equal names and shapes and different
//! functions (`tests/fixtures/networks`). With a reference each is recognised as what it is or refused; without one it is
//! refused, or right and certain. `ENGRAFT_TEST_NETWORKS` names a folder with more of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::samples::task;
use crate::common::weights::{self, header};
use engraft::domain::problem::{Code, Problem};
use engraft::exec::CpuNetwork;
use engraft::model::families::Degree;
use engraft::model::graph::Graph;
use engraft::model::header::{CheckpointHeader, Dtype};
use engraft::pipeline::{self, JobOutcome};
use engraft::plan::network::JobFiles;
use engraft::plan::parse::parse;
use engraft::plan::resolve::resolve;
use engraft::tensors::{Checkpoint, StateDict};
use serde::Deserialize;
use serde_json::{Value, json};

/// Inputs whose logits a reference holds; the others are what is checked.
const REFERENCE: usize = 16;

/// Largest distance from PyTorch's logits, as a part of the largest.
const RIGHT: f32 = 1e-4;

/// A network as PyTorch has it.
#[derive(Deserialize)]
struct Fixture {
    seed: u64,
    input: Vec<usize>,
    logits: Vec<Vec<f32>>,
    tensors: Value,
    #[serde(default)]
    twin: Option<String>,
    /// Type of the weights; the logits of the reference are of this precision, too.
    #[serde(default = "single")]
    dtype: String,
}

fn single() -> String {
    "float32".to_owned()
}

impl Fixture {
    fn dtype(&self) -> Dtype {
        match self.dtype.as_str() {
            "float16" => Dtype::F16,
            "bfloat16" => Dtype::Bf16,
            other => {
                assert_eq!(other, "float32");
                Dtype::F32
            }
        }
    }
}

/// What became of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Right,
    RightAndCertain,
    Ambiguous,
    Unknown,
    Wrong,
}

/// A fixture as files: two members of the network (the second with other weights) and a reference of the first.
struct Files {
    folder: tempfile::TempDir,
    header: CheckpointHeader,
    inputs: Vec<f32>,
}

impl Files {
    fn new(fixture: &Fixture) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let header = header(&fixture.tensors);
        for (name, seed) in [("m0.safetensors", fixture.seed), ("m1.safetensors", fixture.seed + 1)] {
            let weights = weights::state_dict(&header, seed);
            weights.save_as(&folder.path().join(name), &BTreeMap::new(), |_| fixture.dtype()).expect("a file");
        }
        let inputs = weights::inputs(&fixture.input, fixture.seed);
        let mut reference = StateDict::default();
        let example: usize = fixture.input[1..].iter().product();
        let shape = [&[REFERENCE], &fixture.input[1..]].concat();
        reference.insert_f32("inputs", &shape, inputs[..REFERENCE * example].to_vec()).expect("inputs");
        let logits = fixture.logits[..REFERENCE].concat();
        reference.insert_f32("logits", &[REFERENCE, fixture.logits[0].len()], logits).expect("logits");
        reference.save(&folder.path().join("reference.safetensors"), &BTreeMap::new()).expect("a file");
        Self { folder, header, inputs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn body(&self, fixture: &Fixture, reference: bool) -> Value {
        let mut body = json!({
            "members": [self.path("m0.safetensors"), self.path("m1.safetensors")],
            "input_shape": fixture.input[1..],
            "method": {"importance": "magnitude"},
        });
        if reference {
            body["reference"] = json!(self.path("reference.safetensors"));
        }
        body
    }

    /// Fuses the members; the graph that they were taken for.
    fn fuse(&self, body: &Value) -> Result<Graph, Problem> {
        let job = parse(body).map_err(Problem::faults)?;
        let scratch = self.path("scratch");
        std::fs::create_dir_all(&scratch).expect("a folder");
        let task = task(job, scratch);
        match pipeline::run(&task, &mut |_| {}, &AtomicBool::new(false))? {
            JobOutcome::Finished(artifacts) => {
                let file = artifacts.iter().find(|file| file.name == "architecture").expect("an architecture");
                let form: Value = serde_json::from_slice(&std::fs::read(&file.path).expect("its file")).expect("JSON");
                Ok(serde_json::from_value(form).expect("a graph"))
            }
            JobOutcome::Stopped => panic!("nobody stopped it"),
        }
    }
}

/// Whether the graph gives PyTorch's logits for the inputs that no reference had; outputs may be logits, or probabilities as the
/// network's own last layer makes them.
fn is_right(graph: &Graph, files: &Files, fixture: &Fixture) -> bool {
    let example: usize = fixture.input[1..].iter().product();
    let count = fixture.input[0] - REFERENCE;
    let mut network: CpuNetwork = CpuNetwork::compile(graph, count, 2).expect("a network");
    network.load(&Checkpoint::open(&files.path("m0.safetensors")).expect("the member")).expect("its weights");
    let got = network.forward(&files.inputs[REFERENCE * example..]).expect("a batch").to_vec();
    let expected = fixture.logits[REFERENCE..].concat();
    let classes = fixture.logits[0].len();
    let scale = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let near = |got: &[f32]| got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() <= RIGHT * scale);
    let softmax = |log: bool| -> Vec<f32> {
        got.chunks_exact(classes)
            .flat_map(|row| {
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = row.iter().map(|value| (value - largest).exp()).sum();
                row.iter().map(move |value| {
                    let value = value - largest - sum.ln();
                    if log { value } else { value.exp() }
                })
            })
            .collect()
    };
    near(&got) || near(&softmax(true)) || near(&softmax(false))
}

/// What becomes of a network with a reference.
fn with_reference(files: &Files, fixture: &Fixture) -> (Outcome, String) {
    match files.fuse(&files.body(fixture, true)) {
        Ok(graph) if is_right(&graph, files, fixture) => (Outcome::Right, String::new()),
        Ok(_) => (Outcome::Wrong, String::new()),
        Err(problem) => refused(&problem),
    }
}

/// What becomes of it without one.
fn without_reference(files: &Files, fixture: &Fixture) -> (Outcome, String) {
    let job = parse(&files.body(fixture, false)).expect("a request");
    let inputs = JobFiles { members: vec![&files.header, &files.header], ..JobFiles::default() };
    match resolve(job, &inputs) {
        Ok(resolved) => {
            let network = resolved.planned.expect("a plan").network;
            match network.evidence.degree {
                // It would be fused without being run, into the same weights whichever it is.
                Degree::Ambiguous => (Outcome::Ambiguous, network.evidence.why),
                Degree::Certain if is_right(&network.detected.graphs[0], files, fixture) => {
                    (Outcome::RightAndCertain, String::new())
                }
                _ => (Outcome::Wrong, String::new()),
            }
        }
        Err(problem) => refused(&problem),
    }
}

fn refused(problem: &Problem) -> (Outcome, String) {
    match problem.code {
        Code::ArchitectureAmbiguous => (Outcome::Ambiguous, problem.detail.clone()),
        _ => (Outcome::Unknown, problem.to_string()),
    }
}

fn folder() -> PathBuf {
    std::env::var_os("ENGRAFT_TEST_NETWORKS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks"), PathBuf::from)
}

#[test]
fn no_network_is_taken_for_another() {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    names.sort_unstable();
    assert!(names.len() >= 60, "{} networks", names.len());
    let mut counts: BTreeMap<(Outcome, Outcome), Vec<String>> = BTreeMap::new();
    for path in names {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let fixture: Fixture = serde_json::from_slice(&std::fs::read(&path).expect("a fixture")).expect("its form");
        let files = Files::new(&fixture);
        let (with, why) = with_reference(&files, &fixture);
        let (without, reason) = without_reference(&files, &fixture);
        println!("{name}\t{with:?}\t{without:?}\t{}\t{why}\t{reason}", fixture.twin.as_deref().unwrap_or("-"));
        counts.entry((with, without)).or_default().push(name);
    }
    for ((with, without), names) in &counts {
        println!("with a reference {with:?}, without {without:?}: {}", names.len());
    }
    let wrong: Vec<&String> = counts
        .iter()
        .filter(|((with, without), _)| [*with, *without].contains(&Outcome::Wrong))
        .flat_map(|(_, names)| names)
        .collect();
    assert_eq!(wrong, Vec::<&String>::new());
}
