//! Datasets as they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::problem::ProblemView;
use super::time;
use crate::domain::dataset::{DatasetFacts, DatasetFormat, Example, SplitFacts};
use crate::store::datasets::{DatasetState, StoredDataset};

/// A dataset.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetView {
    /// Its id.
    #[schema(example = "data_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// Its name, unique among the tenant's datasets.
    #[schema(example = "mnist.npz")]
    name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    sha256: String,
    /// Its length in bytes.
    #[schema(example = 11_490_434)]
    bytes: u64,
    /// The labels that the client has given it.
    labels: BTreeMap<String, String>,
    /// When it was uploaded.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    created_at: String,
    /// `validating` while it is being checked, then `ready` or `invalid`.
    #[schema(value_type = String, example = "ready")]
    state: &'static str,
    /// What it holds; only when it is `ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<FactsView>,
    /// Why it cannot be used; only when it is `invalid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ProblemView>,
}

/// What a dataset holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct FactsView {
    /// The layout that was recognised: `npz`, `safetensors`, `idx`, `cifar_binary`, `class_folders` or `parquet`.
    #[schema(value_type = String, example = "npz")]
    format: DatasetFormat,
    /// Shape of one example.
    #[schema(example = json!([1, 28, 28]))]
    example_shape: Vec<usize>,
    /// Number of classes: of class folders, of names, or the highest label plus one; 0 where examples have no class.
    #[schema(example = 10)]
    classes: usize,
    /// Names of the classes in the order of their labels, if the file has them.
    class_names: Option<Vec<String>>,
    /// The splits: `train`, and `test` if there is one.
    splits: BTreeMap<String, SplitView>,
    /// Mean of each channel of the train split, with bytes divided by 255.
    #[schema(example = json!([0.1307]))]
    mean: Vec<f64>,
    /// Standard deviation of each channel of the train split, with bytes divided by 255.
    #[schema(example = json!([0.3081]))]
    std: Vec<f64>,
    /// A few examples of the train split, evenly spread; not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    preview: Vec<ExampleView>,
    /// Whether its elements are bytes, which are divided by 255 when they are used; null where it was read by an older version.
    byte_elements: Option<bool>,
    /// What its owner may not expect of it, in words.
    notes: Vec<String>,
    /// How many files beside the images of class folders were passed over, by the reason: `hidden`, `of the operating system` or `not an image`.
    #[schema(example = json!({"hidden": 2, "not an image": 3}))]
    skipped: BTreeMap<String, usize>,
    /// What stands in the place of labels where it is not one whole number or name per example; a job's task says what it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "14 per example (only 0 and 1)")]
    label_form: Option<String>,
}

/// One example of a dataset.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExampleView {
    /// Its position in the train split.
    #[schema(example = 6000)]
    index: usize,
    /// Its label; null where examples have no class.
    #[schema(example = 7)]
    label: Option<u32>,
    /// The first few numbers that are said of it where it has no class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<f32>,
    /// The first few values, for examples that are not images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<f32>,
    /// A small picture as a `data:` URL, for images with 1 or 3 channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "data:image/png;base64,iVBORw0KGgo=")]
    image: Option<String>,
}

impl From<Example> for ExampleView {
    fn from(Example { index, label, targets, values, image }: Example) -> Self {
        Self { index, label, targets, values, image }
    }
}

/// One split of a dataset.
#[derive(Debug, Serialize, ToSchema)]
pub struct SplitView {
    /// Number of examples.
    #[schema(example = 60_000)]
    examples: usize,
    /// Examples of each class; empty where examples have no class.
    #[schema(example = json!([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]))]
    per_class: Vec<usize>,
}

impl From<SplitFacts> for SplitView {
    fn from(split: SplitFacts) -> Self {
        Self { examples: split.examples, per_class: split.per_class }
    }
}

impl From<DatasetFacts> for FactsView {
    fn from(facts: DatasetFacts) -> Self {
        Self {
            format: facts.format,
            example_shape: facts.example_shape,
            classes: facts.classes,
            class_names: facts.class_names,
            splits: facts.splits.into_iter().map(|(name, split)| (name, split.into())).collect(),
            mean: facts.mean,
            std: facts.std,
            preview: facts.preview.into_iter().map(ExampleView::from).collect(),
            byte_elements: facts.byte_elements,
            notes: facts.notes,
            skipped: facts.skipped,
            label_form: (!facts.labels.is_of_classes()).then(|| facts.labels.to_string()),
        }
    }
}

impl From<StoredDataset> for DatasetView {
    fn from(dataset: StoredDataset) -> Self {
        let (file, state) = (dataset.file, dataset.state.as_str());
        let (facts, error) = match dataset.state {
            DatasetState::Validating => (None, None),
            DatasetState::Ready(facts) => (Some(facts.into()), None),
            DatasetState::Invalid(problem) => (None, Some(ProblemView::new(&problem, None))),
        };
        Self {
            id: file.id,
            name: file.name,
            sha256: file.sha256,
            bytes: file.bytes,
            labels: file.labels,
            created_at: time(file.created_at),
            state,
            facts,
            error,
        }
    }
}

impl DatasetView {
    /// The dataset without the pictures of its examples: they are long, and nothing for a terminal.
    #[must_use]
    pub fn without_pictures(mut self) -> Self {
        for example in self.facts.iter_mut().flat_map(|facts| &mut facts.preview) {
            example.image = None;
        }
        self
    }

    /// The dataset as it stands in lists.
    #[must_use]
    pub fn in_a_list(dataset: StoredDataset) -> Self {
        let mut view = Self::from(dataset);
        if let Some(facts) = &mut view.facts {
            facts.preview.clear();
        }
        view
    }
}
