//! The elements of one float tensor, read piece by piece: whatever type the file holds, no copy of the whole.

use std::borrow::Cow;

use crate::model::header::Dtype;
use crate::tensors::Number;

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

    /// `len` elements from `first` on: borrowed where they are f32 and wanted as that, else converted into `scratch`.
    ///
    /// # Panics
    /// When the tensor ends before.
    #[must_use]
    pub fn slice<'b, T: Number>(&'b self, first: usize, len: usize, scratch: &'b mut Vec<T>) -> &'b [T] {
        let borrowed = if let Self::Floats(values) = self { T::borrow(&values[first..first + len]) } else { None };
        borrowed.unwrap_or_else(|| {
            scratch.resize(len, T::default());
            self.copy_to(first, scratch);
            scratch
        })
    }

    /// Copies elements from `first` on to all of `target`.
    ///
    /// # Panics
    /// When the tensor ends before.
    pub fn copy_to<T: Number>(&self, first: usize, target: &mut [T]) {
        match self {
            Self::Floats(values) => T::copy(&values[first..first + target.len()], target),
            Self::Bytes { bytes, dtype } => {
                let size = dtype.size();
                T::read(&bytes[first * size..(first + target.len()) * size], *dtype, target);
            }
        }
    }
}
