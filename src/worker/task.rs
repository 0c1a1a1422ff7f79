//! From a claimed job to what its child needs: the same job, with local files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::domain::problem::{Code, Problem};
use crate::plan::network::KnownSpeed;
use crate::plan::request::JobRequest;
use crate::process::protocol::{InputFile, Task, TaskGpu, TaskOrigin};
use crate::settings::Device;
use crate::store::blobs::LocalFile;
use crate::store::jobs::{Claim, ClaimedInput, InputRole};
use crate::store::workers::DeviceSpeed;
use crate::store::{Blobs, StoreError};

use super::{Policy, Worker};

/// What the fused model is called where a report names it.
const MODEL_FILE: &str = "fused.safetensors";

/// The task of `claim`'s child, on `device`, which begins now, and its files, which stay for as long as they are held. It sees only that
/// GPU, and so as the first.
pub(super) async fn build(
    claim: Claim,
    device: Device,
    worker: &Worker,
    scratch: &Path,
) -> Result<(Task, Vec<LocalFile>), Problem> {
    let (policy, blobs) = (&worker.policy, &worker.blobs);
    let gpu = gpu(device, policy)?;
    let measured = worker.speeds.iter().find(|speed| speed.device == device);
    let origin = TaskOrigin {
        job: Some(claim.fence.job.to_string()),
        date: Some(format!("{:.0}", worker.clock.now())),
        model: Some(MODEL_FILE.to_owned()),
        source: None,
    };
    let mut files = Vec::new();
    let mut task = Task {
        job: read(claim.resolved)?,
        origin,
        members: Vec::new(),
        dataset: None,
        validation: None,
        test: None,
        reference: None,
        scratch: scratch.to_owned(),
        resume: match claim.checkpoint {
            Some(checkpoint) => Some(local(blobs, &checkpoint.key, None, &mut files).await?),
            None => None,
        },
        device: if gpu.is_some() { Device::Cuda(0) } else { Device::Cpu },
        gpu,
        speed: measured.map_or_else(KnownSpeed::default, |DeviceSpeed { speed, .. }| KnownSpeed {
            speed: *speed,
            measured_on: Some(format!("this worker's `{device}`")),
        }),
        threads: policy.threads,
        memory_limit: policy.memory_limit,
    };
    let mut members = Vec::new();
    for ClaimedInput { input, blob_key } in claim.inputs {
        let path = local(blobs, &blob_key, Some(&input.sha256), &mut files).await?;
        let file = InputFile { name: input.name, path, sha256: input.sha256 };
        match input.role {
            InputRole::Member(index) => members.push((index, file)),
            InputRole::Dataset => task.dataset = Some(file),
            InputRole::Validation => task.validation = Some(file),
            InputRole::Test => task.test = Some(file),
            InputRole::Reference => task.reference = Some(file),
        }
    }
    members.sort_by_key(|(index, _)| *index);
    task.members = members.into_iter().map(|(_, file)| file).collect();
    Ok((task, files))
}

fn read(resolved: Value) -> Result<JobRequest, Problem> {
    let unreadable = |problem: Problem| {
        let detail = format!("This version cannot read the stored job ({}); submit it again.", problem.detail);
        Problem::new(Code::Internal, detail)
    };
    JobRequest::try_from(resolved).map_err(unreadable)
}

/// Where a blob's bytes are on this machine, held in `files`.
async fn local(blobs: &Blobs, key: &str, sha256: Option<&str>, files: &mut Vec<LocalFile>) -> Result<PathBuf, Problem> {
    let file = blobs.local(key, sha256).await?;
    let path = std::path::absolute(file.path()).map_err(StoreError::file(file.path()))?;
    files.push(file);
    Ok(path)
}

/// What a job on `device` gets of it; nothing on the processor.
fn gpu(device: Device, policy: &Policy) -> Result<Option<TaskGpu>, Problem> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let facts = policy.gpus.usable().find(|gpu| gpu.index == index);
    let facts =
        facts.ok_or_else(|| Problem::new(Code::NoSuchDevice, format!("There is no GPU `{device}` any more.")))?;
    let versions = policy.gpus.versions.clone();
    Ok(Some(TaskGpu { facts: facts.clone(), versions, memory_limit: policy.gpu_memory_limit }))
}
