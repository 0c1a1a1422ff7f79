//! What labels of datasets mean for the outputs of a network.
//!
//! Labels that are numbers are outputs by their position. Class folders are numbered in the order of their names, which is
//! the network's only where every output has its folder.

use crate::domain::dataset::{DatasetFacts, LabelForm};
use crate::domain::problem::{Fault, FaultCode};
use crate::model::graph::Graph;
use crate::plan::network::{DatasetInput, JobFiles};
use crate::plan::request::JobRequest;
use crate::settings::{EnsembleRule, MemberWeights, Objective, PredictionTask, ReportCandidate, WeightRule};

/// Names of classes that are written out in one message.
const SHOWN: usize = 10;

/// Why labels cannot be matched with outputs, or not be learned from.
pub(super) fn faults(job: &JobRequest, inputs: &JobFiles<'_>, graph: &Graph, task: PredictionTask) -> Vec<Fault> {
    let outputs = graph.classes();
    let main = inputs.dataset.and_then(DatasetInput::facts);
    let mut faults = Vec::new();
    for (pointer, _, facts) in ready(inputs).filter(|_| graph.is_classifier() && task.is_classification()) {
        let misfit = folders_misfit(facts, outputs).or_else(|| main.and_then(|main| other_folders(facts, main)));
        faults.extend(misfit.map(|detail| Fault::new(pointer, FaultCode::ClassesDiffer, detail)));
    }
    if let Some(only) = main.and_then(only_class)
        && job.finetune.is_some()
        && (outputs > 1 || task == PredictionTask::Binary)
    {
        let outputs = counted(outputs, "output", "outputs");
        let detail = format!("{only}: a network of {outputs} cannot be trained on it; set `finetune` to null");
        faults.push(Fault::new("/dataset", FaultCode::OneClass, detail));
    }
    if !inputs.has_labels() {
        faults.extend(needs(job).map(|(pointer, detail)| Fault::new(pointer, FaultCode::LabelsMissing, detail)));
    }
    faults
}

/// What of a job needs the labels of its dataset, each with what to do where that has none.
fn needs(job: &JobRequest) -> impl Iterator<Item = (&'static str, &'static str)> {
    let trains = job.finetune.as_ref().filter(|finetune| !finetune.undecided.objective);
    let objective = trains.and_then(|finetune| match finetune.objective {
        Objective::CrossEntropy => Some((
            "/finetune/objective",
            "learns from labels, and the dataset has none: leave it out, or choose `distill` with a `soft_weight` of 1",
        )),
        Objective::Distill { soft_weight, .. } if soft_weight < 1.0 => {
            Some(("/finetune/soft_weight", "the rest learns from labels, and the dataset has none: set it to 1"))
        }
        Objective::Distill { .. } => None,
    });
    let named = job.dataset.as_ref().is_some_and(|dataset| dataset.validation.is_some());
    let drawn = job.dataset.as_ref().and_then(|dataset| dataset.validation_fraction).is_some_and(|part| part > 0.0);
    let method = &job.method;
    let fits = method.member_weights == MemberWeights::Rule(WeightRule::Fitted);
    let others = [
        (
            drawn && !named,
            "/dataset/validation_fraction",
            "the dataset has no labels to choose networks by: leave it out, or name labelled examples as `dataset.validation`",
        ),
        (
            method.importance.needs_gradients(),
            "/method/importance",
            "takes gradients of the loss by labels, and the dataset has none: choose `auto`, `css`, `activation` or `magnitude`",
        ),
        (
            fits && !named,
            "/method/member_weights",
            "`fitted` fits to labels, and the dataset has none: name labelled examples as `dataset.validation`",
        ),
        (
            method.ensemble == EnsembleRule::FittedPerClass && !named,
            "/method/ensemble",
            "`fitted_per_class` fits to labels, and the dataset has none: name labelled examples as `dataset.validation`",
        ),
    ];
    let others = others.into_iter().filter(|(needs, ..)| *needs).map(|(_, pointer, detail)| (pointer, detail));
    objective.into_iter().chain(others)
}

/// Leaves out of what a report compares the networks that would be trained on labels, where the dataset of `facts` has none, and those
/// that would only be trained to be measured, where nothing is.
pub fn narrow(job: &mut JobRequest, facts: Option<&DatasetFacts>) {
    let Some(dataset) = job.dataset.as_ref().filter(|_| facts.is_some_and(|facts| !facts.has_labels())) else { return };
    let is_measured = dataset.validation.is_some() || dataset.test.is_some();
    let stays = |candidate: &ReportCandidate| {
        *candidate != ReportCandidate::TrainedOn && (is_measured || !candidate.is_control())
    };
    job.evaluate.retain(stays);
}

/// What of the labels a user should look at.
pub(super) fn warnings(job: &JobRequest, inputs: &JobFiles<'_>, graph: &Graph, task: PredictionTask) -> Vec<String> {
    if !task.is_classification() {
        return Vec::new();
    }
    let outputs = graph.classes();
    let has_classes = |facts: &DatasetFacts| matches!(facts.labels, LabelForm::Classes | LabelForm::FloatClasses);
    let fewer =
        ready(inputs).filter(|(_, _, facts)| facts.classes < outputs && has_classes(facts)).map(|(_, name, facts)| {
            format!(
                "{name} has {} for a network of {outputs} outputs: labels are matched with outputs by position ({})",
                counted(facts.classes, "class", "classes"),
                listed((0..facts.classes).map(|label| facts.label_in_words(label)))
            )
        });
    let only = inputs.dataset.and_then(DatasetInput::facts).and_then(only_class);
    fewer.chain(only.filter(|_| job.finetune.is_none() && outputs > 1)).collect()
}

/// Why a network of `outputs` outputs that predicts `task` cannot be trained on a dataset from scratch, where what a label means is
/// free.
#[must_use]
pub fn training_fault(facts: &DatasetFacts, outputs: usize, task: PredictionTask) -> Option<Fault> {
    if !facts.has_labels() {
        let detail = "it has no labels: no network can be trained on it from scratch";
        return Some(Fault::new("/dataset", FaultCode::LabelsMissing, detail));
    }
    if !task.decides() {
        return None;
    }
    if task.is_classification() && facts.classes > outputs {
        let detail = format!("the network has {outputs} outputs, the dataset labels up to {}", facts.classes - 1);
        return Some(Fault::new("/network", FaultCode::LabelOutOfRange, detail));
    }
    let only = only_class(facts)?;
    let detail = format!("{only}: no network can be trained on it; name a dataset with examples of several classes");
    Some(Fault::new("/dataset", FaultCode::OneClass, detail))
}

/// The datasets that have been read: pointer into the request, what they are called in sentences, facts.
fn ready<'a>(inputs: &JobFiles<'a>) -> impl Iterator<Item = (&'static str, &'static str, &'a DatasetFacts)> + use<'a> {
    let named = [
        ("/dataset", "the dataset", inputs.dataset),
        ("/dataset/validation", "the validation dataset", inputs.validation),
        ("/dataset/test", "the test dataset", inputs.test),
    ];
    named.into_iter().filter_map(|(pointer, name, dataset)| Some((pointer, name, dataset?.facts()?)))
}

fn folders_misfit(facts: &DatasetFacts, outputs: usize) -> Option<String> {
    let names = facts.folders().filter(|names| names.len() < outputs)?;
    Some(format!(
        "{} ({}) and a network of {outputs} outputs: which is which output is a guess, since classes are numbered in the order of \
         their names; name them all, in the order of the outputs, as `dataset.classes`, or add an empty folder for each class that \
         has no images",
        counted(names.len(), "named class", "named classes"),
        listed(names.iter().map(|name| format!("`{name}`")))
    ))
}

/// As many, but other classes than those of the dataset.
fn other_folders(facts: &DatasetFacts, main: &DatasetFacts) -> Option<String> {
    let (names, expected) = (facts.folders()?, main.folders()?);
    let differs = names.iter().zip(expected).find(|(name, expected)| name != expected);
    let (name, expected) = differs.filter(|_| names.len() == expected.len())?;
    Some(format!(
        "its class `{name}` stands in the place of the dataset's `{expected}`; use the same classes, or name all of both, in the order \
         of the outputs, as `dataset.classes`"
    ))
}

fn only_class(facts: &DatasetFacts) -> Option<String> {
    let label = facts.label_in_words(facts.only_label()?);
    Some(format!("every example of the train split has the label {label}"))
}

fn counted(count: usize, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// The first few, with commas.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let rest = if names.len() > SHOWN { ", …" } else { "" };
    names.take(SHOWN).collect::<Vec<_>>().join(", ") + rest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::header::{CheckpointHeader, Dtype, TensorInfo};
    use crate::plan::parse::parse;
    use crate::plan::resolve::resolve;

    /// A dataset with as many examples of each class as `per_class` says.
    fn facts(format: &str, per_class: &[usize], names: Option<&[&str]>) -> DatasetFacts {
        let split = json!({"examples": per_class.iter().sum::<usize>(), "per_class": per_class});
        serde_json::from_value(json!({"format": format, "example_shape": [4], "classes": per_class.len(),
            "class_names": names, "splits": {"train": split}, "mean": [0.0], "std": [1.0], "preview": []}))
        .expect("facts, as older ones are stored")
    }

    /// The plan's warnings for a network of three outputs, or code and detail of the faults.
    fn said(dataset: &DatasetFacts, test: Option<&DatasetFacts>, finetune: &Value) -> Result<Vec<String>, Vec<String>> {
        let tensor = |(name, shape): (&str, [usize; 2])| TensorInfo {
            name: format!("{name}.weight"),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
        };
        let member = CheckpointHeader::new([("fc1", [8, 4]), ("fc2", [3, 8])].into_iter().map(tensor).collect());
        let [dataset, test] = [Some(dataset), test].map(|facts| facts.map(DatasetInput::Ready));
        let inputs = JobFiles { members: vec![&member, &member], dataset, test, ..JobFiles::default() };
        let mut body = json!({"members": ["a", "b"], "dataset": {"name": "d"}, "finetune": finetune});
        if test.is_some() {
            body["dataset"]["test"] = json!("t");
        }
        match resolve(parse(&body).expect("a request"), &inputs) {
            Ok(resolved) => Ok(resolved.planned.expect("a network").plan.warnings),
            Err(problem) => {
                Err(problem.errors.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect())
            }
        }
    }

    fn has(words: &[String], expected: &[&str]) -> bool {
        words.iter().any(|words| expected.iter().all(|expected| words.contains(expected)))
    }

    #[test]
    fn numbers_are_outputs_by_position_and_folders_only_where_all_are_there() {
        let epoch = json!({"epochs": 1});
        let numbers = facts("npz", &[5, 5], None);
        let warnings = said(&numbers, None, &epoch).expect("a plan");
        assert!(has(&warnings, &["the dataset has 2 classes", "3 outputs", "by position (0, 1)"]), "{warnings:?}");
        let named = facts("parquet", &[5, 5], Some(&["cat", "dog"]));
        let warnings = said(&named, None, &epoch).expect("a plan");
        assert!(has(&warnings, &["(0 (`cat`), 1 (`dog`))"]), "{warnings:?}");
        let folders = facts("class_folders", &[5, 5], Some(&["cat", "dog"]));
        let refused = said(&folders, None, &epoch).expect_err("a guess");
        assert!(
            has(&refused, &["/dataset ", "2 named classes (`cat`, `dog`)", "empty folder", "`dataset.classes`"]),
            "{refused:?}"
        );
        let all = facts("class_folders", &[5, 0, 5], Some(&["cat", "cow", "dog"]));
        let warnings = said(&all, None, &epoch).expect("a plan");
        assert!(!has(&warnings, &["by position"]), "{warnings:?}");
    }

    #[test]
    fn what_members_see_without_normalisation_depends_on_the_elements() {
        for (bytes, seen) in [(None, "(bytes divided by 255)"), (Some(true), "from 0 to 1"), (Some(false), "numbers")] {
            let facts = DatasetFacts { byte_elements: bytes, ..facts("npz", &[5, 5, 5], None) };
            let warnings = said(&facts, None, &Value::Null).expect("a plan");
            assert!(has(&warnings, &["no `normalize`", seen]), "{warnings:?}");
            assert!(bytes != Some(false) || !has(&warnings, &["255"]), "{warnings:?}");
        }
    }

    #[test]
    fn one_class_is_nothing_to_train_on() {
        for (dataset, label) in [(facts("npz", &[0, 0, 5], None), "label 2:"), (facts("idx", &[5], None), "label 0:")] {
            let refused = said(&dataset, None, &json!({"epochs": 1})).expect_err("nothing to learn");
            assert!(has(&refused, &["/dataset ", label, "3 outputs", "`finetune` to null"]), "{refused:?}");
            let warnings = said(&dataset, None, &Value::Null).expect("a plan");
            assert!(has(&warnings, &["every example of the train split"]), "{warnings:?}");
        }
        let folder = facts("class_folders", &[5], Some(&["cat"]));
        let refused = said(&folder, None, &Value::Null).expect_err("a guess");
        assert!(has(&refused, &["1 named class (`cat`) and"]), "{refused:?}");
    }

    #[test]
    fn folders_of_other_datasets_are_the_same_ones() {
        let names = |names: &[&str]| facts("class_folders", &vec![1; names.len()], Some(names));
        let (main, epoch) = (names(&["a", "b", "c"]), json!({"epochs": 1}));
        assert!(said(&main, Some(&names(&["a", "b", "c"])), &epoch).is_ok());
        let refused = said(&main, Some(&names(&["a", "b", "d"])), &epoch).expect_err("other folders");
        assert!(has(&refused, &["/dataset/test ", "`d`", "`c`"]), "{refused:?}");
        // A class without an example does not renumber the others where another dataset names it.
        assert!(said(&main, Some(&names(&["a", "c"])), &epoch).is_ok());
        assert!(said(&names(&["a", "c"]), Some(&main), &epoch).is_ok());
        let refused = said(&main, Some(&names(&["a", "d"])), &epoch).expect_err("fewer folders");
        assert!(has(&refused, &["/dataset/test ", "2 named classes"]), "{refused:?}");
        let warnings = said(&main, Some(&facts("npz", &[1, 1], None)), &epoch).expect("a plan");
        assert!(has(&warnings, &["the test dataset has 2 classes"]), "{warnings:?}");
    }

    #[test]
    fn from_scratch_labels_mean_what_the_dataset_says() {
        let code = |facts: &DatasetFacts, outputs| {
            training_fault(facts, outputs, PredictionTask::default()).map(|fault| fault.code)
        };
        let folders = facts("class_folders", &[5, 5], Some(&["cat", "dog"]));
        assert_eq!((code(&folders, 2), code(&folders, 3)), (None, None));
        assert_eq!(code(&folders, 1), Some(FaultCode::LabelOutOfRange));
        assert_eq!(code(&facts("npz", &[0, 5], None), 2), Some(FaultCode::OneClass));
    }
}
