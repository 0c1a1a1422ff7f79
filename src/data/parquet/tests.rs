//! Files that are written here by the library's own writer, read, and damaged.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::super::{Dataset, DatasetError, LabelRows, Labels, Limits, Pixels, inspect};
use crate::domain::dataset::{DatasetFormat, LabelForm};

/// A grey picture of 2 x 2 pixels, all of `value`.
fn png(value: u8) -> Vec<u8> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&[value; 4], 2, 2, ExtendedColorType::L8).unwrap();
    png
}

fn next<'a>(group: &'a mut SerializedRowGroupWriter<'_, Vec<u8>>) -> SerializedColumnWriter<'a> {
    group.next_column().unwrap().unwrap()
}

/// As `datasets.save_to_disk` and `to_parquet` write it: a structure of bytes and path, and labels, two rows a group.
fn hub(rows: &[(u8, i64)], properties: WriterProperties) -> Vec<u8> {
    let schema = "message schema { optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label; }";
    let mut writer = SerializedFileWriter::new(Vec::new(), schema_of(schema), Arc::new(properties)).unwrap();
    for rows in rows.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<ByteArray> = rows.iter().map(|(value, _)| png(*value).into()).collect();
        let mut column = next(&mut group);
        column.typed::<ByteArrayType>().write_batch(&images, Some(&vec![2; rows.len()]), None).unwrap();
        column.close().unwrap();
        let mut column = next(&mut group);
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
        let mut column = next(&mut group);
        column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn schema_of(text: &str) -> Arc<parquet::schema::types::Type> {
    Arc::new(parse_message_type(text).unwrap())
}

/// Plain columns, `fine_label` among others; a row without an image where `value` is none.
fn plain(rows: &[Option<u8>], image: &str) -> Vec<u8> {
    let schema = format!(
        "message schema {{ required int32 coarse_label; optional binary {image}; required int32 fine_label; }}"
    );
    let mut writer = SerializedFileWriter::new(Vec::new(), schema_of(&schema), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let images: Vec<ByteArray> = rows.iter().flatten().map(|value| png(*value).into()).collect();
    let levels: Vec<i16> = rows.iter().map(|value| i16::from(value.is_some())).collect();
    for label in [7, 1] {
        let mut column = next(&mut group);
        column.typed::<Int32Type>().write_batch(&vec![label; rows.len()], None, None).unwrap();
        column.close().unwrap();
        if label == 7 {
            let mut column = next(&mut group);
            column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn stored(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(bytes: &[u8]) -> Result<Dataset, DatasetError> {
    let (file, folder) = (stored(bytes), std::env::temp_dir());
    let dataset = Dataset::open(file.path(), &folder, &Limits::default())?;
    assert_eq!(inspect(file.path(), &Limits::default()).unwrap(), dataset.facts);
    assert_eq!(dataset.facts.format, DatasetFormat::Parquet);
    Ok(dataset)
}

fn refusal(bytes: &[u8]) -> String {
    open(bytes).unwrap_err().to_string()
}

#[test]
fn labels_may_be_numbers_to_predict() {
    let schema = "message schema { required binary image; required double label; }";
    let with = |labels: &[f64]| {
        let mut writer = SerializedFileWriter::new(Vec::new(), schema_of(schema), Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<ByteArray> = labels.iter().map(|_| png(7).into()).collect();
        let mut column = next(&mut group);
        column.typed::<ByteArrayType>().write_batch(&images, None, None).unwrap();
        column.close().unwrap();
        let mut column = next(&mut group);
        column.typed::<DoubleType>().write_batch(labels, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.into_inner().unwrap()
    };
    let numbers = open(&with(&[1.5, 0.0, -2.0])).unwrap();
    let expected = Labels::Numbers(LabelRows { width: 1, values: vec![1.5, 0.0, -2.0] });
    assert_eq!(**numbers.train.labels(), expected);
    let whole = open(&with(&[2.0, 0.0])).unwrap();
    assert_eq!((whole.facts.labels, whole.train.labels().classes()), (LabelForm::FloatClasses, &[2, 0][..]));
    assert!(refusal(&with(&[1.5, f64::NAN])).contains("label 1 is NaN"));
}

const ROWS: [(u8, i64); 5] = [(10, 0), (20, 2), (30, 1), (40, 2), (50, 0)];

#[test]
fn the_hub_s_files_are_read_however_they_are_compressed() {
    let compressions = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for compression in compressions {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for dictionary in [true, false] {
                let properties = WriterProperties::builder().set_compression(compression).set_writer_version(version);
                let properties = properties.set_dictionary_enabled(dictionary);
                // The second version's way of writing numbers without a dictionary is not read.
                if version == WriterVersion::PARQUET_2_0 && !dictionary {
                    assert!(refusal(&hub(&ROWS, properties.build())).contains("the encoding"), "{compression:?}");
                    continue;
                }
                let Dataset { facts, train, test, .. } = open(&hub(&ROWS, properties.build())).unwrap();
                let expected: Vec<u8> = ROWS.iter().flat_map(|(value, _)| [*value; 4]).collect();
                assert_eq!((train.pixels(), train.labels().classes()), (Pixels::U8(&expected), &[0, 2, 1, 2, 0][..]));
                assert_eq!((facts.classes, facts.class_names, test.is_none()), (3, None, true));
                assert_eq!(facts.example_shape, [1, 2, 2]);
            }
        }
    }
}

#[test]
fn plain_columns_and_finer_labels_do_too() {
    for image in ["image", "img"] {
        let Dataset { train, .. } = open(&plain(&[Some(1), Some(2), Some(3)], image)).unwrap();
        assert_eq!((train.labels().classes(), train.len()), (&[1, 1, 1][..], 3));
    }
}

#[test]
fn classes_have_the_names_that_the_hub_gives_them() {
    let names = |names: &str| {
        let features = r#"{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": NAMES}}}}"#;
        let note = KeyValue::new("huggingface".to_owned(), features.replace("NAMES", names));
        let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![note])).build();
        let facts = open(&hub(&ROWS, properties)).unwrap().facts;
        (facts.class_names, facts.classes)
    };
    let four = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    assert_eq!(names(r#"["a", "b", "c", "d"]"#), (Some(four), 4));
    assert_eq!(names(r#"["a", "b"]"#), (None, 3), "names for fewer classes than there are");
    assert_eq!(names("[1, 2, 3]"), (None, 3));
}

fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn several_files_are_one_dataset_in_the_order_of_their_names() {
    let file = |rows: &[(u8, i64)]| hub(rows, WriterProperties::default());
    let archive = tar(&[
        ("data/test-00000-of-00001.parquet", file(&ROWS[4..])),
        ("data/train-00001-of-00002.parquet", file(&ROWS[3..4])),
        ("data/train-00000-of-00002.parquet", file(&ROWS[..3])),
        ("README.md", b"a card".to_vec()),
    ]);
    let Dataset { train, test, .. } = open(&archive).unwrap();
    assert_eq!(train.labels().classes(), [0, 2, 1, 2]);
    assert_eq!(train.pixels(), Pixels::U8(&[10, 20, 30, 40].map(|value| [value; 4]).concat()));
    assert_eq!(test.unwrap().pixels(), Pixels::U8(&[50; 4]));
    let Dataset { train, test, .. } = open(&tar(&[("test.parquet", file(&ROWS))])).unwrap();
    assert_eq!((train.len(), test.is_none()), (5, true), "a part alone is what there is");
    let archive = tar(&[("validation.parquet", file(&ROWS[..2])), ("train.parquet", file(&ROWS))]);
    let Dataset { train, validation, test, .. } = open(&archive).unwrap();
    assert_eq!((train.len(), validation.unwrap().labels().classes(), test.is_none()), (5, &[0, 2][..], true));
}

#[test]
fn what_is_missing_is_named() {
    let default = WriterProperties::default;
    for (bytes, said) in [
        (
            plain(&[Some(1)], "picture"),
            "none of the columns `image.bytes`, `img.bytes`, `image`, `img`, only `coarse_label`",
        ),
        (plain(&[Some(1), None], "image"), "row 2 of a row group has no image"),
        (hub(&[(1, 0), (2, -1)], default()), "is -1; labels are whole numbers"),
        (hub(&[(1, 0), (2, 70_000)], default()), "is 70000; labels are whole numbers"),
        (
            hub(&ROWS, WriterProperties::builder().set_key_value_metadata(None).build())[..100].to_vec(),
            "cannot be used",
        ),
        (hub(&[], default()), "is missing"),
    ] {
        let error = refusal(&bytes);
        assert!(error.contains(said), "expected {said:?} in {error:?}");
    }
    let limits = Limits { decoded_bytes: 1 << 20, entries: 4 };
    let file = stored(&hub(&ROWS, default()));
    assert!(matches!(inspect(file.path(), &limits), Err(DatasetError::TooManyEntries { limit: 4 })));
    let limits = Limits { decoded_bytes: 30, entries: 100 };
    assert!(matches!(inspect(file.path(), &limits), Err(DatasetError::TooLarge { limit: 30 })));
}

/// Every byte changed in several ways, and every length: an answer, never a panic.
#[test]
fn damaged_files_are_answered() {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let whole = hub(&ROWS, properties);
    let limits = Limits { decoded_bytes: 1 << 20, entries: 100 };
    let answered = |bytes: &[u8], what: &str| {
        let file = stored(bytes);
        match inspect(file.path(), &limits) {
            Ok(facts) => assert_eq!(facts.format, DatasetFormat::Parquet, "{what}"),
            Err(error) => assert!(!matches!(error, DatasetError::Io { .. }), "{what}: {error}"),
        }
    };
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            answered(&damaged, &format!("byte {at} changed by {change}"));
        }
    }
    (0..whole.len()).for_each(|length| answered(&whole[..length], &format!("cut to {length}")));
    assert!(inspect(stored(&whole).path(), &limits).is_ok());
    assert!(inspect(Path::new("/nowhere.parquet"), &limits).is_err());
}
