//! Pickled models: what their modules say of the network is right, and no more is said. Fixtures of
//! `tests/fixtures/pickled/generate.py`.

use std::path::{Path, PathBuf};

use engraft::fusion::Member;
use engraft::fusion::reference::verify::{Agreement, reference};
use engraft::model::families::{Detected, Evidence, Source, detect, inspect};
use engraft::model::graph::Graph;
use engraft::model::header::CheckpointHeader;
use engraft::settings::Architecture;
use engraft::tensors::{Checkpoint, Weights};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickled").join(name)
}

/// A model with inputs and its own logits for them.
struct Pickled {
    model: Checkpoint,
    examples: Checkpoint,
}

impl Pickled {
    fn open(name: &str) -> Self {
        let open = |file: String| Checkpoint::open(&path(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        Self { model: open(format!("{name}.pt")), examples: open(format!("{name}.safetensors")) }
    }

    fn detected(&self) -> Detected {
        let shape = self.examples.header().get("inputs").expect("inputs").shape[1..].to_vec();
        detect(&[self.model.header()], &Architecture::default(), Some(&shape)).expect("a network")
    }

    fn agrees(&self, graph: &Graph) -> bool {
        let inputs = self.examples.f32("inputs").expect("inputs");
        let batch = self.examples.header().get("inputs").expect("inputs").shape[0];
        let logits = reference(Member { graph, weights: &self.model }, &inputs, batch).expect("computes");
        Agreement::of(&self.examples.f32("logits").expect("logits"), &logits).holds()
    }
}

#[test]
fn a_sequential_is_the_network_that_it_says() {
    for name in ["convolutions", "vectors", "parallel"] {
        let pickled = Pickled::open(name);
        let found = pickled.detected();
        assert_eq!((found.source, found.candidates.len()), (Source::Pickled, 1), "{name}");
        assert!(pickled.agrees(&found.graphs[0]), "{name}: {:#?}", found.graphs[0].nodes());
    }
    let why = inspect(Pickled::open("vectors").model.header()).evidence.expect("evidence").why;
    assert!(why.contains("`Sequential`"), "{why}");
}

#[test]
fn what_only_looks_like_a_sequential_is_not_known() {
    for name in ["doubled", "hooked", "unknown_part"] {
        let pickled = Pickled::open(name);
        let found = pickled.detected();
        assert_eq!(found.source, Source::Recognised, "{name}");
        assert!(Evidence::of(&found.candidates, found.source).degree.is_doubtful(), "{name}: {:#?}", found.candidates);
    }
}

#[test]
fn settings_of_modules_leave_fewer_networks_and_the_right_one_among_them() {
    for (name, stride, eps) in [("named", [1, 1], 1e-3), ("named_plain", [1, 1], 1e-5)] {
        let pickled = Pickled::open(name);
        let found = pickled.detected();
        assert!(found.candidates.iter().any(|candidate| pickled.agrees(&candidate.graph)), "{name}");
        for candidate in &found.candidates {
            let form = serde_json::to_value(&candidate.graph).expect("JSON");
            let node = |name: &str| form["nodes"].as_array().expect("nodes").iter().find(|node| node["name"] == name);
            assert_eq!(node("conv1").expect("a node")["stride"], serde_json::json!(stride), "{name}");
            assert_eq!(node("bn2").expect("a node")["eps"], serde_json::json!(eps), "{name}");
        }
    }
}

#[test]
fn what_fits_no_network_that_is_known_is_refused() {
    for (name, shape, said) in [
        ("named_reflect", [3, 12, 12], "the padding of `conv1`"),
        ("named_strided", [3, 12, 12], "the settings of the module `conv1`"),
        ("unbiased", [3, 2, 2], "module `1` (weight [4])"),
        ("split_mixed", [3, 2, 2], "runs behind `second."),
    ] {
        let shape = shape.to_vec();
        let refused = detect(&[Pickled::open(name).model.header()], &Architecture::default(), Some(&shape));
        let detail = refused.expect_err("refused").detail;
        assert!(detail.contains(said), "{name}: {detail}");
    }
}

#[test]
fn functions_in_a_sequential_are_known_where_they_stand() {
    let pickled = Pickled::open("split");
    let found = pickled.detected();
    assert!(found.candidates.len() <= 3, "only what is behind the last layer is open: {:#?}", found.candidates);
    assert!(found.candidates.iter().any(|candidate| pickled.agrees(&candidate.graph)), "{:#?}", found.candidates);
}

#[test]
fn a_pickled_model_says_it_of_members_that_are_plain_weights_too() {
    let pickled = Pickled::open("named");
    let model = pickled.model.header();
    let weights = CheckpointHeader { modules: Vec::new(), ..model.clone() };
    let shape = pickled.examples.header().get("inputs").expect("inputs").shape[1..].to_vec();
    let graphs = |members: [&CheckpointHeader; 2]| -> Vec<Graph> {
        let found = detect(&members, &Architecture::default(), Some(&shape)).expect("a network");
        found.candidates.into_iter().map(|candidate| candidate.graph).collect()
    };
    assert_eq!(graphs([&weights, model]), graphs([model, &weights]));
    assert!(graphs([&weights, model]).len() < graphs([&weights, &weights]).len());
}
