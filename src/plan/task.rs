//! What networks predict: known from what the labels of a dataset are and how many outputs the networks have, or stated as
//! `dataset.task`; never guessed.

use crate::domain::dataset::{DatasetFacts, LabelForm, RowValues};
use crate::domain::problem::{Fault, FaultCode};
use crate::plan::request::JobRequest;
use crate::settings::{
    EnsembleRule, Finetune, MemberWeights, Objective, OutputTargets, PredictionTask, ReportCandidate, Teacher,
    WeightRule,
};

/// What a network of `outputs` outputs predicts that learns from the dataset of `facts`; for a network whose outputs follow from the
/// labels, `outputs` is none.
///
/// # Errors
/// A fault at `/dataset` where the labels mean several things, and none is `stated`, or where they fit no such network.
pub fn decide(
    stated: Option<PredictionTask>,
    facts: &DatasetFacts,
    outputs: Option<usize>,
) -> Result<PredictionTask, Fault> {
    let task = match stated {
        Some(task) => task,
        None => known(facts, outputs).map_err(|possible| ambiguous(facts, outputs, &possible))?,
    };
    match outputs.and_then(|outputs| misfit(task, facts, outputs)) {
        Some(fault) => Err(fault),
        None => Ok(task),
    }
}

/// How many outputs a network of this task has that learns from the dataset of `facts`.
#[must_use]
pub fn outputs(task: PredictionTask, facts: &DatasetFacts) -> usize {
    match (task, facts.labels) {
        (_, LabelForm::Rows { columns, .. }) => columns,
        (PredictionTask::Classification, _) => facts.classes,
        _ => 1,
    }
}

/// The only thing that the labels can mean, or all that they may.
fn known(facts: &DatasetFacts, outputs: Option<usize>) -> Result<PredictionTask, Vec<PredictionTask>> {
    use PredictionTask::{Binary, Classification, MultiLabel, Regression};
    let one = outputs == Some(1);
    let of_flags = |columns: usize| if columns == 1 { Binary } else { MultiLabel };
    match facts.labels {
        LabelForm::Classes | LabelForm::FloatClasses if one && facts.classes > 2 => Err(vec![Regression]),
        LabelForm::Classes if one => Ok(Binary),
        LabelForm::FloatClasses | LabelForm::Absent if one => Err(vec![Binary, Regression]),
        LabelForm::FloatClasses if outputs.is_none() => Err(vec![Classification, Regression]),
        // Without labels as without a dataset: who knows it better says so.
        LabelForm::Classes | LabelForm::FloatClasses | LabelForm::Absent => Ok(Classification),
        LabelForm::Rows { values: RowValues::Real, .. } => Ok(Regression),
        LabelForm::Rows { values: RowValues::Whole, .. } => Err(vec![Regression]),
        LabelForm::Rows { values: RowValues::OneHot, .. } => Err(vec![Classification, MultiLabel]),
        LabelForm::Rows { columns, values: RowValues::Flags, floats: true } => Err(vec![of_flags(columns), Regression]),
        LabelForm::Rows { columns, values: RowValues::Flags, floats: false } => Ok(of_flags(columns)),
    }
}

/// The labels in words, with the classes that there are.
fn described(facts: &DatasetFacts) -> String {
    match (facts.labels, facts.classes) {
        (LabelForm::Rows { .. }, _) => facts.labels.to_string(),
        (form, 0 | 1) => format!("{form}, all 0"),
        (form, classes) => format!("{form}, from 0 to {}", classes - 1),
    }
}

fn ambiguous(facts: &DatasetFacts, outputs: Option<usize>, possible: &[PredictionTask]) -> Fault {
    let network = outputs.map_or_else(|| "a network".to_owned(), counted);
    let ways: Vec<String> = possible.iter().map(|task| format!("`{}`", task.as_str())).collect();
    let labels = if facts.has_labels() {
        format!("the labels are {}", described(facts))
    } else {
        "there are no labels".to_owned()
    };
    let detail = format!(
        "{labels}; for {network} that {} be {}: say which as `dataset.task`",
        if ways.len() > 1 { "may" } else { "can only" },
        ways.join(" or ")
    );
    Fault::new("/dataset", FaultCode::TaskAmbiguous, detail)
}

fn counted(outputs: usize) -> String {
    if outputs == 1 { "a network of 1 output".to_owned() } else { format!("a network of {outputs} outputs") }
}

/// Why the labels of a dataset are none for a network of `outputs` outputs that predicts `task`.
#[must_use]
pub fn misfit(task: PredictionTask, facts: &DatasetFacts, outputs: usize) -> Option<Fault> {
    let is_flags = |values: RowValues| matches!(values, RowValues::OneHot | RowValues::Flags);
    let (fits, needs) = match (task, facts.labels) {
        (_, LabelForm::Absent) => return None,
        (PredictionTask::Classification, LabelForm::Classes | LabelForm::FloatClasses) => {
            let detail = format!(
                "the network tells {outputs} classes apart, the dataset has labels up to {}",
                facts.classes.max(1) - 1
            );
            return (facts.classes > outputs).then(|| Fault::new("/dataset", FaultCode::LabelOutOfRange, detail));
        }
        (PredictionTask::Classification, LabelForm::Rows { columns, values, .. }) => (
            columns == outputs && values == RowValues::OneHot,
            format!("one class per example, or rows with a single 1 in one of {outputs} columns"),
        ),
        (PredictionTask::Binary, LabelForm::Rows { columns, values, .. }) => {
            (outputs == 1 && columns == 1 && is_flags(values), "labels 0 and 1 and a network of 1 output".to_owned())
        }
        (PredictionTask::Binary, _) => {
            (outputs == 1 && facts.classes <= 2, "labels 0 and 1 and a network of 1 output".to_owned())
        }
        (PredictionTask::MultiLabel, LabelForm::Rows { columns, values, .. }) => {
            (columns == outputs && is_flags(values), format!("a row of 0 and 1 per example, with {outputs} columns"))
        }
        (PredictionTask::MultiLabel, _) => (false, format!("a row of 0 and 1 per example, with {outputs} columns")),
        (PredictionTask::Regression, form) => {
            let columns = if let LabelForm::Rows { columns, .. } = form { columns } else { 1 };
            (columns == outputs, format!("{outputs} numbers per example"))
        }
    };
    let detail =
        format!("`{}` with {} needs {needs}; the labels are {}", task.as_str(), counted(outputs), described(facts));
    (!fits).then(|| Fault::new("/dataset", FaultCode::TaskMismatch, detail))
}

/// Settings of a job that mean nothing for what its networks predict.
pub(super) fn faults(task: PredictionTask, job: &JobRequest) -> Vec<Fault> {
    if task.is_classification() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut refuse = |pointer: &str, what: &str, instead: &str| {
        let detail = format!("{what} goes with `classification` only, and this is `{}`: {instead}", task.as_str());
        faults.push(Fault::new(pointer, FaultCode::InvalidValue, detail));
    };
    let rule = job.method.ensemble;
    let of_regression = matches!(rule, EnsembleRule::Auto | EnsembleRule::MeanLogits);
    if !of_regression && (task == PredictionTask::Regression || rule != EnsembleRule::MeanProbabilities) {
        let instead = match task {
            PredictionTask::Regression => "the ensemble is the mean of the outputs, `mean_logits`",
            _ => "choose `mean_logits` or `mean_probabilities`",
        };
        refuse("/method/ensemble", &format!("`{}`", rule.as_str()), instead);
    }
    if job.method.member_weights == MemberWeights::Rule(WeightRule::Fitted) {
        refuse("/method/member_weights", "`fitted`", "choose `width`, `uniform` or a list of weights");
    }
    if job.dataset.as_ref().is_some_and(|dataset| dataset.classes.is_some()) {
        refuse("/dataset/classes", "an order of classes", "leave it out");
    }
    if !task.decides() && job.evaluate.contains(&ReportCandidate::Vote) {
        refuse("/evaluate", "`vote`", "compare with `ensemble`");
    }
    if !task.decides() && job.accuracy.is_some() {
        refuse("/accuracy", "an accuracy", "`reference` proves what the network is");
    }
    faults.extend(job.finetune.as_ref().into_iter().flat_map(|finetune| training_faults(task, finetune, "/finetune")));
    faults
}

/// Settings of a training, at `pointer`, that mean nothing for what its network predicts.
#[must_use]
pub fn training_faults(task: PredictionTask, finetune: &Finetune, pointer: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut refuse = |field: &str, detail: &str| {
        faults.push(Fault::new(format!("{pointer}/{field}"), FaultCode::InvalidValue, detail));
    };
    if !task.is_classification() && finetune.label_smoothing > 0.0 {
        refuse("label_smoothing", "spreads a label over classes, and there are none: leave it out");
    }
    if let (PredictionTask::Regression, Objective::Distill { temperature, teacher, .. }) = (task, finetune.objective) {
        let Objective::Distill { temperature: default, .. } = Finetune::default().objective else { return faults };
        if temperature.to_bits() != default.to_bits() {
            refuse("temperature", "softens probabilities, and a regression has none: leave it out");
        }
        if teacher == Teacher::MeanProbabilities {
            refuse("teacher", "a regression has no probabilities: choose `ensemble`, the mean of the outputs");
        }
    }
    faults
}

/// What the output layer is refitted to where networks predict `task`: probabilities are those of classes.
pub(super) fn output_targets(task: PredictionTask, requested: OutputTargets) -> OutputTargets {
    if task.is_classification() { requested } else { OutputTargets::Logits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(labels: LabelForm, classes: usize) -> DatasetFacts {
        DatasetFacts { labels, ..DatasetFacts::of_arrays(&[4], vec![5; classes]) }
    }

    fn rows(columns: usize, values: RowValues, floats: bool) -> DatasetFacts {
        facts(LabelForm::Rows { columns, values, floats }, 0)
    }

    #[test]
    fn labels_and_outputs_say_what_is_predicted_or_nothing_is_assumed() {
        use PredictionTask::{Binary, Classification, MultiLabel, Regression};
        let (classes, floats) =
            (|count| facts(LabelForm::Classes, count), |count| facts(LabelForm::FloatClasses, count));
        for (facts, outputs, expected) in [
            (classes(3), 3, Ok(Classification)),
            (classes(2), 3, Ok(Classification)),
            (classes(2), 1, Ok(Binary)),
            (floats(3), 3, Ok(Classification)),
            (rows(5, RowValues::Flags, false), 5, Ok(MultiLabel)),
            (rows(5, RowValues::Real, true), 5, Ok(Regression)),
            (rows(1, RowValues::Real, true), 1, Ok(Regression)),
            (classes(10), 1, Err("from 0 to 9; for a network of 1 output that can only be `regression`")),
            (floats(2), 1, Err("may be `binary` or `regression`: say which as `dataset.task`")),
            (
                floats(6),
                1,
                Err("stored as floats, from 0 to 5; for a network of 1 output that can only be `regression`"),
            ),
            (rows(5, RowValues::Flags, true), 5, Err("may be `multi_label` or `regression`")),
            (rows(5, RowValues::OneHot, false), 5, Err("may be `classification` or `multi_label`")),
            (rows(2, RowValues::Whole, true), 2, Err("2 per example (whole numbers, stored as floats)")),
            (
                rows(5, RowValues::Flags, false),
                4,
                Err("with a network of 4 outputs needs a row of 0 and 1 per example, with 4"),
            ),
            (rows(1, RowValues::Real, true), 4, Err("4 numbers per example; the labels are 1 per example")),
            (classes(5), 3, Err("the network tells 3 classes apart, the dataset has labels up to 4")),
        ] {
            match (decide(None, &facts, Some(outputs)), expected) {
                (Ok(task), Ok(expected)) => assert_eq!(task, expected, "{facts:?}"),
                (Err(fault), Err(expected)) => assert!(fault.detail.contains(expected), "{}", fault.detail),
                (got, expected) => panic!("{got:?} for {expected:?}"),
            }
        }
        let absent = facts(LabelForm::Absent, 0);
        assert_eq!(decide(None, &absent, Some(5)), Ok(Classification));
        assert_eq!(decide(Some(MultiLabel), &absent, Some(5)), Ok(MultiLabel));
        let refused = decide(None, &absent, Some(1)).expect_err("a guess").detail;
        assert!(
            refused.starts_with("there are no labels; for a network of 1 output that may be `binary` or"),
            "{refused}"
        );
        assert_eq!(decide(None, &classes(2), None), Ok(Classification));
        assert!(decide(None, &floats(2), None).is_err());
    }

    #[test]
    fn what_is_stated_counts_where_it_fits() {
        let one_hot = rows(5, RowValues::OneHot, false);
        for task in [PredictionTask::Classification, PredictionTask::MultiLabel, PredictionTask::Regression] {
            assert_eq!(decide(Some(task), &one_hot, Some(5)), Ok(task));
            assert_eq!(decide(Some(task), &one_hot, Some(4)).map_err(|fault| fault.code), Err(FaultCode::TaskMismatch));
            assert_eq!(outputs(task, &one_hot), 5);
        }
        let ratings = facts(LabelForm::FloatClasses, 6);
        assert_eq!(decide(Some(PredictionTask::Regression), &ratings, Some(1)), Ok(PredictionTask::Regression));
        let refused = decide(Some(PredictionTask::Binary), &ratings, Some(1)).expect_err("six classes");
        assert!(
            refused.detail.contains("`binary` with a network of 1 output needs labels 0 and 1"),
            "{}",
            refused.detail
        );
        assert_eq!(outputs(PredictionTask::Binary, &facts(LabelForm::Classes, 2)), 1);
        assert_eq!(outputs(PredictionTask::Classification, &facts(LabelForm::Classes, 2)), 2);
    }
}
