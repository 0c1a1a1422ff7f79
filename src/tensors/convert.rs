//! Bytes of a file to numbers; safetensors is little endian.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::model::header::Dtype;

/// Float elements as f32: borrowed where `bytes` already are that, else converted. `None` for integer types.
pub(super) fn floats(bytes: &[u8], dtype: Dtype) -> Option<Cow<'_, [f32]>> {
    Some(match dtype {
        Dtype::F32 => borrow_f32(bytes).map_or_else(|| Cow::Owned(each(bytes, f32::from_le_bytes)), Cow::Borrowed),
        Dtype::F64 => Cow::Owned(each(bytes, |element| f64::from_le_bytes(element) as f32)),
        Dtype::F16 => Cow::Owned(each(bytes, |element| f16::from_le_bytes(element).to_f32())),
        Dtype::Bf16 => Cow::Owned(each(bytes, |element| bf16::from_le_bytes(element).to_f32())),
        _ => return None,
    })
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

/// Converts elements of N bytes.
fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|element| convert(*element)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_type_reads_as_f32() {
        let value = -1.5_f32;
        assert_eq!(floats(&value.to_le_bytes(), Dtype::F32).unwrap()[..], [value]);
        assert_eq!(floats(&f64::from(value).to_le_bytes(), Dtype::F64).unwrap()[..], [value]);
        assert_eq!(floats(&f16::from_f32(value).to_le_bytes(), Dtype::F16).unwrap()[..], [value]);
        assert_eq!(floats(&bf16::from_f32(value).to_le_bytes(), Dtype::Bf16).unwrap()[..], [value]);
        assert!(floats(&[0; 8], Dtype::I64).is_none());
    }

    #[test]
    fn unaligned_floats_are_copied() {
        let mut bytes = vec![0_u8];
        bytes.extend_from_slice(&2.5_f32.to_le_bytes());
        bytes.extend_from_slice(&3.5_f32.to_le_bytes());
        assert_eq!(floats(&bytes[1..], Dtype::F32).unwrap()[..], [2.5, 3.5]);
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
