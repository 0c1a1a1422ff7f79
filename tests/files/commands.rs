//! Commands that a user starts, run as the real program on small input: what they leave behind, print and exit with.

use std::path::Path;
use std::process::{Command, Output};

use engraft::tensors::{Checkpoint, StateDict};
use serde_json::{Value, json};

pub(crate) fn engraft(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_engraft")).current_dir(folder).args(arguments).output().expect("the program runs")
}

/// What a command that must succeed has printed.
pub(crate) fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = engraft(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} ended with {}:\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// What a command that must fail has said.
fn fails(folder: &Path, arguments: &[&str]) -> String {
    let output = engraft(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// 120 points of two classes that a line parts, as `data.safetensors`.
fn points(folder: &Path) {
    points_of(folder, "data.safetensors", 2);
}

/// The same points with the labels of `classes` classes in turn.
fn points_of(folder: &Path, name: &str, classes: i64) {
    let point = |index: usize| {
        let angle = index as f32 * 0.7;
        let side = if index.is_multiple_of(2) { 1.0 } else { -1.0 };
        [angle.sin() + side * 2.0, angle.cos(), 0.5, -0.5]
    };
    let mut data = StateDict::default();
    data.insert_f32("x", &[120, 4], (0..120).flat_map(point).collect()).expect("a tensor");
    let labels: Vec<i64> = (0..120).map(|index| index % classes).collect();
    let labels = candle_core::Tensor::from_vec(labels, 120, &candle_core::Device::Cpu).expect("a tensor");
    data.insert("y".to_owned(), labels);
    data.save(&folder.join(name), &std::collections::BTreeMap::new()).expect("writes");
}

pub(crate) fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

#[test]
fn a_file_that_is_not_there_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    points(folder);
    let plan = "title = \"One\"\n[[ensembles]]\nname = \"a\"\nmembers = [\"none.pt\", \"none.pt\"]\n[[methods]]\nname = \"m\"\n";
    std::fs::write(folder.join("plan.toml"), plan).expect("writes");
    let members = ["--member", "none.pt", "--member", "none.pt"];
    for command in [
        [&["fuse", "--out", "fused.safetensors"], &members[..]].concat(),
        [&["plan"], &members[..]].concat(),
        vec!["compare", "--plan", "plan.toml"],
        vec!["plan", "--member", "data.safetensors", "--dataset", "none.pt"],
        vec!["train", "--network", "mlp:8", "--dataset", "none.pt", "--out", "new"],
    ] {
        let output = engraft(folder, &command);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).expect("text")).concat();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(said.contains("cannot open ") && said.contains("none.pt: No such file"), "{command:?}: {said}");
        assert!(!said.contains("Internal error"), "{command:?}: {said}");
    }
}

#[test]
fn a_server_whose_database_is_missing_does_not_start_and_touches_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    succeeds(folder, &["keys", "create", "--data-dir", "data"]);
    let mode = |path: &str| folder.join(path).metadata().expect("is there").permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/engraft.db")), (0o700, 0o600), "for their owner alone");
    std::fs::create_dir_all(folder.join("data/blobs/checkpoints")).expect("makes");
    std::fs::write(folder.join("data/blobs/checkpoints/weights"), b"precious").expect("writes");
    std::fs::rename(folder.join("data/engraft.db"), folder.join("elsewhere.db")).expect("moves");
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["worker"], &["keys", "list"]] {
        let said = fails(folder, &[command, &["--data-dir", "data"]].concat());
        assert!(said.contains("its database") || said.contains("their database"), "{said}");
        assert!(said.contains("Put it back") && !folder.join("data/engraft.db").exists(), "{said}");
    }
    assert_eq!(std::fs::read(folder.join("data/blobs/checkpoints/weights")).expect("reads"), b"precious");
    std::fs::rename(folder.join("elsewhere.db"), folder.join("data/engraft.db")).expect("moves");
    let listed = succeeds(folder, &["keys", "list", "--data-dir", "data"]);
    assert!(listed.contains("key_"), "{listed}");
}

#[test]
fn a_worker_makes_no_data_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("empty")).expect("makes");
    for mistyped in ["empty", "absent"] {
        let said = fails(folder.path(), &["worker", "--data-dir", mistyped]);
        assert!(said.contains("is no data directory of a server") && said.contains("engraft serve"), "{said}");
    }
    assert!(!folder.path().join("absent").exists());
    assert_eq!(std::fs::read_dir(folder.path().join("empty")).expect("reads").count(), 0);
}

#[test]
fn train_makes_an_ensemble_that_fuse_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    points(folder);
    let recipe = json!({
        "network": "mlp:6", "dataset": {"name": "data.safetensors", "validation_fraction": 0.2},
        "train": {"epochs": 3, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.1}},
    });
    std::fs::write(folder.join("recipe.json"), recipe.to_string()).expect("writes");
    let train = ["train", "--recipe", "recipe.json", "--test", "data.safetensors", "--out", "members", "--seeds"];
    let table = succeeds(folder, &[&train[..], &["3,5"]].concat());
    assert!(table.contains("members/m3.safetensors") && table.contains("ensemble (mean logits)"), "{table}");
    let known = json_file(&folder.join("members/ensemble.json"));
    let accuracy = known["test"]["accuracy"].as_f64().expect("an accuracy");
    assert!(accuracy > 0.9, "a line parts the classes: {known:#}");
    let member = Checkpoint::open(&folder.join("members/m3.safetensors")).expect("a checkpoint");
    assert_eq!(member.header().get("fc1.weight").map(|info| info.shape.clone()), Some(vec![6, 4]));

    assert_eq!(known["normalize"], Value::Null);

    // Measured on what is trained on, the held-out fifth not among it, and reported so.
    let measured = json!({"dataset": {"name": "data.safetensors", "validation_fraction": 0.2, "normalize": "train"},
        "network": "mlp:6", "train": {"epochs": 1, "batch_size": 16}});
    std::fs::write(folder.join("measured.json"), measured.to_string()).expect("writes");
    succeeds(folder, &["train", "--recipe", "measured.json", "--out", "measured", "--seeds", "1"]);
    let normalize = json_file(&folder.join("measured/ensemble.json"))["normalize"].clone();
    let [mean, std] = ["mean", "std"].map(|name| normalize[name][0].as_f64().expect("a number"));
    assert!(mean.abs() < 0.2 && (0.5..2.0).contains(&std), "{normalize}");
    let whole = json!({"dataset": {"name": "data.safetensors", "validation_fraction": 0, "normalize": "train"},
        "network": "mlp:6", "train": {"epochs": 1, "batch_size": 16}});
    std::fs::write(folder.join("whole.json"), whole.to_string()).expect("writes");
    succeeds(folder, &["train", "--recipe", "whole.json", "--out", "whole", "--seeds", "1"]);
    assert_ne!(json_file(&folder.join("whole/ensemble.json"))["normalize"], normalize, "of other examples");

    // The same seed gives the same member, also through its checkpoint as the network; another seed another one.
    let bytes = |file: &str| std::fs::read(folder.join(file)).expect("a file");
    let again = ["--network", "members/m3.safetensors", "--out", "again"];
    succeeds(folder, &[&train[..5], &again, &["--seeds", "3"]].concat());
    assert_eq!(bytes("again/m3.safetensors"), bytes("members/m3.safetensors"));
    assert_ne!(bytes("members/m3.safetensors"), bytes("members/m5.safetensors"));

    let fuse = ["fuse", "--member", "members/m3.safetensors", "--member", "members/m5.safetensors"];
    let report =
        succeeds(folder, &[&fuse[..], &["--dataset", "data.safetensors", "--out", "fused.safetensors"]].concat());
    assert!(report.contains("ensemble"), "{report}");

    // Members from `train` state their network, and so does what is fused of them.
    for file in ["members/m5.safetensors", "fused.safetensors"] {
        let facts: Value = serde_json::from_str(&succeeds(folder, &["inspect", "--json", file])).expect("JSON");
        assert_eq!(facts["architecture"]["evidence"], "certain", "{file}: {facts:#}");
    }
    let assumed = ["--assume", "--architecture", "mlp", "--out", "assumed.safetensors"];
    succeeds(folder, &[&fuse[..], &["--dataset", "data.safetensors"], &assumed].concat());
    let facts: Value =
        serde_json::from_str(&succeeds(folder, &["inspect", "--json", "assumed.safetensors"])).expect("JSON");
    assert_eq!(facts["architecture"]["evidence"], "ambiguous", "what was assumed does not become certain: {facts:#}");
}

#[test]
fn what_train_cannot_do_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    points(folder);
    let told = fails(folder, &["train", "--network", "mlp:x", "--out", "members", "--dataset", "data.safetensors"]);
    assert!(told.contains("mlp:512,512") && told.contains("/network"), "{told}");
    let told = fails(folder, &["train", "--network", "lenet", "--out", "members", "--dataset", "data.safetensors"]);
    assert!(told.contains("conv1"), "{told}");
    let told = fails(folder, &["train", "--network", "mlp:6", "--out", "members", "--dataset", "none.npz"]);
    assert!(told.contains("none.npz"), "{told}");
    std::fs::write(folder.join("varied.json"), json!({"train": {"augment": {"flip": true}}}).to_string()).unwrap();
    let varied = ["train", "--network", "mlp:6", "--out", "members", "--dataset", "data.safetensors", "--recipe"];
    let told = fails(folder, &[&varied[..], &["varied.json"]].concat());
    assert!(told.contains("/train/augment") && told.contains("vectors"), "{told}");
    points_of(folder, "one.safetensors", 1);
    let told = fails(folder, &["train", "--network", "mlp:6", "--out", "members", "--dataset", "one.safetensors"]);
    assert!(told.contains("/dataset") && told.contains("the label 0"), "{told}");
    points_of(folder, "three.safetensors", 3);
    let graph = json!({"nodes": [{"name": "input", "op": "input", "shape": [4]},
        {"name": "fc", "op": "linear", "in_features": 4, "out_features": 2}]});
    std::fs::write(folder.join("graph.json"), graph.to_string()).unwrap();
    let more = ["train", "--network", "graph.json", "--out", "members", "--dataset", "three.safetensors"];
    let told = fails(folder, &more);
    assert!(told.contains("/network") && told.contains("2 outputs"), "{told}");
    let told = fails(folder, &["train", "--network", "mlp:6", "--out", "members"]);
    assert!(told.contains("/dataset"), "{told}");
}

/// Two members 64-1024-10, whose compensation without data needs some ten megabytes.
fn wide_members(folder: &Path) {
    for (name, seed) in [("m0", 1_usize), ("m1", 2)] {
        let mut member = StateDict::default();
        for (layer, outputs, inputs) in [("fc1", 1024, 64), ("fc2", 10, 1024)] {
            let values = (0..outputs * inputs).map(|index| ((index * 7919 + seed * 31) % 1013) as f32 / 1013.0 - 0.5);
            member.insert_f32(&format!("{layer}.weight"), &[outputs, inputs], values.collect()).expect("a tensor");
        }
        member.save(&folder.join(format!("{name}.safetensors")), &std::collections::BTreeMap::new()).expect("writes");
    }
}

#[test]
fn fuse_tells_the_memory_that_it_took_and_keeps_to_a_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    wide_members(folder);
    let fuse = ["fuse", "--member", "m0.safetensors", "--member", "m1.safetensors", "--out", "fused.safetensors"];
    let told = fails(folder, &[&fuse[..], &["--assume", "--memory-limit", "4MiB"]].concat());
    assert!(told.contains("4194304 bytes") && told.contains("--memory-limit"), "{told}");
    let left: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left.len(), 2, "only the members are there: {left:?}");
    succeeds(folder, &[&fuse[..], &["--assume", "--memory-limit", "1GiB", "--report", "report.json"]].concat());
    let peaks = json_file(&folder.join("report.json"))["memory_peak_bytes"].clone();
    let most = peaks.as_array().expect("a list").iter().filter_map(|phase| phase[1].as_u64()).max().expect("a peak");
    assert!((4 << 20..1 << 30).contains(&most), "{peaks:#}");
}

#[test]
fn models_leave_in_the_format_that_their_name_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    wide_members(folder);
    let fuse = |out: &'static str| {
        ["fuse", "--member", "m0.safetensors", "--member", "m1.safetensors", "--assume", "--out", out]
    };
    let told = fails(folder, &fuse("fused.h5"));
    assert!(
        told.contains(".safetensors, .tar, .pt, .onnx or .py") && !told.contains("load"),
        "before anything is read: {told}"
    );
    assert!(fails(folder, &fuse("fused.json")).contains("holds no weights"));
    let told = fails(folder, &fuse("fused"));
    assert!(told.contains("fused: the end of the name says the format; expected .safetensors"), "{told}");
    for out in ["fused.pt", "fused.onnx", "fused.py"] {
        let told = succeeds(folder, &fuse(out));
        assert!(told.contains(&format!("wrote {out}")), "{told}");
    }
    let source = ["fuse", "--member", "fused.onnx", "--member", "fused.onnx", "--out", "smaller.py"];
    let told = succeeds(folder, &source);
    assert!(told.contains("from smaller import load\n") && told.contains("load(\"smaller.safetensors\")"), "{told}");
    assert!(!told.contains("engraft convert"), "the source is there already: {told}");
    let open = |name: &str| Checkpoint::open(&folder.join(name)).expect("a checkpoint");
    let bytes = |checkpoint: &Checkpoint| {
        checkpoint.tensors().into_iter().map(|(info, bytes)| (info.clone(), bytes.to_vec())).collect::<Vec<_>>()
    };
    let weights = open("fused.safetensors");
    assert_eq!(bytes(&open("fused.pt")), bytes(&weights), "the same tensors");
    assert!(open("fused.onnx").header().stated.is_some(), "an ONNX model says what it is");
    let source = std::fs::read_to_string(folder.join("fused.py")).expect("text");
    assert!(
        source.contains("self.fc1 = nn.Linear(64, 1024, bias=False)") && source.contains("load(\"fused.safetensors\")")
    );

    // What was only assumed does not become known by being converted.
    assert!(fails(folder, &["convert", "fused.pt", "again.onnx"]).contains("More than one architecture fits"));
    succeeds(folder, &["convert", "fused.pt", "again.safetensors"]);
    assert_eq!(bytes(&open("again.safetensors")), bytes(&weights));
    succeeds(folder, &["convert", "fused.onnx", "network.json"]);
    assert_eq!(json_file(&folder.join("network.json"))["nodes"][1]["out_features"], 1024);
    assert!(fails(folder, &["convert", "fused.onnx", "network.json"]).contains("--force"));
    std::fs::copy(folder.join("fused.onnx"), folder.join("input.onnx")).expect("copies");
    let over = fails(folder, &["convert", "input.onnx", "./input.onnx", "--force"]);
    assert!(over.contains("over the input"), "{over}");
    // A source loads safetensors, so that is what stands beside it.
    succeeds(folder, &["convert", "fused.onnx", "module.py"]);
    let source = std::fs::read_to_string(folder.join("module.py")).expect("text");
    assert!(source.contains("load(\"module.safetensors\")"), "{source}");
    assert_eq!(bytes(&open("module.safetensors")), bytes(&weights));
}

/// Inputs without labels, and two members that have been trained on some with labels.
fn unlabelled(folder: &Path) {
    points(folder);
    let members = ["train", "--network", "mlp:6", "--dataset", "data.safetensors", "--seeds", "0,1", "--epochs", "1"];
    succeeds(folder, &[&members[..], &["--normalize", "train", "--out", "members"]].concat());
    let data = Checkpoint::open(&folder.join("data.safetensors")).expect("arrays");
    let mut bare = StateDict::default();
    let x = data.bytes("x").expect("inputs").1;
    let x = x.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect();
    bare.insert_f32("x", &[120, 4], x).expect("a tensor");
    bare.save(&folder.join("bare.safetensors"), &std::collections::BTreeMap::new()).expect("writes");
}

#[test]
fn inputs_without_labels_teach_what_the_members_say_and_measure_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    unlabelled(folder);
    let job =
        ["--member", "members/m0.safetensors", "--member", "members/m1.safetensors", "--dataset", "bare.safetensors"];
    let report = ["--report", "report.json", "--html", "report.html", "--force"];
    let fuse = |more: &[&'static str]| [&["fuse", "--out", "fused.safetensors"], &job[..], &report, more].concat();
    for training in [&[][..], &["--epochs", "2"]] {
        let table = succeeds(folder, &fuse(training));
        assert!(table.contains("Not measured: there were no labelled examples"), "{table}");
        assert!(!table.contains("best member") && !table.contains("p = ") && !table.contains(" - "), "{table}");
        assert!(table.contains("`auto` kept") && table.contains("divergence from the ensemble"), "{table}");
        let report = json_file(&folder.join("report.json"));
        assert_eq!((&report["paired"], &report["examples"]["train"]), (&json!([]), &json!(120)));
        let rows = report["candidates"].as_array().expect("rows");
        assert!(rows.iter().all(|row| row["validation"].is_null() && row["test"].is_null()), "{rows:#?}");
        assert!(rows.iter().all(|row| row["kind"] != "trained_on" && row["kind"] != "distilled"), "{rows:#?}");
        let page = std::fs::read_to_string(folder.join("report.html")).expect("a page");
        assert!(page.contains("Not measured") && !page.contains("best on the validation split"));
    }
    let report = json_file(&folder.join("report.json"));
    assert_eq!(
        (&report["recovery"]["objective"], &report["recovery"]["soft_weight"]),
        (&json!("distill"), &json!(1.0))
    );
    assert!(report["epochs"].as_array().expect("epochs").iter().all(|epoch| epoch["train_accuracy"].is_null()));

    // Labelled examples of another file measure it.
    let table = succeeds(folder, &fuse(&["--test", "data.safetensors", "--epochs", "1"]));
    assert!(table.contains("best member") && table.contains("distilled") && !table.contains("trained on"), "{table}");

    let plan = |body: Value| {
        std::fs::write(folder.join("job.json"), body.to_string()).expect("writes");
        fails(folder, &[&["plan"], &job[..], &["--job", "job.json"]].concat())
    };
    for (body, said) in [
        (json!({"finetune": {"epochs": 1, "objective": "cross_entropy"}}), "/finetune/objective: learns from labels"),
        (json!({"finetune": {"epochs": 1, "soft_weight": 0.5}}), "/finetune/soft_weight: "),
        (json!({"dataset": {"name": "x", "validation_fraction": 0.2}}), "/dataset/validation_fraction: "),
        (json!({"method": {"importance": "fisher"}}), "/method/importance: takes gradients"),
        (json!({"method": {"member_weights": "fitted"}}), "/method/member_weights: "),
        (json!({"method": {"ensemble": "fitted_per_class"}}), "/method/ensemble: "),
    ] {
        let told = plan(body);
        assert!(told.contains(said) && told.contains("none") | told.contains("no labels"), "{said} in {told}");
    }
    let told = fails(folder, &[&["plan"], &job[..], &["--test", "bare.safetensors"]].concat());
    assert!(told.contains("/dataset/test: networks are measured on it, and it has no labels"), "{told}");
    let told = fails(folder, &["train", "--network", "mlp:6", "--dataset", "bare.safetensors", "--out", "none"]);
    assert!(told.contains("no network can be trained on it from scratch"), "{told}");
}

#[test]
fn a_normalisation_is_a_flag_and_a_folder_is_to_be_packed() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    unlabelled(folder);
    let members = ["fuse", "--member", "members/m0.safetensors", "--out", "fused.safetensors", "--force"];
    let fuse = |more: &[&'static str]| [&members[..], &["--dataset", "data.safetensors"], more].concat();
    for (flag, mean) in [("train", Value::Null), ("-0.5:2", json!([-0.5])), ("0.25:0.5", json!([0.25]))] {
        succeeds(folder, &fuse(&["--normalize", flag, "--report", "report.json"]));
        let report = json_file(&folder.join("report.json"));
        let own = &report["normalize"]["mean"];
        assert!(if mean.is_null() { own[0].is_number() } else { *own == mean }, "{flag}: {own}");
    }
    let told = engraft(folder, &fuse(&["--normalize", "0.5"]));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("expected train, none or MEAN:STD"), "{told}");

    std::fs::create_dir(folder.join("pets")).expect("a folder");
    let train = ["train", "--network", "mlp:6", "--out", "none"];
    for command in [&members[..], &["plan", "--member", "members/m0.safetensors"], &train] {
        let told = fails(folder, &[command, &["--dataset", "pets"]].concat());
        assert!(told.contains("it is a folder") && told.contains("`tar -cf pets.tar -C pets .`"), "{told}");
    }
}

#[test]
fn fuse_takes_files_of_pytorch_and_spares_those_that_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    for name in ["prefixed.pt", "sequential.pt"] {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name);
        std::fs::copy(fixture, folder.join(name)).expect("copies");
    }
    let members = ["fuse", "--member", "prefixed.pt", "--member", "sequential.pt"];
    let fuse = [&members[..], &["--out", "fused.safetensors", "--report", "report.json"]].concat();
    succeeds(folder, &fuse);
    let fused = Checkpoint::open(&folder.join("fused.safetensors")).expect("a checkpoint");
    let names: Vec<&str> = fused.header().tensors.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(
        names,
        ["module.0.bias", "module.0.weight", "module.2.bias", "module.2.weight"],
        "as the first member's"
    );
    assert!(fused.header().stated.is_some(), "the second member says what network it is");
    let assumptions = json_file(&folder.join("report.json"))["assumptions"].to_string();
    assert!(assumptions.contains("member 1: its names begin with no prefix"), "{assumptions}");

    let again = fails(folder, &fuse);
    assert!(again.contains("fused.safetensors exists") && again.contains("--force"), "{again}");
    succeeds(folder, &[&fuse[..], &["--force"]].concat());
    let over = fails(folder, &[&members[..], &["--force", "--out", "./prefixed.pt"]].concat());
    assert!(over.contains("over the input"), "{over}");
}

#[test]
fn the_demo_goes_through_the_whole_cycle() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = succeeds(folder.path(), &["demo", "--images", "500", "--epochs", "1"]);
    assert!(told.contains("its digest is right") && told.contains("fused, uncompensated"), "{told}");
    let fused = Checkpoint::open(&folder.path().join("engraft-demo/fused.safetensors")).expect("a checkpoint");
    assert_eq!(fused.header().get("fc1.weight").map(|info| info.shape.clone()), Some(vec![96, 400]));
}
