//! The Python version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009), which torchvision keeps: pickled dicts, each with images of 32x32
//! pixels in three planes (red, green, blue), one a row, and their labels. No code of a pickle is run.

use std::io::Read;

use super::DatasetError;
use super::archive::{Archive, Entry, components, shortened};
use super::arrays::unreadable;
use super::intake::{DatasetBuilder, SplitName};
use super::store::{PixelType, Pixels};
use crate::model::formats::pytorch::dictionary::PickledDictionary;

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
/// The largest file, the train split of CIFAR-100, has 155 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Lists of labels, of which one is there; of CIFAR-100's two the finer counts.
const LABELS: [&str; 2] = ["labels", "fine_labels"];
/// Lists of the classes' names, likewise.
const NAMES: [&str; 2] = ["label_names", "fine_label_names"];

/// What a file of the dataset is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CifarFile {
    /// Images with labels: of which part, and the file's number in it.
    Batch(SplitName, u32),
    /// Names of the classes.
    Names,
}

impl CifarFile {
    /// The file `name`: `data_batch_1` and `test_batch` with `batches.meta`, or `train` and `test` with `meta`.
    fn of(name: &str) -> Option<Self> {
        match *components(name)?.last()? {
            "test_batch" | "test" => Some(Self::Batch(SplitName::Test, 0)),
            "train" => Some(Self::Batch(SplitName::Train, 0)),
            "batches.meta" | "meta" => Some(Self::Names),
            other => Some(Self::Batch(SplitName::Train, other.strip_prefix("data_batch_")?.parse().ok()?)),
        }
    }
}

/// Whether an archive of these files holds the dataset.
pub(super) fn is_in(names: &[String]) -> bool {
    let is_batch = |name: &String| matches!(CifarFile::of(name), Some(CifarFile::Batch(..)));
    let is_meta = |name: &String| CifarFile::of(name) == Some(CifarFile::Names);
    let numbered = |name: &&String| name.rsplit('/').next().is_some_and(|base| base.contains("_batch"));
    names.iter().filter(numbered).any(is_batch) || (names.iter().any(is_meta) && names.iter().any(is_batch))
}

/// A file of images, and where its first one goes.
#[derive(Debug)]
struct Batch {
    entry: usize,
    name: String,
    part: SplitName,
    number: u32,
    labels: Vec<u32>,
    first: usize,
}

/// Reads every file of images into `intake`; the names of the classes, if the archive has them.
///
/// # Errors
/// When a file is damaged, or holds something else than images of 32x32 pixels and as many labels.
pub(super) fn read(archive: Archive<'_>, intake: &mut DatasetBuilder<'_>) -> Result<Option<Vec<String>>, DatasetError> {
    let (batches, names) = plan(archive)?;
    for part in SplitName::ALL {
        let labels: Vec<u32> =
            batches.iter().filter(|batch| batch.part == part).flat_map(|batch| &batch.labels).copied().collect();
        if !labels.is_empty() {
            intake.begin(part, labels.len(), &SHAPE, PixelType::U8)?;
            intake.begin_labels(labels.len())?;
            intake.set_labels(part, labels);
        }
    }
    archive.visit(&mut |entry, source| {
        let Some(batch) = batches.iter().find(|batch| batch.entry == entry.index) else { return Ok(()) };
        let content = content(&batch.name, entry, source)?;
        let pickle = dictionary(&batch.name, &content)?;
        let pixels = pixels(&batch.name, &pickle, batch.labels.len())?;
        intake.examples(batch.part).map_or(Ok(()), |examples| examples.put(batch.first, Pixels::U8(pixels)))
    })?;
    let classes = batches.iter().flat_map(|batch| &batch.labels).max().map_or(0, |label| *label as usize + 1);
    Ok(names.filter(|names| names.len() >= classes))
}

/// Every file of images with its labels, in the order of their numbers, and the names of the classes.
fn plan(archive: Archive<'_>) -> Result<(Vec<Batch>, Option<Vec<String>>), DatasetError> {
    let (mut batches, mut names): (Vec<Batch>, _) = (Vec::new(), None);
    archive.visit(&mut |entry, source| {
        let Some(file) = CifarFile::of(entry.name) else { return Ok(()) };
        let name = shortened(entry.name);
        let content = content(&name, entry, source)?;
        let pickle = dictionary(&name, &content)?;
        let CifarFile::Batch(part, number) = file else {
            let listed = NAMES.iter().find_map(|key| pickle.texts(key));
            names = listed.map(|listed| listed.into_iter().map(shortened).collect());
            return Ok(());
        };
        if let Some(twin) = batches.iter().find(|batch| (batch.part, batch.number) == (part, number)) {
            return Err(DatasetError::Duplicate { first: twin.name.clone(), second: name });
        }
        let labels = labels(&name, &pickle)?;
        pixels(&name, &pickle, labels.len())?;
        batches.push(Batch { entry: entry.index, name, part, number, labels, first: 0 });
        Ok(())
    })?;
    batches.sort_by_key(|batch| (batch.part, batch.number));
    for at in 1..batches.len() {
        let before = &batches[at - 1];
        if before.part == batches[at].part {
            batches[at].first = before.first + before.labels.len();
        }
    }
    Ok((batches, names))
}

fn content(name: &str, entry: Entry<'_>, source: &mut dyn Read) -> Result<Vec<u8>, DatasetError> {
    if entry.size > MAX_FILE_BYTES {
        return Err(damaged(name, &format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| unreadable(name, error))?;
    Ok(bytes)
}

fn dictionary<'a>(name: &str, content: &'a [u8]) -> Result<PickledDictionary<'a>, DatasetError> {
    PickledDictionary::read(content).map_err(|error| damaged(name, &error.to_string()))
}

fn labels(name: &str, pickle: &PickledDictionary<'_>) -> Result<Vec<u32>, DatasetError> {
    let found = LABELS.iter().find_map(|key| pickle.integers(key));
    let found = found.ok_or_else(|| damaged(name, "it has no list `labels` or `fine_labels` of numbers"))?;
    let checked = found.iter().enumerate().map(|(index, label)| match u32::try_from(*label) {
        Ok(label) if label < 100 => Ok(label),
        _ => Err(DatasetError::Label { array: name.to_owned(), index, value: label.to_string() }),
    });
    checked.collect()
}

/// The images of a file that has `count` labels.
fn pixels<'a>(name: &str, pickle: &PickledDictionary<'a>, count: usize) -> Result<&'a [u8], DatasetError> {
    let array = pickle.array("data").filter(|array| !array.shape.is_empty());
    let array = array.ok_or_else(|| damaged(name, "it has no array `data` in the usual form"))?;
    if array.shape != [count, PIXELS] || array.bytes.len() != count * PIXELS {
        let reason = format!("its array `data` has the shape {:?}; expected {count} x {PIXELS} bytes", array.shape);
        return Err(damaged(name, &reason));
    }
    Ok(array.bytes)
}

fn damaged(entry: &str, reason: &str) -> DatasetError {
    DatasetError::DamagedEntry { entry: entry.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_names_are_known() {
        let is_in = |names: &[&str]| is_in(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert!(is_in(&["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/readme.html"]));
        assert!(is_in(&["cifar-100-python/train", "cifar-100-python/meta"]));
        assert!(!is_in(&["train/a/1.png", "meta"]) && !is_in(&["train", "readme"]) && !is_in(&["data_batch_1.bin"]));
        assert_eq!(CifarFile::of("x/data_batch_5"), Some(CifarFile::Batch(SplitName::Train, 5)));
    }
}
