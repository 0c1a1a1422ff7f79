//! Elements of a file's tensors as numbers.

use half::{bf16, f16};

use super::file::shortest;
use super::file_tensor::{FileTensor, TensorElements};
use crate::model::header::Dtype;

/// The elements of a tensor of whole numbers; none where its type is not read.
pub(super) fn whole_numbers(tensor: &FileTensor<'_>) -> Option<Vec<i64>> {
    let bytes = bytes(tensor);
    let each = |read: fn(&[u8]) -> i64| Some(bytes.chunks_exact(tensor.dtype.size()).map(read).collect());
    match tensor.dtype {
        Dtype::I64 | Dtype::U64 => each(|bytes| bytes.try_into().map_or(0, i64::from_le_bytes)),
        Dtype::I32 => each(|bytes| bytes.try_into().map_or(0, i32::from_le_bytes).into()),
        Dtype::U8 | Dtype::Bool => each(|bytes| bytes[0].into()),
        _ => None,
    }
}

/// The bytes of a tensor.
pub(super) fn bytes<'a>(tensor: &'a FileTensor<'_>) -> &'a [u8] {
    match &tensor.data {
        TensorElements::Span(piece) => piece.bytes,
        TensorElements::Owned(bytes) => bytes,
    }
}

/// Element `index` of a float tensor.
pub(super) fn float(tensor: &FileTensor<'_>, index: usize) -> Option<f64> {
    let size = tensor.dtype.size();
    let bytes = bytes(tensor).get(index.checked_mul(size)?..)?;
    Some(match tensor.dtype {
        Dtype::F32 => shortest(f32::from_le_bytes(*bytes.first_chunk()?)),
        Dtype::F64 => f64::from_le_bytes(*bytes.first_chunk()?),
        Dtype::F16 => f16::from_le_bytes(*bytes.first_chunk()?).into(),
        Dtype::Bf16 => bf16::from_le_bytes(*bytes.first_chunk()?).into(),
        _ => return None,
    })
}
