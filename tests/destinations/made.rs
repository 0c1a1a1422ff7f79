//! Fused models, and the program that publishes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use engraft::model::header::Dtype;
use engraft::tensors::StateDict;
use tempfile::TempDir;
use tokio::process::Command;

use crate::common::inputs::pack;

/// A folder with `m0.safetensors`, `m1.safetensors`, of layers 6-8-3, and `data.safetensors`.
pub(crate) fn inputs() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, step) in [("m0.safetensors", 7919), ("m1.safetensors", 104_729)] {
        let mut member = StateDict::default();
        for (layer, outputs, inputs) in [("fc1", 8, 6), ("fc2", 3, 8)] {
            let values = |count: usize| (0..count).map(|index| ((index * step) % 1013) as f32 / 1013.0 - 0.5).collect();
            member
                .insert_f32(&format!("{layer}.weight"), &[outputs, inputs], values(outputs * inputs))
                .expect("a tensor");
            member.insert_f32(&format!("{layer}.bias"), &[outputs], values(outputs)).expect("a tensor");
        }
        member.save(&folder.path().join(name), &BTreeMap::new()).expect("writes");
    }
    let mut tensors = Vec::new();
    for (suffix, count) in [("", 120), ("_test", 60)] {
        let x = (0..count * 6).flat_map(|index| (((index * 31) % 97) as f32 / 97.0 - 0.5).to_le_bytes());
        tensors.push((format!("x{suffix}"), Dtype::F32, vec![count, 6], x.collect()));
        tensors.push((
            format!("y{suffix}"),
            Dtype::U8,
            vec![count],
            (0..count).map(|index| (index % 3) as u8).collect(),
        ));
    }
    std::fs::write(folder.path().join("data.safetensors"), pack(tensors)).expect("writes");
    folder
}

/// The same with the folder `fused`, which holds what `engraft fuse` has made of them.
pub(crate) async fn fused() -> TempDir {
    let folder = inputs();
    std::fs::create_dir(folder.path().join("fused")).expect("a folder");
    let job = r#"{"architecture": {"activation": "relu"}}"#;
    std::fs::write(folder.path().join("job.json"), job).expect("writes");
    let members = ["--member", "m0.safetensors", "--member", "m1.safetensors", "--dataset", "data.safetensors"];
    let results = ["--out", "fused/fused.safetensors", "--report", "fused/report.json"];
    let rest = ["--job", "job.json", "--epochs", "2", "--threads", "1"];
    let ran = engraft(folder.path(), &[], &[&["fuse"], &members[..], &results, &rest].concat()).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    folder
}

/// What a command has printed and said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) printed: String,
    pub(crate) said: String,
}

/// Runs the program in `folder`, with no variables of its environment but these.
pub(crate) async fn engraft(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engraft"));
    command.current_dir(folder).env_clear().args(arguments).envs(variables.iter().copied()).kill_on_drop(true);
    let output = command.output().await.expect("the program runs");
    let [printed, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
    Ran { code: output.status.code(), printed, said }
}

/// Failures to come, by the names of the steps that fail.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<BTreeMap<String, u16>>);

impl Faults {
    /// The next `step` is answered with this status.
    pub(crate) fn plan(&self, step: &str, status: u16) {
        self.0.lock().expect("a lock").insert(step.to_owned(), status);
    }

    /// The status with which `step` is answered, once.
    pub(crate) fn take(&self, step: &str) -> Option<u16> {
        self.0.lock().expect("a lock").remove(step)
    }

    /// Those that have not come.
    pub(crate) fn left(&self) -> Vec<String> {
        self.0.lock().expect("a lock").keys().cloned().collect()
    }
}
