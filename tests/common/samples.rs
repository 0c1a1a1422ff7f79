//! Small files that tests send and run, and what can be said of files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use engraft::model::formats::safetensors::encode_header;
use engraft::model::header::{Dtype, TensorInfo};
use engraft::plan::network::KnownSpeed;
use engraft::plan::request::JobRequest;
use engraft::process::protocol::{InputFile, Task, TaskOrigin};
use engraft::settings::Device;
use sha2::{Digest, Sha256};

/// A safetensors file of tensors of 32-bit floats.
pub(crate) fn safetensors(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let info = |(name, shape): &(&str, &[usize])| TensorInfo {
        name: (*name).to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let tensors: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let mut file = encode_header(&tensors, &BTreeMap::new());
    let elements: usize = tensors.iter().map(TensorInfo::elements).sum();
    file.extend((0..elements).flat_map(|index| ((index % 251) as f32 / 251.0).to_le_bytes()));
    file
}

/// A network of two layers.
pub(crate) fn member() -> Vec<u8> {
    safetensors(&[("fc1.weight", &[8, 4]), ("fc1.bias", &[8]), ("fc2.weight", &[3, 8]), ("fc2.bias", &[3])])
}

/// An executable file with this shell script. Another process writes it: a child that a test beside this one starts would
/// inherit the open file for a moment, and a file that is open for writing cannot be run.
pub(crate) fn script(folder: &Path, text: &str) -> PathBuf {
    let (source, path) = (folder.join("script.sh"), folder.join("script"));
    std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).expect("writes");
    let installed = Command::new("install").args(["-m", "755"]).arg(&source).arg(&path).status().expect("install runs");
    assert!(installed.success(), "{installed}");
    path
}

/// SHA-256, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Files below a folder, by name.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The task of a job whose names are paths, on two threads.
pub(crate) fn task(job: JobRequest, scratch: PathBuf) -> Task {
    let file = |name: &String| InputFile { name: name.clone(), path: name.into(), sha256: String::new() };
    let dataset = job.dataset.as_ref();
    Task {
        origin: TaskOrigin::default(),
        members: job.members.iter().map(file).collect(),
        dataset: dataset.map(|dataset| file(&dataset.name)),
        validation: dataset.and_then(|dataset| dataset.validation.as_ref()).map(file),
        test: dataset.and_then(|dataset| dataset.test.as_ref()).map(file),
        reference: job.reference.as_ref().map(|reference| file(&reference.name)),
        scratch,
        resume: None,
        memory_limit: None,
        device: Device::Cpu,
        gpu: None,
        speed: KnownSpeed::default(),
        threads: 2,
        job,
    }
}
