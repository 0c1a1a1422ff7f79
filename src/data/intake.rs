//! Where the readers of all formats deliver: checks splits against each other and the limits, and keeps the books.

use std::collections::BTreeMap;

use super::preview::Preview;
use super::statistics::Statistics;
use super::{Dataset, DatasetError, Limits, Pixels, Split};
use crate::domain::dataset::{DatasetFacts, DatasetFormat, SplitFacts};

/// Part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// To train and validate on; every dataset has it.
    Train,
    /// To test on.
    Test,
}

impl Part {
    /// The part's name in facts and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// Bytes in memory of one stored pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PixelType {
    /// 0 to 255, divided by 255 when it is used.
    U8,
    /// Used as it is.
    F32,
}

impl PixelType {
    fn size(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// Whole examples on their way in, row-major.
#[derive(Debug, Clone, Copy)]
pub(super) enum Block<'a> {
    /// Of type [`PixelType::U8`].
    U8(&'a [u8]),
    /// Of type [`PixelType::F32`].
    F32(&'a [f32]),
}

/// One dataset being read.
#[derive(Debug)]
pub(super) struct Intake {
    keep: bool,
    limit: u64,
    used: u64,
    examples: BTreeMap<Part, Examples>,
    labels: BTreeMap<Part, Vec<u32>>,
}

/// The examples of one part.
#[derive(Debug)]
pub(super) struct Examples {
    count: usize,
    shape: Vec<usize>,
    statistics: Statistics,
    preview: Preview,
    /// The pixels, if they are to be kept.
    kept: Option<Pixels>,
}

impl Intake {
    /// Nothing read yet; to `keep` pixels or only to measure them.
    pub(super) fn new(limits: &Limits, keep: bool) -> Self {
        Self { keep, limit: limits.decoded_bytes, used: 0, examples: BTreeMap::new(), labels: BTreeMap::new() }
    }

    /// Makes room for `count` examples of `shape` (at least one, no axis of length 0), before any of them is read.
    ///
    /// # Errors
    /// When they would not fit into the limit.
    pub(super) fn begin(
        &mut self,
        part: Part,
        count: usize,
        shape: &[usize],
        pixels: PixelType,
    ) -> Result<&mut Examples, DatasetError> {
        let elements = shape.iter().try_fold(count, |product, axis| product.checked_mul(*axis));
        self.reserve(elements.and_then(|elements| (elements as u64).checked_mul(pixels.size())))?;
        let kept = if self.keep { Some(room(elements.unwrap_or(usize::MAX), pixels)?) } else { None };
        let (statistics, preview) = (Statistics::new(shape), Preview::new(count, shape));
        let examples = Examples { count, shape: shape.to_vec(), statistics, preview, kept };
        self.examples.insert(part, examples);
        self.examples.get_mut(&part).ok_or(DatasetError::TooLarge { limit: self.limit })
    }

    /// The examples of a part that has begun.
    pub(super) fn examples(&mut self, part: Part) -> Option<&mut Examples> {
        self.examples.get_mut(&part)
    }

    /// Makes the single channel of all examples so far three equal ones, since an image with colours follows.
    ///
    /// # Errors
    /// When three channels would not fit into the limit.
    pub(super) fn grey_to_colour(&mut self) -> Result<(), DatasetError> {
        for (part, grey) in std::mem::take(&mut self.examples) {
            let shape: Vec<usize> = std::iter::once(3).chain(grey.shape.iter().skip(1).copied()).collect();
            let colour = self.begin(part, grey.count, &shape, PixelType::U8)?;
            colour.statistics = grey.statistics.repeated(3);
            colour.preview = grey.preview.in_colour(&shape);
            if let (Some(Pixels::U8(kept)), Some(Pixels::U8(pixels))) = (&mut colour.kept, &grey.kept) {
                pixels
                    .chunks_exact(grey.shape.iter().product())
                    .for_each(|plane| (0..3).for_each(|_| kept.extend_from_slice(plane)));
            }
        }
        Ok(())
    }

    /// Makes room for `count` labels.
    ///
    /// # Errors
    /// When they would not fit into the limit.
    pub(super) fn begin_labels(&mut self, count: usize) -> Result<(), DatasetError> {
        self.reserve((count as u64).checked_mul(size_of::<u32>() as u64))
    }

    /// The labels of a part, in the order of its examples.
    pub(super) fn set_labels(&mut self, part: Part, labels: Vec<u32>) {
        self.labels.insert(part, labels);
    }

    /// Adds `bytes` (`None`: more than can be counted) to what the dataset takes in memory.
    fn reserve(&mut self, bytes: Option<u64>) -> Result<(), DatasetError> {
        let used = bytes.and_then(|bytes| self.used.checked_add(bytes)).filter(|used| *used <= self.limit);
        self.used = used.ok_or(DatasetError::TooLarge { limit: self.limit })?;
        Ok(())
    }

    /// What was read, after checking that its parts fit together. The splits are empty unless they were to be kept.
    ///
    /// # Errors
    /// When examples and labels of a part differ in number, or examples of the parts in shape.
    pub(super) fn finish(
        self,
        format: DatasetFormat,
        class_names: Option<Vec<String>>,
    ) -> Result<Dataset, DatasetError> {
        let Self { mut examples, mut labels, .. } = self;
        check_lengths(&examples, &labels)?;
        let test = examples.remove(&Part::Test);
        let Some(mut train) = examples.remove(&Part::Train) else {
            return Err(DatasetError::Missing {
                missing: "the train split".to_owned(),
                found: "a test split".to_owned(),
            });
        };
        if let Some(test) = test.as_ref().filter(|test| test.shape != train.shape) {
            return Err(DatasetError::SplitsDiffer { train: train.shape, test: test.shape.clone() });
        }
        let highest = labels.values().flatten().max().map_or(0, |label| *label as usize + 1);
        let classes = class_names.as_ref().map_or(highest, Vec::len);
        let (mean, std) = train.statistics.finish();
        let preview = std::mem::replace(&mut train.preview, Preview::new(0, &train.shape));
        let preview = preview.finish(labels.get(&Part::Train).map_or(&[], Vec::as_slice));
        let splits = labels.iter().map(|(part, labels)| (part.name().to_owned(), facts(labels, classes)));
        let facts = DatasetFacts {
            format,
            example_shape: train.shape.clone(),
            classes,
            class_names,
            splits: splits.collect(),
            mean,
            std,
            preview,
        };
        let mut split = |part, examples: Examples| examples.split(labels.remove(&part).unwrap_or_default(), classes);
        Ok(Dataset { facts, train: split(Part::Train, train), test: test.map(|test| split(Part::Test, test)) })
    }
}

/// Room for as many pixels; the system gives the pages only as they are written.
fn room(elements: usize, pixels: PixelType) -> Result<Pixels, DatasetError> {
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    match pixels {
        PixelType::U8 => bytes.try_reserve_exact(elements),
        PixelType::F32 => floats.try_reserve_exact(elements),
    }
    .map_err(|_| DatasetError::OutOfMemory { bytes: (elements as u64).saturating_mul(pixels.size()) })?;
    Ok(match pixels {
        PixelType::U8 => Pixels::U8(bytes),
        PixelType::F32 => Pixels::F32(floats),
    })
}

fn check_lengths(examples: &BTreeMap<Part, Examples>, labels: &BTreeMap<Part, Vec<u32>>) -> Result<(), DatasetError> {
    for part in [Part::Train, Part::Test] {
        let (examples, labels) = (examples.get(&part).map_or(0, |x| x.count), labels.get(&part).map_or(0, Vec::len));
        if examples != labels {
            return Err(DatasetError::LengthsDiffer { split: part.name(), examples, labels });
        }
    }
    Ok(())
}

fn facts(labels: &[u32], classes: usize) -> SplitFacts {
    let mut per_class = vec![0; classes];
    for label in labels {
        per_class[*label as usize] += 1;
    }
    SplitFacts { examples: labels.len(), per_class }
}

impl Examples {
    /// Elements of one example.
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Takes in whole examples, the first of them number `first`.
    pub(super) fn put(&mut self, first: usize, block: Block<'_>) {
        let at = first * self.elements();
        match block {
            Block::U8(pixels) => self.statistics.add_bytes(pixels),
            Block::F32(pixels) => self.statistics.add_floats(pixels),
        }
        self.preview.look(first, block);
        match (&mut self.kept, block) {
            (Some(Pixels::U8(kept)), Block::U8(pixels)) => write_at(kept, at, pixels),
            (Some(Pixels::F32(kept)), Block::F32(pixels)) => write_at(kept, at, pixels),
            _ => {}
        }
    }

    fn split(self, labels: Vec<u32>, classes: usize) -> Split {
        Split { example_shape: self.shape, pixels: self.kept.unwrap_or(Pixels::U8(Vec::new())), labels, classes }
    }
}

/// Writes `pixels` at `at`, with zeros before it where nothing has been written yet.
fn write_at<T: Copy + Default>(kept: &mut Vec<T>, at: usize, pixels: &[T]) {
    if at == kept.len() {
        kept.extend_from_slice(pixels);
        return;
    }
    let end = at + pixels.len();
    if kept.len() < end {
        kept.resize(end, T::default());
    }
    kept[at..end].copy_from_slice(pixels);
}
