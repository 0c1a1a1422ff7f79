//! Where the readers of all formats deliver: checks splits against each other and the limits, and keeps the books.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::labels::{self, Labels};
use super::preview::Preview;
use super::statistics::Statistics;
use super::store::{Draft, PixelType, Pixels};
use super::{Dataset, DatasetError, Limits, Split};
use crate::domain::dataset::{DatasetFacts, DatasetFormat, LabelForm, SplitFacts};

/// Part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SplitName {
    /// To train on, and to validate on a part of it; every dataset has it.
    Train,
    /// To validate on.
    Validation,
    /// To test on.
    Test,
}

impl SplitName {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The part that a folder or a file is called after.
    pub(super) fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" | "dev" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// The part's name in facts and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// One dataset being read.
#[derive(Debug)]
pub(super) struct DatasetBuilder<'a> {
    /// Where pixels are to be kept; they are only measured where it is none.
    folder: Option<&'a Path>,
    limit: u64,
    used: u64,
    examples: BTreeMap<SplitName, SplitExamples>,
    labels: BTreeMap<SplitName, Labels>,
    /// Whether some labels were stored as floats.
    float_labels: bool,
    skipped: BTreeMap<String, usize>,
}

/// The examples of one part.
#[derive(Debug)]
pub(super) struct SplitExamples {
    count: usize,
    shape: Vec<usize>,
    pixels: PixelType,
    statistics: Statistics,
    preview: Preview,
    /// The pixels, if they are to be kept.
    kept: Option<Draft>,
}

impl<'a> DatasetBuilder<'a> {
    /// Nothing read yet; to keep pixels in a `folder` or only to measure them.
    pub(super) fn new(limits: &Limits, folder: Option<&'a Path>) -> Self {
        Self {
            folder,
            limit: limits.decoded_bytes,
            used: 0,
            examples: BTreeMap::new(),
            labels: BTreeMap::new(),
            float_labels: false,
            skipped: BTreeMap::new(),
        }
    }

    /// Where files may be made that are needed on the way.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.map_or_else(std::env::temp_dir, Path::to_owned)
    }

    /// Makes room for `count` examples of `shape` (at least one, no axis of length 0), before any of them is read.
    ///
    /// # Errors
    /// When they would not fit into the limit, or no file can be made.
    pub(super) fn begin(
        &mut self,
        part: SplitName,
        count: usize,
        shape: &[usize],
        pixels: PixelType,
    ) -> Result<&mut SplitExamples, DatasetError> {
        let elements = shape.iter().try_fold(count, |product, axis| product.checked_mul(*axis));
        self.reserve(elements.and_then(|elements| (elements as u64).checked_mul(pixels.size())))?;
        let elements = elements.unwrap_or(usize::MAX) as u64;
        let kept = self.folder.map(|folder| Draft::new(folder, elements, pixels)).transpose()?;
        let (statistics, preview) = (Statistics::new(shape), Preview::new(count, shape));
        let examples = SplitExamples { count, shape: shape.to_vec(), pixels, statistics, preview, kept };
        self.examples.insert(part, examples);
        self.examples.get_mut(&part).ok_or(DatasetError::TooLarge { limit: self.limit })
    }

    /// The examples of a part that has begun.
    pub(super) fn examples(&mut self, part: SplitName) -> Option<&mut SplitExamples> {
        self.examples.get_mut(&part)
    }

    /// Makes the single channel of all examples so far three equal ones, since an image with colours follows.
    ///
    /// # Errors
    /// When three channels would not fit into the limit, or the file system refuses.
    pub(super) fn grey_to_colour(&mut self) -> Result<(), DatasetError> {
        for (part, grey) in std::mem::take(&mut self.examples) {
            let shape: Vec<usize> = std::iter::once(3).chain(grey.shape.iter().skip(1).copied()).collect();
            let colour = self.begin(part, grey.count, &shape, PixelType::U8)?;
            colour.statistics = grey.statistics.repeated(3);
            colour.preview = grey.preview.in_colour(&shape);
            if let (Some(kept), Some(drafted)) = (&colour.kept, &grey.kept) {
                kept.repeat(drafted, grey.count, grey.shape.iter().product(), 3)?;
            }
        }
        Ok(())
    }

    /// Makes room for `count` labels, or numbers in their place.
    ///
    /// # Errors
    /// When they would not fit into the limit.
    pub(super) fn begin_labels(&mut self, count: usize) -> Result<(), DatasetError> {
        self.reserve((count as u64).checked_mul(size_of::<u32>() as u64))
    }

    /// The labels of a part, in the order of its examples.
    pub(super) fn set_labels(&mut self, part: SplitName, labels: Vec<u32>) {
        self.labels.insert(part, Labels::Classes(labels));
    }

    /// The same, whatever they are; `floats` says whether they are stored as floats.
    pub(super) fn set_labels_as_read(&mut self, part: SplitName, labels: Labels, floats: bool) {
        self.labels.insert(part, labels);
        self.float_labels |= floats;
    }

    /// Notes that the files say nothing of any example.
    pub(super) fn leave_unlabelled(&mut self) {
        self.labels = self.examples.iter().map(|(part, examples)| (*part, Labels::Absent(examples.count))).collect();
    }

    /// How many files were passed over, by the reason.
    pub(super) fn set_skipped(&mut self, skipped: BTreeMap<String, usize>) {
        self.skipped = skipped;
    }

    /// Adds `bytes` (`None`: more than can be counted) to what the dataset takes.
    fn reserve(&mut self, bytes: Option<u64>) -> Result<(), DatasetError> {
        let used = bytes.and_then(|bytes| self.used.checked_add(bytes)).filter(|used| *used <= self.limit);
        self.used = used.ok_or(DatasetError::TooLarge { limit: self.limit })?;
        Ok(())
    }

    /// What was read, after checking that its parts fit together.
    ///
    /// # Errors
    /// When examples and labels of a part differ in number, or examples or labels of the parts in shape.
    pub(super) fn finish(self, format: DatasetFormat, class_names: Option<Vec<String>>) -> Result<Read, DatasetError> {
        let Self { mut examples, mut labels, float_labels, skipped, .. } = self;
        check_lengths(&examples, &labels)?;
        agree(&mut labels)?;
        let Some(mut train) = examples.remove(&SplitName::Train) else {
            let found: Vec<String> = examples.keys().map(|part| format!("a {} split", part.name())).collect();
            return Err(DatasetError::Missing { missing: "the train split".to_owned(), found: found.join(" and ") });
        };
        if let Some((part, other)) = examples.iter().find(|(_, other)| other.shape != train.shape) {
            let (split, shape) = (part.name(), other.shape.clone());
            return Err(DatasetError::SplitsDiffer { train: train.shape, split, shape });
        }
        let highest = labels.values().flat_map(Labels::classes).max().map_or(0, |label| *label as usize + 1);
        let form = labels::form(labels.values(), float_labels);
        let (class_names, columns) =
            if matches!(form, LabelForm::Rows { .. }) { (None, class_names) } else { (class_names, None) };
        let classes = class_names.as_ref().map_or(highest, Vec::len);
        let (mean, std) = train.statistics.finish();
        let preview = std::mem::replace(&mut train.preview, Preview::new(0, &train.shape));
        let preview = labels.get(&SplitName::Train).map_or_else(Vec::new, |labels| preview.finish(labels));
        let splits = labels.iter().map(|(part, labels)| (part.name().to_owned(), facts(labels, classes)));
        let mut facts = DatasetFacts {
            format,
            example_shape: train.shape.clone(),
            classes,
            class_names,
            splits: splits.collect(),
            mean,
            std,
            preview,
            byte_elements: Some(train.pixels == PixelType::U8),
            notes: Vec::new(),
            skipped,
            labels: form,
        };
        facts.notes.extend(columns.map(|columns| format!("the labels are, in this order: {}", columns.join(", "))));
        facts.notes.extend(facts.only_label().map(|label| {
            let label = facts.label_in_words(label);
            format!(
                "every example of the train split has the label {label}: no network can be trained on one class alone"
            )
        }));
        if facts.labels == LabelForm::Absent {
            facts.notes.push(
                "there are no labels: members teach what they say of the examples, and nothing can be measured on them"
                    .to_owned(),
            );
        }
        for (part, _) in examples.iter().filter(|(_, other)| other.pixels != train.pixels) {
            let [bytes, floats] =
                if train.pixels == PixelType::U8 { ["train", part.name()] } else { [part.name(), "train"] };
            facts.notes.push(format!(
                "the {bytes} split holds bytes, which are divided by 255, the {floats} split numbers, which are used as they are"
            ));
        }
        Ok(Read { facts, train, others: examples, labels })
    }
}

/// A dataset that was read to its end.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) facts: DatasetFacts,
    train: SplitExamples,
    others: BTreeMap<SplitName, SplitExamples>,
    labels: BTreeMap<SplitName, Labels>,
}

impl Read {
    /// Its splits, which were kept.
    ///
    /// # Errors
    /// When the files cannot be mapped.
    pub(super) fn dataset(self) -> Result<Dataset, DatasetError> {
        let Self { facts, train, mut others, mut labels } = self;
        let classes = facts.classes;
        let mut split = |part, examples: SplitExamples| {
            let Some(kept) = examples.kept else { return Ok(None) };
            let labels = labels.remove(&part).unwrap_or(Labels::Classes(Vec::new()));
            let (pixels, labels) = (kept.finish()?, Arc::new(labels));
            Ok::<_, DatasetError>(Some(Split { example_shape: examples.shape, pixels, labels, classes }))
        };
        let [validation, test] = [SplitName::Validation, SplitName::Test]
            .map(|part| others.remove(&part).map(|examples| split(part, examples)).transpose());
        let (validation, test) = (validation?.flatten(), test?.flatten());
        let missing = || DatasetError::Missing { missing: "the train split".to_owned(), found: "nothing".to_owned() };
        Ok(Dataset { facts, train: split(SplitName::Train, train)?.ok_or_else(missing)?, validation, test })
    }
}

fn check_lengths(
    examples: &BTreeMap<SplitName, SplitExamples>,
    labels: &BTreeMap<SplitName, Labels>,
) -> Result<(), DatasetError> {
    for part in SplitName::ALL {
        let (examples, labels) = (examples.get(&part).map_or(0, |x| x.count), labels.get(&part).map_or(0, Labels::len));
        if examples != labels {
            return Err(DatasetError::LengthsDiffer { split: part.name(), examples, labels });
        }
    }
    Ok(())
}

/// Makes the labels of all parts rows where those of some are.
///
/// # Errors
/// When rows of the parts differ in width.
fn agree(labels: &mut BTreeMap<SplitName, Labels>) -> Result<(), DatasetError> {
    let is_row = |labels: &Labels| matches!(labels, Labels::Flags(_) | Labels::Numbers(_));
    let Some(columns) = labels.values().find(|labels| is_row(labels)).map(Labels::width) else { return Ok(()) };
    let first = labels.get(&SplitName::Train).map_or(columns, Labels::width);
    for (part, own) in labels {
        if own.width() != first {
            let (split, columns) = (part.name(), own.width());
            return Err(DatasetError::LabelsDiffer { train: first, split, columns });
        }
        let taken = std::mem::replace(own, Labels::Classes(Vec::new()));
        *own = Labels::Numbers(taken.numbers());
    }
    Ok(())
}

fn facts(labels: &Labels, classes: usize) -> SplitFacts {
    let mut per_class = vec![0; classes];
    for label in labels.classes() {
        per_class[*label as usize] += 1;
    }
    SplitFacts { examples: labels.len(), per_class }
}

impl SplitExamples {
    /// Elements of one example.
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Takes in whole examples, the first of them number `first`.
    ///
    /// # Errors
    /// When they cannot be kept.
    pub(super) fn put(&mut self, first: usize, pixels: Pixels<'_>) -> Result<(), DatasetError> {
        match pixels {
            Pixels::U8(bytes) => self.statistics.add_bytes(bytes),
            Pixels::F32(floats) => self.statistics.add_floats(floats),
        }
        self.preview.look(first, pixels);
        self.kept.as_ref().map_or(Ok(()), |kept| kept.write(first * self.elements(), pixels))
    }
}
