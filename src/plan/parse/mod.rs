//! From the JSON body of a job to a [`JobRequest`], or to the list of everything that is wrong with it.

mod architecture;
mod assembly;
mod comparison;
mod finetune;
mod method;
pub(crate) mod reader;
mod recipe;
mod suggest;
mod target;

use std::collections::BTreeSet;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use self::reader::{Object, boolean, choice, integer, list, number, refuse, text, whole};
use super::request::JobRequest;
use crate::domain::problem::{Fault, FaultCode};
use crate::settings::{
    Architecture, DatasetRequest, Device, EnsembleRule, MemberWeights, Method, MethodName, Normalization, Normalize,
    Order, Precision, PredictionTask, Reference, ReportCandidate,
};

pub use assembly::assembly;
pub use comparison::comparison;
pub use recipe::recipe;

/// Most members of one job.
pub const MAX_MEMBERS: usize = 64;
/// Most characters of a job's name.
pub(super) const MAX_NAME: usize = 200;
/// Most classes of a dataset that one names.
const MAX_CLASSES: usize = 65_536;

/// Reads the body of `POST /v1/jobs`.
///
/// # Errors
/// Every fault of the body, each with the pointer to its value.
pub fn parse(body: &Value) -> Result<JobRequest, Vec<Fault>> {
    whole(body, job)
}

/// Reads the `architecture` of a job by itself.
///
/// # Errors
/// Every fault of it, each with the pointer to its value in a job.
pub fn architecture(value: &Value) -> Result<Architecture, Vec<Fault>> {
    whole(&json!({ "architecture": value }), |body| Some(architecture::architecture(body)))
}

fn job(body: &Object<'_>) -> Option<JobRequest> {
    let members = body.required("members", "the names of the checkpoints to fuse", list(1..=MAX_MEMBERS, text));
    let dataset = dataset(body);
    let method = body.object("method", method::method).unwrap_or_default();
    let finetune = body.object("finetune", finetune::finetune);
    if finetune.is_some() && body.value("dataset").is_none() {
        body.fault("dataset", FaultCode::MissingField, "`finetune` needs a dataset to train on");
    }
    let needs_outputs = !matches!(method.ensemble, EnsembleRule::Auto | EnsembleRule::MeanLogits);
    if needs_outputs && body.value("dataset").is_none() {
        body.fault("dataset", FaultCode::MissingField, "`method.ensemble` is about outputs for a dataset");
    }
    if let Some(members) = &members {
        one_for_each(body, members.len(), &method);
    }
    if finetune.is_none() && (method.name == MethodName::DistillOnly || method.order == Order::MergeFinetunePrune) {
        body.fault("finetune", FaultCode::MissingField, "the method trains: expected at least {\"epochs\": N}");
    }
    let evaluate = body.field("evaluate", candidates);
    let evaluate = evaluate.unwrap_or_else(|| default_candidates(finetune.is_some(), method.name));
    Some(JobRequest {
        architecture: architecture::architecture(body),
        reference: reference(body, members.as_ref().map(Vec::len)),
        accuracy: accuracy(body, members.as_ref().map(Vec::len)),
        input_shape: body.field("input_shape", shape),
        method,
        target: body.object("target", target::target).unwrap_or_default(),
        dataset,
        finetune,
        evaluate,
        device: body.field("device", device).unwrap_or_default(),
        precision: body.field("precision", precision).unwrap_or_default(),
        deterministic: body.field("deterministic", boolean).unwrap_or(true),
        seed: body.field("seed", integer(0..=u64::MAX)).unwrap_or(0),
        max_runtime_s: body.field("max_runtime_s", integer(1..=30 * 86_400)).unwrap_or(86_400),
        priority: body.field("priority", priority).unwrap_or(0),
        labels: labels(body),
        name: body.field("name", name),
        members: members?,
    })
}

/// Notes lists of the method that have not one number for each member.
fn one_for_each(body: &Object<'_>, members: usize, method: &Method) {
    let weights = match &method.member_weights {
        MemberWeights::Given(weights) => Some(weights),
        MemberWeights::Rule(_) => None,
    };
    for (field, list) in [("/method/member_weights", weights), ("/method/rates", method.rates.as_ref())] {
        if let Some(list) = list.filter(|list| list.len() != members) {
            let detail = format!("expected a number for each of the {members} members, got {}", list.len());
            body.faults().add(field, FaultCode::InvalidValue, detail);
        }
    }
}

fn name(value: &Value) -> Result<String, reader::UnplacedFault> {
    let name = text(value)?;
    match name.chars().count() {
        ..=MAX_NAME if !name.chars().any(char::is_control) => Ok(name),
        ..=MAX_NAME => refuse("expected a title of one line, without control characters"),
        count => refuse(format!("expected at most {MAX_NAME} characters, got {count}")),
    }
}

fn shape(value: &Value) -> Result<Vec<usize>, reader::UnplacedFault> {
    let sizes = list(1..=3, integer(1..=1 << 20))(value)?;
    Ok(sizes.into_iter().map(|size| size as usize).collect())
}

fn priority(value: &Value) -> Result<i8, reader::UnplacedFault> {
    let read =
        number("a whole number from -10 to 10", |number| number.fract() == 0.0 && (-10.0..=10.0).contains(&number));
    read(value).map(|number| number as i8)
}

fn device(value: &Value) -> Result<Device, reader::UnplacedFault> {
    text(value)?.parse().or_else(refuse)
}

fn precision(value: &Value) -> Result<Precision, reader::UnplacedFault> {
    choice(&Precision::ALL.map(|precision| (precision.as_str(), Some(precision))))(value)
}

/// Reads `reference`: a name, or a name and a member.
fn reference(body: &Object<'_>, members: Option<usize>) -> Option<Reference> {
    let read = |object: &Object<'_>| {
        let member = object.field("member", integer(0..=MAX_MEMBERS as u64 - 1)).unwrap_or(0) as usize;
        let name = object.required("name", "the name of the file with inputs and logits", text);
        if let Some(last) = members.and_then(|count| count.checked_sub(1)).filter(|last| member > *last) {
            let detail = format!("expected the position of a member, 0 to {last}, got {member}");
            object.fault("member", FaultCode::InvalidValue, detail);
        }
        name.map(|name| Reference { name, member })
    };
    match body.value("reference")? {
        Value::Object(_) => body.object("reference", read).flatten(),
        _ => body.field("reference", text).map(|name| Reference { name, member: 0 }),
    }
}

/// Reads `accuracy`: a number for each member, or one for all.
fn accuracy(body: &Object<'_>, members: Option<usize>) -> Option<Vec<f64>> {
    let part =
        || number("a part of the test split that is classified right, from 0 to 1", |part| (0.0..=1.0).contains(&part));
    let known = match body.value("accuracy")? {
        Value::Array(_) => body.field("accuracy", list(1..=MAX_MEMBERS, part()))?,
        _ => vec![body.field("accuracy", part())?; members?],
    };
    if let Some(count) = members.filter(|count| *count != known.len()) {
        let detail = format!("expected a number for each of the {count} members, got {}", known.len());
        body.fault("accuracy", FaultCode::InvalidValue, detail);
    }
    if body.value("dataset").is_none() {
        body.fault("dataset", FaultCode::MissingField, "`accuracy` is compared on the test split of a dataset");
    }
    Some(known)
}

fn dataset(body: &Object<'_>) -> Option<DatasetRequest> {
    match body.value("dataset")? {
        Value::Object(_) => body.object("dataset", detailed_dataset).flatten(),
        _ => body.field("dataset", text).map(|name| DatasetRequest { name, ..DatasetRequest::default() }),
    }
}

fn detailed_dataset(object: &Object<'_>) -> Option<DatasetRequest> {
    let fraction = number("a number from 0 to below 1", |fraction| (0.0..1.0).contains(&fraction));
    let name = object.required("name", "the name of a dataset", text);
    let classes: Option<Vec<String>> = object.field("classes", list(1..=MAX_CLASSES, text));
    let mut seen = BTreeSet::new();
    if let Some(twice) = classes.iter().flatten().find(|class| !seen.insert(class.as_str())) {
        object.fault("classes", FaultCode::InvalidValue, format!("expected each class once, got `{twice}` twice"));
    }
    let tasks = PredictionTask::ALL.map(|task| (task.as_str(), Some(task)));
    Some(DatasetRequest {
        task: object.field("task", choice(&tasks)),
        normalize: normalization(object),
        validation_fraction: object.field("validation_fraction", fraction),
        split_seed: object.field("split_seed", integer(0..=u64::MAX)).unwrap_or(0),
        validation: object.field("validation", text),
        test: object.field("test", text),
        classes,
        name: name?,
    })
}

fn normalization(object: &Object<'_>) -> Normalization {
    match object.value("normalize") {
        None => Normalization::None,
        Some(Value::String(from)) if from == "train" => Normalization::Train,
        Some(Value::Object(_)) => {
            object.object("normalize", normalize).flatten().map_or(Normalization::None, Normalization::Given)
        }
        Some(_) => {
            object.fault("normalize", FaultCode::InvalidValue, "expected {\"mean\": …, \"std\": …} or \"train\"");
            Normalization::None
        }
    }
}

fn normalize(object: &Object<'_>) -> Option<Normalize> {
    let finite = number("a finite number", |_| true);
    let positive = number("a number above 0", |std| std > 0.0 && std as f32 > 0.0);
    let mean = object.required("mean", "a list with one number per channel", list(1..=1024, finite));
    let std = object.required("std", "a list with one number per channel", list(1..=1024, positive));
    let (mean, std) = (mean?, std?);
    if mean.len() != std.len() {
        let detail = format!("expected as many numbers as in `mean` ({}), got {}", mean.len(), std.len());
        object.fault("std", FaultCode::InvalidValue, detail);
    }
    let f32s = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    Some(Normalize { mean: f32s(mean), std: f32s(std) })
}

/// What is compared where the client does not say: with training its controls, too.
fn default_candidates(trains: bool, method: MethodName) -> Vec<ReportCandidate> {
    let mut candidates = vec![ReportCandidate::Members, ReportCandidate::Ensemble, ReportCandidate::Fused];
    if trains {
        candidates.push(ReportCandidate::TrainedOn);
    }
    if trains && method != MethodName::DistillOnly {
        candidates.push(ReportCandidate::Distilled);
    }
    candidates.sort_unstable();
    candidates
}

fn candidates(value: &Value) -> Result<Vec<ReportCandidate>, reader::UnplacedFault> {
    let one = choice(&[
        ("members", Some(ReportCandidate::Members)),
        ("best_member", Some(ReportCandidate::BestMember)),
        ("ensemble", Some(ReportCandidate::Ensemble)),
        ("vote", Some(ReportCandidate::Vote)),
        ("average", Some(ReportCandidate::Average)),
        ("optimal_transport", Some(ReportCandidate::OptimalTransport)),
        ("permutation_alignment", Some(ReportCandidate::PermutationAlignment)),
        ("neuron_interpolation", Some(ReportCandidate::NeuronInterpolation)),
        ("trained_on", Some(ReportCandidate::TrainedOn)),
        ("distilled", Some(ReportCandidate::Distilled)),
        ("fused", Some(ReportCandidate::Fused)),
    ]);
    let mut candidates = list(0..=16, one)(value)?;
    candidates.sort_unstable();
    candidates.dedup();
    Ok(candidates)
}

fn labels(body: &Object<'_>) -> BTreeMap<String, String> {
    let Some(value) = body.value("labels") else { return BTreeMap::new() };
    let Some(object) = Object::at(body.pointer("labels"), value, body.faults()) else { return BTreeMap::new() };
    let entries = value.as_object().into_iter().flatten();
    if value.as_object().is_some_and(|labels| labels.len() > 64) {
        body.fault("labels", FaultCode::InvalidValue, "expected at most 64 labels");
    }
    entries
        .filter_map(|(key, value)| Some((key.clone(), body.faults().take(&object.pointer(key), text(value))?)))
        .collect()
}

#[cfg(test)]
mod tests;
