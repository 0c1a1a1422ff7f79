//! Checkpoint files, memory-mapped: opening one reads its header only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use crate::domain::problem::{Code, Problem};
use crate::model::formats::safetensors::{self, FormatError};
use crate::model::header::{CheckpointHeader, TensorInfo};
use crate::tensors::{Elements, Weights, convert, map};

/// Elements that are checked at once.
const CHECKED: usize = 1 << 18;
/// The exponent of an f32.
const EXPONENT: u32 = 0x7f80_0000;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The gate refused.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// There is no such tensor.
    #[error("there is no tensor `{0}`")]
    Missing(String),
    /// Weights must be floats.
    #[error("tensor `{0}` holds integers where weights are expected")]
    NotFloat(String),
    /// NaN or infinity.
    #[error("tensor `{name}` holds {value} at index {index}; weights must be finite")]
    NonFinite {
        /// The tensor.
        name: String,
        /// Position of the first such element, row-major.
        index: usize,
        /// What stands there, after conversion to f32.
        value: f32,
    },
}

impl From<CheckpointError> for Problem {
    fn from(error: CheckpointError) -> Self {
        let code = match &error {
            CheckpointError::NonFinite { .. } => Code::NonFiniteWeights,
            CheckpointError::Io { source, .. } => Code::of_system(source),
            CheckpointError::Format(FormatError::Io { code, .. }) => *code,
            _ => Code::InvalidCheckpoint,
        };
        Self::new(code, error.to_string())
    }
}

/// An open, finished checkpoint file.
#[derive(Debug)]
pub struct Checkpoint {
    map: Mmap,
    header: CheckpointHeader,
    metadata: BTreeMap<String, String>,
    places: BTreeMap<String, Place>,
}

/// Where a tensor is: position in the header's list, first and last byte + 1 in the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: usize,
    begin: usize,
    end: usize,
}

impl Checkpoint {
    /// Maps the safetensors file `path` and passes it through the gate. The file must be complete and stay as it is.
    ///
    /// # Errors
    /// When the file cannot be read or the gate refuses it.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let layout = safetensors::read_layout(&mut file, len)?;
        let map = map(&file).map_err(io)?;
        if map.len() as u64 != len {
            return Err(FormatError::Truncated { expected: len, len: map.len() as u64 }.into());
        }
        let places = layout.header.tensors.iter().zip(&layout.spans).enumerate();
        let places = places
            .map(|(index, (info, span))| {
                (info.name.clone(), Place { index, begin: span.0 as usize, end: span.1 as usize })
            })
            .collect();
        Ok(Self { map, header: layout.header, metadata: layout.metadata, places })
    }

    /// What the file holds.
    #[must_use]
    pub fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// The file's own notes (`__metadata__`).
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads every weight once, in parallel.
    ///
    /// # Errors
    /// Names the first tensor (in natural order) with an element that is not finite.
    pub fn check_finite(&self) -> Result<(), CheckpointError> {
        self.header.tensors.iter().filter(|info| info.dtype.is_float()).try_for_each(|info| {
            let elements = self.elements(&info.name)?;
            let blocks = elements.len().div_ceil(CHECKED);
            let first = (0..blocks).into_par_iter().find_map_first(|block| not_finite(&elements, block * CHECKED));
            match first {
                None => Ok(()),
                Some((index, value)) => Err(CheckpointError::NonFinite { name: info.name.clone(), index, value }),
            }
        })
    }

    /// The integer tensor `name`, row-major.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, CheckpointError> {
        let (info, bytes) = self.bytes(name)?;
        Ok(convert::integers(bytes, info.dtype))
    }

    /// The tensor `name` as it lies in the file.
    fn bytes(&self, name: &str) -> Result<(&TensorInfo, &[u8]), CheckpointError> {
        let place = self.places.get(name).ok_or_else(|| CheckpointError::Missing(name.to_owned()))?;
        Ok((&self.header.tensors[place.index], &self.map[place.begin..place.end]))
    }
}

/// The first element of the block from `first` on that is not finite.
fn not_finite(elements: &Elements<'_>, first: usize) -> Option<(usize, f32)> {
    let mut scratch = Vec::<f32>::new();
    let values = elements.slice(first, CHECKED.min(elements.len() - first), &mut scratch);
    // Without a branch per element: all bits of the exponent are set in NaN and in infinity, and only there.
    let suspicious = values.iter().fold(false, |found, value| found | (value.to_bits() & EXPONENT == EXPONENT));
    let place = if suspicious { values.iter().position(|value| !value.is_finite()) } else { None };
    place.map(|index| (first + index, values[index]))
}

impl Weights for Checkpoint {
    fn f32(&self, name: &str) -> Result<Cow<'_, [f32]>, CheckpointError> {
        Ok(match self.elements(name)? {
            Elements::Floats(values) => values,
            elements @ Elements::Bytes { .. } => {
                let mut values = vec![0.0; elements.len()];
                elements.copy_to(0, &mut values);
                Cow::Owned(values)
            }
        })
    }

    fn elements(&self, name: &str) -> Result<Elements<'_>, CheckpointError> {
        let (info, bytes) = self.bytes(name)?;
        convert::floats(bytes, info.dtype).ok_or_else(|| CheckpointError::NotFloat(name.to_owned()))
    }

    fn counter(&self, name: &str) -> Option<i64> {
        self.integers(name).ok().flatten()?.first().copied()
    }
}
