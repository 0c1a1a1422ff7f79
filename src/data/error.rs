//! Why a dataset cannot be used, in words that say what to change.

use std::path::{Path, PathBuf};

use crate::domain::problem::{Code, Problem};
use crate::model::formats::FormatError;

/// The first fault that reading a dataset found.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file system refused; not the dataset's fault.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A folder, where one file is read.
    #[error("it is a folder, and a dataset is one file: pack it, as in `tar -cf {name}.tar -C {path} .`")]
    Folder {
        /// The folder.
        path: String,
        /// Its own name.
        name: String,
    },
    /// Nothing there.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are of no format that is read.
    #[error(
        "the file is neither .npz, .npy, safetensors, Parquet, zip, tar nor tar.gz (it begins with the bytes {start}); save arrays with \
         numpy.savez(file, x=.., y=..) or pack folders of images into a zip"
    )]
    UnknownFormat {
        /// The first bytes, in hexadecimal.
        start: String,
    },
    /// The archive's own structure is broken.
    #[error("the archive is damaged: {reason}; pack it again")]
    DamagedArchive {
        /// What the reader of the archive says.
        reason: String,
    },
    /// One file in the archive cannot be read.
    #[error("`{entry}` in the archive cannot be read: {reason}")]
    DamagedEntry {
        /// Its name.
        entry: String,
        /// What the decompressor says.
        reason: String,
    },
    /// A link, a sparse file or the like.
    #[error("`{entry}` in the archive is a link or special file; pack the files themselves (tar --dereference)")]
    SpecialEntry {
        /// Its name.
        entry: String,
    },
    /// More files than the limit.
    #[error("the archive holds more than {limit} files")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// More bytes than the limit once decompressed.
    #[error("the dataset takes more than {limit} bytes once decoded; use fewer or smaller examples")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// An archive of something else.
    #[error(
        "the archive holds no dataset: expected arrays x.npy and, unless there are no labels, y.npy, the four MNIST IDX files, CIFAR's files, Parquet files with \
         images, one folder of images per class, or images with a table labels.csv; found {found}"
    )]
    NoDataset {
        /// Names of its first files.
        found: String,
    },
    /// Arrays or IDX files that belong to a dataset are absent.
    #[error("{missing} is missing; found {found}")]
    Missing {
        /// What is missing.
        missing: String,
        /// What is there.
        found: String,
    },
    /// Two files for the same thing.
    #[error("`{first}` and `{second}` are the same part of the dataset; keep one of them")]
    Duplicate {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// Not a `.npy` file, or not one of numbers.
    #[error("`{array}` is not a usable NumPy array: {reason}")]
    Npy {
        /// The file.
        array: String,
        /// What is wrong with its header.
        reason: String,
    },
    /// The safetensors gate refused.
    #[error(transparent)]
    Safetensors(#[from] FormatError),
    /// Wrong number of axes, or an axis of length 0.
    #[error("`{array}` has the shape {shape:?}; expected {expected}")]
    Shape {
        /// The array.
        array: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Shapes that would do.
        expected: &'static str,
    },
    /// Colours in the last axis.
    #[error(
        "`{array}` has the shape {shape:?}, which looks like N x H x W x C; channels come first here: save \
         {array}.transpose(0, 3, 1, 2)"
    )]
    ChannelsLast {
        /// The array.
        array: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Fewer or more bytes than the shape says.
    #[error("`{array}` should hold {expected} bytes by its shape and element type, but holds {found}")]
    Length {
        /// The array or IDX file.
        array: String,
        /// Bytes by its header.
        expected: u64,
        /// What there is.
        found: String,
    },
    /// As many labels as examples are needed.
    #[error("the {split} split has {examples} examples but {labels} labels")]
    LengthsDiffer {
        /// `train`, `validation` or `test`.
        split: &'static str,
        /// Examples.
        examples: usize,
        /// Labels.
        labels: usize,
    },
    /// Splits of one dataset have examples of one shape.
    #[error("examples of the train split have the shape {train:?}, those of the {split} split {shape:?}")]
    SplitsDiffer {
        /// Shape of the one.
        train: Vec<usize>,
        /// The other: `validation` or `test`.
        split: &'static str,
        /// Shape of the other.
        shape: Vec<usize>,
    },
    /// Labels of the splits of one dataset have as many numbers per example.
    #[error("labels of the train split have {train} numbers per example, those of the {split} split {columns}")]
    LabelsDiffer {
        /// Those of the one.
        train: usize,
        /// The other: `validation` or `test`.
        split: &'static str,
        /// Those of the other.
        columns: usize,
    },
    /// Not a class.
    #[error("label `{array}[{index}]` is {value}; labels are whole numbers from 0 to {max}, counted from 0", max = super::MAX_LABEL)]
    Label {
        /// The array or IDX file.
        array: String,
        /// Position of the label.
        index: usize,
        /// What stands there.
        value: String,
    },
    /// NaN, infinite or beyond the range of f32.
    #[error("`{array}{position:?}` is {value}; inputs must be finite f32 numbers: clean the array before saving it")]
    NonFinite {
        /// The array.
        array: String,
        /// Index of the element, one number per axis.
        position: Vec<usize>,
        /// What stands there.
        value: f64,
    },
    /// Folders that are neither classes nor splits of classes.
    #[error(
        "{reason}; expected one folder of images per class, or train/, val/ and test/ with such folders, or a table labels.csv that \
         names each image and its label"
    )]
    Folders {
        /// What is confusing.
        reason: String,
    },
    /// Not a PNG or JPEG file, or a damaged one.
    #[error("the image `{entry}` cannot be used: {reason}")]
    Image {
        /// Its name.
        entry: String,
        /// What the decoder says.
        reason: String,
    },
    /// Images of one dataset have one size.
    #[error("the image `{entry}` has {found} pixels, but `{first}` has {expected}; resize all images to one size")]
    ImageSize {
        /// Its name.
        entry: String,
        /// Its width and height.
        found: String,
        /// The image that came first.
        first: String,
        /// Width and height of that one.
        expected: String,
    },
    /// Not a Parquet file of images with labels, or a damaged one.
    #[error("`{entry}` cannot be used: {reason}")]
    Parquet {
        /// The file.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A table that does not say which image has which label.
    #[error("the table `{entry}` cannot be used: {reason}")]
    Table {
        /// Its name.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not the file of records that its name promises.
    #[error(
        "`{entry}` has {bytes} bytes, which is no whole number of records of {record} bytes (label and 3x32x32 pixels)"
    )]
    Records {
        /// The file.
        entry: String,
        /// Its size.
        bytes: u64,
        /// Bytes of one record.
        record: u64,
    },
    /// Not the IDX file that its name promises.
    #[error("`{entry}` begins with {found}; {expected}")]
    IdxMagic {
        /// The file.
        entry: String,
        /// Its first four bytes, in hexadecimal.
        found: String,
        /// What should stand there.
        expected: &'static str,
    },
}

impl DatasetError {
    /// Why the folder `path` cannot be read.
    pub(super) fn folder(path: &Path) -> Self {
        let name = path.file_name().map_or_else(|| "data".into(), std::ffi::OsStr::to_string_lossy);
        Self::Folder { path: path.display().to_string(), name: name.into_owned() }
    }
}

impl From<DatasetError> for Problem {
    fn from(error: DatasetError) -> Self {
        let code = match &error {
            DatasetError::Io { source, .. } => Code::of_system(source),
            _ => Code::DatasetInvalid,
        };
        Self::new(code, error.to_string())
    }
}
