//! From a request's body to a job that can be queued: every file looked up, every fault named at once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::gpu::Gpus;
use crate::domain::problem::{Fault, FaultCode, Problem};
use crate::http::auth::Caller;
use crate::http::state::AppState;
use crate::model::header::CheckpointHeader;
use crate::plan::network::{DatasetInput, JobFiles, KnownSpeed};
use crate::plan::parse::{MAX_MEMBERS, parse};
use crate::plan::request::JobRequest;
use crate::plan::resolve::{Resolved, resolve};
use crate::settings::Device;
use crate::store::checkpoints::StoredCheckpoint;
use crate::store::datasets::{DatasetState, StoredDataset};
use crate::store::jobs::{FileId, InputRole, JobInput, NewJob};
use crate::store::workers::Registration;

/// The files that a request names.
#[derive(Debug, Default)]
struct Files {
    members: Vec<StoredCheckpoint>,
    dataset: Option<StoredDataset>,
    validation: Option<StoredDataset>,
    test: Option<StoredDataset>,
    reference: Option<StoredCheckpoint>,
}

/// Reads `body` as a job of the caller's.
///
/// # Errors
/// Everything that is wrong with it, at once as far as one fault does not hide another.
pub(in crate::http) async fn read(state: &AppState, caller: &Caller, body: &Value) -> Result<NewJob, Problem> {
    let request = match parse(body) {
        Ok(request) => request,
        Err(mut faults) => {
            faults.extend(unknown_names(state, caller, body).await?);
            return Err(Problem::faults(faults));
        }
    };
    let mut faults = Vec::new();
    let files = look_up(state, caller, body, &request, &mut faults).await?;
    let expected = &state.settings.workers.expect_device.0;
    if !expected.iter().any(|device| request.device.may_be(*device)) && !state.workers.offers(request.device).await? {
        faults.push(Fault::new("/device", FaultCode::NoSuchDevice, unoffered(request.device, state.gpus.get())));
    }
    if files.members.len() < request.members.len() || files.members.iter().any(is_index) {
        return Err(Problem::faults(faults));
    }
    let speed = speed(&state.workers.live().await?, request.device);
    match resolve(request, &JobFiles { speed, ..files.inputs() }) {
        Ok(resolved) if faults.is_empty() => Ok(new_job(caller, resolved, &files)),
        Ok(_) => Err(Problem::faults(faults)),
        Err(problem) if faults.is_empty() => Err(problem),
        Err(problem) => {
            faults.extend(problem.errors);
            Err(Problem::faults(faults))
        }
    }
}

/// How fast a job that requests `device` is computed: as on the slowest of the workers that may get it.
fn speed(workers: &[Registration], device: Device) -> KnownSpeed {
    let measured = workers.iter().filter_map(|worker| Some((&worker.host, worker.speed(device)?)));
    let slowest = measured.min_by(|(_, one), (_, other)| one.speed.products.total_cmp(&other.speed.products));
    slowest.map_or_else(KnownSpeed::default, |(host, known)| KnownSpeed {
        speed: known.speed,
        measured_on: Some(format!("`{}` of the worker on {host}", known.device)),
    })
}

/// Why a device is not on offer, as far as this machine knows.
fn unoffered(device: Device, gpus: Option<&Gpus>) -> String {
    let offered = "GET /v1/workers lists the devices";
    let Some(gpus) = gpus.filter(|_| device.is_gpu()) else {
        return format!("no worker offers `{device}`; {offered}");
    };
    let refusal = match device {
        Device::Cuda(index) => gpus.refusal(index),
        Device::Auto | Device::Cpu | Device::AnyCuda => gpus.why_not.clone(),
    };
    let why = refusal.unwrap_or_else(|| "workers that are started with `--device cuda` do".to_owned());
    format!("no worker offers `{device}`: {why}; {offered}")
}

/// The members and the dataset that a body names but nobody has uploaded, where it has other faults too.
async fn unknown_names(state: &AppState, caller: &Caller, body: &Value) -> Result<Vec<Fault>, Problem> {
    let mut faults = Vec::new();
    let members = body["members"].as_array().into_iter().flatten().take(MAX_MEMBERS);
    for (index, name) in members.enumerate().filter_map(|(index, name)| Some((index, name.as_str()?))) {
        if state.checkpoints.find(&caller.tenant, name).await?.is_none() {
            faults.push(unknown(format!("/members/{index}"), FaultCode::UnknownCheckpoint, "checkpoint", name));
        }
    }
    for pointer in ["/dataset", "/dataset/name"] {
        if let Some(name) = body.pointer(pointer).and_then(Value::as_str) {
            look_up_dataset(state, caller, pointer, name, &mut faults).await?;
        }
    }
    Ok(faults)
}

async fn look_up(
    state: &AppState,
    caller: &Caller,
    body: &Value,
    request: &JobRequest,
    faults: &mut Vec<Fault>,
) -> Result<Files, Problem> {
    let mut files = Files::default();
    for (index, name) in request.members.iter().enumerate() {
        match state.checkpoints.find(&caller.tenant, name).await? {
            Some(checkpoint) => {
                faults.extend(index_alone(format!("/members/{index}"), &checkpoint));
                files.members.push(checkpoint);
            }
            None => faults.push(unknown(format!("/members/{index}"), FaultCode::UnknownCheckpoint, "checkpoint", name)),
        }
    }
    if let Some(dataset) = &request.dataset {
        let pointer = if body["dataset"].is_string() { "/dataset" } else { "/dataset/name" };
        files.dataset = look_up_dataset(state, caller, pointer, &dataset.name, faults).await?;
        if let Some(name) = &dataset.validation {
            files.validation = look_up_dataset(state, caller, "/dataset/validation", name, faults).await?;
        }
        if let Some(name) = &dataset.test {
            files.test = look_up_dataset(state, caller, "/dataset/test", name, faults).await?;
        }
    }
    if let Some(reference) = &request.reference {
        let pointer = if body["reference"].is_string() { "/reference" } else { "/reference/name" };
        files.reference = state.checkpoints.find(&caller.tenant, &reference.name).await?;
        match &files.reference {
            None => {
                faults.push(unknown(pointer.to_owned(), FaultCode::UnknownCheckpoint, "checkpoint", &reference.name));
            }
            Some(file) => faults.extend(no_reference(pointer, &file.header)),
        }
    }
    Ok(files)
}

/// Whether a file is an index of shards, without them.
fn is_index(file: &StoredCheckpoint) -> bool {
    !file.header.shards.is_empty()
}

/// Why an index cannot be a member.
fn index_alone(pointer: String, file: &StoredCheckpoint) -> Option<Fault> {
    let name = &file.file.name;
    let detail = format!(
        "`{name}` is an index of shards, without tensors: POST /v1/checkpoints with {{\"index\": \"{name}\", \"name\": …}} puts them together"
    );
    is_index(file).then(|| Fault::new(pointer, FaultCode::InvalidValue, detail))
}

/// Why a file cannot be a reference.
fn no_reference(pointer: &str, header: &CheckpointHeader) -> Option<Fault> {
    let has = |name: &str| header.tensors.iter().any(|info| info.name == name);
    let detail =
        "expected a safetensors file with the tensors `inputs` and `logits`; docs/reference.md shows how to make one";
    (!has("inputs") || !has("logits")).then(|| Fault::new(pointer, FaultCode::ShapeMismatch, detail))
}

async fn look_up_dataset(
    state: &AppState,
    caller: &Caller,
    pointer: &str,
    name: &str,
    faults: &mut Vec<Fault>,
) -> Result<Option<StoredDataset>, Problem> {
    let found = state.datasets.find(&caller.tenant, name).await?;
    match &found {
        None => faults.push(unknown(pointer.to_owned(), FaultCode::UnknownDataset, "dataset", name)),
        Some(StoredDataset { state: DatasetState::Invalid(problem), .. }) => {
            let detail = format!("the dataset `{name}` cannot be used: {}", problem.detail);
            faults.push(Fault::new(pointer, FaultCode::DatasetInvalid, detail));
        }
        Some(_) => {}
    }
    Ok(found)
}

fn unknown(pointer: String, code: FaultCode, kind: &str, name: &str) -> Fault {
    let detail = if name.contains("://") {
        format!(
            "a job names files that are here: have `{name}` fetched with POST /v1/imports, and name it as it is called then"
        )
    } else {
        format!("there is no {kind} `{name}`; upload it with PUT /v1/{kind}s/{{name}}")
    };
    Fault::new(pointer, code, detail)
}

impl Files {
    fn inputs(&self) -> JobFiles<'_> {
        JobFiles {
            members: self.members.iter().map(|member| &member.header).collect(),
            dataset: self.dataset.as_ref().and_then(facts),
            validation: self.validation.as_ref().and_then(facts),
            test: self.test.as_ref().and_then(facts),
            speed: KnownSpeed::default(),
        }
    }

    fn job_inputs(&self) -> Vec<JobInput> {
        let members = self.members.iter().zip(0..).map(|(member, index)| JobInput {
            role: InputRole::Member(index),
            file: Some(FileId::Checkpoint(member.id)),
            name: member.file.name.clone(),
            sha256: member.file.sha256.clone(),
        });
        let named = [
            (InputRole::Dataset, &self.dataset),
            (InputRole::Validation, &self.validation),
            (InputRole::Test, &self.test),
        ];
        let datasets = named.into_iter().filter_map(|(role, dataset)| {
            let StoredDataset { id, file, .. } = dataset.as_ref()?;
            let (name, sha256) = (file.name.clone(), file.sha256.clone());
            Some(JobInput { role, file: Some(FileId::Dataset(*id)), name, sha256 })
        });
        let reference = self.reference.iter().map(|reference| JobInput {
            role: InputRole::Reference,
            file: Some(FileId::Checkpoint(reference.id)),
            name: reference.file.name.clone(),
            sha256: reference.file.sha256.clone(),
        });
        members.chain(datasets).chain(reference).collect()
    }
}

fn facts(dataset: &StoredDataset) -> Option<DatasetInput<'_>> {
    match &dataset.state {
        DatasetState::Ready(facts) => Some(DatasetInput::Ready(facts)),
        DatasetState::Validating => Some(DatasetInput::Validating),
        DatasetState::Invalid(_) => None,
    }
}

fn new_job(caller: &Caller, resolved: Resolved, files: &Files) -> NewJob {
    let job = resolved.job;
    NewJob {
        tenant: caller.tenant.as_ref().clone(),
        owner: caller.label.as_deref().map(str::to_owned),
        plan: json!(resolved.planned.map(|planned| planned.plan)),
        labels: job.labels.clone(),
        device: job.device,
        max_runtime: Duration::from_secs(job.max_runtime_s),
        priority: job.priority,
        inputs: files.job_inputs(),
        resolved: Value::from(job),
    }
}
