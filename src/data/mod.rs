//! Datasets: their file formats, and their examples, decoded and mapped.
//!
//! [`inspect`] reads a file through in bounded memory, so that an upload is known to be usable before a job needs it;
//! [`Dataset::open`] decodes it into a file that is mapped, from where [`Split::batch`] hands out normalised examples. Memory stays
//! at the labels either way.

mod archive;
mod arrays;
pub mod augment;
mod batch;
mod cifar;
mod cifar_python;
mod dataset;
mod elements;
mod error;
mod folders;
mod idx;
mod images;
mod intake;
mod jpeg;
mod jpeg_chroma;
mod labels;
mod parquet;
mod preview;
mod source;
mod statistics;
mod store;
mod table;
mod table_labels;
mod tabled;

use std::path::Path;

use crate::domain::dataset::DatasetFacts;

pub use batch::{BatchView, Channels};
pub use dataset::{Dataset, Split};
pub use error::DatasetError;
pub use labels::{LabelRows, Labels};
pub use store::Pixels;

/// The highest label: 65,536 classes are more than any classifier that is fused here.
pub const MAX_LABEL: u32 = 65_535;

/// How much a dataset may unfold to, whatever its file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all examples and labels, decoded; also bytes that may come out of each decompressor.
    pub decoded_bytes: u64,
    /// Files in an archive.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { decoded_bytes: 64 << 30, entries: 5_000_000 }
    }
}

/// Checks that `path`, if it is there, is no folder.
///
/// # Errors
/// How to make a dataset of the folder.
pub fn expect_file(path: &Path) -> Result<(), DatasetError> {
    if path.is_dir() { Err(DatasetError::folder(path)) } else { Ok(()) }
}

/// Reads the dataset `path` through once: recognises its format by its content, checks every example and label, counts
/// classes, and measures mean and standard deviation per channel. Memory stays at the labels and a few MiB; arrays in
/// Fortran order and Parquet files in archives go through a file in the system's folder for such.
///
/// # Errors
/// The first fault, in words for the dataset's owner.
pub fn inspect(path: &Path, limits: &Limits) -> Result<DatasetFacts, DatasetError> {
    let mut intake = intake::DatasetBuilder::new(limits, None);
    let (format, class_names) = source::read(path, limits, &mut intake)?;
    intake.finish(format, class_names).map(|read| read.facts)
}
