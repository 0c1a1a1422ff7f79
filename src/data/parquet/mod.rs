//! Parquet with a PNG or JPEG file in each row, as on the Hugging Face hub: one file, or an archive of several. Row groups are
//! read one after another; of each, a page at a time is in memory.

mod pages;
mod shards;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::file::reader::{FileReader, RowGroupReader};

use self::shards::{Column, Shard, is_shard, part};
use super::archive::{Archive, shortened};
use super::arrays::unreadable;
use super::folders::ImageSlot;
use super::images::Images;
use super::intake::{DatasetBuilder, SplitName};
use super::labels::LabelColumn;
use super::{DatasetError, Limits, MAX_LABEL};

/// Rows that are read at once.
const ROWS: usize = 64;

/// How a Parquet file begins.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";

/// Whether there is a Parquet file among `names`.
pub(super) fn is_in(names: &[String]) -> bool {
    names.iter().any(|name| is_shard(name))
}

/// Reads the only file of a dataset into `intake`; the names of the classes, if it has them.
///
/// # Errors
/// When it is damaged or holds something else.
pub(super) fn read_file(
    file: File,
    limits: &Limits,
    intake: &mut DatasetBuilder<'_>,
) -> Result<Option<Vec<String>>, DatasetError> {
    read(&[Shard::open("the Parquet file", SplitName::Train, file)?], limits, intake)
}

/// Reads every Parquet file of an archive into `intake`, those of a part in the order of their names. Since they are read
/// from their ends, each is copied to a file without a name first.
///
/// # Errors
/// As [`read_file`]; or when a file is of neither part.
pub(super) fn read_archive(
    archive: Archive<'_>,
    names: &[String],
    intake: &mut DatasetBuilder<'_>,
) -> Result<Option<Vec<String>>, DatasetError> {
    let mut parts = BTreeMap::new();
    for name in names.iter().filter(|name| is_shard(name)) {
        parts.insert(name.as_str(), part(name).unwrap_or(SplitName::Train));
    }
    // A part alone is what there is to train on, whatever it is called.
    let first = parts.values().next().copied();
    let alone = parts.values().all(|part| Some(*part) == first);
    let folder = intake.folder();
    let mut shards = Vec::new();
    let mut budget = archive.limits.decoded_bytes;
    archive.visit(&mut |entry, source| {
        let Some(part) = parts.get(entry.name) else { return Ok(()) };
        let io = |source| DatasetError::Io { path: folder.clone(), source };
        let mut file = tempfile::tempfile_in(&folder).map_err(io)?;
        let mut block = vec![0; 1 << 20];
        loop {
            let count = source.read(&mut block).map_err(|error| unreadable(entry.name, error))?;
            if count == 0 {
                break;
            }
            budget = budget
                .checked_sub(count as u64)
                .ok_or(DatasetError::TooLarge { limit: archive.limits.decoded_bytes })?;
            file.write_all(&block[..count]).map_err(io)?;
        }
        file.rewind().map_err(io)?;
        shards.push(Shard::open(&shortened(entry.name), if alone { SplitName::Train } else { *part }, file)?);
        Ok(())
    })?;
    shards.sort_by(|a, b| (a.part, &a.name).cmp(&(b.part, &b.name)));
    read(&shards, archive.limits, intake)
}

fn read(
    shards: &[Shard],
    limits: &Limits,
    intake: &mut DatasetBuilder<'_>,
) -> Result<Option<Vec<String>>, DatasetError> {
    let mut counts: BTreeMap<SplitName, usize> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| shard.rows > 0) {
        let count = counts.entry(shard.part).or_default();
        *count = count.saturating_add(shard.rows);
        if *count as u64 > limits.entries {
            return Err(DatasetError::TooManyEntries { limit: limits.entries });
        }
    }
    for count in counts.values() {
        intake.begin_labels(*count)?;
    }
    let mut labels: BTreeMap<SplitName, LabelColumn> = BTreeMap::new();
    let mut images = Images::new(&counts, intake);
    for shard in shards {
        let labels = labels.entry(shard.part).or_default();
        for group in 0..shard.reader.num_row_groups() {
            shard.read_group(group, labels, &mut images)?;
        }
    }
    images.finish()?;
    let floats = shards.iter().any(|shard| shard.has_float_labels);
    let mut highest = 0;
    for (part, labels) in labels.into_iter().filter(|(_, labels)| labels.len() > 0) {
        let labels = labels.into_labels();
        highest = labels.classes().iter().max().map_or(highest, |label| highest.max(*label as usize));
        intake.set_labels_as_read(part, labels, floats);
    }
    let class_names = shards.iter().find_map(|shard| shard.class_names.clone());
    Ok(class_names.filter(|names| names.len() > highest))
}

impl Shard {
    /// Reads the row group `index`, whose images follow those that have labels.
    fn read_group(
        &self,
        index: usize,
        labels: &mut LabelColumn,
        images: &mut Images<'_, '_>,
    ) -> Result<(), DatasetError> {
        let group = guarded(&self.name, || self.reader.get_row_group(index))?;
        let rows = group.metadata().num_rows() as usize;
        let first = labels.len();
        self.read_labels(&*group, labels)?;
        let reader = guarded(&self.name, || group.get_column_reader(self.image.index))?;
        let ColumnReader::ByteArrayColumnReader(reader) = reader else { return Err(self.short(rows)) };
        let done = self.each(reader, self.image, |row, file: ByteArray| {
            let place = ImageSlot { part: self.part, index: first + row };
            images.take(place, format!("{}, row {}", self.name, row + 1), file.data().to_vec())
        })?;
        if [done, labels.len() - first] == [rows, rows] { Ok(()) } else { Err(self.short(rows)) }
    }

    fn read_labels(&self, group: &dyn RowGroupReader, labels: &mut LabelColumn) -> Result<(), DatasetError> {
        let column = self.label;
        match guarded(&self.name, || group.get_column_reader(column.index))? {
            ColumnReader::Int32ColumnReader(reader) => {
                self.each(reader, column, |_, value| self.add(labels, i64::from(value)))?;
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.each(reader, column, |_, value| self.add(labels, value))?;
            }
            ColumnReader::FloatColumnReader(reader) => {
                self.each(reader, column, |_, value| self.add_number(labels, f64::from(value)))?;
            }
            ColumnReader::DoubleColumnReader(reader) => {
                self.each(reader, column, |_, value| self.add_number(labels, value))?;
            }
            _ => return Err(self.short(0)),
        }
        Ok(())
    }

    fn add(&self, labels: &mut LabelColumn, value: i64) -> Result<(), DatasetError> {
        let label = u32::try_from(value).ok().filter(|label| *label <= MAX_LABEL);
        let bad = || DatasetError::Label { array: self.name.clone(), index: labels.len(), value: value.to_string() };
        labels.take(f64::from(label.ok_or_else(bad)?));
        Ok(())
    }

    fn add_number(&self, labels: &mut LabelColumn, value: f64) -> Result<(), DatasetError> {
        if !(value as f32).is_finite() {
            let reason = format!("its label {} is {value}; labels are finite numbers", labels.len());
            return Err(refused(&self.name, &reason));
        }
        labels.take(value);
        Ok(())
    }

    /// Gives each value of `column` to `take`, with its row; how many there are.
    fn each<T: DataType>(
        &self,
        mut reader: ColumnReaderImpl<T>,
        column: Column,
        mut take: impl FnMut(usize, T::T) -> Result<(), DatasetError>,
    ) -> Result<usize, DatasetError> {
        let (mut values, mut done) = (Vec::new(), 0);
        while self.next(&mut reader, column, done, &mut values)? {
            for value in values.drain(..) {
                take(done, value)?;
                done += 1;
            }
        }
        Ok(done)
    }

    /// Reads the next few values of `column` behind `done` rows; false at the end. Every row must have one.
    fn next<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        column: Column,
        done: usize,
        values: &mut Vec<T::T>,
    ) -> Result<bool, DatasetError> {
        values.clear();
        let mut levels = Vec::new();
        let (rows, found, _) = guarded(&self.name, || reader.read_records(ROWS, Some(&mut levels), None, values))?;
        if found < rows {
            let row = done + levels.iter().position(|level| *level < column.defined).unwrap_or(0) + 1;
            return Err(refused(&self.name, &format!("row {row} of a row group has no image or no label")));
        }
        Ok(rows > 0)
    }

    fn short(&self, rows: usize) -> DatasetError {
        refused(&self.name, &format!("a row group of {rows} rows has not as many images and labels"))
    }
}

/// A fault of the file `name`.
fn refused(name: &str, reason: &str) -> DatasetError {
    DatasetError::Parquet { entry: shortened(name), reason: reason.to_owned() }
}

/// What `read` gives. The library reports damage in most places, and panics in some: both are a fault of the file.
fn guarded<T>(name: &str, read: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, DatasetError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(outcome) => outcome.map_err(|error| refused(name, &error.to_string())),
        Err(_) => Err(refused(name, "it is damaged")),
    }
}

#[cfg(test)]
mod tests;
