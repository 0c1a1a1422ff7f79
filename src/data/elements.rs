//! Bytes of array elements to pixels and labels.

use half::{bf16, f16};

use super::MAX_LABEL;
use crate::model::header::Dtype;

/// How one element of an array is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// Its type.
    pub(super) dtype: Dtype,
    /// Most significant byte first.
    pub(super) big_endian: bool,
}

impl Element {
    /// Bytes 0 to 255, the type of most images.
    pub(super) const U8: Self = Self { dtype: Dtype::U8, big_endian: false };

    /// An element of a safetensors file.
    pub(super) fn little_endian(dtype: Dtype) -> Self {
        Self { dtype, big_endian: false }
    }

    /// Whether it is a floating-point number.
    pub(super) fn is_float(self) -> bool {
        self.dtype.is_float()
    }

    /// Brings whole elements into little-endian order, in place.
    fn order(self, bytes: &mut [u8]) {
        if self.big_endian && self.dtype.size() > 1 {
            bytes.chunks_exact_mut(self.dtype.size()).for_each(<[u8]>::reverse);
        }
    }

    /// The elements as f32, in place of what `out` held; integers are taken as their value.
    ///
    /// # Errors
    /// Index and value of the first element that is not a finite f32.
    pub(super) fn floats(self, bytes: &mut [u8], out: &mut Vec<f32>) -> Result<(), (usize, f64)> {
        self.order(bytes);
        out.clear();
        match self.dtype {
            Dtype::F32 => out.extend(each(bytes, f32::from_le_bytes)),
            Dtype::F64 => out.extend(each(bytes, |element| f64::from_le_bytes(element) as f32)),
            Dtype::F16 => out.extend(each(bytes, |element| f16::from_le_bytes(element).to_f32())),
            Dtype::Bf16 => out.extend(each(bytes, |element| bf16::from_le_bytes(element).to_f32())),
            Dtype::I64 => out.extend(each(bytes, |element| i64::from_le_bytes(element) as f32)),
            Dtype::I32 => out.extend(each(bytes, |element| i32::from_le_bytes(element) as f32)),
            Dtype::I16 => out.extend(each(bytes, |element| f32::from(i16::from_le_bytes(element)))),
            Dtype::I8 => out.extend(each(bytes, |element| f32::from(i8::from_le_bytes(element)))),
            Dtype::U64 => out.extend(each(bytes, |element| u64::from_le_bytes(element) as f32)),
            Dtype::U32 => out.extend(each(bytes, |element| u32::from_le_bytes(element) as f32)),
            Dtype::U16 => out.extend(each(bytes, |element| f32::from(u16::from_le_bytes(element)))),
            Dtype::U8 | Dtype::Bool => out.extend(each(bytes, |[element]| f32::from(element))),
        }
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err((index, self.exactly(bytes, index).unwrap_or(f64::from(out[index])))),
        }
    }

    /// The f64 at `index`, which may be finite where its f32 is not.
    fn exactly(self, bytes: &[u8], index: usize) -> Option<f64> {
        let (elements, _) = bytes.as_chunks::<8>();
        (self.dtype == Dtype::F64).then(|| elements.get(index).map(|element| f64::from_le_bytes(*element)))?
    }

    /// Appends the elements to `out` as labels.
    ///
    /// # Errors
    /// Index (among these elements) and text of the first that is no whole number from 0 to [`MAX_LABEL`].
    pub(super) fn labels(self, bytes: &mut [u8], out: &mut Vec<u32>) -> Result<(), (usize, String)> {
        self.order(bytes);
        match self.dtype {
            Dtype::F32 => collect(each(bytes, |element| f64::from(f32::from_le_bytes(element))), whole, out),
            Dtype::F64 => collect(each(bytes, f64::from_le_bytes), whole, out),
            Dtype::F16 => collect(each(bytes, |element| f16::from_le_bytes(element).to_f64()), whole, out),
            Dtype::Bf16 => collect(each(bytes, |element| bf16::from_le_bytes(element).to_f64()), whole, out),
            Dtype::I64 => collect(each(bytes, i64::from_le_bytes), |value| value.try_into().ok(), out),
            Dtype::I32 => collect(each(bytes, i32::from_le_bytes), |value| value.try_into().ok(), out),
            Dtype::I16 => collect(each(bytes, i16::from_le_bytes), |value| value.try_into().ok(), out),
            Dtype::I8 => collect(each(bytes, i8::from_le_bytes), |value| value.try_into().ok(), out),
            Dtype::U64 => collect(each(bytes, u64::from_le_bytes), |value| value.try_into().ok(), out),
            Dtype::U32 => collect(each(bytes, u32::from_le_bytes), Some, out),
            Dtype::U16 => collect(each(bytes, u16::from_le_bytes), |value| Some(value.into()), out),
            Dtype::U8 | Dtype::Bool => collect(each(bytes, |[element]| element), |value| Some(value.into()), out),
        }
    }
}

/// A float that is a whole number.
fn whole(value: f64) -> Option<u32> {
    (value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0).then_some(value as u32)
}

/// Converts elements of N bytes.
fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |element| convert(*element))
}

fn collect<T: Copy + std::fmt::Display>(
    values: impl Iterator<Item = T>,
    label: impl Fn(T) -> Option<u32>,
    out: &mut Vec<u32>,
) -> Result<(), (usize, String)> {
    for (index, value) in values.enumerate() {
        match label(value).filter(|label| *label <= MAX_LABEL) {
            Some(label) => out.push(label),
            None => return Err((index, value.to_string())),
        }
    }
    Ok(())
}
