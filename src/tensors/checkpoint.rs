//! Checkpoint files, memory-mapped: opening one reads no tensor that lies in the file as it is needed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use memmap2::Mmap;
use rayon::prelude::*;

use crate::model::formats::{self, Files};
use crate::model::header::{CheckpointHeader, TensorInfo};
use crate::model::prefix;
use crate::tensors::beside::CheckpointFiles;
use crate::tensors::error::CheckpointError;
use crate::tensors::unpacked::{self, UnpackedBytes};
use crate::tensors::{Elements, Weights, convert};

/// Elements that are checked at once.
const CHECKED: usize = 1 << 18;
/// The exponent of an f32.
const EXPONENT: u32 = 0x7f80_0000;

/// An open, finished checkpoint: one file, or several that one of them names.
#[derive(Debug)]
pub struct Checkpoint {
    maps: Vec<Mmap>,
    header: CheckpointHeader,
    metadata: BTreeMap<String, String>,
    /// By each tensor's name: its position in the header's list, and its elements.
    places: BTreeMap<String, (usize, UnpackedBytes)>,
}

impl Checkpoint {
    /// Maps the checkpoint `path`, of any format, with the files beside it that it names, and passes it through the gate. The files
    /// must be complete and stay as they are. Tensors that the format does not store row by row are copied to memory.
    ///
    /// # Errors
    /// When a file cannot be read or the gate refuses it.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let CheckpointFiles { names, maps, .. } = CheckpointFiles::open(path)?;
        Self::of_maps(maps, &names)
    }

    /// A checkpoint in one file that is mapped already, as [`Self::open`] takes it.
    ///
    /// # Errors
    /// When the gate refuses it.
    pub fn of_map(map: Mmap) -> Result<Self, CheckpointError> {
        Self::of_maps(vec![map], &[])
    }

    /// The checkpoint in `maps`, of which those behind the first are called `names`.
    fn of_maps(maps: Vec<Mmap>, names: &[String]) -> Result<Self, CheckpointError> {
        let mut files = Files::default();
        for map in &maps {
            files.push(map);
        }
        let others = names.iter().map(String::as_str).zip(maps[1..].iter().map(|map| &map[..]));
        let layout = formats::read_files(&maps[0], &others.collect::<Vec<_>>())?;
        let places = unpacked::stored(&files, &layout.header.tensors, layout.places)?;
        let names = layout.header.tensors.iter().map(|info| info.name.clone());
        let places = names.zip(places.into_iter().enumerate()).collect();
        Ok(Self { maps, header: layout.header, metadata: layout.metadata, places })
    }

    /// The same with the prefix `to` before all names, in place of the one that wrappers have put there.
    #[must_use]
    pub fn with_prefix(self, to: &str) -> Self {
        let from = prefix::of(&self.header).to_owned();
        let header = prefix::renamed(&self.header, to).into_owned();
        let places = self
            .places
            .into_iter()
            .filter_map(|(name, place)| prefix::replaced(&name, &from, to).map(|name| (name, place)));
        Self { header, places: places.collect(), ..self }
    }

    /// What the file holds.
    #[must_use]
    pub fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// The file's own notes (`__metadata__` of a safetensors file).
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

    /// All tensors in natural order of their names, row-major and little endian.
    #[must_use]
    pub fn tensors(&self) -> Vec<(&TensorInfo, &[u8])> {
        self.header.tensors.iter().filter_map(|info| self.bytes(&info.name).ok()).collect()
    }

    /// The tensor `name`, row-major and little endian.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn bytes(&self, name: &str) -> Result<(&TensorInfo, &[u8]), CheckpointError> {
        let (index, stored) = self.places.get(name).ok_or_else(|| CheckpointError::Missing(name.to_owned()))?;
        let bytes = match stored {
            UnpackedBytes::Mapped { file, range } => &self.maps[*file][range.clone()],
            UnpackedBytes::Owned(bytes) => bytes,
        };
        Ok((&self.header.tensors[*index], bytes))
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
