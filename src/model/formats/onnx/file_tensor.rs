//! The tensors of an ONNX file as they lie in it.

use super::beside::{Beside, EXTERNAL, External};
use super::budget::{CopyBudget, text};
use super::error::OnnxError;
use crate::model::formats::limits::MAX_RANK;
use crate::model::formats::protobuf::{Fields, Piece};
use crate::model::header::Dtype;

/// A `TensorProto`.
#[derive(Debug)]
pub(super) struct FileTensor<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) data: TensorElements<'a>,
}

/// Elements of a tensor, row-major and little endian.
#[derive(Debug, Clone)]
pub(super) enum TensorElements<'a> {
    /// In the file, or one beside it.
    Span(Piece<'a>),
    /// Gathered from numbers of another form.
    Owned(Vec<u8>),
}

/// The element type of a `TensorProto.DataType`, where there is one here.
pub(super) fn dtype(data_type: i64) -> Option<Dtype> {
    Some(match data_type {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Bool,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        16 => Dtype::Bf16,
        _ => return None,
    })
}

/// Reads a tensor, whose data may lie in a file `beside` the model.
pub(super) fn tensor<'a>(
    piece: Piece<'a>,
    beside: &Beside<'a>,
    budget: &mut CopyBudget,
) -> Result<FileTensor<'a>, OnnxError> {
    let (mut name, mut data_type, mut axes) = ("", 0, Vec::new());
    let (mut data, mut numbers, mut wide): (Option<Piece<'a>>, Vec<i64>, Vec<u8>) = (None, Vec::new(), Vec::new());
    let mut external = External::default();
    for field in Fields::of(piece) {
        let field = field?;
        match field.number {
            1 => {
                budget.take(field.piece().map_or(1, |packed| packed.bytes.len()))?;
                field.integers(&mut axes)?;
            }
            2 => data_type = field.integer()?,
            // Packed floats and doubles lie as raw data do.
            4 | 10 if field.piece().is_ok() => data = Some(field.piece()?),
            4 => {
                budget.take(4)?;
                wide.extend(field.float()?.to_le_bytes());
            }
            5 | 7 | 11 => {
                budget.take(field.piece().map_or(1, |packed| packed.bytes.len()))?;
                field.integers(&mut numbers)?;
            }
            8 => name = text(&field)?,
            9 => data = Some(field.piece()?),
            13 => external.entry(field.piece()?)?,
            14 => external.is_used = field.integer()? == EXTERNAL,
            _ => {}
        }
    }
    let fail = |detail: String| OnnxError::Tensor { name: name.to_owned(), detail };
    let dtype = dtype(data_type).ok_or_else(|| fail(format!("its element type (number {data_type}) is not read")))?;
    if axes.len() > MAX_RANK {
        return Err(fail(format!("it has {} axes; at most {MAX_RANK} are read", axes.len())));
    }
    let shape = axes.iter().map(|axis| usize::try_from(*axis)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| fail(format!("its shape {axes:?} is none")))?;
    let expected = shape.iter().try_fold(dtype.size(), |all, axis| all.checked_mul(*axis));
    let expected = expected.ok_or_else(|| fail(format!("its shape {shape:?} is larger than any file")))?;
    let data = match data {
        _ if external.is_used => TensorElements::Span(external.piece(beside, expected).map_err(fail)?),
        Some(piece) => TensorElements::Span(piece),
        None if !wide.is_empty() => TensorElements::Owned(wide),
        None => TensorElements::Owned(narrowed(&numbers, dtype)),
    };
    let got = match &data {
        TensorElements::Span(piece) => piece.bytes.len(),
        TensorElements::Owned(bytes) => bytes.len(),
    };
    if got != expected {
        return Err(fail(format!("its shape {shape:?} takes {expected} bytes of {dtype:?}, but there are {got}")));
    }
    Ok(FileTensor { name, dtype, shape, data })
}

/// Elements that are written as wider integers: the lower bytes of each.
fn narrowed(numbers: &[i64], dtype: Dtype) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes().into_iter().take(dtype.size())).collect()
}
