//! The elements of one float tensor, read as f32 piece by piece: whatever type the file holds, no copy of the whole.

use std::borrow::Cow;

use crate::model::header::Dtype;
use crate::tensors::convert;

/// Elements in row-major order.
#[derive(Debug, Clone)]
pub enum Elements<'a> {
    /// Already f32.
    Floats(Cow<'a, [f32]>),
    /// As they lie in a file; a float type, little endian.
    Bytes {
        /// All bytes of the tensor.
        bytes: &'a [u8],
        /// Their type.
        dtype: Dtype,
    },
}

impl Elements<'_> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Bytes { bytes, dtype } => bytes.len() / dtype.size(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `len` elements from `first` on: borrowed where they are f32, else converted into `scratch`.
    ///
    /// # Panics
    /// When the tensor ends before.
    #[must_use]
    pub fn slice<'b>(&'b self, first: usize, len: usize, scratch: &'b mut Vec<f32>) -> &'b [f32] {
        match self {
            Self::Floats(values) => &values[first..first + len],
            Self::Bytes { .. } => {
                scratch.resize(len, 0.0);
                self.copy_to(first, scratch);
                scratch
            }
        }
    }

    /// Copies elements from `first` on to all of `target`.
    ///
    /// # Panics
    /// When the tensor ends before.
    pub fn copy_to(&self, first: usize, target: &mut [f32]) {
        match self {
            Self::Floats(values) => target.copy_from_slice(&values[first..first + target.len()]),
            Self::Bytes { bytes, dtype } => {
                let size = dtype.size();
                convert::into_f32(&bytes[first * size..(first + target.len()) * size], *dtype, target);
            }
        }
    }
}
