//! Trains the members of an ensemble from scratch: one network for each seed, on the same data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::load::{self, Data};
use super::phases::{Halt, Phases};
use super::splits::{Logits, Splits};
use super::{publish, recover, summary};
use crate::data::Dataset;
use crate::domain::dataset::DatasetFacts;
use crate::domain::epoch_choice::EpochChoice;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::domain::progress::Phase;
use crate::domain::score::Score;
use crate::exec::{self, Engine};
use crate::fusion::{Consensus, Mixture, Shares};
use crate::model::families::{self, fresh};
use crate::model::graph::{Graph, Shape};
use crate::plan::held_out::own_validation;
use crate::plan::labels;
use crate::plan::recipe::{EnsembleRecipe, NetworkSource};
use crate::plan::task as prediction;
use crate::process::protocol::{InputFile, Message, TaskGpu};
use crate::report::Computation;
use crate::settings::{Architecture, ComputeOptions, HeldOut, Normalize, PredictionTask};
use crate::tensors::Checkpoint;
use crate::train::{self, Examples, Setup, TrainError, Trained};

/// An ensemble to train, with its files found.
#[derive(Debug)]
pub struct TrainingTask {
    /// What to train.
    pub recipe: EnsembleRecipe,
    /// The dataset, and those to validate and test on where they are others.
    pub datasets: [Option<InputFile>; 3],
    /// The checkpoint whose network is meant, for [`NetworkSource::Like`].
    pub like: Option<InputFile>,
    /// An existing folder for the members, `m{seed}.safetensors`.
    pub folder: PathBuf,
    /// What to compute with.
    pub options: ComputeOptions,
    /// The GPU, where it is one.
    pub gpu: Option<TaskGpu>,
}

impl TrainingTask {
    /// Where the member of `seed` goes.
    fn file(&self, seed: u64) -> PathBuf {
        self.folder.join(format!("m{seed}.safetensors"))
    }

    /// Where it is while it is being written.
    fn unfinished(&self, seed: u64) -> PathBuf {
        self.file(seed).with_extension("unfinished")
    }

    /// The files that are of no use where the training ends early.
    pub fn unfinished_files(&self) -> impl Iterator<Item = PathBuf> {
        self.recipe.seeds.iter().map(|seed| self.unfinished(*seed))
    }
}

/// One trained member.
#[derive(Debug, Clone, Serialize)]
pub struct TrainedMember {
    /// Its seed.
    pub seed: u64,
    /// Its checkpoint.
    pub file: PathBuf,
    /// The epoch that was kept, counted from 1; 0 is the network before its first step.
    pub best_epoch: usize,
    /// On the validation part, if there is one.
    pub validation: Option<Score>,
    /// On the test split, if there is one.
    pub test: Option<Score>,
}

/// A trained ensemble.
#[derive(Debug, Clone, Serialize)]
pub struct TrainedEnsemble {
    /// What the members predict; not said of classes.
    #[serde(skip_serializing_if = "PredictionTask::is_classification")]
    pub task: PredictionTask,
    /// What every input was normalised with, given or measured: a fusion of these members needs the same.
    pub normalize: Option<Normalize>,
    /// What they were trained with.
    pub computation: Computation,
    /// What no member was trained on; none where another dataset validates, or nothing does.
    pub held_out: Option<HeldOut>,
    /// In the order of the seeds.
    pub members: Vec<TrainedMember>,
    /// The mean of the members' logits, on the validation part.
    pub validation: Option<Score>,
    /// Its score on the test split.
    pub test: Option<Score>,
}

/// Trains every member of `task`. `emit` takes progress and epochs; `stop` is read between batches. `None` when it was
/// stopped: members that were finished before stay in the folder.
///
/// # Errors
/// When the files cannot be read, do not fit the network, or the training diverges.
pub fn train_ensemble(
    task: &TrainingTask,
    emit: &mut dyn FnMut(Message),
    stop: &AtomicBool,
) -> Result<Option<TrainedEnsemble>, Problem> {
    match compute(task, &mut Phases::new(emit, stop)) {
        Ok(ensemble) => Ok(Some(ensemble)),
        Err(Halt::Stopped) => Ok(None),
        Err(Halt::Failed(problem)) => Err(problem),
    }
}

fn compute(task: &TrainingTask, phases: &mut Phases<'_>) -> Result<TrainedEnsemble, Halt> {
    phases.begin(Phase::Load)?;
    let open = |file: &Option<InputFile>| file.as_ref().map(|file| load::dataset(file, &task.folder));
    let [Some(main), validation, test] = task.datasets.each_ref().map(open) else {
        return Err(Problem::new(Code::Internal, "a training without a dataset").into());
    };
    let mut datasets = [Some(main?), validation.transpose()?, test.transpose()?];
    load::agree(Some(&task.recipe.dataset), &mut datasets)?;
    let [Some(main), validation, test] = datasets else {
        return Err(Problem::new(Code::Internal, "a training without a dataset").into());
    };
    if !main.facts.has_labels() {
        let faults = labels::training_fault(&main.facts, 0, PredictionTask::default());
        return Err(Problem::faults(faults.into_iter().collect()).into());
    }
    let stated = task.recipe.dataset.task;
    let given = matches!(task.recipe.network, NetworkSource::Graph(_) | NetworkSource::Like(_));
    // Where labels say how many outputs there are, they have to say it alone.
    let open = if given { None } else { Some(prediction::decide(stated, &main.facts, None)) };
    let outputs = open.transpose().map_err(one)?.map_or(0, |predicted| prediction::outputs(predicted, &main.facts));
    let graph = network(task, &main.facts.example_shape, outputs)?;
    let predicted = check(task, &main.facts, [&validation, &test], &graph)?;
    if let Some(misfit) = task.recipe.train.augment.and_then(|augment| augment.misfit(&main.facts.example_shape)) {
        return Err(Problem::faults(vec![Fault::new("/train/augment", FaultCode::ShapeMismatch, misfit)]).into());
    }
    let file = task.datasets[0].as_ref();
    let held_out = file.and_then(|file| HeldOut::of(&task.recipe.dataset, &file.sha256, own_validation(&main.facts)));
    let mut data = Data::new(main, validation, test, &task.recipe.dataset);
    data.fit_task(predicted, graph.classes());
    let count = task.recipe.seeds.len();
    let shares = Shares::of_members(vec![1.0 / count as f64; count]);
    let consensus = Consensus { mixture: Mixture::Logits, shares, classes: graph.classes() };
    let mut means = Logits::NONE;
    let mut members = Vec::with_capacity(task.recipe.seeds.len());
    for seed in &task.recipe.seeds {
        let (mut network, trained) = member(task, &graph, &data, *seed, phases)?;
        members.push(deliver(task, &publish::notes(&graph, true, held_out.as_ref()), *seed, &trained)?);
        network.load(&trained.weights).map_err(TrainError::from)?;
        let logits = data.measured().try_map(|part| train::logits(&mut *network, part, phases.stop_flag()))?;
        means.add(&consensus, members.len() - 1, &logits);
    }
    phases.end();
    let pairs = means.as_ref().zip(data.measured());
    let Splits { validation, test } = pairs.try_map(|(mean, part)| train::score(mean, part))?;
    Ok(TrainedEnsemble {
        task: predicted,
        normalize: data.train.normalize.clone(),
        computation: summary::computation(&task.options, task.gpu.as_ref()),
        held_out,
        members,
        validation,
        test,
    })
}

/// What the network predicts, if the data are for it.
fn check(
    task: &TrainingTask,
    main: &DatasetFacts,
    others: [&Option<Dataset>; 2],
    graph: &Graph,
) -> Result<PredictionTask, Problem> {
    // A network that has to be larger is the network's fault where the labels are what is given.
    let of_network = |fault: Fault| {
        let wider = labels::training_fault(main, graph.classes(), PredictionTask::Classification);
        one(wider.filter(|_| fault.code == FaultCode::LabelOutOfRange).unwrap_or(fault))
    };
    let predicted = prediction::decide(task.recipe.dataset.task, main, Some(graph.classes())).map_err(of_network)?;
    let mut faults: Vec<Fault> = labels::training_fault(main, graph.classes(), predicted).into_iter().collect();
    for (dataset, pointer) in others.into_iter().zip(["/dataset/validation", "/dataset/test"]) {
        let misfit = dataset.as_ref().and_then(|other| prediction::misfit(predicted, &other.facts, graph.classes()));
        faults.extend(misfit.map(|fault| Fault { pointer: pointer.to_owned(), ..fault }));
    }
    faults.extend(prediction::training_faults(predicted, &task.recipe.train, "/train"));
    if faults.is_empty() { Ok(predicted) } else { Err(Problem::faults(faults)) }
}

fn one(fault: Fault) -> Problem {
    Problem::faults(vec![fault])
}

/// The network that every member is.
fn network(task: &TrainingTask, input: &Shape, classes: usize) -> Result<Graph, Problem> {
    match (&task.recipe.network, &task.like) {
        (NetworkSource::Mlp(hidden), _) => Ok(fresh::mlp(input, hidden, classes)?),
        (NetworkSource::LeNet(width), _) => Ok(fresh::lenet(input, *width, classes)?),
        (NetworkSource::Vgg11(width), _) => Ok(fresh::vgg11(input, *width, classes)?),
        (NetworkSource::ResNet18(width), _) => Ok(fresh::resnet18(input, *width, classes)?),
        (NetworkSource::Graph(graph), _) => families::spelled_out(graph, Some(input), "/network/graph"),
        (NetworkSource::Like(_), Some(file)) => {
            let checkpoint = Checkpoint::open(&file.path).map_err(|error| load::named(file, error))?;
            let detected = families::detect(&[checkpoint.header()], &Architecture::default(), Some(input))?;
            let graph = detected.graphs.into_iter().next();
            graph.ok_or_else(|| Problem::new(Code::Internal, "a checkpoint without a network"))
        }
        (NetworkSource::Like(name), None) => Err(Problem::new(Code::Internal, format!("{name} was not opened"))),
    }
}

/// Trains one member.
fn member(
    task: &TrainingTask,
    graph: &Graph,
    data: &Data,
    seed: u64,
    phases: &mut Phases<'_>,
) -> Result<(Box<dyn Engine>, Trained), Halt> {
    phases.begin(Phase::Finetune)?;
    phases.info(format!("training the member of seed {seed}"));
    let train = &task.recipe.train;
    let batch = train.batch_size.min(data.train.len());
    let mut network = exec::compile(&task.options, graph, batch)?;
    let weights = train::init(graph, seed).map_err(Problem::from)?;
    network.load(&weights).map_err(TrainError::from)?;
    let setup = Setup {
        finetune: train,
        seed,
        train: &data.train,
        validation: data.validation.as_ref().map(|part| part as &dyn Examples),
        choice: EpochChoice::Best,
        test: data.test.as_ref().map(|part| part as &dyn Examples),
        teacher: None,
        checkpoints: None,
    };
    let stop = phases.stop_flag();
    let trained = train::train(&mut *network, &setup, None, stop, &mut |event| {
        recover::report(event, train.epochs, phases);
    })?;
    Ok((network, trained))
}

/// Writes a member to its file, whole or not at all.
fn deliver(
    task: &TrainingTask,
    notes: &BTreeMap<String, String>,
    seed: u64,
    trained: &Trained,
) -> Result<TrainedMember, Problem> {
    let (file, unfinished) = (task.file(seed), task.unfinished(seed));
    trained.weights.save(&unfinished, notes)?;
    std::fs::rename(&unfinished, &file).map_err(|error| publish::unwritten(&file, &error))?;
    let [validation, test] = trained.scores;
    Ok(TrainedMember { seed, file, best_epoch: trained.epoch, validation, test })
}
