//! What a job will do, for a reader: the answer to `validate_only`, and part of every job.

use serde::{Deserialize, Serialize};

use crate::domain::dataset::DatasetFacts;
use crate::job::request::{Finetune, JobRequest};
use crate::job::resolve::{DatasetInput, Inputs};
use crate::model::families::Detected;
use crate::model::graph::Graph;
use crate::model::plan::{Costs, FusionPlan, LayerPlan};

/// Multiply-accumulate operations per second that the time estimate assumes; two cores of a server do about this.
const ASSUMED_MACS_PER_SECOND: f64 = 3e10;

/// What becomes of the members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Family of the networks.
    pub architecture: String,
    /// What neither names nor shapes tell and was taken from the family's conventions.
    pub assumptions: Vec<String>,
    /// Every dense layer; `width_before` is that of all members together.
    pub layers: Vec<LayerPlan>,
    /// Trainable weights.
    pub parameters: Comparison,
    /// Multiply-accumulate operations for one example.
    pub macs: Comparison,
    /// Bytes of the weights.
    pub bytes: Comparison,
    /// Estimate of the memory that the job needs beside the mapped files.
    pub memory_peak_bytes: u64,
    /// Estimate of the time that training and evaluation take, at 3·10¹⁰ multiply-accumulates per second.
    pub seconds_estimate: f64,
    /// What a user should look at before starting the job.
    pub warnings: Vec<String>,
}

/// One figure for the networks in question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Of each member.
    pub members: Vec<u64>,
    /// Of the concatenated network, which is never built.
    pub concatenated: u64,
    /// Of the fused network.
    pub fused: u64,
}

impl Plan {
    pub(super) fn new(job: &JobRequest, inputs: &Inputs<'_>, detected: &Detected, fusion: &FusionPlan) -> Self {
        let members: Vec<Costs> = detected.graphs.iter().map(Costs::of).collect();
        let fused = Costs::of(&fusion.fused);
        let compare = |figure: fn(&Costs) -> u64| Comparison {
            members: members.iter().map(figure).collect(),
            concatenated: figure(&fusion.concatenated),
            fused: figure(&fused),
        };
        let examples = Examples::of(job, inputs);
        Self {
            architecture: detected.family.clone(),
            assumptions: detected.assumptions.clone(),
            layers: fusion.layers.clone(),
            parameters: compare(|costs| costs.parameters),
            macs: compare(|costs| costs.macs),
            bytes: compare(|costs| costs.bytes),
            memory_peak_bytes: memory(job.finetune.as_ref(), &fusion.fused, fused, &examples),
            seconds_estimate: seconds(job.finetune.as_ref(), &members, fused, &examples),
            warnings: warnings(job, inputs),
        }
    }
}

/// How much data a job goes through.
#[derive(Debug, Default)]
struct Examples {
    train: u64,
    measured: u64,
    bytes: u64,
}

impl Examples {
    fn of(job: &JobRequest, inputs: &Inputs<'_>) -> Self {
        let count =
            |facts: &DatasetFacts, split: &str| facts.splits.get(split).map_or(0, |split| split.examples as u64);
        let (Some(dataset), Some(facts)) = (&job.dataset, inputs.dataset.and_then(DatasetInput::facts)) else {
            return Self::default();
        };
        let train = count(facts, "train");
        let held_out =
            if dataset.validation.is_none() { (train as f64 * dataset.validation_fraction) as u64 } else { 0 };
        let elements: usize = facts.example_shape.iter().product();
        let all = train + count(facts, "test");
        Self { train: train - held_out, measured: held_out + count(facts, "test"), bytes: all * elements as u64 }
    }
}

/// Weights, gradients, momentum, the best epoch's weights, a batch's activations and their gradients, and the data.
fn memory(finetune: Option<&Finetune>, graph: &Graph, fused: Costs, examples: &Examples) -> u64 {
    let activations: usize = graph.iter().map(|(id, _)| graph.shape(id).iter().product::<usize>()).sum();
    let batch = finetune.map_or(64, |finetune| 2 * finetune.batch_size) as u64;
    let copies = if finetune.is_some() { 4 } else { 1 };
    copies * fused.bytes + batch * activations as u64 * 4 + examples.bytes
}

/// A training step is three forward passes; the teacher's logits are computed once.
fn seconds(finetune: Option<&Finetune>, members: &[Costs], fused: Costs, examples: &Examples) -> f64 {
    let members: u64 = members.iter().map(|costs| costs.macs).sum();
    let epochs = finetune.map_or(0, |finetune| finetune.epochs as u64);
    let per_epoch = (3 * examples.train + examples.measured) as f64 * fused.macs as f64;
    let teacher = if epochs > 0 { examples.train } else { 0 };
    let once = (teacher + 2 * examples.measured) as f64 * members as f64;
    (epochs as f64 * per_epoch + once) / ASSUMED_MACS_PER_SECOND
}

fn warnings(job: &JobRequest, inputs: &Inputs<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut names: Vec<&String> = job.members.iter().collect();
    names.sort_unstable();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        warnings.push(format!("the member `{}` is named more than once; a copy brings nothing new", pair[0]));
    }
    let Some(dataset) = &job.dataset else {
        warnings.push("without a dataset nothing is trained and nothing measured".to_owned());
        return warnings;
    };
    if dataset.normalize.is_none() {
        warnings.push(
            "no `normalize` is given: the members see the data as it is stored (pixels divided by 255)".to_owned(),
        );
    }
    if job.finetune.is_none() {
        warnings.push("`finetune` is null: the fused network is published as it is after selection".to_owned());
    } else if dataset.validation.is_none() && dataset.validation_fraction == 0.0 {
        warnings.push("there is no validation split: the last epoch is published, whatever its accuracy".to_owned());
    }
    let has_test = |facts: &DatasetFacts| facts.splits.contains_key("test");
    if dataset.test.is_none() && inputs.dataset.and_then(DatasetInput::facts).is_some_and(|facts| !has_test(facts)) {
        warnings.push("there is no test split: the report has validation figures only".to_owned());
    }
    warnings
}
