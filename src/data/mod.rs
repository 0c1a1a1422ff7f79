//! Datasets: their file formats, and their examples in memory.
//!
//! [`inspect`] reads a file through in bounded memory, so that an upload is known to be usable before a job needs it;
//! [`Dataset::open`] brings it into memory, from where [`Split::batch`] hands out normalised examples.

mod archive;
mod arrays;
pub mod augment;
mod batch;
mod cifar;
mod dataset;
mod elements;
mod error;
mod folders;
mod idx;
mod images;
mod intake;
mod npy;
mod preview;
mod source;
mod statistics;

use std::path::Path;

use crate::domain::dataset::DatasetFacts;

pub use dataset::{Dataset, Pixels, Split};
pub use error::DatasetError;

/// The highest label: 65,536 classes are more than any classifier that is fused here.
pub const MAX_LABEL: u32 = 65_535;

/// How much a dataset may unfold to, whatever its file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all examples and labels in memory; also bytes that may come out of each decompressor.
    pub decoded_bytes: u64,
    /// Files in an archive.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { decoded_bytes: 16 << 30, entries: 5_000_000 }
    }
}

/// Reads the dataset `path` through once: recognises its format by its content, checks every example and label, counts
/// classes, and measures mean and standard deviation per channel. Memory stays at the labels and a few MiB, except for
/// arrays in Fortran order, which are read whole.
///
/// # Errors
/// The first fault, in words for the dataset's owner.
pub fn inspect(path: &Path, limits: &Limits) -> Result<DatasetFacts, DatasetError> {
    read(path, limits, false).map(|dataset| dataset.facts)
}

/// Reads the dataset `path`, to keep its pixels or not.
fn read(path: &Path, limits: &Limits, keep: bool) -> Result<Dataset, DatasetError> {
    let mut intake = intake::Intake::new(limits, keep);
    let (format, class_names) = source::read(path, limits, &mut intake)?;
    intake.finish(format, class_names)
}
