//! From a claimed job to what its child needs: the same job, with local files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::domain::problem::{Code, Problem};
use crate::plan::request::JobRequest;
use crate::process::protocol::{InputFile, Task};
use crate::settings::Device;
use crate::store::Blobs;
use crate::store::jobs::{Claim, ClaimedInput, InputRole};

use super::Policy;

/// The task of `claim`'s child.
pub(super) fn build(claim: Claim, policy: &Policy, blobs: &Blobs, scratch: &Path) -> Result<Task, Problem> {
    let mut task = Task {
        job: read(claim.resolved)?,
        members: Vec::new(),
        dataset: None,
        validation: None,
        test: None,
        reference: None,
        scratch: scratch.to_owned(),
        resume: claim.checkpoint.map(|checkpoint| local(blobs, &checkpoint.key)).transpose()?,
        device: choose(claim.device, &policy.devices),
        threads: policy.threads,
        memory_limit: policy.memory_limit,
    };
    let mut members = Vec::new();
    for ClaimedInput { input, blob_key } in claim.inputs {
        let file = InputFile { name: input.name, path: local(blobs, &blob_key)?, sha256: input.sha256 };
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
    Ok(task)
}

fn read(resolved: Value) -> Result<JobRequest, Problem> {
    let unreadable = |problem: Problem| {
        let detail = format!("This version cannot read the stored job ({}); submit it again.", problem.detail);
        Problem::new(Code::Internal, detail)
    };
    JobRequest::try_from(resolved).map_err(unreadable)
}

fn local(blobs: &Blobs, key: &str) -> Result<PathBuf, Problem> {
    Ok(blobs.path_of(key)?)
}

/// The requested device; for `auto` the worker's favourite.
fn choose(wanted: Device, offered: &[Device]) -> Device {
    match wanted {
        Device::Auto => offered.first().copied().unwrap_or(Device::Cpu),
        device => device,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_favourite() {
        assert_eq!(choose(Device::Auto, &[Device::Cuda(1), Device::Cpu]), Device::Cuda(1));
        assert_eq!(choose(Device::Cpu, &[Device::Cuda(1), Device::Cpu]), Device::Cpu);
    }
}
