//! The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): files of records, each a label and an image of 32x32 pixels
//! in three planes (red, green, blue). CIFAR-100 has two labels, of the superclass and of the class; the class counts.

use std::io::Read;

use super::DatasetError;
use super::archive::{Archive, Entry, components, shortened};
use super::arrays::unreadable;
use super::intake::{DatasetBuilder, SplitName};
use super::store::{PixelType, Pixels};

const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;
/// Records that are read at once.
const RECORDS: usize = 256;
/// A file of class names may be this long.
const MAX_NAMES_BYTES: u64 = 65_536;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Ten,
    Hundred,
}

impl Version {
    fn classes(self) -> u8 {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
        }
    }

    /// Bytes before the pixels; the last of them is the label.
    fn labels(self) -> usize {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }

    fn record(self) -> usize {
        self.labels() + PIXELS
    }

    /// The file with the names of the classes, one on each line.
    fn names_file(self) -> &'static str {
        match self {
            Self::Ten => "batches.meta.txt",
            Self::Hundred => "fine_label_names.txt",
        }
    }
}

/// A file of records, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    version: Version,
    part: SplitName,
    /// Its place among the files of its part.
    number: u32,
}

impl Batch {
    /// The file `name` by the usual names: `data_batch_1.bin` and `test_batch.bin`, or `train.bin` and `test.bin`.
    fn of(name: &str) -> Option<Self> {
        let base = components(name)?.last()?.to_ascii_lowercase();
        let (version, part, number) = match base.strip_suffix(".bin")? {
            "test_batch" => (Version::Ten, SplitName::Test, 0),
            "train" => (Version::Hundred, SplitName::Train, 0),
            "test" => (Version::Hundred, SplitName::Test, 0),
            other => (Version::Ten, SplitName::Train, other.strip_prefix("data_batch_")?.parse().ok()?),
        };
        Some(Self { version, part, number })
    }
}

/// Whether `name` is a file of records.
pub(super) fn is_batch(name: &str) -> bool {
    Batch::of(name).is_some()
}

/// A file of records and where its first one goes.
#[derive(Debug)]
struct Place {
    index: usize,
    batch: Batch,
    name: String,
    records: usize,
    first: usize,
}

/// Reads every file of records into `intake`; the names of the classes, if the archive has them.
///
/// # Errors
/// When a file is no whole number of records, a label no class, or files of both versions are there.
pub(super) fn read(archive: Archive<'_>, intake: &mut DatasetBuilder<'_>) -> Result<Option<Vec<String>>, DatasetError> {
    let (places, version) = plan(archive)?;
    let mut labels = [SplitName::Train, SplitName::Test].map(|part| (part, Vec::new()));
    for (part, labels) in &mut labels {
        let count = places.iter().filter(|place| place.batch.part == *part).map(|place| place.records).sum();
        if count > 0 {
            intake.begin(*part, count, &SHAPE, PixelType::U8)?;
            intake.begin_labels(count)?;
            *labels = vec![0; count];
        }
    }
    let mut names = None;
    archive.visit(&mut |entry, source| {
        if let Some(place) = places.iter().find(|place| place.index == entry.index) {
            let part = usize::from(place.batch.part == SplitName::Test);
            read_batch(place, source, intake, &mut labels[part].1)?;
        } else if components(entry.name).and_then(|parts| parts.last().copied()) == Some(version.names_file()) {
            names = class_names(entry, source, version)?;
        }
        Ok(())
    })?;
    for (part, labels) in labels {
        if !labels.is_empty() {
            intake.set_labels(part, labels);
        }
    }
    Ok(names)
}

/// Every file of records with its place, and which version they are.
fn plan(archive: Archive<'_>) -> Result<(Vec<Place>, Version), DatasetError> {
    let mut places: Vec<Place> = Vec::new();
    archive.visit(&mut |entry, _| {
        let Some(batch) = Batch::of(entry.name) else { return Ok(()) };
        let (name, record) = (shortened(entry.name), batch.version.record() as u64);
        let twin = places.iter().find(|place| place.batch == batch || place.batch.version != batch.version);
        if let Some(twin) = twin {
            return Err(DatasetError::Duplicate { first: twin.name.clone(), second: name });
        }
        if entry.size == 0 || !entry.size.is_multiple_of(record) {
            return Err(DatasetError::Records { entry: name, bytes: entry.size, record });
        }
        let records = usize::try_from(entry.size / record).unwrap_or(usize::MAX);
        places.push(Place { index: entry.index, batch, name, records, first: 0 });
        Ok(())
    })?;
    places.sort_by_key(|place| (place.batch.part, place.batch.number));
    for at in 1..places.len() {
        let before = &places[at - 1];
        if before.batch.part == places[at].batch.part {
            places[at].first = before.first.saturating_add(before.records);
        }
    }
    let version = places.first().map_or(Version::Ten, |place| place.batch.version);
    Ok((places, version))
}

fn read_batch(
    place: &Place,
    source: &mut dyn Read,
    intake: &mut DatasetBuilder<'_>,
    labels: &mut [u32],
) -> Result<(), DatasetError> {
    let version = place.batch.version;
    let (mut block, mut pixels) = (vec![0; RECORDS * version.record()], Vec::with_capacity(RECORDS * PIXELS));
    let mut done = 0;
    while done < place.records {
        let records = RECORDS.min(place.records - done);
        let block = &mut block[..records * version.record()];
        source.read_exact(block).map_err(|error| unreadable(&place.name, error))?;
        pixels.clear();
        for (at, record) in (done..).zip(block.chunks_exact(version.record())) {
            let (before, image) = record.split_at(version.labels());
            let label = before[before.len() - 1];
            if label >= version.classes() {
                return Err(DatasetError::Label { array: place.name.clone(), index: at, value: label.to_string() });
            }
            labels[place.first + at] = label.into();
            pixels.extend_from_slice(image);
        }
        if let Some(examples) = intake.examples(place.batch.part) {
            examples.put(place.first + done, Pixels::U8(&pixels))?;
        }
        done += records;
    }
    Ok(())
}

/// One name on each line; `None` unless there is one for each class.
fn class_names(entry: Entry<'_>, source: &mut dyn Read, version: Version) -> Result<Option<Vec<String>>, DatasetError> {
    let mut text = String::new();
    let read = source.take(MAX_NAMES_BYTES).read_to_string(&mut text);
    read.map_err(|error| unreadable(&shortened(entry.name), error))?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(shortened).collect();
    Ok((names.len() == usize::from(version.classes())).then_some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_names_are_known() {
        let batch = |version, part, number| Some(Batch { version, part, number });
        for (name, expected) in [
            ("cifar-10-batches-bin/data_batch_5.bin", batch(Version::Ten, SplitName::Train, 5)),
            ("test_batch.bin", batch(Version::Ten, SplitName::Test, 0)),
            ("cifar-100-binary/train.bin", batch(Version::Hundred, SplitName::Train, 0)),
            ("cifar-100-binary/test.bin", batch(Version::Hundred, SplitName::Test, 0)),
            ("data_batch_1", None),
            ("weights.bin", None),
        ] {
            assert_eq!(Batch::of(name), expected, "{name}");
        }
    }
}
