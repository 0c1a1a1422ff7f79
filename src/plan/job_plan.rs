//! What a job will do, for a reader: the answer to `validate_only`, and part of every job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cost::Counts;
use crate::domain::dataset::DatasetFacts;
use crate::domain::progress::Phase;
use crate::model::costs::Costs;
use crate::model::families::Evidence;
use crate::model::plan::{FusionPlan, LayerPlan};
use crate::model::precision::Precision;
use crate::plan::estimate::Work;
use crate::plan::network::{DatasetInput, JobFiles, Network};
use crate::plan::request::JobRequest;
use crate::plan::{compensation, held_out, identity, labels};
use crate::settings::{
    Allocation, Budget, Compensate, Normalization, PredictionTask, RecoveryRule, Size, ValidationSource,
};

/// What becomes of the members. Most of it is null while a dataset that it depends on is being read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Plan {
    /// Family of the networks.
    #[schema(nullable)]
    pub architecture: String,
    /// What the networks predict; not said of classes.
    #[serde(default, skip_serializing_if = "PredictionTask::is_classification")]
    pub task: PredictionTask,
    /// How sure it is that they are that network, and why; none while that cannot be said.
    pub evidence: Option<Evidence>,
    /// What names and shapes do not show and is assumed.
    pub assumptions: Vec<String>,
    /// Every dense layer; `width_before` is that of all members together.
    pub layers: Vec<LayerPlan>,
    /// Trainable weights.
    #[schema(nullable)]
    pub parameters: NetworkFigures,
    /// Multiply-accumulate operations for one example.
    #[schema(nullable)]
    pub macs: NetworkFigures,
    /// Bytes of the weights.
    #[schema(nullable)]
    pub bytes: NetworkFigures,
    /// Estimate of the memory that the job needs beside the mapped files.
    #[schema(nullable)]
    pub memory_peak_bytes: u64,
    /// What that estimate adds up.
    #[schema(nullable)]
    pub memory_basis: String,
    /// Estimate of the memory of a GPU that the job needs at its peak, if it is computed on one.
    #[serde(default)]
    #[schema(nullable)]
    pub gpu_memory_bytes: u64,
    /// What that estimate adds up.
    #[serde(default)]
    #[schema(nullable)]
    pub gpu_memory_basis: String,
    /// Estimate of the scratch space that the job needs at its peak, its decoded data included.
    #[schema(nullable)]
    pub disk_peak_bytes: u64,
    /// What of it is decoded data, of the datasets that have been read so far.
    #[schema(nullable)]
    pub disk_data_bytes: u64,
    /// What that estimate adds up.
    #[schema(nullable)]
    pub disk_basis: String,
    /// Estimate of the time that the job takes.
    #[schema(nullable)]
    pub seconds_estimate: f64,
    /// What that estimate adds up, and at which speed.
    #[schema(nullable)]
    pub seconds_basis: String,
    /// The same seconds, by phase: those that take none are left out.
    #[serde(default)]
    #[schema(nullable, value_type = std::collections::HashMap<String, f64>, example = json!({"compensate": 8.5, "finetune": 20.0}))]
    pub seconds_by_phase: BTreeMap<Phase, f64>,
    /// How the fused network is trained, and why so; none without training.
    #[serde(default)]
    pub recovery: Option<RecoveryRule>,
    /// What a user should look at before starting the job.
    pub warnings: Vec<String>,
}

/// One figure for the networks in question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkFigures {
    /// Of each member.
    pub members: Vec<u64>,
    /// Of the concatenated network, which is never built.
    pub concatenated: u64,
    /// Of the fused network.
    pub fused: u64,
}

impl Plan {
    /// The plan for `network`, and what it counts.
    pub(super) fn new(job: &JobRequest, inputs: &JobFiles<'_>, network: &Network) -> (Self, Counts) {
        let Network { detected, fusion, precision, .. } = network;
        let own = network.own.iter().zip(&inputs.members);
        let members: Vec<Costs> = own.map(|(graph, header)| Costs::of(graph, &Precision::shared(&[*header]))).collect();
        let compare = |figure: fn(&Costs) -> u64| NetworkFigures {
            members: members.iter().map(figure).collect(),
            concatenated: figure(&fusion.concatenated),
            fused: 0,
        };
        let work = Work::of(job, inputs, &members, network);
        let (memory_peak_bytes, memory_basis) = work.memory();
        let (gpu_memory_bytes, gpu_memory_basis) = work.gpu_memory(job.precision);
        let disk = work.disk();
        let time = work.seconds();
        let mut plan = Self {
            architecture: detected.family.clone(),
            task: network.task,
            evidence: Some(network.evidence.clone()),
            assumptions: detected.assumptions.clone(),
            layers: Vec::new(),
            parameters: compare(|costs| costs.parameters),
            macs: compare(|costs| costs.macs),
            bytes: compare(|costs| costs.bytes),
            memory_peak_bytes,
            memory_basis,
            gpu_memory_bytes,
            gpu_memory_basis,
            disk_peak_bytes: disk.data + disk.files,
            disk_data_bytes: disk.data,
            disk_basis: disk.basis,
            seconds_estimate: time.total(),
            seconds_basis: time.basis,
            seconds_by_phase: time.by_phase,
            recovery: network.recovery.as_ref().map(|recovery| recovery.decision.clone()),
            warnings: warnings(job, inputs, network),
        };
        plan.resize(fusion, precision);
        (plan, work.counts())
    }

    /// Enters the widths and costs of another fused network of the same members.
    pub(super) fn resize(&mut self, fusion: &FusionPlan, precision: &Precision) {
        let fused = Costs::of(&fusion.fused, precision);
        self.layers.clone_from(&fusion.layers);
        (self.parameters.fused, self.macs.fused, self.bytes.fused) = (fused.parameters, fused.macs, fused.bytes);
    }
}

/// Whether a budget is spent by sensitivity.
fn is_measured(job: &JobRequest) -> bool {
    matches!(job.target.size, Size::Budget(Budget { allocation: Allocation::Sensitivity, .. }))
}

/// Said where the kind of elements is not known.
const UNNORMALIZED: &str = "no `normalize` is given: the members see the data as it is stored (bytes divided by 255)";

/// What the members see of a dataset that is not normalised.
fn unnormalized(facts: &DatasetFacts) -> &'static str {
    match facts.byte_elements {
        Some(true) => "no `normalize` is given: the members see pixels from 0 to 1 (bytes divided by 255)",
        Some(false) => "no `normalize` is given: the members see the numbers as they are stored",
        None => UNNORMALIZED,
    }
}

fn whatever_it_does(task: PredictionTask) -> &'static str {
    if task.decides() {
        "there is no validation split: the last epoch is published, whatever its accuracy"
    } else {
        "there is no validation split: the last epoch is published, whatever its loss"
    }
}

fn warnings(job: &JobRequest, inputs: &JobFiles<'_>, network: &Network) -> Vec<String> {
    let mut warnings = Vec::new();
    if network.evidence.degree.is_doubtful() {
        warnings.push(identity::warning(&network.evidence));
    }
    for (name, padding) in job.members.iter().zip(&network.paddings) {
        if let Some(padding) = padding {
            let added = padding.added().join(", ");
            warnings
                .push(format!("the member `{name}` has fewer layers: blocks that change nothing stand in for {added}"));
        }
    }
    let mut names: Vec<&String> = job.members.iter().collect();
    names.sort_unstable();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        warnings.push(format!("the member `{}` is named more than once; a copy brings nothing new", pair[0]));
    }
    if is_measured(job) {
        warnings.push(
            "sensitivities are measured when the job runs: the plan shows an even allocation of the same budget"
                .to_owned(),
        );
    }
    let Some(dataset) = &job.dataset else {
        if job.method.name.selects()
            && network.compensate == Compensate::None
            && let Err(reason) = compensation::without_data(&network.detected.graphs)
        {
            warnings.push(format!("no layer behind pruned units is refitted: {reason}; name a dataset"));
        }
        warnings.push("without a dataset nothing is trained and nothing measured".to_owned());
        return warnings;
    };
    if inputs.dataset.is_some_and(|dataset| dataset.facts().is_none()) {
        warnings
            .push("the dataset is still being read: the estimates of memory and time do not count it yet".to_owned());
    }
    warnings.extend(labels::warnings(job, inputs, &network.detected.graphs[0], network.task));
    if dataset.normalize == Normalization::None {
        warnings.push(inputs.dataset.and_then(DatasetInput::facts).map_or(UNNORMALIZED, unnormalized).to_owned());
    }
    warnings.extend(held_out::validation(job, &inputs.members, inputs.known_dataset()).warning());
    let validates = dataset.validates_on(inputs.known_dataset().own) != ValidationSource::None;
    if job.finetune.is_none() {
        warnings.push("`finetune` is null: the fused network is published without training".to_owned());
    } else if !validates {
        warnings.push(whatever_it_does(network.task).to_owned());
    }
    let has_test = |facts: &DatasetFacts| facts.splits.contains_key("test") && facts.has_labels();
    if dataset.test.is_none() && inputs.facts().is_some_and(|facts| !has_test(facts)) {
        warnings.push(match (inputs.has_labels(), validates) {
            (_, true) => "there is no test split: the report has validation figures only".to_owned(),
            (true, false) => "there is neither a validation nor a test split: nothing is measured".to_owned(),
            (false, false) => {
                "the dataset has no labels: networks are chosen by what comes nearest to the ensemble, and nothing is \
                               measured; labelled examples can be named as `dataset.test`"
                    .to_owned()
            }
        });
    }
    warnings
}
