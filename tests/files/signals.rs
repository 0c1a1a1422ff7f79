//! Commands that are sent signals while they compute: how they end, and that nothing is left of what they made.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// How long a command may take until it computes, and to its end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Data of two classes, and two members 4-64-2.
fn inputs(folder: &Path) {
    use engraft::tensors::StateDict;
    let none = std::collections::BTreeMap::new();
    let mut data = StateDict::default();
    let values = (0..2000 * 4).map(|index| ((index * 7919) % 1013) as f32 / 1013.0 - 0.5);
    data.insert_f32("x", &[2000, 4], values.collect()).expect("a tensor");
    let labels: Vec<i64> = (0..2000).map(|index| index % 2).collect();
    let labels = candle_core::Tensor::from_vec(labels, 2000, &candle_core::Device::Cpu).expect("a tensor");
    data.insert("y".to_owned(), labels);
    data.save(&folder.join("data.safetensors"), &none).expect("writes");
    for name in ["m0", "m1"] {
        let mut member = StateDict::default();
        for (layer, outputs, inputs) in [("fc1", 64, 4), ("fc2", 2, 64)] {
            let values = (0..outputs * inputs).map(|index| ((index * 7919) % 1013) as f32 / 1013.0 - 0.5);
            member.insert_f32(&format!("{layer}.weight"), &[outputs, inputs], values.collect()).expect("a tensor");
        }
        member.save(&folder.join(format!("{name}.safetensors")), &none).expect("writes");
    }
    let job = json!({"members": ["m0.safetensors", "m1.safetensors"], "architecture": {"assume": true}, "dataset": "data.safetensors",
        "finetune": {"epochs": 100_000, "batch_size": 64}});
    std::fs::write(folder.join("job.json"), job.to_string()).expect("writes");
    let plan = "title = \"One\"\nseeds = [0]\njob.dataset = \"data.safetensors\"\njob.architecture = { assume = true }\njob.finetune = { epochs = 100000 }\n\
        [[ensembles]]\nname = \"two\"\nmembers = [\"m0.safetensors\", \"m1.safetensors\"]\n\
        [[methods]]\nname = \"magnitude\"\n[[targets]]\nname = \"member\"\n";
    std::fs::write(folder.join("plan.toml"), plan).expect("writes");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// Whether the command has reported a first epoch.
fn computes(errors: &Path) -> bool {
    std::fs::read_to_string(errors).is_ok_and(|said| said.contains("epoch  0"))
}

/// Waits until `what` gives something, or kills the child.
fn wait<T>(child: &mut Child, errors: &Path, mut what: impl FnMut(&mut Child) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = what(child) {
            return found;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("runs");
            panic!("nothing happens: {}", std::fs::read_to_string(errors).expect("text"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends `signals`, with a pause between, to `engraft` with these arguments once it computes. Gives its exit code and what it
/// said; its folders must hold what they held before.
fn interrupted(arguments: &[&str], signals: &[Signal], pause: Duration) -> (Option<i32>, String) {
    let [folder, temporary, elsewhere] = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    inputs(folder.path());
    let (before, errors) = (names(folder.path()), elsewhere.path().join("errors"));
    let mut child: Child = Command::new(env!("CARGO_BIN_EXE_engraft"))
        .current_dir(folder.path())
        .env("TMPDIR", temporary.path())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&errors).expect("makes"))
        .spawn()
        .expect("the program runs");
    wait(&mut child, &errors, |_| computes(&errors).then_some(()));
    for signal in signals {
        kill_process(Pid::from_child(&child), *signal).expect("it runs");
        std::thread::sleep(pause);
    }
    let ended = wait(&mut child, &errors, |child| child.try_wait().expect("a child"));
    assert_eq!(names(folder.path()), before, "{arguments:?}");
    assert_eq!(names(temporary.path()), Vec::<String>::new(), "{arguments:?}");
    (ended.code(), std::fs::read_to_string(&errors).expect("text"))
}

const FUSE: [&str; 5] = ["fuse", "--job", "job.json", "--out", "fused.safetensors"];

#[test]
fn fuse_ends_on_a_signal_and_leaves_nothing() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let (ended, said) = interrupted(&FUSE, &[signal], Duration::ZERO);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains("stopped; nothing was written"), "{said}");
    }
}

#[test]
fn a_second_signal_ends_fuse_at_once_and_leaves_nothing_either() {
    for pause in [0, 1, 5, 20] {
        let (ended, said) = interrupted(&FUSE, &[Signal::TERM; 2], Duration::from_millis(pause));
        assert_eq!(ended, Some(143), "{said}");
    }
}

#[test]
fn compare_and_train_end_likewise() {
    let (ended, said) = interrupted(&["compare", "--plan", "plan.toml"], &[Signal::TERM], Duration::ZERO);
    assert_eq!(ended, Some(143), "{said}");
    assert!(said.contains("stopped after 0 of 1 runs"), "{said}");
    let train = ["train", "--network", "mlp:8", "--dataset", "data.safetensors", "--epochs", "100000", "--out", "new"];
    for signals in [&[Signal::TERM][..], &[Signal::TERM, Signal::TERM]] {
        let (ended, said) = interrupted(&train, signals, Duration::ZERO);
        assert_eq!(ended, Some(143), "{said}");
    }
}
