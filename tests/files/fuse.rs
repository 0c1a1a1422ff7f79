//! The pipeline on small files: sizes, orders, element types, members of different depth.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::samples::task;
use crate::schemas::check_answer;
use engraft::fusion::reference::verify;
use engraft::fusion::{Member, PaddedMember};
use engraft::model::depth;
use engraft::model::graph::Graph;
use engraft::model::header::Dtype;
use engraft::pipeline::{self, JobOutcome};
use engraft::plan::parse::parse;
use engraft::settings::Architecture;
use engraft::tensors::{Checkpoint, StateDict, Weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tensors by name and shape; values by a generator, variances positive.
fn state(tensors: &[(String, Vec<usize>)], seed: u64) -> StateDict {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut state = StateDict::default();
    for (name, shape) in tensors {
        let low = if name.ends_with("running_var") { 0.2 } else { -1.0 };
        let values = (0..shape.iter().product()).map(|_| rng.random_range(low..1.0_f32)).collect();
        state.insert_f32(name, shape, values).unwrap();
    }
    state
}

/// `fc1`, `fc2`, … of these widths, with bias.
pub(crate) fn mlp(widths: &[usize], seed: u64) -> StateDict {
    let layer = |(index, pair): (usize, &[usize])| {
        let name = format!("fc{}", index + 1);
        [(format!("{name}.weight"), vec![pair[1], pair[0]]), (format!("{name}.bias"), vec![pair[1]])]
    };
    state(&widths.windows(2).enumerate().flat_map(layer).collect::<Vec<_>>(), seed)
}

/// A residual network of two stages under the usual names.
pub(crate) fn resnet(width: usize, blocks: [usize; 2], seed: u64) -> StateDict {
    let mut tensors = Vec::new();
    let mut conv = |name: &str, from: usize, to: usize, kernel: usize, norm: &str| {
        tensors.push((format!("{name}.weight"), vec![to, from, kernel, kernel]));
        for suffix in ["weight", "bias", "running_mean", "running_var"] {
            tensors.push((format!("{norm}.{suffix}"), vec![to]));
        }
    };
    conv("conv1", 3, width, 3, "bn1");
    let mut from = width;
    for (stage, blocks) in (1..).zip(blocks) {
        let to = width * stage;
        for block in 0..blocks {
            let name = format!("layer{stage}.{block}");
            conv(&format!("{name}.conv1"), from, to, 3, &format!("{name}.bn1"));
            conv(&format!("{name}.conv2"), to, to, 3, &format!("{name}.bn2"));
            if from != to {
                conv(&format!("{name}.shortcut.0"), from, to, 1, &format!("{name}.shortcut.1"));
            }
            from = to;
        }
    }
    tensors.push(("linear.weight".to_owned(), vec![4, from]));
    tensors.push(("linear.bias".to_owned(), vec![4]));
    state(&tensors, seed)
}

/// A folder with members' files.
pub(crate) struct Files {
    folder: TempDir,
    names: Vec<String>,
}

impl Files {
    pub(crate) fn new(members: &[StateDict], dtype: Dtype) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let save = |(index, state): (usize, &StateDict)| {
            let path = folder.path().join(format!("m{index}.safetensors"));
            state.save_as(&path, &BTreeMap::new(), |_| dtype).unwrap();
            path.display().to_string()
        };
        let names = members.iter().enumerate().map(save).collect();
        Self { folder, names }
    }

    fn open(&self) -> Vec<Checkpoint> {
        self.names.iter().map(|name| Checkpoint::open(Path::new(name)).unwrap()).collect()
    }

    /// Stores a file beside the members; its path.
    pub(crate) fn store(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// Labelled noise as `x` and `y`.
    pub(crate) fn dataset(&self, shape: &[usize], classes: usize) -> String {
        let mut data = state(&[("x".to_owned(), shape.to_vec())], 99);
        let labels: Vec<i64> = (0..shape[0]).map(|index| (index % classes) as i64).collect();
        let count = labels.len();
        data.insert("y".to_owned(), candle_core::Tensor::from_vec(labels, count, &candle_core::Device::Cpu).unwrap());
        let path = self.folder.path().join("data.safetensors");
        data.save(&path, &BTreeMap::new()).unwrap();
        path.display().to_string()
    }

    /// Runs a job on the members; the artifacts by name.
    pub(crate) fn run(&self, mut body: Value) -> BTreeMap<String, PathBuf> {
        body["members"] = json!(self.names);
        // Random weights and labels decide nothing.
        if body["architecture"]["graph"].is_null() {
            body["architecture"]["assume"] = json!(true);
        }
        let job = parse(&body).unwrap();
        let scratch = self.folder.path().join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        let task = task(job, scratch);
        match pipeline::run(&task, &mut |_| {}, &AtomicBool::new(false)) {
            Ok(JobOutcome::Finished(artifacts)) => {
                let files: BTreeMap<_, _> = artifacts.into_iter().map(|file| (file.name, file.path)).collect();
                for (name, schema) in
                    [("report", "Report"), ("provenance", "ProvenanceView"), ("architecture", "NetworkView")]
                {
                    if let Some(path) = files.get(name) {
                        check_answer(schema, &json_file(path));
                    }
                }
                files
            }
            other => panic!("{body:#}: {other:?}"),
        }
    }
}

pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn row(weights: &dyn Weights, tensor: &str, row: usize, len: usize) -> Vec<f32> {
    weights.f32(tensor).unwrap()[row * len..(row + 1) * len].to_vec()
}

#[test]
fn every_order_tells_which_unit_of_which_member_each_unit_is() {
    let members: Vec<StateDict> = (0..5).map(|seed| mlp(&[6, 8, 8, 3], seed)).collect();
    let files = Files::new(&members, Dtype::F32);
    let mut models = Vec::new();
    for order in ["joint", "iterative", "hierarchical"] {
        let artifacts = files.run(json!({"method": {"order": order}}));
        let fused = Checkpoint::open(&artifacts["model"]).unwrap();
        let provenance = json_file(&artifacts["provenance"]);
        let report = json_file(&artifacts["report"]);
        assert_eq!(report["method"]["order"], order);
        let shares: Vec<f64> = provenance["shares"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{order}: {shares:?}");
        let group = provenance["groups"].as_array().unwrap().iter().find(|group| group["layers"][0] == "fc1").unwrap();
        let units = group["units"].as_array().unwrap();
        assert_eq!(units.len(), 8);
        let mut kept = vec![0; members.len()];
        for (index, unit) in units.iter().enumerate() {
            let (member, of) = (unit[0].as_u64().unwrap() as usize, unit[1].as_u64().unwrap() as usize);
            assert_eq!(row(&fused, "fc1.weight", index, 6), row(&members[member], "fc1.weight", of, 6), "{order}");
            kept[member] += 1;
        }
        let layer = report["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "fc1").unwrap();
        assert_eq!(layer["kept_per_member"], json!(kept), "{order}");
        models.push(std::fs::read(&artifacts["model"]).unwrap());
    }
    assert!(models[0] != models[1] && models[0] != models[2]);
}

#[test]
fn an_average_is_the_mean_and_keeps_no_units() {
    let members = [mlp(&[6, 8, 3], 1), mlp(&[6, 8, 3], 2)];
    let files = Files::new(&members, Dtype::F32);
    let artifacts = files.run(json!({"method": {"name": "average"}}));
    let fused = Checkpoint::open(&artifacts["model"]).unwrap();
    let [a, b] = members.each_ref().map(|member| member.f32("fc2.weight").unwrap().to_vec());
    for (mean, (a, b)) in fused.f32("fc2.weight").unwrap().iter().zip(a.iter().zip(b)) {
        assert!((mean - f32::midpoint(*a, b)).abs() < 1e-6);
    }
    assert_eq!(json_file(&artifacts["report"])["layers"][0]["kept_per_member"], json!([]));
    assert_eq!(json_file(&artifacts["provenance"])["groups"], json!([]));
}

#[test]
fn half_precision_members_are_fused_in_f32_and_written_in_their_own_type() {
    let members = [mlp(&[40, 24, 24, 3], 1), mlp(&[40, 24, 24, 3], 2)];
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let files = Files::new(&members, dtype);
        let rounded: Vec<StateDict> =
            files.open().iter().map(|member| StateDict::from_checkpoint(member).unwrap()).collect();
        let wide_files = Files::new(&rounded, Dtype::F32);
        let plain = json!({"method": {"compensate": "none"}});
        let (wide, narrow) = (wide_files.run(plain.clone()), files.run(plain));
        let (wide, narrow) = (Checkpoint::open(&wide["model"]).unwrap(), Checkpoint::open(&narrow["model"]).unwrap());
        for info in &narrow.header().tensors {
            assert_eq!(info.dtype, dtype, "{}", info.name);
            let (expected, got) = (wide.f32(&info.name).unwrap(), narrow.f32(&info.name).unwrap());
            let head = info.name.starts_with("fc3");
            let close = |(a, b): (&f32, &f32)| if head { (a - b).abs() <= 4e-3 } else { a.to_bits() == b.to_bits() };
            assert!(expected.iter().zip(&*got).all(close), "{dtype:?}: {}", info.name);
        }
    }
}

/// All elements of a tensor, exactly.
fn doubles(weights: &dyn Weights, tensor: &str) -> Vec<f64> {
    let elements = weights.elements(tensor).unwrap();
    let mut values = vec![0.0; elements.len()];
    elements.copy_to(0, &mut values);
    values
}

/// Weights that f32 cannot hold.
fn in_double(state: &StateDict) -> StateDict {
    let mut double = StateDict::default();
    for (name, tensor) in state.iter() {
        let values = state.f32(name).unwrap().iter().map(|value| f64::from(*value) + 1e-12).collect();
        double.insert_f64(name, tensor.dims(), values).unwrap();
    }
    double
}

#[test]
fn members_in_double_precision_keep_it_where_weights_are_copied() {
    let members: Vec<StateDict> = (0..4).map(|seed| in_double(&mlp(&[6, 8, 8, 3], seed))).collect();
    let files = Files::new(&members, Dtype::F64);
    let open = files.open();
    let data = files.dataset(&[60, 6], 3);
    let jobs = [
        json!({"method": {"compensate": "none"}}),
        json!({"method": {"order": "iterative", "compensate": "none"}}),
        json!({"method": {"order": "hierarchical", "compensate": "data_free"}}),
        json!({"method": {"compensate": "calibration"}, "dataset": data}),
    ];
    for body in jobs {
        let artifacts = files.run(body.clone());
        let fused = Checkpoint::open(&artifacts["model"]).unwrap();
        assert!(fused.header().tensors.iter().all(|info| info.dtype == Dtype::F64));
        let provenance = json_file(&artifacts["provenance"]);
        let group = provenance["groups"].as_array().unwrap().iter().find(|group| group["layers"][0] == "fc1").unwrap();
        let (weight, bias) = (doubles(&fused, "fc1.weight"), doubles(&fused, "fc1.bias"));
        for (row, unit) in group["units"].as_array().unwrap().iter().enumerate() {
            let (member, of) = (unit[0].as_u64().unwrap() as usize, unit[1].as_u64().unwrap() as usize);
            let own = doubles(&open[member], "fc1.weight");
            assert_eq!(weight[row * 6..(row + 1) * 6], own[of * 6..(of + 1) * 6], "{body}");
            assert_eq!(bias[row].to_bits(), doubles(&open[member], "fc1.bias")[of].to_bits(), "{body}");
        }
        if body["method"] == json!({"compensate": "none"}) {
            let mean = open.iter().map(|member| doubles(member, "fc3.bias")[0]).sum::<f64>() / 4.0;
            assert!((doubles(&fused, "fc3.bias")[0] - mean).abs() < 1e-15);
        }
    }
    let average = files.run(json!({"method": {"name": "average"}}));
    let mean = open.iter().map(|member| doubles(member, "fc2.weight")[0]).sum::<f64>() / 4.0;
    let average = Checkpoint::open(&average["model"]).unwrap();
    assert_eq!(doubles(&average, "fc2.weight")[0].to_bits(), mean.to_bits());
}

#[test]
fn one_member_becomes_smaller_within_a_budget_that_is_spent_by_sensitivity() {
    let files = Files::new(&[mlp(&[6, 32, 32, 3], 7)], Dtype::F32);
    let data = files.dataset(&[200, 6], 3);
    let sizes = |body: Value| -> Vec<u64> {
        let report = json_file(&files.run(body)["report"]);
        let layers = report["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["width_after"].as_u64().unwrap()).collect()
    };
    let spent = |widths: &[u64]| widths[0] * 7 + widths[1] * (widths[0] + 1) + 3 * (widths[1] + 1);
    let target = |allocation: &str| json!({"params": 500, "allocation": allocation});
    let even = sizes(json!({"target": target("uniform")}));
    let by_scores = sizes(json!({"target": target("sensitivity")}));
    let measured = sizes(json!({"target": target("sensitivity"), "dataset": data}));
    assert_eq!(measured, sizes(json!({"target": target("sensitivity"), "dataset": data})), "the same again");
    for widths in [even, by_scores, measured] {
        assert!(spent(&widths) <= 500, "{widths:?}");
        for layer in 0..2 {
            let mut wider = widths.clone();
            wider[layer] += 1;
            assert!(wider[layer] > 32 || spent(&wider) > 500, "{widths:?}");
        }
    }
}

/// Pads the shallower of two members and compares its logits with its own; then fuses both through the pipeline.
fn check_depth(members: &[StateDict], input: &[usize], added: &[&str], tolerance: f32) {
    let files = Files::new(members, Dtype::F32);
    let open = files.open();
    let headers: Vec<_> = open.iter().map(Checkpoint::header).collect();
    let aligned = depth::detect(&headers, &Architecture::default(), Some(&input.to_vec())).unwrap();
    let batch = 4;
    let elements = batch * input.iter().product::<usize>();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let inputs: Vec<f32> = (0..elements).map(|_| rng.random_range(-1.0..1.0)).collect();
    let logits =
        |graph: &Graph, weights: &dyn Weights| verify::reference(Member { graph, weights }, &inputs, batch).unwrap();
    let index = aligned.paddings.iter().position(Option::is_some).expect("one is shallower");
    let padding = aligned.paddings[index].as_ref().unwrap();
    assert_eq!(padding.added(), added);
    let padded = PaddedMember::new(&open[index], &aligned.own[index], padding);
    let own = logits(&aligned.own[index], &open[index]);
    for (own, padded) in own.iter().zip(logits(&padding.graph, &padded)) {
        assert!((own - padded).abs() <= tolerance * own.abs().max(1.0), "{own} became {padded}");
    }
    let artifacts = files.run(json!({"input_shape": input}));
    let fused = Checkpoint::open(&artifacts["model"]).unwrap();
    let deepest = open[1 - index].header();
    let names = |checkpoint: &[engraft::model::header::TensorInfo]| -> Vec<String> {
        checkpoint.iter().filter(|info| info.dtype.is_float()).map(|info| info.name.clone()).collect()
    };
    assert_eq!(names(&fused.header().tensors), names(&deepest.tensors));
    let report = json_file(&artifacts["report"]);
    assert!(report["warnings"].to_string().contains(added[0]), "{}", report["warnings"]);
}

#[test]
fn members_of_less_depth_are_padded_exactly() {
    check_depth(&[mlp(&[6, 8, 8, 7, 3], 1), mlp(&[6, 9, 5, 3], 2)], &[6], &["fc3"], 0.0);
    check_depth(&[mlp(&[6, 5, 3], 1), mlp(&[6, 8, 8, 7, 3], 2)], &[6], &["fc2", "fc3"], 0.0);
    let added =
        ["layer1.1.conv1", "layer1.1.conv2", "layer2.1.conv1", "layer2.1.conv2", "layer2.2.conv1", "layer2.2.conv2"];
    check_depth(&[resnet(4, [2, 3], 1), resnet(5, [1, 1], 2)], &[3, 8, 8], &added, 0.0);
}

#[test]
fn members_that_no_block_can_bring_to_one_depth_name_the_layers() {
    let files = Files::new(&[resnet(4, [1, 1], 1), resnet(4, [1, 0], 2)], Dtype::F32);
    let open = files.open();
    let headers: Vec<_> = open.iter().map(Checkpoint::header).collect();
    let problem =
        depth::detect(&headers, &Architecture::default(), Some(&vec![3, 8, 8])).expect_err("a stage is missing");
    assert_eq!(problem.code, engraft::domain::problem::Code::MembersIncompatible);
    assert_eq!(problem.errors[0].pointer, "/members/1");
    assert!(problem.errors[0].detail.contains("layer2.0.conv1"), "{problem}");
}

/// Accuracy of the candidate of this kind.
pub(crate) fn accuracy(report: &Value, kind: &str) -> f64 {
    let rows = report["candidates"].as_array().unwrap();
    let row = rows.iter().find(|row| row["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {report:#}"));
    row["test"]["accuracy"].as_f64().or_else(|| row["validation"]["accuracy"].as_f64()).unwrap()
}

/// The mlp with the units of its hidden layer in another order.
fn reversed(member: &StateDict, hidden: usize, inputs: usize, outputs: usize) -> StateDict {
    let order: Vec<usize> = (0..hidden).rev().collect();
    let rows =
        |name: &str, len: usize| -> Vec<f32> { order.iter().flat_map(|unit| row(member, name, *unit, len)).collect() };
    let head = member.f32("fc2.weight").unwrap();
    let columns = (0..outputs).flat_map(|out| order.iter().map(move |unit| (out, *unit)));
    let head: Vec<f32> = columns.map(|(out, unit)| head[out * hidden + unit]).collect();
    let mut other = member.clone();
    other.insert_f32("fc1.weight", &[hidden, inputs], rows("fc1.weight", inputs)).unwrap();
    other.insert_f32("fc1.bias", &[hidden], rows("fc1.bias", 1)).unwrap();
    other.insert_f32("fc2.weight", &[outputs, hidden], head).unwrap();
    other
}

#[test]
fn methods_that_match_units_undo_another_order_and_the_average_does_not() {
    let member = mlp(&[6, 16, 3], 1);
    let files = Files::new(&[member.clone(), reversed(&member, 16, 6, 3)], Dtype::F32);
    let data = files.dataset(&[400, 6], 3);
    let candidates = ["members", "ensemble", "vote", "average", "optimal_transport", "permutation_alignment", "fused"];
    for method in [
        json!({"name": "optimal_transport"}),
        json!({"name": "optimal_transport", "alignment": {"cost": "activations"}}),
        json!({"name": "permutation_alignment"}),
        json!({"name": "permutation_alignment", "alignment": {"cost": "activations"}}),
    ] {
        let artifacts = files.run(json!({"method": method, "dataset": data, "evaluate": candidates}));
        let report = json_file(&artifacts["report"]);
        for kind in ["ensemble", "vote", "optimal_transport", "permutation_alignment", "fused"] {
            assert!((accuracy(&report, kind) - accuracy(&report, "member")).abs() < 1e-9, "{kind} of {method}");
        }
        let fused = Checkpoint::open(&artifacts["model"]).unwrap();
        for name in ["fc1.weight", "fc2.weight", "fc1.bias"] {
            let (expected, got) = (member.f32(name).unwrap(), fused.f32(name).unwrap());
            assert!(expected.iter().zip(&*got).all(|(a, b)| (a - b).abs() < 1e-5), "{name} of {method}");
        }
        let row = report["candidates"].as_array().unwrap().iter().find(|row| row["kind"] == "average").unwrap();
        assert!(row["agreement"].as_f64().unwrap() < 1.0, "the average is another network");
        let page = std::fs::read_to_string(&artifacts["report.html"]).unwrap();
        assert!(page.contains("permutation alignment") && page.contains("<svg"));
    }
}

#[test]
fn interpolation_undoes_another_order_and_takes_any_widths() {
    let member = mlp(&[6, 16, 3], 1);
    let candidates = ["members", "ensemble", "neuron_interpolation", "fused"];
    let files = Files::new(&[member.clone(), reversed(&member, 16, 6, 3)], Dtype::F32);
    let data = files.dataset(&[400, 6], 3);
    for matching in ["k_means", "hungarian"] {
        let method = json!({"name": "neuron_interpolation", "matching": matching, "calibration": {"ridge": 1e-7}});
        let artifacts = files.run(json!({"method": method, "dataset": data, "evaluate": candidates}));
        let report = json_file(&artifacts["report"]);
        for kind in ["neuron_interpolation", "fused"] {
            assert!((accuracy(&report, kind) - accuracy(&report, "member")).abs() < 1e-9, "{kind} by {matching}");
        }
        let page = std::fs::read_to_string(&artifacts["report.html"]).unwrap();
        assert!(page.contains("neuron interpolation"));
    }
    let files = Files::new(&[member, mlp(&[6, 9, 3], 2)], Dtype::F32);
    let data = files.dataset(&[400, 6], 3);
    let run = |seed: u64| {
        let method = json!({"name": "neuron_interpolation"});
        let target = json!({"width": 0.5});
        files.run(json!({"method": method, "dataset": data, "evaluate": candidates, "target": target, "seed": seed}))
    };
    let artifacts = run(7);
    let report = json_file(&artifacts["report"]);
    assert!((accuracy(&report, "neuron_interpolation") - accuracy(&report, "fused")).abs() < 1e-9, "the same network");
    let first = Checkpoint::open(&artifacts["model"]).unwrap().f32("fc1.weight").unwrap().to_vec();
    assert_eq!(first.len(), 6 * 6, "half of the mean of 16 and 9");
    assert_eq!(first, Checkpoint::open(&run(7)["model"]).unwrap().f32("fc1.weight").unwrap().to_vec());
}

#[test]
fn a_network_that_is_no_chain_has_no_row_of_interpolation() {
    let files = Files::new(&[resnet(4, [1, 1], 1), resnet(4, [1, 1], 2)], Dtype::F32);
    let data = files.dataset(&[60, 3, 8, 8], 4);
    let method = json!({"name": "average"});
    let artifacts =
        files.run(json!({"method": method, "dataset": data, "evaluate": ["neuron_interpolation", "fused"]}));
    let report = json_file(&artifacts["report"]);
    let kinds: Vec<&str> =
        report["candidates"].as_array().unwrap().iter().filter_map(|row| row["kind"].as_str()).collect();
    assert_eq!(kinds, ["fused"]);
    assert!(report["warnings"].to_string().contains("no neuron interpolation: node `"), "{}", report["warnings"]);
}

#[test]
fn statistics_are_measured_anew_where_there_are_some() {
    let members = [resnet(4, [1, 1], 1), resnet(4, [1, 1], 2)];
    let files = Files::new(&members, Dtype::F32);
    let data = files.dataset(&[300, 3, 8, 8], 4);
    let mean = |batch_norm: &str| {
        let method = json!({"name": "optimal_transport", "batch_norm": batch_norm});
        let artifacts = files.run(json!({"method": method, "dataset": data}));
        let report = json_file(&artifacts["report"]);
        assert_eq!(report["method"]["batch_norm"], if batch_norm == "auto" { "reset" } else { batch_norm });
        Checkpoint::open(&artifacts["model"]).unwrap().f32("bn1.running_mean").unwrap().to_vec()
    };
    let (kept, reset) = (mean("keep"), mean("auto"));
    assert_ne!(kept, reset);
    assert_eq!(reset, mean("reset"));
}

#[test]
fn parts_of_members_follow_the_rates() {
    let members = [mlp(&[6, 16, 16, 3], 1), mlp(&[6, 16, 16, 3], 2)];
    let files = Files::new(&members, Dtype::F32);
    let kept = |method: Value| {
        let report = json_file(&files.run(json!({"method": method}))["report"]);
        report["layers"][0]["kept_per_member"].clone()
    };
    assert_eq!(kept(json!({"order": "prune_then_merge"})), json!([8, 8]));
    assert_eq!(kept(json!({"order": "prune_then_merge", "rates": [3, 1]})), json!([12, 4]));
    let artifacts = files.run(json!({"method": {"order": "prune_then_merge", "rates": [0, 1], "compensate": "none"}}));
    let fused = Checkpoint::open(&artifacts["model"]).unwrap();
    let expected = members[1].f32("fc2.weight").unwrap();
    assert_eq!(fused.f32("fc2.weight").unwrap(), expected, "nothing of the first member");
}

#[test]
fn variants_that_train_are_told_in_the_report() {
    let members = [mlp(&[6, 12, 12, 3], 1), mlp(&[6, 12, 12, 3], 2)];
    let files = Files::new(&members, Dtype::F32);
    let data = files.dataset(&[300, 6], 3);
    let finetune = json!({"epochs": 1, "batch_size": 32});
    for method in [
        json!({"order": "merge_finetune_prune", "merge_epochs": 2}),
        json!({"importance": "taylor"}),
        json!({"importance": "fisher", "order": "prune_then_merge"}),
        json!({"member_weights": "fitted"}),
        json!({"member_weights": [1, 3]}),
        json!({"name": "distill_only"}),
        json!({"name": "distill_only", "start": "scratch"}),
    ] {
        let body = json!({"method": method, "dataset": data, "finetune": finetune,
            "evaluate": ["members", "best_member", "ensemble", "distilled", "fused"]});
        let artifacts = files.run(body.clone());
        let report = json_file(&artifacts["report"]);
        assert!((0.0..=1.0).contains(&accuracy(&report, "distilled")), "{method}");
        let best = accuracy(&report, "best_member");
        let rows = report["candidates"].as_array().unwrap().iter().filter(|row| row["kind"] == "member");
        assert!(rows.clone().all(|row| row["validation"]["accuracy"].as_f64().unwrap() <= best), "{method}");
        assert_eq!(rows.count(), 2);
        let shares: Vec<f64> = report["member_weights"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        assert!(shares.is_empty() || (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{method}: {shares:?}");
        let model = std::fs::read(&artifacts["model"]).unwrap();
        assert!(model == std::fs::read(&files.run(body)["model"]).unwrap(), "{method}: the same again");
    }
}

#[test]
fn images_vary_in_training_and_the_members_teach_what_is_seen() {
    let files = Files::new(&[resnet(4, [1, 1], 1), resnet(4, [1, 1], 2)], Dtype::F32);
    let data = files.dataset(&[96, 3, 8, 8], 4);
    let model = |teacher: &str, augment: Value| {
        let finetune = json!({"epochs": 1, "batch_size": 16, "teacher": teacher, "augment": augment,
            "batch_norm_reestimate": true, "optimizer": {"name": "sgd", "lr": 1e-4}});
        // Without a validation split the last epoch is published.
        let dataset = json!({"name": data, "validation_fraction": 0});
        std::fs::read(&files.run(json!({"dataset": dataset, "finetune": finetune, "evaluate": ["fused"]}))["model"])
            .unwrap()
    };
    let augment = json!({"crop_padding": 2, "flip": true});
    let varied = model("mean_logits", augment.clone());
    assert!(varied == model("mean_logits", augment.clone()), "the same again");
    assert!(varied != model("mean_logits", Value::Null) && varied != model("mean_probabilities", augment));
}

#[test]
fn a_member_fused_with_itself_loses_nothing() {
    let member = mlp(&[6, 16, 16, 3], 3);
    let files = Files::new(&[member.clone(), member], Dtype::F32);
    let data = files.dataset(&[400, 6], 3);
    // Without a validation split the labels, which are chance, have no say.
    let dataset = json!({"name": data, "validation_fraction": 0});
    for importance in ["css", "auto"] {
        let artifacts = files.run(json!({"method": {"importance": importance}, "dataset": dataset}));
        let (open, fused) = (files.open(), Checkpoint::open(&artifacts["model"]).unwrap());
        check_equal(&open, &fused);
    }
}

/// Compares the logits of the first network with those of another MLP of its widths.
fn check_equal(open: &[Checkpoint], fused: &Checkpoint) {
    let headers: Vec<_> = open.iter().map(Checkpoint::header).collect();
    let graph = &depth::detect(&headers, &Architecture::default(), Some(&vec![6])).unwrap().own[0];
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let inputs: Vec<f32> = (0..6 * 100).map(|_| rng.random_range(-1.0..1.0)).collect();
    let logits = |weights: &dyn Weights| verify::reference(Member { graph, weights }, &inputs, 100).unwrap();
    let (own, fused) = (logits(&open[0]), logits(fused));
    let scale = own.iter().map(|logit| logit.abs()).sum::<f32>() / own.len() as f32;
    let far = own.iter().zip(&fused).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 0.05 * scale, "logits of about {scale} differ by up to {far}");
}

#[test]
fn the_default_ranking_is_never_worse_than_the_papers_method_and_tells_why() {
    let members = [mlp(&[6, 16, 16, 3], 1), mlp(&[6, 16, 16, 3], 2)];
    let files = Files::new(&members, Dtype::F32);
    let data = files.dataset(&[400, 6], 3);
    let body = json!({"dataset": {"name": data, "validation_fraction": 0.3}});
    let artifacts = files.run(body.clone());
    let report = json_file(&artifacts["report"]);
    assert_eq!(report["method"]["importance"], "auto");
    let choice = &report["choice"];
    let tried = choice["tried"].as_array().unwrap();
    let names: Vec<_> = tried.iter().map(|tried| (tried["importance"].as_str(), &tried["compensated"])).collect();
    assert_eq!(
        names,
        [(Some("magnitude"), &json!(true)), (Some("css"), &json!(true)), (Some("magnitude"), &json!(false))]
    );
    assert_eq!((&choice["by"], &choice["examples"]), (&json!("validation"), &json!(120)));
    let figure = |tried: &Value| tried["validation"]["accuracy"].as_f64().unwrap();
    let kept = &tried[choice["kept"].as_u64().unwrap() as usize];
    assert!(tried.iter().all(|other| figure(other) <= figure(kept)), "{choice:#}");
    let of_kind = |kind: &str| {
        let row = report["candidates"].as_array().unwrap().iter().find(|row| row["kind"] == kind);
        row.map(|row| row["validation"]["accuracy"].as_f64().unwrap()).unwrap()
    };
    assert!((of_kind("fused") - figure(kept)).abs() < 1e-9, "what was judged is what is published");
    assert!((of_kind("fused_uncompensated") - figure(&tried[2])).abs() < 1e-9, "the paper's method");
    assert_eq!(json_file(&artifacts["provenance"])["choice"], *choice);
    assert!(std::fs::read_to_string(&artifacts["report.html"]).unwrap().contains("`auto` kept"));
    let model = std::fs::read(&artifacts["model"]).unwrap();
    assert!(model == std::fs::read(&files.run(body)["model"]).unwrap(), "the same again");
    // Without data, or without refits, there is nothing to choose by.
    for body in [json!({}), json!({"dataset": data, "method": {"compensate": "none"}})] {
        let report = json_file(&files.run(body)["report"]);
        assert_eq!((&report["method"]["importance"], &report["choice"]), (&json!("magnitude"), &Value::Null));
    }
}

#[test]
fn copies_among_four_members_cost_the_default_nothing() {
    let members = [mlp(&[6, 16, 16, 3], 1), mlp(&[6, 16, 16, 3], 2)];
    let [two, four] = [&[0, 1][..], &[0, 1, 0, 1]].map(|indices| {
        let members: Vec<StateDict> = indices.iter().map(|index| members[*index].clone()).collect();
        let files = Files::new(&members, Dtype::F32);
        let data = files.dataset(&[600, 6], 3);
        // Without a validation split the logits of the ensemble are the yardstick.
        let artifacts = files.run(json!({"dataset": {"name": data, "validation_fraction": 0}}));
        let choice = json_file(&artifacts["report"])["choice"].clone();
        assert_eq!((&choice["by"], &choice["examples"]), (&json!("divergence"), &json!(60)));
        let distances = choice["tried"].as_array().unwrap().iter().map(|tried| tried["distance"].as_f64().unwrap());
        let distances: Vec<f64> = distances.collect();
        let kept = distances[choice["kept"].as_u64().unwrap() as usize];
        assert!(distances.iter().all(|other| kept <= *other), "{choice:#}");
        kept
    });
    assert!(four <= 1.01 * two + 1e-6, "{four} of four members, {two} of the two distinct ones");
}

/// A vision transformer of 8 channels and 2 heads in timm's naming, for images of 6 x 6.
fn transformer(seed: u64) -> StateDict {
    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("cls_token".to_owned(), vec![1, 1, 8]), ("pos_embed".to_owned(), vec![1, 5, 8])];
    let mut module = |name: &str, shape: &[usize]| {
        tensors.push((format!("{name}.weight"), shape.to_vec()));
        tensors.push((format!("{name}.bias"), vec![shape[0]]));
    };
    module("patch_embed.proj", &[8, 1, 3, 3]);
    for (name, shape) in
        [("norm1", &[8][..]), ("attn.qkv", &[24, 8]), ("attn.proj", &[8, 8]), ("norm2", &[8]), ("mlp.fc1", &[12, 8])]
    {
        module(&format!("blocks.0.{name}"), shape);
    }
    module("blocks.0.mlp.fc2", &[8, 12]);
    module("norm", &[8]);
    module("head", &[3, 8]);
    state(&tensors, seed)
}

#[test]
fn transformers_are_fused_by_whole_heads_and_refitted() {
    let files = Files::new(&[transformer(1), transformer(2)], Dtype::F32);
    let data = files.dataset(&[300, 1, 6, 6], 3);
    let fuse = |width: Value| {
        let architecture = json!({"family": "vit", "heads": 2});
        files.run(json!({"architecture": architecture, "dataset": data, "target": {"width": width}}))
    };
    for (width, channels) in [(json!("member"), 8), (json!(0.5), 4)] {
        let artifacts = fuse(width);
        let fused = Checkpoint::open(&artifacts["model"]).unwrap();
        assert_eq!(fused.f32("blocks.0.attn.qkv.weight").unwrap().len(), 3 * channels * channels);
        assert_eq!(fused.f32("pos_embed").unwrap().len(), 5 * channels);
        let provenance = json_file(&artifacts["provenance"]);
        let heads = provenance["groups"].as_array().unwrap().last().unwrap();
        assert_eq!(heads["layers"], json!(["blocks.0.attn"]));
        assert_eq!(heads["units"].as_array().unwrap().len(), channels / 4);
        let report = json_file(&artifacts["report"]);
        let refitted = report["compensation"]["layers"].as_array().unwrap().iter();
        let refitted: Vec<&str> = refitted.map(|layer| layer["layer"].as_str().unwrap()).collect();
        let expected = ["attn (queries, keys, values)", "attn (output)", "mlp.fc1", "mlp.fc2"]
            .map(|name| format!("blocks.0.{name}"));
        assert_eq!(refitted[..4], expected);
        assert_eq!(refitted[4..], ["head"]);
        assert!(report["choice"]["tried"].as_array().unwrap().len() > 1);
    }
}

#[test]
fn a_plan_is_compared_to_its_end_and_tells_what_failed() {
    let files = Files::new(&[mlp(&[6, 12, 12, 3], 1), mlp(&[6, 12, 12, 3], 2)], Dtype::F32);
    files.dataset(&[200, 6], 3);
    let folder = files.folder.path();
    let plan = r#"
title = "Small"
seeds = [0, 1]
job.dataset = "data.safetensors"
job.architecture.activation = "relu"
[[ensembles]]
name = "both"
members = ["m0.safetensors", "m1.safetensors"]
[[ensembles]]
name = "one is broken"
members = ["m0.safetensors", "broken.safetensors"]
[[methods]]
name = "magnitude"
job.method.importance = "magnitude"
[[methods]]
name = "css"
job.method.importance = "css"
[quick]
ensembles = ["both"]
"#;
    std::fs::write(folder.join("plan.toml"), plan).unwrap();
    // Only who reads all of it sees what is wrong with it.
    let mut broken = mlp(&[6, 12, 12, 3], 3);
    broken.insert_f32("fc1.bias", &[12], vec![f32::NAN; 12]).unwrap();
    broken.save(&folder.join("broken.safetensors"), &BTreeMap::new()).unwrap();
    let compare = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_engraft"));
        command.args(["compare", "--plan", "plan.toml", "--report", "all.json", "--html", "all.html"]).args(more);
        command.current_dir(folder).output().unwrap()
    };
    let quick = compare(&["--quick"]);
    assert!(quick.status.success(), "{}", String::from_utf8_lossy(&quick.stderr));
    let text = String::from_utf8(quick.stdout).unwrap();
    assert!(text.contains("magnitude") && text.contains('±') && text.contains("best member"), "{text}");
    let report = json_file(&folder.join("all.json"));
    assert_eq!(report["runs"].as_array().unwrap().len(), 4);
    assert!(std::fs::read_to_string(folder.join("all.html")).unwrap().contains("<svg"));
    let whole = compare(&[]);
    assert_eq!(whole.status.code(), Some(1));
    let report = json_file(&folder.join("all.json"));
    let failed = report["runs"].as_array().unwrap().iter().filter(|run| run["error"].is_string());
    assert_eq!(failed.count(), 4);

    // What no run can be is said before the first one.
    std::fs::remove_file(folder.join("all.json")).unwrap();
    let average =
        plan.replace("job.method.importance = \"css\"", "job.method.name = \"average\"\njob.target.width = 0.5");
    std::fs::write(folder.join("plan.toml"), average).unwrap();
    let refused = compare(&[]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), folder.join("all.json").exists()), (Some(1), false), "{told}");
    assert!(told.contains("2 of 4 combinations cannot be run; nothing was computed"), "{told}");
    assert!(told.contains("both / css") && told.contains("keeps the members' widths"), "{told}");
}
