//! Which files of an archive belong to a dataset, and which columns of a file.

use std::fs::File;
use std::path::Path;

use parquet::basic::{CompressionCodec, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use super::super::archive::{components, shortened};
use super::super::intake::SplitName;
use super::super::{DatasetError, MAX_LABEL};
use super::{guarded, pages, refused};

/// Columns with a PNG or JPEG file in each row, by the names that are usual; the first that is there counts.
const IMAGES: [&str; 4] = ["image.bytes", "img.bytes", "image", "img"];
/// Columns with a class, or a number to predict, in each row. Of CIFAR-100's two the finer counts.
const LABELS: [&str; 5] = ["label", "labels", "fine_label", "coarse_label", "target"];
/// Metadata in which the hub's own writer keeps the names of classes.
const FEATURES: &str = "huggingface";

/// One file.
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) part: SplitName,
    pub(super) rows: usize,
    pub(super) image: Column,
    pub(super) label: Column,
    /// The classes in the order of their labels, where the file names them.
    pub(super) class_names: Option<Vec<String>>,
    /// Whether labels are stored as floats.
    pub(super) has_float_labels: bool,
    pub(super) reader: SerializedFileReader<File>,
}

/// A column of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) index: usize,
    /// Its highest definition level: below it a row has no value.
    pub(super) defined: i16,
}

/// Whether `name` is one of Parquet.
pub(super) fn is_shard(name: &str) -> bool {
    components(name).and_then(|parts| parts.last().map(|last| last.to_ascii_lowercase().ends_with(".parquet")))
        == Some(true)
}

/// The part that a file belongs to by its name or by the folder closest to it, `train-00000-of-00002.parquet` for example.
pub(super) fn part(name: &str) -> Option<SplitName> {
    let words = |folder: &str| folder.split(|c: char| !c.is_ascii_alphanumeric()).find_map(SplitName::of);
    components(name)?.into_iter().rev().find_map(words)
}

impl Shard {
    /// Opens a file: reads its footer, finds the columns, and looks at the headers of their pages.
    ///
    /// # Errors
    /// When it is damaged, or has no such columns.
    pub(super) fn open(name: &str, part: SplitName, file: File) -> Result<Self, DatasetError> {
        let io = |source| DatasetError::Io { path: Path::new(name).to_owned(), source };
        let (length, pages) = (file.metadata().map_err(io)?.len(), file.try_clone().map_err(io)?);
        pages::check_footer(&pages, length).map_err(|reason| refused(name, &reason))?;
        let reader = guarded(name, || SerializedFileReader::new(file))?;
        let metadata = reader.metadata();
        let (image, label) = (column(name, metadata, &IMAGES, &[Type::BYTE_ARRAY])?, label(name, metadata)?);
        let mut rows = 0_usize;
        for group in metadata.row_groups() {
            let count = usize::try_from(group.num_rows()).map_err(|_| refused(name, "a row group has no size"))?;
            rows = rows.saturating_add(count);
            for column in [image, label] {
                check(group, column, length, &pages).map_err(|reason| refused(name, &reason))?;
            }
        }
        let class_names = class_names(metadata, label);
        let stored = metadata.file_metadata().schema_descr().column(label.index).physical_type();
        let has_float_labels = matches!(stored, Type::FLOAT | Type::DOUBLE);
        Ok(Self { name: name.to_owned(), part, rows, image, label, class_names, has_float_labels, reader })
    }
}

fn label(name: &str, metadata: &ParquetMetaData) -> Result<Column, DatasetError> {
    column(name, metadata, &LABELS, &[Type::INT32, Type::INT64, Type::FLOAT, Type::DOUBLE])
}

/// The first of the columns `names` that the file has.
fn column(name: &str, metadata: &ParquetMetaData, names: &[&str], types: &[Type]) -> Result<Column, DatasetError> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let found = names.iter().find_map(|name| columns.iter().position(|column| column.path().string() == **name));
    let Some(index) = found else {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let there = columns.iter().take(8).map(|column| format!("`{}`", shortened(&column.path().string())));
        let there: Vec<String> = there.collect();
        return Err(refused(
            name,
            &format!("it has none of the columns {}, only {}", names.join(", "), there.join(", ")),
        ));
    };
    let column: &ColumnDescriptor = &columns[index];
    let path = column.path().string();
    if column.max_rep_level() > 0 || !types.contains(&column.physical_type()) {
        let expected = if types == [Type::BYTE_ARRAY] {
            "PNG or JPEG files, one a row"
        } else {
            "whole numbers or floats, one a row"
        };
        return Err(refused(name, &format!("its column `{path}` holds something else than {expected}")));
    }
    Ok(Column { index, defined: column.max_def_level() })
}

/// Whether a column's part in a row group lies within the file and promises no more than can be read.
fn check(group: &RowGroupMetaData, column: Column, length: u64, file: &File) -> Result<(), String> {
    let Some(chunk): Option<&ColumnChunkMetaData> = group.columns().get(column.index) else {
        return Err("a row group lacks a column".to_owned());
    };
    let codecs =
        [CompressionCodec::UNCOMPRESSED, CompressionCodec::SNAPPY, CompressionCodec::GZIP, CompressionCodec::ZSTD];
    if !codecs.contains(&chunk.compression_codec()) {
        let codec = chunk.compression_codec();
        return Err(format!("it is compressed by {codec}; SNAPPY, GZIP, ZSTD or UNCOMPRESSED are read"));
    }
    if chunk.file_path().is_some() {
        return Err("its columns are in other files".to_owned());
    }
    let begin = u64::try_from(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset())).ok();
    let end = begin.zip(u64::try_from(chunk.compressed_size()).ok()).and_then(|(begin, size)| begin.checked_add(size));
    match (begin, end) {
        (Some(begin), Some(end)) if end <= length => pages::check(file, begin, end, group.num_rows()),
        _ => Err("a column reaches beyond the end of the file".to_owned()),
    }
}

/// The classes as the hub's writer notes them.
fn class_names(metadata: &ParquetMetaData, label: Column) -> Option<Vec<String>> {
    let file = metadata.file_metadata();
    let notes = file.key_value_metadata()?.iter().find(|note| note.key == FEATURES)?;
    let notes: Value = serde_json::from_str(notes.value.as_ref()?).ok()?;
    let column = file.schema_descr().column(label.index).name().to_owned();
    let names = notes["info"]["features"].get(&column)?.get("names")?.as_array()?;
    let fits = (1..=MAX_LABEL as usize + 1).contains(&names.len());
    fits.then(|| names.iter().map(|name| name.as_str().map(shortened)).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_part() {
        for (name, expected) in [
            ("data/train-00000-of-00002-abc.parquet", Some(SplitName::Train)),
            ("plain_text/test/0000.parquet", Some(SplitName::Test)),
            ("test/train-00000-of-00001.parquet", Some(SplitName::Train)),
            ("validation-00000-of-00001.parquet", Some(SplitName::Validation)),
            ("contest.parquet", None),
        ] {
            assert_eq!(part(name), expected, "{name}");
            assert!(is_shard(name));
        }
        assert!(!is_shard("__MACOSX/train.parquet") && !is_shard("train.csv"));
    }
}
