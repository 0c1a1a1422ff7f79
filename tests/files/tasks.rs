//! Networks that are no classifiers of several classes, from data to report: one logit, several labels, numbers. Members are trained
//! here, and what is reported is computed anew from the files.

use std::path::Path;

use crate::commands::{engraft, json_file, succeeds};
use crate::common::packing::{npy, npz};
use crate::schemas::check_answer;
use engraft::tensors::{Checkpoint, Weights};
use serde_json::{Value, json};

const INPUTS: usize = 6;
const TRAIN: usize = 900;
const TEST: usize = 400;

/// Numbers between -1 and 1, always the same ones.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

/// What is to be learned of an input: three smooth functions of it.
fn functions(x: &[f32]) -> [f32; 3] {
    [(2.0 * x[0]).sin() + x[1] * x[2], x[3] * x[3] - x[4] + 0.2, x[0] - x[5] + 0.5 * x[1]]
}

/// The inputs of a split, and its three functions with some noise, row by row.
fn split(count: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut noise = noise(seed);
    let x: Vec<f32> = (0..count * INPUTS).map(|_| noise()).collect();
    let y = x.chunks(INPUTS).flat_map(functions).map(|y| y + 0.1 * noise()).collect();
    (x, y)
}

fn floats(shape: &str, values: &[f32]) -> Vec<u8> {
    npy("<f4", shape, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

/// The dataset `data.npz` with what `label` makes of the functions of each example.
fn dataset(folder: &Path, label: impl Fn(&str, &[f32]) -> Vec<u8>) {
    let (x, y) = split(TRAIN, 1);
    let (x_test, y_test) = split(TEST, 2);
    let arrays = [
        ("x", floats(&format!("({TRAIN}, {INPUTS})"), &x)),
        ("y", label(&format!("{TRAIN}"), &y)),
        ("x_test", floats(&format!("({TEST}, {INPUTS})"), &x_test)),
        ("y_test", label(&format!("{TEST}"), &y_test)),
    ];
    std::fs::write(folder.join("data.npz"), npz(&arrays)).expect("writes");
}

/// Trains three members on `data.npz` and fuses them with recovery; what is known of the members, the report, and what was printed.
fn trained_and_fused(folder: &Path, job: &Value) -> (Value, Value, [String; 2]) {
    let recipe = json!({"network": "mlp:24,24", "dataset": "data.npz", "seeds": [1, 2, 3],
        "train": {"epochs": 25, "batch_size": 30, "optimizer": {"name": "adamw", "lr": 0.01}}});
    std::fs::write(folder.join("recipe.json"), recipe.to_string()).expect("writes");
    let table = succeeds(folder, &["train", "--recipe", "recipe.json", "--out", "members"]);
    let mut body = json!({"members": ["members/m1.safetensors", "members/m2.safetensors", "members/m3.safetensors"],
        "dataset": "data.npz", "finetune": {"epochs": 10, "batch_size": 30}});
    for (field, value) in job.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    std::fs::write(folder.join("job.json"), body.to_string()).expect("writes");
    let fuse =
        ["fuse", "--job", "job.json", "--out", "fused.safetensors", "--report", "report.json", "--html", "page.html"];
    let text = succeeds(folder, &fuse);
    let report = json_file(&folder.join("report.json"));
    check_answer("Report", &report);
    (json_file(&folder.join("members/ensemble.json")), report, [table, text])
}

/// The outputs of a chain of matrices with ReLU between them for the test inputs, row by row.
fn outputs(file: &Path) -> Vec<Vec<f64>> {
    let weights = Checkpoint::open(file).expect("a checkpoint");
    let (x, _) = split(TEST, 2);
    let mut rows: Vec<Vec<f64>> = x.chunks(INPUTS).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
    for layer in 1..=3 {
        let matrix = weights.f32(&format!("fc{layer}.weight")).expect("a matrix");
        let bias = weights.f32(&format!("fc{layer}.bias")).expect("a bias");
        for row in &mut rows {
            let of_unit = |(weights, bias): (&[f32], &f32)| {
                let sum: f64 = weights.iter().zip(&*row).map(|(weight, x)| f64::from(*weight) * x).sum();
                let value = sum + f64::from(*bias);
                if layer < 3 { value.max(0.0) } else { value }
            };
            *row = matrix.chunks(row.len()).zip(&*bias).map(of_unit).collect();
        }
    }
    rows
}

fn row<'a>(report: &'a Value, kind: &str) -> &'a Value {
    let rows = report["candidates"].as_array().expect("candidates");
    rows.iter().find(|row| row["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {report:#}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-4 * expected.abs().max(1.0), "{got} for {expected}");
}

#[test]
fn a_regression_is_trained_fused_and_scored_by_its_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    dataset(folder, |count, y| floats(&format!("({count}, 3)"), y));
    let (known, report, [table, text]) = trained_and_fused(folder, &json!({}));
    assert_eq!((&known["task"], &report["task"]), (&json!("regression"), &json!("regression")));
    assert_eq!(report["recovery"]["objective"], "distill");
    let (fused, ensemble) = (&row(&report, "fused")["test"], &row(&report, "ensemble")["test"]);
    let (members, [fused_rmse, ensemble_rmse]) =
        (known["members"].as_array().expect("members"), [fused, ensemble].map(|score| number(&score["rmse"])));
    let mean = members.iter().map(|member| number(&member["test"]["rmse"])).sum::<f64>() / 3.0;
    eprintln!("RMSE: mean member {mean:.4}, ensemble {ensemble_rmse:.4}, fused {fused_rmse:.4}");
    assert!(ensemble_rmse < mean && fused_rmse < 1.15 * ensemble_rmse, "{mean} {ensemble_rmse} {fused_rmse}");
    assert!(number(&fused["r2"]) > 0.9, "{fused}");
    // The figures are those of the file that is published.
    let (_, y) = split(TEST, 2);
    let outputs = outputs(&folder.join("fused.safetensors"));
    let column = |index: usize| -> (f64, f64) {
        let truths: Vec<f64> = y.iter().skip(index).step_by(3).map(|y| f64::from(*y)).collect();
        let mean = truths.iter().sum::<f64>() / TEST as f64;
        let errors: f64 = truths.iter().zip(&outputs).map(|(y, row)| (row[index] - y).powi(2)).sum();
        let spread: f64 = truths.iter().map(|y| (y - mean).powi(2)).sum();
        (errors / TEST as f64, 1.0 - errors / spread)
    };
    let columns = [0, 1, 2].map(column);
    let mse = columns.iter().map(|column| column.0).sum::<f64>() / 3.0;
    close(number(&fused["loss"]), mse);
    close(fused_rmse, mse.sqrt());
    close(number(&fused["r2"]), columns.iter().map(|column| column.1).sum::<f64>() / 3.0);
    for (index, (mse, r2)) in columns.into_iter().enumerate() {
        let own = &row(&report, "fused")["per_output"][index];
        close(number(&own["rmse"]), mse.sqrt());
        close(number(&own["r2"]), r2);
    }
    let interval = &row(&report, "fused")["interval"];
    assert!(number(&interval[0]) < fused_rmse && fused_rmse < number(&interval[1]), "{interval}");
    assert!(report["paired"][0]["by_loss"] == true, "{}", report["paired"]);
    let page = std::fs::read_to_string(folder.join("page.html")).expect("a page");
    for shown in [&table, &text, &page] {
        assert!(shown.contains("RMSE") && !shown.to_lowercase().contains("accuracy"), "{shown}");
    }
    assert!(text.contains("R²") && text.contains("less loss on"), "{text}");
    assert!(row(&report, "fused")["calibration_error"].is_null() && fused["accuracy"].is_null());
}

#[test]
fn several_labels_are_trained_fused_and_scored_by_their_shares() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let flag = |y: &f32| u8::from(*y > 0.3);
    dataset(folder, |count, y| npy("|u1", &format!("({count}, 3)"), &y.iter().map(flag).collect::<Vec<u8>>()));
    let (known, report, [table, text]) =
        trained_and_fused(folder, &json!({"method": {"ensemble": "mean_probabilities"}}));
    assert_eq!((&known["task"], &report["task"]), (&json!("multi_label"), &json!("multi_label")));
    assert_eq!(report["ensemble"]["rule"], "mean_probabilities");
    let (fused, ensemble) = (&row(&report, "fused")["test"], &row(&report, "ensemble")["test"]);
    let [own, whole] = [fused, ensemble].map(|score| number(&score["label_accuracy"]));
    eprintln!(
        "right labels: ensemble {whole:.4}, fused {own:.4}; macro F1 {} and {}",
        ensemble["macro_f1"], fused["macro_f1"]
    );
    assert!(own > 0.9 && own > whole - 0.01, "{own} {whole}");
    let (_, y) = split(TEST, 2);
    let (outputs, truths) = (
        outputs(&folder.join("fused.safetensors")),
        y.chunks(3).map(|row| row.iter().map(|y| *y > 0.3).collect::<Vec<_>>()).collect::<Vec<_>>(),
    );
    let (mut loss, mut right, mut exact, mut f1) = (0.0, 0.0, 0.0, 0.0);
    for (row, flags) in outputs.iter().zip(&truths) {
        loss +=
            row.iter().zip(flags).map(|(z, flag)| (1.0 + if *flag { -z } else { *z }.exp()).ln()).sum::<f64>() / 3.0;
        let hits = row.iter().zip(flags).filter(|(z, flag)| (**z > 0.0) == **flag).count();
        (right, exact) = (right + hits as f64 / 3.0, exact + f64::from(u8::from(hits == 3)));
    }
    for label in 0..3 {
        let count = |there: bool, said: bool| {
            outputs.iter().zip(&truths).filter(|(z, flags)| (z[label] > 0.0) == said && flags[label] == there).count()
                as f64
        };
        f1 += 2.0 * count(true, true) / (2.0 * count(true, true) + count(true, false) + count(false, true)) / 3.0;
    }
    let count = TEST as f64;
    for (name, expected) in
        [("loss", loss / count), ("label_accuracy", right / count), ("exact_match", exact / count), ("macro_f1", f1)]
    {
        close(number(&fused[name]), expected);
    }
    for shown in [&table, &text] {
        assert!(shown.contains("% of labels, macro F1"), "{shown}");
    }
    assert!(row(&report, "fused")["agreement"].as_f64().is_some_and(|share| share > 0.9));
}

#[test]
fn one_logit_is_trained_fused_and_scored_by_its_accuracy() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let label = |count: &str, y: &[f32]| {
        npy("|u1", &format!("({count}, 1)"), &y.chunks(3).map(|row| u8::from(row[0] > 0.0)).collect::<Vec<u8>>())
    };
    dataset(folder, label);
    let binary = json!({"name": "data.npz", "task": "binary"});
    std::fs::write(
        folder.join("one.json"),
        json!({"network": "mlp:24,24", "dataset": binary, "seeds": [1, 2],
        "train": {"epochs": 15, "batch_size": 30, "optimizer": {"name": "adamw", "lr": 0.01}}})
        .to_string(),
    )
    .expect("writes");
    let table = succeeds(folder, &["train", "--recipe", "one.json", "--out", "members"]);
    assert!(table.contains(" %"), "{table}");
    let member = Checkpoint::open(&folder.join("members/m1.safetensors")).expect("a checkpoint");
    assert_eq!(member.header().get("fc3.weight").map(|info| info.shape.clone()), Some(vec![1, 24]));
    let job = json!({"members": ["members/m1.safetensors", "members/m2.safetensors"], "dataset": "data.npz",
        "finetune": {"epochs": 5, "batch_size": 30}, "evaluate": ["members", "ensemble", "vote", "fused", "trained_on"]});
    std::fs::write(folder.join("job.json"), job.to_string()).expect("writes");
    let text =
        succeeds(folder, &["fuse", "--job", "job.json", "--out", "fused.safetensors", "--report", "report.json"]);
    let report = json_file(&folder.join("report.json"));
    assert_eq!(report["task"], "binary");
    let fused = row(&report, "fused");
    let (_, y) = split(TEST, 2);
    let (outputs, truths) =
        (outputs(&folder.join("fused.safetensors")), y.chunks(3).map(|row| row[0] > 0.0).collect::<Vec<_>>());
    let right = outputs.iter().zip(&truths).filter(|(z, truth)| (z[0] > 0.0) == **truth).count();
    close(number(&fused["test"]["accuracy"]), right as f64 / TEST as f64);
    let loss: f64 =
        outputs.iter().zip(&truths).map(|(z, truth)| (1.0 + if *truth { -z[0] } else { z[0] }.exp()).ln()).sum();
    close(number(&fused["test"]["loss"]), loss / TEST as f64);
    let whole = number(&row(&report, "ensemble")["test"]["accuracy"]);
    assert!(right as f64 / TEST as f64 > whole - 0.02 && whole > 0.85, "{right} {whole}");
    assert_eq!(fused["per_class_accuracy"].as_array().map(Vec::len), Some(2));
    assert!(number(&fused["calibration_error"]) < 0.2 && row(&report, "vote")["test"]["accuracy"].is_number());
    assert!(report["paired"][0]["by_loss"].is_null() && text.contains("points"), "{text}");
}

#[test]
fn what_labels_may_mean_is_asked_and_what_they_cannot_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let refused = |body: &Value, expected: &[&str]| {
        std::fs::write(folder.join("body.json"), body.to_string()).expect("writes");
        let arguments = if body["network"].is_null() {
            &["plan", "--job", "body.json"][..]
        } else {
            &["train", "--recipe", "body.json", "--out", "none"][..]
        };
        let output = engraft(folder, arguments);
        let shown = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{body}: {shown}");
        assert!(expected.iter().all(|expected| shown.contains(expected)), "{expected:?} in {shown}");
    };
    let recipe =
        |dataset: Value| json!({"network": "mlp:8,8", "dataset": dataset, "seeds": [1], "train": {"epochs": 1}});
    let job =
        |dataset: Value| json!({"members": ["members/m1.safetensors"], "dataset": dataset, "finetune": {"epochs": 1}});
    // Numbers first, for members of one output.
    dataset(folder, |count, y| floats(&format!("({count},)"), &y.iter().step_by(3).copied().collect::<Vec<f32>>()));
    std::fs::write(folder.join("recipe.json"), recipe(json!("data.npz")).to_string()).expect("writes");
    succeeds(folder, &["train", "--recipe", "recipe.json", "--out", "members"]);
    let with = |field: &str, value: Value| {
        let mut body = job(json!("data.npz"));
        body[field] = value;
        body
    };
    // Numbers do not decide between networks.
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks");
    let foreign = |file: &str| fixtures.join(file).display().to_string();
    let unclear = json!({"members": [foreign("regression_1.safetensors")], "dataset": foreign("regression.npz")});
    refused(&unclear, &["More than one architecture fits", "reference"]);
    for (body, expected) in [
        (with("method", json!({"ensemble": "entropy"})), ["/method/ensemble", "`entropy`", "`mean_logits`"]),
        (with("method", json!({"member_weights": "fitted"})), ["/method/member_weights", "`fitted`", "`uniform`"]),
        (
            with("finetune", json!({"epochs": 1, "label_smoothing": 0.1})),
            ["/finetune/label_smoothing", "classes", "leave it out"],
        ),
        (
            with("finetune", json!({"epochs": 1, "temperature": 4})),
            ["/finetune/temperature", "regression", "leave it out"],
        ),
        (with("evaluate", json!(["vote"])), ["/evaluate", "`vote`", "`ensemble`"]),
        (
            with("dataset", json!({"name": "data.npz", "task": "binary"})),
            ["/dataset", "labels 0 and 1", "not all whole"],
        ),
        (with("dataset", json!({"name": "data.npz", "task": "ranking"})), ["/dataset/task", "regression", "ranking"]),
    ] {
        refused(&body, &expected);
    }
    // Whole numbers that are stored as floats: ratings, or classes.
    let whole = |y: &f32| (y.abs() * 2.0).floor();
    dataset(folder, |count, y| floats(&format!("({count},)"), &y.iter().step_by(3).map(whole).collect::<Vec<f32>>()));
    refused(&job(json!("data.npz")), &["/dataset", "stored as floats", "`dataset.task`"]);
    refused(&recipe(json!("data.npz")), &["/dataset", "`classification` or `regression`", "`dataset.task`"]);
    succeeds(folder, &["plan", "--job", &file_of(folder, &job(json!({"name": "data.npz", "task": "regression"})))]);
    // Several labels for one output, and rows with a single 1.
    dataset(folder, |count, y| {
        npy("|u1", &format!("({count}, 3)"), &y.iter().map(|y| u8::from(*y > 0.0)).collect::<Vec<u8>>())
    });
    refused(&job(json!("data.npz")), &["/dataset", "1 output", "3 per example (only 0 and 1)"]);
    let one_hot =
        |y: &[f32]| y.chunks(3).flat_map(|row| [row[0] > 0.0, row[0] <= 0.0, false].map(u8::from)).collect::<Vec<u8>>();
    dataset(folder, |count, y| npy("|u1", &format!("({count}, 3)"), &one_hot(y)));
    refused(&recipe(json!("data.npz")), &["/dataset", "`classification` or `multi_label`", "`dataset.task`"]);
    let classes = recipe(json!({"name": "data.npz", "task": "classification"}));
    let table = succeeds(folder, &["train", "--recipe", &file_of(folder, &classes), "--out", "classes"]);
    assert!(table.contains(" %") && !table.contains("of labels"), "{table}");
}

#[test]
fn numbers_of_any_size_are_learned_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let large = |y: &[f32]| y.iter().map(|y| 5_000.0 + 1_000.0 * y).collect::<Vec<f32>>();
    dataset(folder, |count, y| floats(&format!("({count}, 3)"), &large(y)));
    let (_, report, _) = trained_and_fused(folder, &json!({}));
    let rows = ["fused", "trained_on", "distilled"].map(|kind| number(&row(&report, kind)["test"]["rmse"]));
    let untrained = number(&row(&report, "ensemble")["test"]["rmse"]);
    assert!(rows.iter().all(|rmse| *rmse < 1.1 * untrained), "{rows:?} {untrained}");
}

/// Writes a body to a file; its name.
fn file_of(folder: &Path, body: &Value) -> String {
    std::fs::write(folder.join("body_of.json"), body.to_string()).expect("writes");
    "body_of.json".to_owned()
}

/// Members that PyTorch has trained score what PyTorch and NumPy say; `tests/fixtures/tasks/make.py` makes them.
#[test]
fn scores_of_foreign_members_equal_those_of_pytorch() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks");
    let expected = json_file(&fixtures.join("expected.json"));
    let folder = tempfile::tempdir().expect("a folder");
    let name = |file: String| std::fs::canonicalize(fixtures.join(file)).expect("a fixture").display().to_string();
    for (task, rules) in [
        ("binary", &["mean_logits", "mean_probabilities"][..]),
        ("multi_label", &["mean_logits", "mean_probabilities"]),
        ("regression", &["mean_logits"]),
    ] {
        for rule in rules {
            let members = [1, 2].map(|seed| name(format!("{task}_{seed}.safetensors")));
            let job = json!({"members": members, "method": {"ensemble": rule},
                "dataset": name(format!("{task}.npz")), "architecture": {"family": "mlp", "activation": "relu"}});
            std::fs::write(folder.path().join("job.json"), job.to_string()).expect("writes");
            let fuse =
                ["fuse", "--force", "--job", "job.json", "--out", "fused.safetensors", "--report", "report.json"];
            succeeds(folder.path(), &fuse);
            let report = json_file(&folder.path().join("report.json"));
            assert_eq!(report["task"], task);
            let members = report["candidates"].as_array().expect("rows").iter().filter(|row| row["kind"] == "member");
            let known = expected[task]["members"].as_array().expect("members").iter();
            let rows: Vec<(&Value, &Value)> = members.map(|row| &row["test"]).zip(known).collect();
            assert_eq!(rows.len(), 2);
            for (got, known) in rows.into_iter().chain([(&row(&report, "ensemble")["test"], &expected[task][*rule])]) {
                assert_eq!(got.as_object().map(serde_json::Map::len), known.as_object().map(serde_json::Map::len));
                for (measure, value) in known.as_object().expect("measures") {
                    let off = (number(&got[measure]) - number(value)).abs();
                    assert!(off < 1e-5, "{task}, {rule}, {measure}: {got} for {known}");
                }
            }
        }
    }
}
