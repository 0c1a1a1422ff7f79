//! Opens the input files and fits them together.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use crate::data::augment::ImageShape;
use crate::data::{BatchView, Channels, Dataset, Labels, Limits, Pixels, Split};
use crate::domain::dataset::DatasetFacts;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::exec::StoredImages;
use crate::fusion::calibration;
use crate::kernels::truth::Truth;
use crate::model::graph::Shape;
use crate::model::header::CheckpointHeader;
use crate::model::prefix;
use crate::plan::datasets::{class_order, is_repeated, is_rows};
use crate::plan::held_out::{KnownDataset, own_validation};
use crate::plan::network::{DatasetInput, JobFiles};
use crate::plan::resolve::{Planned, resolve};
use crate::process::protocol::{InputFile, Task};
use crate::settings::{DatasetRequest, Normalization, Normalize, OwnValidation, PredictionTask, ValidationSource};
use crate::tensors::Checkpoint;
use crate::train::Examples;

use super::phases::{Halt, Phases};
use super::splits::Splits;

/// The input files, open.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) members: Vec<Checkpoint>,
    pub(super) data: Option<Data>,
    facts: [Option<DatasetFacts>; 3],
}

/// The examples of a job.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) train: Subset,
    pub(super) validation: Option<Subset>,
    pub(super) test: Option<Subset>,
}

/// Some examples of a split, as the networks see them.
#[derive(Debug, Clone)]
pub(super) struct Subset {
    pub(super) split: Arc<Split>,
    /// What is said of all examples of the split, as the task of the networks takes it.
    labels: Arc<Labels>,
    /// Whether the files say it; else zeros stand in its place.
    is_labelled: bool,
    pub(super) indices: Vec<usize>,
    pub(super) normalize: Option<Normalize>,
    /// What their channels are to the networks.
    pub(super) channels: Channels,
}

impl Subset {
    fn whole(split: Split, normalize: Option<Normalize>) -> Self {
        let (indices, labels) = ((0..split.len()).collect(), Arc::clone(split.labels()));
        let is_labelled = labels.are_there();
        Self { split: Arc::new(split), labels, is_labelled, indices, normalize, channels: Channels::Stored }
    }

    fn view<'a>(&'a self, subset: Option<&'a [usize]>) -> BatchView<'a> {
        BatchView { subset, normalize: self.normalize.as_ref(), channels: self.channels }
    }

    /// The normalisation that gives these examples mean 0 and standard deviation 1; a channel of one value keeps its scale.
    pub(super) fn measured(&self) -> Normalize {
        let (mean, std) = self.split.statistics(&self.indices);
        let scale = |std: f64| if (std as f32) > 0.0 { std as f32 } else { 1.0 };
        Normalize {
            mean: mean.into_iter().map(|mean| mean as f32).collect(),
            std: std.into_iter().map(scale).collect(),
        }
    }

    /// The same examples, normalised otherwise.
    pub(super) fn normalized(&self, normalize: Option<Normalize>) -> Self {
        Self { normalize, ..self.clone() }
    }

    /// The first `count` examples as a part of their own.
    pub(super) fn prefix(&self, count: usize) -> Self {
        let indices = self.indices[..count.min(self.indices.len())].to_vec();
        Self { indices, ..self.clone() }
    }

    /// At most `count` examples, evenly spread over all.
    pub(super) fn spread(&self, count: usize) -> Self {
        let all = self.indices.len();
        let taken = count.min(all);
        let indices = (0..taken).map(|index| self.indices[index * all / taken]).collect();
        Self { indices, ..self.clone() }
    }

    /// All examples but one in `step`, and these.
    pub(super) fn split_off(&self, step: usize) -> [Self; 2] {
        let part = |off: bool| {
            let indices = self.indices.iter().enumerate().filter(|(place, _)| (place % step == step - 1) == off);
            Self { indices: indices.map(|(_, index)| *index).collect(), ..self.clone() }
        };
        [part(false), part(true)]
    }

    /// The class of each example: of one label 1 where it is there, else 0. None where examples have several labels, numbers, or nothing.
    pub(super) fn labels(&self) -> Option<Vec<u32>> {
        if !self.is_labelled {
            return None;
        }
        let class = |index: usize| match self.truth(index) {
            Truth::Class(class) => Some(class),
            Truth::Flags([flag]) => Some(u32::from(*flag > 0.5)),
            Truth::Flags(_) | Truth::Numbers(_) => None,
        };
        (0..Examples::len(self)).map(class).collect()
    }

    /// The first `count` examples, normalised, one after another.
    pub(super) fn first(&self, count: usize) -> Vec<f32> {
        let indices = &self.indices[..count.min(self.indices.len())];
        let mut inputs = vec![0.0; indices.len() * Examples::example_len(self)];
        self.split.batch(indices, self.view(None), &mut inputs);
        inputs
    }
}

impl Examples for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn example_len(&self) -> usize {
        self.channels.elements(self.split.elements())
    }

    fn image_shape(&self) -> Option<ImageShape> {
        match (self.channels, self.split.example_shape()) {
            (Channels::Rows, _) => None,
            (Channels::Repeated(copies), [channels, height, width]) => Some([channels * copies, *height, *width]),
            (_, shape) => shape.try_into().ok(),
        }
    }

    fn black(&self, channel: usize) -> f32 {
        Split::black(channel, self.normalize.as_ref())
    }

    fn truth(&self, index: usize) -> Truth<'_> {
        let index = self.indices[index];
        match &*self.labels {
            Labels::Classes(classes) => Truth::Class(classes[index]),
            Labels::Absent(_) => Truth::Class(0),
            Labels::Flags(rows) => Truth::Flags(&rows.values[index * rows.width..(index + 1) * rows.width]),
            Labels::Numbers(rows) => Truth::Numbers(&rows.values[index * rows.width..(index + 1) * rows.width]),
        }
    }

    fn is_labelled(&self) -> bool {
        self.is_labelled
    }

    fn stored(&self) -> Option<StoredImages<'_>> {
        let Pixels::U8(bytes) = self.split.pixels() else { return None };
        let stored = self.split.example_shape();
        let shape = match (self.channels, stored) {
            (Channels::Rows, [1, rows, width]) => [*rows, 1, *width],
            (_, [channels, height, width]) => [*channels, *height, *width],
            (_, [features]) => [1, 1, *features],
            _ => return None,
        };
        let copies = if let Channels::Repeated(copies) = self.channels { copies } else { 1 };
        let normalization = (0..shape[0] * copies).map(|channel| Split::affine(channel, self.normalize.as_ref()));
        let owner: Arc<dyn Any + Send + Sync> = Arc::clone(&self.split) as Arc<_>;
        Some(StoredImages { bytes, owner, shape, normalization: normalization.collect() })
    }

    fn stored_index(&self, index: usize) -> u32 {
        self.indices[index] as u32
    }

    fn fill(&self, indices: &[usize], images: &mut [f32]) {
        self.split.batch(indices, self.view(Some(&self.indices)), images);
    }
}

impl calibration::UnlabelledInputs for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn fill(&self, indices: &[usize], inputs: &mut [f32]) {
        Examples::fill(self, indices, inputs);
    }
}

impl Loaded {
    /// Opens everything that `task` names.
    pub(super) fn open(task: &Task, phases: &mut Phases<'_>) -> Result<Self, Halt> {
        let files = task.members.len() + 1;
        let mut members = Vec::with_capacity(task.members.len());
        for (index, file) in task.members.iter().enumerate() {
            members.push(member(file)?);
            phases.done(index + 1, files);
            phases.check_stop()?;
        }
        let members = with_one_prefix(members);
        let open = |file: &Option<InputFile>| file.as_ref().map(|file| dataset(file, &task.scratch)).transpose();
        let mut datasets = [open(&task.dataset)?, open(&task.validation)?, open(&task.test)?];
        agree(task.job.dataset.as_ref(), &mut datasets)?;
        let [main, validation, test] = datasets;
        let facts = [&main, &validation, &test].map(|dataset| dataset.as_ref().map(|dataset| dataset.facts.clone()));
        let data = match (main, &task.job.dataset) {
            (Some(main), Some(request)) => Some(Data::new(main, validation, test, request)),
            _ => None,
        };
        Ok(Self { members, data, facts })
    }

    /// What the members' files say of themselves.
    pub(super) fn headers(&self) -> Vec<&CheckpointHeader> {
        self.members.iter().map(Checkpoint::header).collect()
    }

    /// What is known of the dataset.
    pub(super) fn known<'a>(&self, task: &'a Task) -> KnownDataset<'a> {
        KnownDataset {
            sha256: task.dataset.as_ref().map(|file| file.sha256.as_str()),
            own: self.main().map_or_else(OwnValidation::default, own_validation),
        }
    }

    /// What reading the dataset has shown.
    pub(super) fn main(&self) -> Option<&DatasetFacts> {
        self.facts[0].as_ref()
    }

    /// Makes the channels of all examples those that networks with the input `input` read.
    pub(super) fn fit_channels(&mut self, input: &Shape) {
        let Some(data) = &mut self.data else { return };
        for part in [Some(&mut data.train), data.validation.as_mut(), data.test.as_mut()].into_iter().flatten() {
            let stored = part.split.example_shape();
            if is_repeated(stored, input) {
                part.channels = Channels::Repeated(input[0]);
            } else if is_rows(stored, input) {
                part.channels = Channels::Rows;
            }
        }
    }

    /// Gives labels the meaning that they have to networks of `task` and so many outputs.
    pub(super) fn fit_task(&mut self, task: PredictionTask, outputs: usize) {
        if let Some(data) = &mut self.data {
            data.fit_task(task, outputs);
        }
    }

    /// The networks and the plan, now that every file is there.
    pub(super) fn planned(&self, task: &Task) -> Result<Planned, Problem> {
        let [dataset, validation, test] = self.facts.each_ref().map(|facts| facts.as_ref().map(DatasetInput::Ready));
        let (members, speed) = (self.headers(), task.speed.clone());
        let resolved = resolve(task.job.clone(), &JobFiles { members, dataset, validation, test, speed })?;
        resolved.planned.ok_or_else(|| Problem::new(Code::Internal, "a job with all its files was not resolved"))
    }
}

impl Data {
    /// What networks are measured on: the validation part and the test split.
    pub(super) fn measured(&self) -> Splits<&Subset> {
        Splits { validation: self.validation.as_ref(), test: self.test.as_ref() }
    }

    /// Gives labels the meaning that they have to networks of `task` and so many outputs.
    pub(super) fn fit_task(&mut self, task: PredictionTask, outputs: usize) {
        let parts = [Some(&mut self.train), self.validation.as_mut(), self.test.as_mut()].into_iter().flatten();
        let mut fitted: Vec<(Arc<Labels>, Arc<Labels>)> = Vec::new();
        for part in parts {
            let known = fitted.iter().find(|(stored, _)| Arc::ptr_eq(stored, &part.labels)).map(|(_, own)| own);
            let own = known.cloned().unwrap_or_else(|| match (task, &*part.labels) {
                (PredictionTask::Classification, Labels::Classes(_)) => Arc::clone(&part.labels),
                (task, labels) => Arc::new(labels.fitted(task, outputs)),
            });
            let stored = std::mem::replace(&mut part.labels, Arc::clone(&own));
            fitted.push((stored, own));
        }
    }

    pub(super) fn new(
        main: Dataset,
        validation: Option<Dataset>,
        test: Option<Dataset>,
        request: &DatasetRequest,
    ) -> Self {
        let part = |split: Split| Subset::whole(split, request.normalize.given().cloned());
        // A dataset that is named for one purpose serves it with the split of that name, if it has one, or its test split.
        let to_test = |dataset: Dataset| part(dataset.test.unwrap_or(dataset.train));
        let to_validate = |dataset: Dataset| match dataset.validation {
            Some(split) => part(split),
            None => part(dataset.test.unwrap_or(dataset.train)),
        };
        let mut train = part(main.train);
        let validation = match (request.validates_on(own_validation(&main.facts)), validation) {
            (ValidationSource::Drawn(fraction), _) => {
                let (kept, held_out) = train.split.validation_split(fraction, request.split_seed);
                train.indices = kept;
                (!held_out.is_empty()).then(|| Subset { indices: held_out, ..train.clone() })
            }
            (ValidationSource::Own, _) => main.validation.map(part),
            (ValidationSource::Named, dataset) => dataset.map(to_validate),
            (ValidationSource::None, _) => None,
        };
        // Nothing can be measured on examples of which nothing is said.
        let own_test = main.test.filter(|split| split.labels().are_there());
        let mut data = Self { train, validation, test: test.map(to_test).or_else(|| own_test.map(part)) };
        if request.normalize == Normalization::Train {
            let measured = data.train.measured();
            let parts = [Some(&mut data.train), data.validation.as_mut(), data.test.as_mut()];
            parts.into_iter().flatten().for_each(|part| part.normalize = Some(measured.clone()));
        }
        data
    }
}

/// Brings the labels of all datasets into one order of classes.
pub(super) fn agree(request: Option<&DatasetRequest>, datasets: &mut [Option<Dataset>; 3]) -> Result<(), Problem> {
    let facts = datasets.each_ref().map(|dataset| dataset.as_ref().map(|dataset| &dataset.facts));
    let Some(order) = request.and_then(|request| class_order(request, facts)) else { return Ok(()) };
    for dataset in datasets.iter_mut().flatten() {
        let fault = |detail| Problem::faults(vec![Fault::new("/dataset", FaultCode::ClassesDiffer, detail)]);
        dataset.relabel(&order).map_err(fault)?;
    }
    Ok(())
}

/// The members, their tensors named as the first one's where only what wrappers put before the names is another.
fn with_one_prefix(members: Vec<Checkpoint>) -> Vec<Checkpoint> {
    let first = members.first().map(|first| prefix::of(first.header()).to_owned()).unwrap_or_default();
    members.into_iter().map(|member| member.with_prefix(&first)).collect()
}

fn member(file: &InputFile) -> Result<Checkpoint, Problem> {
    let checkpoint = Checkpoint::open(&file.path).map_err(|error| named(file, error))?;
    checkpoint.check_finite().map_err(|error| named(file, error))?;
    Ok(checkpoint)
}

/// Decodes a dataset into `folder`.
pub(super) fn dataset(file: &InputFile, folder: &Path) -> Result<Dataset, Problem> {
    Dataset::open(&file.path, folder, &Limits::default()).map_err(|error| named(file, error))
}

/// What is wrong with `file`, by the name that its owner knows.
pub(super) fn named(file: &InputFile, error: impl Into<Problem>) -> Problem {
    let problem = error.into();
    Problem { detail: format!("{}: {}", file.name, problem.detail), ..problem }
}
