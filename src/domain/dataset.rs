//! What is known of a dataset once it has been read through: enough to plan a job without its pixels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a dataset's file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetFormat {
    /// NumPy archive with arrays `x` and `y` (and, optionally, `x_val`, `y_val`, `x_test` and `y_test`), or `MedMNIST`'s; without any
    /// labels, `x` alone.
    Npz,
    /// One NumPy array, of inputs without labels.
    Npy,
    /// safetensors with tensors as the arrays of [`Self::Npz`].
    Safetensors,
    /// zip or tar (also `.tar.gz`) of the four MNIST IDX files.
    Idx,
    /// zip or tar (also `.tar.gz`) of CIFAR-10's or CIFAR-100's binary files.
    CifarBinary,
    /// zip or tar (also `.tar.gz`) of CIFAR-10's or CIFAR-100's pickled files, as torchvision keeps them.
    CifarPython,
    /// zip or tar (also `.tar.gz`) of one folder of images per class, optionally below `train/`, `val/` and `test/`.
    ClassFolders,
    /// zip or tar (also `.tar.gz`) of images, with tables (`labels.csv`) that name each image and its label.
    LabelTable,
    /// Parquet with a PNG or JPEG file and a label in each row; one file, or a zip or tar (also `.tar.gz`) of several.
    Parquet,
}

impl DatasetFormat {
    /// Whether each example is an image file, which is decoded before it is used.
    #[must_use]
    pub fn is_of_images(self) -> bool {
        matches!(self, Self::ClassFolders | Self::LabelTable | Self::Parquet)
    }
}

/// What the labels of a dataset are, before a task says what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelForm {
    /// One class per example: a whole number from 0 stored as such, or a name.
    #[default]
    Classes,
    /// Whole numbers from 0, one per example, stored as floats.
    FloatClasses,
    /// A row of numbers for each example.
    Rows {
        /// Numbers of one example.
        columns: usize,
        /// What they are, over all examples of all splits.
        values: RowValues,
        /// Whether they are stored as floats.
        floats: bool,
    },
    /// There are none.
    Absent,
}

/// What numbers all rows of labels hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowValues {
    /// A single 1 in each row of zeros: one class of several, or one label of several.
    OneHot,
    /// 0 and 1.
    Flags,
    /// Whole numbers, not only 0 and 1.
    Whole,
    /// Some that are not whole.
    Real,
}

impl LabelForm {
    /// Whether each example has the number or the name of a class.
    #[must_use]
    pub fn is_of_classes(&self) -> bool {
        *self == Self::Classes
    }
}

impl std::fmt::Display for LabelForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Classes => f.write_str("one whole number per example"),
            Self::Absent => f.write_str("none"),
            Self::FloatClasses => f.write_str("one whole number per example, stored as floats"),
            Self::Rows { columns, values, floats } => {
                let what = match values {
                    RowValues::OneHot => "a single 1 among zeros in every row",
                    RowValues::Flags => "only 0 and 1",
                    RowValues::Whole => "whole numbers",
                    RowValues::Real => "numbers that are not all whole",
                };
                let stored = if *floats && *values != RowValues::Real { ", stored as floats" } else { "" };
                write!(f, "{columns} per example ({what}{stored})")
            }
        }
    }
}

/// One split of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitFacts {
    /// Number of examples.
    pub examples: usize,
    /// Examples of each class, index = label; empty where examples have no class.
    pub per_class: Vec<usize>,
}

impl DatasetFacts {
    /// A dataset of arrays without a test split, as tests need one.
    #[cfg(test)]
    pub(crate) fn of_arrays(example_shape: &[usize], per_class: Vec<usize>) -> Self {
        let classes = per_class.len();
        let train = SplitFacts { examples: per_class.iter().sum(), per_class };
        Self {
            format: DatasetFormat::Npz,
            example_shape: example_shape.to_vec(),
            classes,
            class_names: None,
            splits: BTreeMap::from([("train".to_owned(), train)]),
            mean: vec![0.0],
            std: vec![1.0],
            preview: Vec::new(),
            byte_elements: None,
            notes: Vec::new(),
            skipped: BTreeMap::new(),
            labels: LabelForm::Classes,
        }
    }

    /// The names of the classes, where labels are their places in the alphabet.
    #[must_use]
    pub fn folders(&self) -> Option<&[String]> {
        let by_name = matches!(self.format, DatasetFormat::ClassFolders | DatasetFormat::LabelTable);
        self.class_names.as_deref().filter(|_| by_name)
    }

    /// The label in `order` of each class.
    ///
    /// # Errors
    /// The first name without a place there, in words.
    pub fn places_in(&self, order: &[String]) -> Result<Vec<usize>, String> {
        let Some(names) = &self.class_names else {
            return Err("its labels are numbers without names, so that `classes` cannot put them in order".to_owned());
        };
        let place = |name: &String| {
            let place = order.iter().position(|other| other == name);
            place.ok_or_else(|| format!("its class `{name}` is none of the {} in `classes`", order.len()))
        };
        names.iter().map(place).collect()
    }

    /// The same with the classes in another order, which may name more than these.
    ///
    /// # Errors
    /// As [`Self::places_in`].
    pub fn relabelled(&self, order: &[String]) -> Result<Self, String> {
        let places = self.places_in(order)?;
        let mut new = self.clone();
        for split in new.splits.values_mut() {
            let mut per_class = vec![0; order.len()];
            split.per_class.iter().zip(&places).for_each(|(examples, place)| per_class[*place] += examples);
            split.per_class = per_class;
        }
        for example in &mut new.preview {
            let place = |label: u32| places.get(label as usize).map_or(label, |place| *place as u32);
            example.label = example.label.map(place);
        }
        (new.classes, new.class_names) = (order.len(), Some(order.to_vec()));
        Ok(new)
    }

    /// Whether examples are images of one channel.
    #[must_use]
    pub fn is_grey(&self) -> bool {
        matches!(self.example_shape[..], [1, _, _])
    }

    /// The same with the only channel of its images three times.
    #[must_use]
    pub fn in_colour(mut self) -> Self {
        self.example_shape[0] = 3;
        self.mean = self.mean.repeat(3);
        self.std = self.std.repeat(3);
        self
    }

    /// Whether the dataset brings a validation split of its own.
    #[must_use]
    pub fn has_validation(&self) -> bool {
        self.splits.contains_key("validation")
    }

    /// Whether something is said of each example.
    #[must_use]
    pub fn has_labels(&self) -> bool {
        self.labels != LabelForm::Absent
    }

    /// The label of every example of the train split, where there is only one.
    #[must_use]
    pub fn only_label(&self) -> Option<usize> {
        let per_class = &self.splits.get("train")?.per_class;
        let mut labels = per_class.iter().enumerate().filter(|(_, examples)| **examples > 0).map(|(label, _)| label);
        let first = labels.next()?;
        labels.next().is_none().then_some(first)
    }

    /// A label in words: its number and, where the files have it, its name.
    #[must_use]
    pub fn label_in_words(&self, label: usize) -> String {
        let name = self.class_names.as_ref().and_then(|names| names.get(label));
        name.map_or_else(|| label.to_string(), |name| format!("{label} (`{name}`)"))
    }

    /// Bytes that its examples take on the disk while a job uses them: those of arrays as floats at most, those of pictures as
    /// bytes, and grey pictures beside their colour ones while they are made of them.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        let elements = self.example_shape.iter().fold(1, |product: u64, axis| product.saturating_mul(*axis as u64));
        let examples: u64 = self.splits.values().map(|split| split.examples as u64).sum();
        let values = examples.saturating_mul(elements);
        match self.format {
            DatasetFormat::Npz | DatasetFormat::Npy | DatasetFormat::Safetensors => values.saturating_mul(4),
            DatasetFormat::Idx | DatasetFormat::CifarBinary | DatasetFormat::CifarPython => values,
            DatasetFormat::ClassFolders | DatasetFormat::LabelTable | DatasetFormat::Parquet => {
                values.saturating_add(values / 3)
            }
        }
    }
}

/// One example of a dataset, for people to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Its position in the train split.
    pub index: usize,
    /// Its label; none where it has no class.
    pub label: Option<u32>,
    /// The first few numbers that are said of it where it has no class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<f32>,
    /// The first few values of an example that is no image.
    pub values: Vec<f32>,
    /// A small picture of one that is, as a `data:` address.
    pub image: Option<String>,
}

/// What reading a dataset through has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetFacts {
    /// The layout that was recognised.
    pub format: DatasetFormat,
    /// Shape of one example: `[D]` or `[C, H, W]`.
    pub example_shape: Vec<usize>,
    /// Number of classes: the highest label plus one, or the number of class folders; 0 where examples have no class.
    pub classes: usize,
    /// Class names in label order, where the files name them.
    pub class_names: Option<Vec<String>>,
    /// The splits: always `train`; `validation` and `test` where the dataset brings them.
    pub splits: BTreeMap<String, SplitFacts>,
    /// Mean per channel of the train split after division by 255 for bytes (one value for `[D]` shapes).
    pub mean: Vec<f64>,
    /// Standard deviation per channel, likewise.
    pub std: Vec<f64>,
    /// A few examples of the train split.
    pub preview: Vec<Example>,
    /// Whether examples are bytes, which are divided by 255 when they are used; unknown of facts that are older than this.
    #[serde(default)]
    pub byte_elements: Option<bool>,
    /// What its owner may not expect of it.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How many files beside class folders' images were passed over, by the reason.
    #[serde(default)]
    pub skipped: BTreeMap<String, usize>,
    /// What the labels are; not said of classes.
    #[serde(default, skip_serializing_if = "LabelForm::is_of_classes")]
    pub labels: LabelForm,
}
