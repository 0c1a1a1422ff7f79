//! Looking for GPUs: on this machine, which may have none, and on one whose driver and libraries are stubs that a C compiler makes.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::commands::{engraft, succeeds};

/// The stub libraries, by what they are compiled as.
const LIBRARIES: [(&str, &str); 4] = [
    ("DRIVER", "libcuda.so.1"),
    ("NVRTC", "libnvrtc.so.13"),
    ("CUBLASLT", "libcublasLt.so.13"),
    ("CUDNN", "libcudnn.so.9"),
];

/// Makes these of the stub libraries.
fn stubs(folder: &Path, wanted: &[&str]) {
    for (kind, name) in LIBRARIES.into_iter().filter(|(_, name)| wanted.contains(name)) {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/stub.c");
        let soname = format!("-Wl,-soname,{name}");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-w", &format!("-D{kind}"), &soname, "-o"])
            .arg(folder.join(name))
            .arg(source);
        assert!(compiler.status().expect("a C compiler, which building needs too").success());
    }
}

/// Runs `engraft` where these variables hold and the libraries are those of `folder`.
fn with_stubs(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_engraft"))
        .current_dir(folder)
        .env("ENGRAFT_CUDA_LIBRARIES", folder)
        .envs(variables.iter().copied())
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn devices(folder: &Path, variables: &[(&str, &str)]) -> Value {
    let output = with_stubs(folder, variables, &["devices", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn whatever_the_machine_has_looking_is_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = succeeds(folder.path(), &["devices"]);
    assert!(text.starts_with("cpu     "), "{text}");
    let found: Value = serde_json::from_str(&succeeds(folder.path(), &["devices", "--json"])).expect("JSON");
    let without = found["why_not"].is_string();
    assert_eq!(without, text.contains("No GPU is used: "), "{text}\n{found:#}");
    assert!(found["gpus"].is_array() && found["cpu"]["threads"].as_u64() >= Some(1), "{found:#}");
    if without {
        for device in ["cuda", "cuda:0"] {
            let refused =
                engraft(folder.path(), &["fuse", "--member", "none", "--device", device, "--out", "f.safetensors"]);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1));
            assert!(said.contains(&format!("nothing can be computed on `{device}` here: ")), "{said}");
            assert!(said.contains(found["why_not"].as_str().expect("words")), "{said}");
        }
    }
}

#[test]
fn gpus_are_listed_with_versions_and_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    stubs(folder, &LIBRARIES.map(|(_, name)| name));
    let found = devices(folder, &[]);
    let gpu = json!({
        "device": "cuda:1", "name": "Stub 1", "memory_bytes": 8_u64 << 30, "compute_capability": "9.0",
        "multiprocessors": 132, "why_not": null,
    });
    assert_eq!((&found["gpus"][1], found["gpus"].as_array().map(Vec::len)), (&gpu, Some(2)), "{found:#}");
    assert_eq!((&found["why_not"], &found["auto"]), (&Value::Null, &json!("cpu")), "{found:#}");
    let versions =
        ["cuda", "nvrtc", "cublaslt", "cudnn"].map(|name| found["versions"][name].as_str().expect("a version"));
    assert_eq!(versions, ["13.0", "13.0", "13.1.2", "9.14.0"]);
    let files: Vec<&str> =
        found["libraries"].as_array().into_iter().flatten().filter_map(|library| library["path"].as_str()).collect();
    let folder_name = folder.canonicalize().expect("is there");
    assert!(files.len() == 4 && files.iter().all(|file| Path::new(file).starts_with(&folder_name)), "{files:?}");
    let output = with_stubs(folder, &[], &["fuse", "--member", "none", "--device", "cuda:2", "--out", "f.safetensors"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`cuda:2` here: this machine has 2 GPUs, `cuda:0` to `cuda:1`"), "{said}");
}

#[test]
fn a_driver_that_fails_is_no_gpu_and_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    stubs(folder, &LIBRARIES.map(|(_, name)| name));
    for (variables, words) in [
        (("STUB_CRASHES", "1"), "crashed NVIDIA's driver (signal: 6"),
        (("STUB_INIT", "999"), "does not start: nothing works"),
        (("STUB_CUDA", "12040"), "goes up to CUDA 12.4, and 13.0 is needed"),
        (("STUB_GPUS", "0"), "shows no GPU"),
        (("STUB_MAJOR", "7"), "the Stub 0 has compute capability 7.0, and at least 8.0 is needed"),
        (("STUB_CUDNN", "90700"), "cuDNN 9.7.0 does not fit"),
        (("STUB_CUDNN_CUDA", "12080"), "not for CUDA 12"),
    ] {
        let found = devices(folder, &[variables]);
        assert!(found["why_not"].as_str().unwrap_or_default().contains(words), "{found:#}");
    }
}

#[test]
fn a_library_that_is_missing_or_broken_is_named_with_what_brings_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    // Where this machine has the libraries itself nothing is missing.
    let elsewhere = engraft(folder, &["devices", "--json"]);
    let elsewhere: Value = serde_json::from_slice(&elsewhere.stdout).expect("JSON");
    if !elsewhere["versions"]["cuda"].is_null() {
        return;
    }
    stubs(folder, &["libcuda.so.1", "libcublasLt.so.13"]);
    let hidden = [("PATH", "/nowhere"), ("HOME", "/nowhere"), ("VIRTUAL_ENV", "")];
    let words = |found: &Value| found["why_not"].as_str().unwrap_or_default().to_owned();
    let found = devices(folder, &hidden);
    assert!(
        words(&found).contains("(`libnvrtc.so.13`) was not found: `pip install 'nvidia-cuda-nvrtc==13.*'`"),
        "{found:#}"
    );
    assert_eq!(found["gpus"].as_array().map(Vec::len), Some(2), "the GPUs are listed all the same");
    stubs(folder, &["libnvrtc.so.13"]);
    std::fs::write(folder.join("libcudnn.so.9"), "no library").expect("writes");
    let found = devices(folder, &hidden);
    assert!(words(&found).contains("cuDNN is there and cannot be loaded"), "{found:#}");
    assert!(found["detail"].as_str().unwrap_or_default().contains("libcudnn.so.9"), "{found:#}");
    assert_eq!(found["versions"]["cublaslt"], "13.1.2", "the others are shown");
}

/// What a server on a folder has logged by the time that it serves.
fn log_of_start(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut server = Command::new(env!("CARGO_BIN_EXE_engraft"))
        .current_dir(folder)
        .env("ENGRAFT_CUDA_LIBRARIES", folder)
        .envs(variables.iter().copied())
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let process = Pid::from_raw(server.id().cast_signed()).expect("a process");
    // Enough for looking and for a claim or two; the log is read to its end.
    std::thread::sleep(Duration::from_secs(3));
    if server.try_wait().expect("is known").is_none() {
        kill_process(process, Signal::TERM).expect("is there");
    }
    let mut log = String::new();
    server.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
    server.wait().expect("ends");
    log
}

#[test]
fn a_server_says_once_what_it_computes_on_and_refuses_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    stubs(folder, &LIBRARIES.map(|(_, name)| name));
    let once = |log: &str, words: &str| assert_eq!(log.matches(words).count(), 1, "{words}:\n{log}");
    once(
        &log_of_start(folder, &[], &[]),
        "jobs are computed on the processor; `--device cuda` computes them on Stub 0 (`cuda:0`), Stub 1 (`cuda:1`)",
    );
    let old = [("STUB_MAJOR", "7")];
    once(&log_of_start(folder, &old, &[]), "jobs are computed on the processor: the Stub 0 has compute capability 7.0");
    once(
        &log_of_start(folder, &[], &["--device", "cuda"]),
        "this machine's GPUs: Stub 0 (`cuda:0`), Stub 1 (`cuda:1`)",
    );
    let refused = log_of_start(folder, &old, &["--device", "cuda:1"]);
    assert!(refused.contains("nothing can be computed on `cuda:1` here: the Stub 0 has compute"), "{refused}");
}
