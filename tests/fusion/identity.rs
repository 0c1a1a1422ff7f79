//! What decides between networks that fit names and shapes: a reference, known accuracies, labels, the client's word; and what does
//! not decide, so that the job is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::common::samples::task;
use crate::common::weights;
use candle_core::{Device as CandleDevice, Tensor};
use engraft::domain::problem::{Code, Problem};
use engraft::exec::CpuNetwork;
use engraft::model::families;
use engraft::model::header::{CheckpointHeader, Dtype, TensorInfo};
use engraft::pipeline::{self, JobOutcome};
use engraft::plan::parse::parse;
use engraft::process::protocol::Message;
use engraft::settings::Architecture;
use engraft::tensors::StateDict;
use serde_json::{Value, json};

/// Examples of the train split.
const EXAMPLES: usize = 800;

fn header() -> CheckpointHeader {
    let tensor = |(name, shape): (&str, &[usize])| TensorInfo {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let shapes: [(&str, &[usize]); 6] = [
        ("0.weight", &[48, 20]),
        ("0.bias", &[48]),
        ("2.weight", &[32, 48]),
        ("2.bias", &[32]),
        ("4.weight", &[10, 32]),
        ("4.bias", &[10]),
    ];
    CheckpointHeader::new(shapes.into_iter().map(tensor).collect())
}

/// Two equal members of a network with tanh, and data that they label.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    inputs: Vec<f32>,
    logits: Vec<f32>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let header = header();
        let member = weights::state_dict(&header, 1);
        for name in ["m0", "m1"] {
            member.save(&folder.path().join(name), &BTreeMap::new()).expect("a file");
        }
        let architecture = parse(&json!({"members": ["m0"], "architecture": {"activation": "tanh"}})).expect("a job");
        let known = families::detect(&[&header], &architecture.architecture, None).expect("a network");
        assert_eq!(known.candidates.len(), 1);
        let inputs = weights::inputs(&[EXAMPLES, 20], 5);
        let mut network: CpuNetwork = CpuNetwork::compile(&known.graphs[0], EXAMPLES, 2).expect("a network");
        network.load(&member).expect("its weights");
        let logits = network.forward(&inputs).expect("a batch").to_vec();
        let lab = Self { folder, inputs, logits };
        lab.reference("reference", &lab.logits[..160]);
        let labels: Vec<i64> = lab.logits.chunks_exact(10).map(largest).collect();
        lab.dataset("data.safetensors", &labels);
        lab.dataset("noise.safetensors", &(0..EXAMPLES as i64).map(|index| index * 7 % 10).collect::<Vec<_>>());
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reference(&self, name: &str, logits: &[f32]) {
        let mut state = StateDict::default();
        let count = logits.len() / 10;
        state.insert_f32("inputs", &[count, 20], self.inputs[..count * 20].to_vec()).expect("inputs");
        state.insert_f32("logits", &[count, 10], logits.to_vec()).expect("logits");
        state.save(&self.path(name), &BTreeMap::new()).expect("a file");
    }

    /// The same examples as a train and a test split.
    fn dataset(&self, name: &str, labels: &[i64]) {
        let mut state = StateDict::default();
        for suffix in ["", "_test"] {
            state.insert_f32(&format!("x{suffix}"), &[EXAMPLES, 20], self.inputs.clone()).expect("inputs");
            let labels = Tensor::from_vec(labels.to_vec(), EXAMPLES, &CandleDevice::Cpu).expect("labels");
            state.insert(format!("y{suffix}"), labels);
        }
        state.save(&self.path(name), &BTreeMap::new()).expect("a file");
    }

    /// Runs a job: its report, its artifacts' names and the plan that it sends.
    pub(crate) fn run(&self, mut body: Value) -> Result<(Value, Vec<String>, Option<Value>), Problem> {
        body["members"] = json!([self.path("m0"), self.path("m1")]);
        for field in ["dataset", "reference"] {
            if let Some(name) = body[field].as_str() {
                body[field] = json!(self.path(name));
            }
        }
        let job = parse(&body).map_err(Problem::faults)?;
        let scratch = self.path("scratch");
        std::fs::create_dir_all(&scratch).expect("a folder");
        let task = task(job, scratch);
        let mut plan = None;
        let mut listen = |message: Message| {
            if let Message::Planned { plan: sent } = message {
                plan = Some(json!(sent));
            }
        };
        let JobOutcome::Finished(artifacts) = pipeline::run(&task, &mut listen, &AtomicBool::new(false))? else {
            panic!("nobody stopped it")
        };
        let report = artifacts.iter().find(|file| file.name == "report").expect("a report");
        let report = serde_json::from_slice(&std::fs::read(&report.path).expect("its file")).expect("JSON");
        Ok((report, artifacts.into_iter().map(|file| file.name).collect(), plan))
    }

    /// The degree and the activation of a job's evidence.
    fn evidence(&self, body: Value) -> (String, String) {
        let (report, ..) = self.run(body).expect("a job that ends well");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&report["evidence"]["degree"]), text(&report["evidence"]["settings"]["activation"]))
    }
}

fn largest(row: &[f32]) -> i64 {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best as i64
}

fn degree(name: &str, activation: &str) -> (String, String) {
    (name.to_owned(), activation.to_owned())
}

#[test]
fn a_reference_proves_the_network_and_the_plan_says_so() {
    let lab = Lab::new();
    let (report, artifacts, plan) = lab.run(json!({"reference": "reference"})).expect("a job that ends well");
    assert_eq!(report["evidence"]["degree"], "proven");
    assert_eq!(report["evidence"]["settings"]["activation"], "tanh");
    assert!(report["evidence"]["compared"][0]["distance"].as_f64().expect("a number") < 1e-5);
    assert!(artifacts.contains(&"architecture".to_owned()));
    assert_eq!(plan.expect("a plan")["evidence"], report["evidence"]);
    assert!(
        report["warnings"].as_array().expect("a list").iter().all(|line| !line.to_string().contains("not certain"))
    );
}

#[test]
fn a_reference_that_no_network_gives_is_refused_with_the_nearest() {
    let lab = Lab::new();
    let mut wrong = lab.logits[..160].to_vec();
    wrong[3] += 1.0;
    lab.reference("wrong", &wrong);
    let problem = lab.run(json!({"reference": "wrong"})).expect_err("no network gives these");
    assert_eq!(problem.code, Code::ArchitectureUnknown);
    assert!(problem.errors[0].detail.contains("distance") && problem.errors[0].detail.contains("tanh"), "{problem}");
    lab.reference("few", &lab.logits[..150]);
    let problem = lab.run(json!({"reference": "few"})).expect_err("15 inputs");
    assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::InvalidRequest, "/reference"));
    // It checks what is given, too.
    let given = json!({"reference": "reference", "architecture": {"activation": "relu"}});
    assert_eq!(lab.run(given).expect_err("it is tanh").code, Code::ArchitectureUnknown);
}

#[test]
fn labels_make_the_network_likely_and_every_report_says_so() {
    let lab = Lab::new();
    let body = || json!({"dataset": "data.safetensors", "finetune": null, "method": {"compensate": "none"}});
    assert_eq!(lab.evidence(body()), degree("likely", "tanh"));
    let (report, ..) = lab.run(body()).expect("a job that ends well");
    assert!(
        report["warnings"][0].as_str().expect("a line").contains("likely, not certain"),
        "{:#}",
        report["warnings"]
    );
    assert_eq!(report["evidence"]["compared"][0]["accuracy"], json!([1.0, 1.0]));
}

#[test]
fn labels_that_tell_nothing_are_refused_unless_the_client_assumes() {
    let lab = Lab::new();
    let body = |assume: bool| json!({"dataset": "noise.safetensors", "finetune": null, "architecture": {"assume": assume}, "method": {"compensate": "none"}});
    let problem = lab.run(body(false)).expect_err("noise");
    assert_eq!(problem.code, Code::ArchitectureAmbiguous);
    assert!(problem.detail.contains("reference") && problem.detail.contains("assume"), "{problem}");
    assert_eq!(lab.evidence(body(true)), degree("assumed", "relu"));
}

#[test]
fn known_accuracies_prove_the_network_or_refute_all() {
    let lab = Lab::new();
    let body = |accuracy: f64| json!({"dataset": "data.safetensors", "finetune": null, "accuracy": accuracy, "method": {"compensate": "none"}});
    assert_eq!(lab.evidence(body(1.0)), degree("proven", "tanh"));
    let problem = lab.run(body(0.05)).expect_err("no network is that bad");
    assert_eq!(problem.code, Code::ArchitectureUnknown);
    assert!(problem.errors.iter().all(|fault| fault.detail.contains("accuracy")), "{problem}");
}

#[test]
fn what_nothing_runs_needs_no_decision_and_publishes_no_architecture() {
    let lab = Lab::new();
    let (report, artifacts, _) = lab.run(json!({})).expect("a job that ends well");
    assert_eq!(report["evidence"]["degree"], "ambiguous");
    assert!(!artifacts.contains(&"architecture".to_owned()), "{artifacts:?}");
    let problem = lab.run(json!({"method": {"compensate": "data_free"}})).expect_err("its activation matters");
    assert_eq!(problem.code, Code::ArchitectureAmbiguous);
    assert_eq!(lab.evidence(json!({"architecture": {"activation": "relu"}})), degree("certain", "relu"));
}

#[test]
fn given_settings_are_checked_and_tensors_of_no_network_ignored() {
    let mut header = header();
    let counter = TensorInfo { name: "criterion.weight".to_owned(), dtype: Dtype::F32, shape: vec![10] };
    header.tensors.push(counter);
    let problem = families::detect(&[&header], &Architecture::default(), None).expect_err("a loss is no layer");
    assert!(problem.detail.contains("criterion.*"), "{problem}");
    let job = |architecture: Value| parse(&json!({"members": ["m"], "architecture": architecture}));
    let ignoring = job(json!({"ignore": ["criterion.*"]})).expect("a job").architecture;
    assert!(families::detect(&[&header], &ignoring, None).is_ok());
    let strided = job(json!({"stem_stride": 2, "ignore": ["criterion.*"]})).expect("a job").architecture;
    let problem = families::detect(&[&header], &strided, None).expect_err("an MLP has no stem");
    assert_eq!(problem.errors[0].pointer, "/architecture/stem_stride");
    for wrong in
        [json!({"activation": "swishy"}), json!({"eps": 2}), json!({"graph": {}, "heads": 2}), json!({"pool": 3})]
    {
        assert!(job(wrong.clone()).is_err(), "{wrong}");
    }
}
