//! Bytes of a file to numbers; safetensors is little endian.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::model::header::Dtype;
use crate::tensors::Elements;

/// Float elements as f32: borrowed where `bytes` already are that, else to be converted. `None` for integer types.
pub(super) fn floats(bytes: &[u8], dtype: Dtype) -> Option<Elements<'_>> {
    let borrowed = if dtype == Dtype::F32 { borrow_f32(bytes) } else { None };
    match borrowed {
        Some(values) => Some(Elements::Floats(Cow::Borrowed(values))),
        None => dtype.is_float().then_some(Elements::Bytes { bytes, dtype }),
    }
}

/// Converts the float elements in `bytes` to f32, as many as `target` holds.
pub(super) fn into_f32(bytes: &[u8], dtype: Dtype, target: &mut [f32]) {
    match dtype {
        Dtype::F16 => fill(bytes, target, |element| f16::from_le_bytes(element).to_f32()),
        Dtype::Bf16 => fill(bytes, target, |element| bf16::from_le_bytes(element).to_f32()),
        Dtype::F64 => fill(bytes, target, |element| f64::from_le_bytes(element) as f32),
        _ => fill(bytes, target, f32::from_le_bytes),
    }
}

/// Converts the float elements in `bytes` to f64, as many as `target` holds.
pub(super) fn into_f64(bytes: &[u8], dtype: Dtype, target: &mut [f64]) {
    match dtype {
        Dtype::F16 => fill(bytes, target, |element| f16::from_le_bytes(element).to_f64()),
        Dtype::Bf16 => fill(bytes, target, |element| bf16::from_le_bytes(element).to_f64()),
        Dtype::F64 => fill(bytes, target, f64::from_le_bytes),
        _ => fill(bytes, target, |element| f32::from_le_bytes(element).into()),
    }
}

/// Converts f64 elements to bytes, little endian; `bytes` has room for exactly them.
pub(super) fn from_f64(values: &[f64], bytes: &mut [u8]) {
    spill(values, bytes, f64::to_le_bytes);
}

/// Converts f32 elements to the float type `dtype`, little endian; `bytes` has room for exactly them.
pub(super) fn from_f32(values: &[f32], dtype: Dtype, bytes: &mut [u8]) {
    match dtype {
        Dtype::F16 => spill(values, bytes, |value| f16::from_f32(value).to_le_bytes()),
        Dtype::Bf16 => spill(values, bytes, |value| bf16::from_f32(value).to_le_bytes()),
        Dtype::F64 => spill(values, bytes, |value| f64::from(value).to_le_bytes()),
        _ => spill(values, bytes, f32::to_le_bytes),
    }
}

/// Integer elements as i64; values above its range are cut off. `None` for float types.
pub(super) fn integers(bytes: &[u8], dtype: Dtype) -> Option<Vec<i64>> {
    Some(match dtype {
        Dtype::I64 => each(bytes, i64::from_le_bytes),
        Dtype::I32 => each(bytes, |element| i32::from_le_bytes(element).into()),
        Dtype::I16 => each(bytes, |element| i16::from_le_bytes(element).into()),
        Dtype::I8 => each(bytes, |element| i8::from_le_bytes(element).into()),
        Dtype::U64 => each(bytes, |element| i64::try_from(u64::from_le_bytes(element)).unwrap_or(i64::MAX)),
        Dtype::U32 => each(bytes, |element| u32::from_le_bytes(element).into()),
        Dtype::U16 => each(bytes, |element| u16::from_le_bytes(element).into()),
        Dtype::U8 | Dtype::Bool => each(bytes, |[element]| element.into()),
        Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::Bf16 => return None,
    })
}

/// The bytes as they lie, if the machine reads them that way.
fn borrow_f32(bytes: &[u8]) -> Option<&[f32]> {
    if cfg!(target_endian = "little") { bytemuck::try_cast_slice(bytes).ok() } else { None }
}

/// Converts elements of N bytes into `target`.
fn fill<T, const N: usize>(bytes: &[u8], target: &mut [T], convert: impl Fn([u8; N]) -> T) {
    let (elements, _) = bytes.as_chunks::<N>();
    target.iter_mut().zip(elements).for_each(|(value, element)| *value = convert(*element));
}

/// Converts `values` into elements of N bytes.
fn spill<T: Copy, const N: usize>(values: &[T], bytes: &mut [u8], convert: impl Fn(T) -> [u8; N]) {
    let (elements, _) = bytes.as_chunks_mut::<N>();
    elements.iter_mut().zip(values).for_each(|(element, value)| *element = convert(*value));
}

/// Converts elements of N bytes.
fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|element| convert(*element)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
        let elements = floats(bytes, dtype).unwrap();
        elements.slice(0, elements.len(), &mut Vec::new()).to_vec()
    }

    #[test]
    fn every_float_type_is_read_as_f32_and_written_back() {
        let values = [-1.5_f32, 0.25, 65504.0];
        for dtype in [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::Bf16] {
            let mut bytes = vec![0; values.len() * dtype.size()];
            from_f32(&values[..2], dtype, &mut bytes[..2 * dtype.size()]);
            assert_eq!(read(&bytes, dtype), [-1.5, 0.25, 0.0], "{dtype:?}");
        }
        assert_eq!(read(&values[0].to_le_bytes(), Dtype::F32), [values[0]]);
        assert_eq!(read(&f64::from(values[0]).to_le_bytes(), Dtype::F64), [values[0]]);
        assert_eq!(read(&f16::from_f32(values[2]).to_le_bytes(), Dtype::F16), [values[2]]);
        assert_eq!(read(&bf16::from_f32(values[1]).to_le_bytes(), Dtype::Bf16), [values[1]]);
        assert!(floats(&[0; 8], Dtype::I64).is_none());
    }

    #[test]
    fn unaligned_floats_are_copied() {
        let mut bytes = vec![0_u8];
        bytes.extend_from_slice(&2.5_f32.to_le_bytes());
        bytes.extend_from_slice(&3.5_f32.to_le_bytes());
        assert_eq!(read(&bytes[1..], Dtype::F32), [2.5, 3.5]);
    }

    #[test]
    fn every_integer_type_reads_as_i64() {
        assert_eq!(integers(&(-3_i64).to_le_bytes(), Dtype::I64).unwrap(), [-3]);
        assert_eq!(integers(&(-3_i16).to_le_bytes(), Dtype::I16).unwrap(), [-3]);
        assert_eq!(integers(&u64::MAX.to_le_bytes(), Dtype::U64).unwrap(), [i64::MAX]);
        assert_eq!(integers(&[7, 1], Dtype::U8).unwrap(), [7, 1]);
        assert!(integers(&[0; 4], Dtype::F32).is_none());
    }
}
