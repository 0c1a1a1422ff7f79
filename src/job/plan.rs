//! What a job will do, for a reader: the answer to `validate_only`, and part of every job.

use serde::{Deserialize, Serialize};

use crate::domain::dataset::DatasetFacts;
use crate::job::request::{Allocation, Budget, JobRequest, Optimizer, Order, Size};
use crate::job::resolve::{DatasetInput, Inputs, Network};
use crate::model::costs::Costs;
use crate::model::plan::{FusionPlan, LayerPlan};
use crate::model::precision::Precision;

/// Multiply-accumulate operations per second that the time estimate assumes; two cores of a server do about this.
const ASSUMED_MACS_PER_SECOND: f64 = 3e10;

/// Bytes per second at which members are read, ranked and gathered, by assumption.
const ASSUMED_BYTES_PER_SECOND: f64 = 2e9;

/// Memory for blocks of rows on their way from the members to the fused file, and for everything small.
const BUFFERS: u64 = 64 << 20;

/// Examples per batch of an evaluation.
const EVALUATION_BATCH: u64 = 256;

/// Examples that sensitivities are measured on at most.
pub const SENSITIVITY_EXAMPLES: u64 = 256;

/// Multiply-accumulates that measuring sensitivities takes at most.
pub const SENSITIVITY_MACS: u64 = 2_000_000_000_000;

/// What becomes of the members.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// What that estimate adds up.
    pub memory_basis: String,
    /// Estimate of the time that the job takes.
    pub seconds_estimate: f64,
    /// What that estimate adds up, and at which speed.
    pub seconds_basis: String,
    /// What a user should look at before starting the job.
    pub warnings: Vec<String>,
}

/// One figure for the networks in question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// Of each member.
    pub members: Vec<u64>,
    /// Of the concatenated network, which is never built.
    pub concatenated: u64,
    /// Of the fused network.
    pub fused: u64,
}

impl Plan {
    /// The plan for `network`, whose own plan is not there yet.
    pub(super) fn new(job: &JobRequest, inputs: &Inputs<'_>, network: &Network) -> Self {
        let Network { detected, fusion, precision, .. } = network;
        let own = network.own.iter().zip(&inputs.members);
        let members: Vec<Costs> = own.map(|(graph, header)| Costs::of(graph, &Precision::shared(&[*header]))).collect();
        let compare = |figure: fn(&Costs) -> u64| Comparison {
            members: members.iter().map(figure).collect(),
            concatenated: figure(&fusion.concatenated),
            fused: 0,
        };
        let work = Work::of(job, inputs, &members, network);
        let (memory_peak_bytes, memory_basis) = work.memory();
        let (seconds_estimate, seconds_basis) = work.seconds();
        let mut plan = Self {
            architecture: detected.family.clone(),
            assumptions: detected.assumptions.clone(),
            layers: Vec::new(),
            parameters: compare(|costs| costs.parameters),
            macs: compare(|costs| costs.macs),
            bytes: compare(|costs| costs.bytes),
            memory_peak_bytes,
            memory_basis,
            seconds_estimate,
            seconds_basis,
            warnings: warnings(job, inputs, network),
        };
        plan.resize(fusion, precision);
        plan
    }

    /// Enters the widths and costs of another fused network of the same members.
    pub(super) fn resize(&mut self, fusion: &FusionPlan, precision: &Precision) {
        let fused = Costs::of(&fusion.fused, precision);
        self.layers.clone_from(&fusion.layers);
        (self.parameters.fused, self.macs.fused, self.bytes.fused) = (fused.parameters, fused.macs, fused.bytes);
    }
}

/// What a job computes with, as far as its estimates need to know.
#[derive(Debug)]
struct Work {
    finetune: Option<(u64, u64)>,
    /// Buffers of the optimizer per weight.
    optimizer_buffers: u64,
    /// Examples of the train split without what is held out of it.
    train: u64,
    /// Examples of the splits that candidates are measured on.
    measured: u64,
    data_bytes: u64,
    /// Of all members together.
    members: Costs,
    /// Bytes of the largest network, at four bytes per weight.
    largest: u64,
    fused: Costs,
    /// Elements of all activations for one example.
    activations: u64,
    joins: u64,
    /// Multiply-accumulates of measuring sensitivities, at most.
    probing: u64,
    /// Whether the members' units are put in one order.
    aligns: bool,
    /// Epochs of the concatenated network, and what it costs; where it is trained.
    merged: Option<(u64, Costs)>,
}

impl Work {
    fn of(job: &JobRequest, inputs: &Inputs<'_>, members: &[Costs], network: &Network) -> Self {
        let (graph, f32s) = (&network.fusion.fused, Precision::default());
        let activations: usize = graph.iter().map(|(id, _)| graph.shape(id).iter().product::<usize>()).sum();
        let finetune = job.finetune.as_ref();
        let mut work = Self {
            finetune: finetune.map(|finetune| (finetune.epochs as u64, finetune.batch_size as u64)),
            optimizer_buffers: match finetune.map(|finetune| finetune.optimizer) {
                Some(Optimizer::AdamW { .. }) => 2,
                Some(Optimizer::Sgd { .. }) | None => 1,
            },
            train: 0,
            measured: 0,
            data_bytes: 0,
            members: members.iter().copied().sum(),
            largest: network.own.iter().chain([graph]).map(|graph| Costs::of(graph, &f32s).bytes).max().unwrap_or(0),
            fused: Costs::of(graph, &f32s),
            activations: activations as u64,
            joins: if matches!(job.method.order, Order::Iterative | Order::Hierarchical) {
                (job.members.len() as u64).saturating_sub(1).max(1)
            } else {
                1
            },
            merged: (job.method.order == Order::MergeFinetunePrune).then(|| {
                let epochs = job.method.merge_epochs.or_else(|| finetune.map(|finetune| finetune.epochs));
                (epochs.unwrap_or(0) as u64, network.fusion.concatenated)
            }),
            probing: 0,
            aligns: job.method.name.aligns(),
        };
        if let (Some(dataset), Some(facts)) = (&job.dataset, inputs.dataset.and_then(DatasetInput::facts)) {
            let count = |split: &str| facts.splits.get(split).map_or(0, |split| split.examples as u64);
            let (train, test) = (count("train"), count("test"));
            let held_out =
                if dataset.validation.is_none() { (train as f64 * dataset.validation_fraction) as u64 } else { 0 };
            let elements: usize = facts.example_shape.iter().product();
            (work.train, work.measured) = (train - held_out, held_out + test);
            work.data_bytes = (train + test) * elements as u64;
            if is_measured(job) {
                work.probing = SENSITIVITY_MACS;
            }
        }
        work
    }

    /// Bytes of anonymous memory, and of what.
    fn memory(&self) -> (u64, String) {
        let mut parts = vec![(BUFFERS, "buffers".to_owned())];
        if self.aligns {
            let weights = self.members.parameters * 4;
            parts.push((weights, "the members' weights in one order of units".to_owned()));
        }
        if let Some((_, batch)) = self.finetune {
            let copies = 3 + self.optimizer_buffers;
            let (which, bytes) = match self.merged {
                Some((_, concatenated)) => ("concatenated", concatenated.parameters * 4),
                None => ("fused", self.fused.bytes),
            };
            let of =
                format!("{copies} times the {which} weights (values, gradients, the optimizer's buffers, best epoch)");
            parts.push((copies * bytes, of));
            parts.push((2 * batch * self.activations * 4, format!("activations and gradients of a batch of {batch}")));
        }
        if self.data_bytes > 0 {
            if self.finetune.is_none() {
                let bytes = self.largest + EVALUATION_BATCH * self.activations * 4;
                parts.push((bytes, "one network at a time that is measured".to_owned()));
            }
            parts.push((self.data_bytes, "the examples, at a byte per value".to_owned()));
        }
        let total = parts.iter().map(|(bytes, _)| bytes).sum();
        let text: Vec<String> = parts.iter().map(|(bytes, of)| format!("{:.1} MB {of}", *bytes as f64 / 1e6)).collect();
        (total, format!("anonymous memory, beside the mapped files: {}", text.join(" + ")))
    }

    /// Seconds, and for what. A training step is three forward passes; the teacher's logits are computed once.
    fn seconds(&self) -> (f64, String) {
        let moved = self.joins * (3 * self.members.bytes + 2 * self.fused.bytes);
        let copying = moved as f64 / ASSUMED_BYTES_PER_SECOND;
        let epochs = self.finetune.map_or(0, |(epochs, _)| epochs);
        let merging = self.merged.map_or(0.0, |(epochs, costs)| epochs as f64 * costs.macs as f64);
        let training = (3 * self.train + self.measured) as f64 * (epochs as f64 * self.fused.macs as f64 + merging);
        let teacher = if epochs > 0 { self.train } else { 0 };
        let candidates = (teacher + self.measured) as f64 * self.members.macs as f64
            + 2.0 * self.measured as f64 * self.fused.macs as f64;
        let computing = (training + candidates + self.probing as f64) / ASSUMED_MACS_PER_SECOND;
        let basis = format!(
            "{copying:.2} s to read, rank and gather at {} GB/s + {computing:.2} s to train and measure at {} G \
             multiply-accumulates/s",
            ASSUMED_BYTES_PER_SECOND / 1e9,
            ASSUMED_MACS_PER_SECOND / 1e9
        );
        (copying + computing, basis)
    }
}

/// Whether a budget is spent by sensitivity.
fn is_measured(job: &JobRequest) -> bool {
    matches!(job.target.size, Size::Budget(Budget { allocation: Allocation::Sensitivity, .. }))
}

fn warnings(job: &JobRequest, inputs: &Inputs<'_>, network: &Network) -> Vec<String> {
    let mut warnings = Vec::new();
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
        warnings.push("without a dataset nothing is trained and nothing measured".to_owned());
        return warnings;
    };
    if dataset.normalize.is_none() {
        warnings.push(
            "no `normalize` is given: the members see the data as it is stored (pixels divided by 255)".to_owned(),
        );
    }
    if job.finetune.is_none() {
        warnings.push("`finetune` is null: the fused network is published without training".to_owned());
    } else if dataset.validation.is_none() && dataset.validation_fraction == 0.0 {
        warnings.push("there is no validation split: the last epoch is published, whatever its accuracy".to_owned());
    }
    let has_test = |facts: &DatasetFacts| facts.splits.contains_key("test");
    if dataset.test.is_none() && inputs.dataset.and_then(DatasetInput::facts).is_some_and(|facts| !has_test(facts)) {
        warnings.push("there is no test split: the report has validation figures only".to_owned());
    }
    warnings
}
