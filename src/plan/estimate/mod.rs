//! What a job will take: memory and time, added up from what it does, phase by phase.

mod calibration;
mod disk;
mod gpu;
mod interpolation;
mod memory;
mod seconds;

use crate::cost::budgets::SENSITIVITY_MACS;
use crate::cost::calibration::mixes;
use crate::cost::evaluation::{Fusion, OtherMethods, RULE_INPUTS, measures_members, networks};
use crate::cost::interpolation::levels_of;
use crate::cost::{Counts, forward_seconds, identification, joins, step_seconds};
use crate::domain::dataset::{DatasetFacts, DatasetFormat, LabelForm};
use crate::model::costs::Costs;
use crate::model::graph::{Graph, Op};
use crate::model::parameters;
use crate::model::precision::Precision;
use crate::plan::held_out::{self, Validation};
use crate::plan::identity;
use crate::plan::network::{DatasetInput, JobFiles, KnownSpeed, Network};
use crate::plan::request::JobRequest;
use crate::settings::{
    Allocation, Budget, Compensate, EnsembleRule, Objective, Optimizer, Order, ReportCandidate, Size, ValidationSource,
};

use calibration::Calibration;
use gpu::Filled;
use interpolation::Interpolation;

/// What a job computes with, as far as its estimates need to know.
#[derive(Debug, Default)]
pub(super) struct Work {
    training: Option<Training>,
    /// Examples of the train split without what is held out of it.
    train: u64,
    /// Examples of the validation split.
    validation: u64,
    /// Examples of the splits that candidates are measured on.
    measured: u64,
    /// All examples of all splits.
    examples: u64,
    /// Bytes of them and their labels.
    data_bytes: u64,
    /// Bytes of what is said of the examples beside their classes, in memory.
    labels: u64,
    /// Bytes of all examples on the disk.
    decoded_bytes: u64,
    /// Bytes of pixels that are decoded from pictures.
    decoded: u64,
    classes: u64,
    /// Elements of one example.
    example: u64,
    /// Of all members together.
    members: Costs,
    /// Bytes of members' tensors that their files do not hold as they are read.
    copied: u64,
    /// Bytes of the largest network, at four bytes per weight.
    largest: u64,
    fused: Costs,
    /// Elements of the fused network's activations for one example, without those that are not stored.
    activations: u64,
    /// Elements of the largest activation of any network for one example.
    widest: u64,
    /// The same of all members side by side.
    stacked: u64,
    counts: Counts,
    /// The best member, which is trained beside the fused network as its controls.
    control: Costs,
    /// Controls that are trained, and how many of them learn from the ensemble.
    controls: [u64; 2],
    /// Inputs that the rule of the ensemble is chosen by.
    rule_inputs: u64,
    calibration: Option<Calibration>,
    data_free: Option<DataFree>,
    interpolation: Option<Interpolation>,
    /// Multiply-accumulates of measuring sensitivities, at most.
    probing: u64,
    /// Multiply-accumulates of deciding which network the members are.
    identifying: u64,
    /// Whether the members' units are put in one order.
    aligns: bool,
    /// Epochs of the concatenated network, and what it costs; where it is trained.
    merged: Option<(u64, Costs)>,
    pace: Pace,
    filled: Filled,
    /// Bytes of the images that a device may hold.
    images: u64,
}

/// Seconds for one example, by the speed of the device.
#[derive(Debug, Clone, Default)]
struct Pace {
    known: KnownSpeed,
    /// Of the way forward through all members.
    members: f64,
    /// Of the way forward through the fused network, and of a training step.
    fused: f64,
    fused_step: f64,
    /// The same of the best member.
    control: f64,
    control_step: f64,
}

/// Recovery by training.
#[derive(Debug)]
struct Training {
    epochs: u64,
    batch: u64,
    /// Buffers of the optimizer per weight.
    buffers: u64,
    distils: bool,
    /// Whether the teacher sees every batch anew.
    augments: bool,
    /// Whether BatchNorm's statistics are measured once more.
    reestimates: bool,
}

/// Compensation without data: moments of the units of all networks, layer by layer.
#[derive(Debug)]
struct DataFree {
    /// Units of all networks in each layer, and how many rows the layer behind has.
    layers: Vec<(u64, u64)>,
}

impl Work {
    pub(super) fn of(job: &JobRequest, inputs: &JobFiles<'_>, members: &[Costs], network: &Network) -> Self {
        let (graph, f32s) = (&network.fusion.fused, Precision::default());
        let finetune = network.recovery.as_ref().map(|recovery| &recovery.finetune);
        let graphs = || network.detected.graphs.iter().chain([graph]);
        let training = finetune.map(|finetune| Training {
            epochs: finetune.epochs as u64,
            batch: finetune.batch_size as u64,
            buffers: if matches!(finetune.optimizer, Optimizer::AdamW { .. }) { 2 } else { 1 },
            distils: matches!(finetune.objective, Objective::Distill { .. }),
            augments: finetune.augment.is_some(),
            reestimates: finetune.batch_norm_reestimate,
        });
        let control = |candidate| u64::from(training.is_some() && job.evaluate.contains(&candidate));
        let distilled = control(ReportCandidate::Distilled);
        let mut work = Self {
            classes: graph.classes() as u64,
            members: members.iter().copied().sum(),
            copied: inputs.members.iter().map(|header| header.copied_bytes).sum(),
            largest: network.own.iter().chain([graph]).map(|graph| Costs::of(graph, &f32s).bytes).max().unwrap_or(0),
            fused: Costs::of(graph, &f32s),
            activations: stored(graph),
            widest: graphs().map(widest).max().unwrap_or(0),
            stacked: network.detected.graphs.iter().map(widest).sum(),
            counts: counts(job, network, None),
            aligns: job.method.name.aligns(),
            merged: (job.method.order == Order::MergeFinetunePrune).then(|| {
                let epochs = job.method.merge_epochs.or_else(|| finetune.map(|finetune| finetune.epochs));
                (epochs.unwrap_or(0) as u64, network.fusion.concatenated)
            }),
            control: Costs::of(&network.detected.graphs[0], &f32s),
            controls: [control(ReportCandidate::TrainedOn) + distilled, distilled],
            training,
            pace: Pace::of(network, &inputs.speed),
            filled: Filled::of(&network.detected.graphs, graph, job.precision),
            ..Self::default()
        };
        let mut tested = 0;
        if let (Some(dataset), Some(facts)) = (&job.dataset, inputs.dataset.and_then(DatasetInput::facts)) {
            let count = |split: &str| facts.splits.get(split).map_or(0, |split| split.examples as u64);
            let (train, test) = (count("train"), if facts.has_labels() { count("test") } else { 0 });
            let (drawn, held_out) = match dataset.validates_on(held_out::own_validation(facts)) {
                ValidationSource::Drawn(fraction) => [(train as f64 * fraction) as u64; 2].into(),
                ValidationSource::Own => (0, count("validation")),
                ValidationSource::Named | ValidationSource::None => (0, 0),
            };
            let others = [inputs.validation, inputs.test].into_iter().flatten().filter_map(DatasetInput::facts);
            let others: u64 = others.flat_map(|facts| facts.splits.values()).map(|split| split.examples as u64).sum();
            let elements: u64 = facts.example_shape.iter().map(|axis| *axis as u64).product();
            // Arrays may hold floats, which stay what they are.
            let size = match facts.format {
                DatasetFormat::Npz | DatasetFormat::Npy | DatasetFormat::Safetensors => 4,
                DatasetFormat::Idx
                | DatasetFormat::ClassFolders
                | DatasetFormat::LabelTable
                | DatasetFormat::CifarBinary
                | DatasetFormat::CifarPython
                | DatasetFormat::Parquet => 1,
            };
            let pictures = facts.format.is_of_images();
            work.decoded = if pictures { (train + test + others) * elements } else { 0 };
            (work.train, work.validation, work.measured) = (train - drawn, held_out, held_out + test + others);
            work.counts = counts(job, network, Some(work.measured as usize));
            work.example = elements;
            work.examples = train + test + others;
            work.images = if size == 1 && facts.example_shape.len() == 3 { work.examples * elements } else { 0 };
            work.decoded_bytes = [inputs.dataset, inputs.validation, inputs.test]
                .into_iter()
                .flatten()
                .filter_map(DatasetInput::facts)
                .map(DatasetFacts::decoded_bytes)
                .sum();
            work.data_bytes = work.examples * (elements * size + 4);
            work.labels = label_bytes(facts) * work.examples;
            work.interpolation = Interpolation::of(job, network, work.train);
            work.calibration = Calibration::of(job, network, work.train, based(job, inputs, network));
            let rule = job.method.ensemble;
            let decides = rule == EnsembleRule::Auto && network.task.is_classification();
            if members.len() > 1 && (decides || rule.weighs_classes()) {
                work.rule_inputs = if held_out > 0 { held_out } else { work.train.min(RULE_INPUTS as u64) };
            }
            tested = test + others;
            if matches!(job.target.size, Size::Budget(Budget { allocation: Allocation::Sensitivity, .. })) {
                work.probing = SENSITIVITY_MACS;
            }
        }
        work.identifying = identifying(job, network, [work.train, tested], inputs.has_labels());
        work.data_free = (network.compensate == Compensate::DataFree).then(|| DataFree::of(network));
        work
    }

    /// What the job will have counted in the end.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether there are splits to measure on, and so networks to run.
    fn has_data(&self) -> bool {
        self.data_bytes > 0
    }
}

impl Pace {
    fn of(network: &Network, known: &KnownSpeed) -> Self {
        let forward = |graph: &Graph| forward_seconds(graph, &known.speed);
        let step = |graph: &Graph| step_seconds(graph, &known.speed);
        let (members, fused) = (&network.detected.graphs, &network.fusion.fused);
        Self {
            members: members.iter().map(forward).sum(),
            fused: forward(fused),
            fused_step: step(fused),
            control: forward(&members[0]),
            control_step: step(&members[0]),
            known: known.clone(),
        }
    }
}

/// Bytes of what is said of one example beside its class: its numbers as they are stored, and as the task takes them.
fn label_bytes(facts: &DatasetFacts) -> u64 {
    match facts.labels {
        LabelForm::Classes | LabelForm::FloatClasses | LabelForm::Absent => 0,
        LabelForm::Rows { columns, .. } => 8 * columns as u64,
    }
}

/// Networks that are tried beside those whose layers are all mixed: the best member but for its last layers, or pruned alone by both rankings.
fn based(job: &JobRequest, inputs: &JobFiles<'_>, network: &Network) -> u64 {
    let unseen = held_out::validation(job, &inputs.members, inputs.known_dataset()) == Validation::Unseen;
    let joint = job.method.order == Order::Joint && network.detected.graphs.len() > 1;
    let fused = &network.fusion.fused;
    let as_wide =
        |member: &Graph| member.iter().zip(fused.iter()).all(|((id, _), _)| member.shape(id)[0] >= fused.shape(id)[0]);
    let has_one_size = network.detected.graphs.iter().all(|member| member == fused);
    match () {
        () if !unseen || !joint => 0,
        () if has_one_size => 3,
        () if network.detected.graphs.iter().all(as_wide) => 2,
        () => 0,
    }
}

impl DataFree {
    fn of(network: &Network) -> Self {
        let graphs = || network.detected.graphs.iter().chain([&network.fusion.fused]);
        let fused = &network.fusion.fused;
        let dense = fused.iter().filter(|(_, node)| mixes(&node.op));
        let layers = dense.map(|(id, _)| {
            let units = graphs().map(|graph| graph.shape(id)[0] as u64).sum();
            (units, fused.shape(id)[0] as u64)
        });
        Self { layers: layers.collect() }
    }
}

/// Multiply-accumulates of deciding which of several networks the members are, with so many examples to train and to test on, which
/// have labels or not.
fn identifying(job: &JobRequest, network: &Network, [train, test]: [u64; 2], has_labels: bool) -> u64 {
    let candidates = &network.detected.candidates;
    let Some(decider) = identity::decider(job, &network.detected, has_labels) else { return 0 };
    let macs = candidates.iter().map(|candidate| Costs::of(&candidate.graph, &Precision::default()).macs);
    let mean = macs.fold(0, u64::saturating_add) / candidates.len() as u64;
    let passes = identification::passes(decider, candidates.len(), job.members.len(), train as usize, test as usize);
    passes.saturating_mul(mean)
}

/// Elements of all activations of one example but those that melt into the operation before.
fn stored(graph: &Graph) -> u64 {
    let melts = |op: &Op| matches!(op, Op::Relu | Op::Flatten | Op::Dropout { .. });
    let stored = graph.iter().filter(|(_, node)| !melts(&node.op));
    stored.map(|(id, _)| elements(graph.shape(id))).sum()
}

/// Elements of the largest activation of one example.
fn widest(graph: &Graph) -> u64 {
    graph.iter().map(|(id, _)| elements(graph.shape(id))).max().unwrap_or(0)
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|axis| *axis as u64).product()
}

/// What the job will have counted in the end, if it measures on so many examples, which may be none; without data it runs no
/// network.
fn counts(job: &JobRequest, network: &Network, measured: Option<usize>) -> Counts {
    let joins = joins(job.method.order, job.members.len());
    let Some(measured) = measured else { return Counts { joins, ..Counts::default() } };
    let shapes =
        network.detected.graphs.iter().map(|graph| parameters::of_graph(graph).into_iter().map(|tensor| tensor.shape));
    let shapes: Vec<Vec<Vec<usize>>> = shapes.map(Iterator::collect).collect();
    let fusion = Fusion {
        others: OtherMethods {
            average: shapes.windows(2).all(|pair| pair[0] == pair[1]),
            interpolate: levels_of(&network.fusion.fused, &network.detected.graphs).is_ok(),
        },
        compensates: network.compensate != Compensate::None,
        trains: job.finetune.is_some(),
    };
    let members = if measures_members(&job.evaluate) { job.members.len() } else { 0 };
    let candidates = job.evaluate.iter().map(|candidate| networks(*candidate, fusion)).sum::<usize>();
    Counts { joins, members, candidates, examples: (members + candidates) * measured }
}

#[cfg(test)]
mod tests;
