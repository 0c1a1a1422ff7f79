//! The messages of an ONNX file as they are written; field numbers are those of onnx.proto (github.com/onnx/onnx).

use crate::model::formats::protobuf::{put_bytes, put_float, put_integer};
use crate::model::header::Dtype;

/// Version of the file format, of onnx 1.12.
const IR_VERSION: i64 = 8;
/// Version of the operators: the first with `LayerNormalization`, which onnxruntime reads since 1.12.
const OPSET: i64 = 17;

/// `TensorProto.DataType` of element types that files get.
pub(super) fn data_type(dtype: Dtype) -> i64 {
    match dtype {
        Dtype::F32 => 1,
        Dtype::U8 => 2,
        Dtype::I8 => 3,
        Dtype::U16 => 4,
        Dtype::I16 => 5,
        Dtype::I32 => 6,
        Dtype::I64 => 7,
        Dtype::Bool => 9,
        Dtype::F16 => 10,
        Dtype::F64 => 11,
        Dtype::U32 => 12,
        Dtype::U64 => 13,
        Dtype::Bf16 => 16,
    }
}

/// The value of a node's attribute.
#[derive(Debug, Clone)]
pub(super) enum Attribute {
    Integer(i64),
    Float(f32),
    Integers(Vec<i64>),
    Text(&'static str),
}

/// Sizes as attributes have them.
pub(super) fn integers(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|size| *size as i64).collect()
}

/// A `NodeProto`.
pub(super) fn node(
    op: &str,
    name: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[(&str, Attribute)],
) -> Vec<u8> {
    let mut out = Vec::new();
    for input in inputs {
        put_bytes(&mut out, 1, input.as_bytes());
    }
    for output in outputs {
        put_bytes(&mut out, 2, output.as_bytes());
    }
    put_bytes(&mut out, 3, name.as_bytes());
    put_bytes(&mut out, 4, op.as_bytes());
    for (name, value) in attributes {
        put_bytes(&mut out, 5, &attribute(name, value));
    }
    out
}

/// An `AttributeProto`.
fn attribute(name: &str, value: &Attribute) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    let kind = match value {
        Attribute::Float(value) => {
            put_float(&mut out, 2, *value);
            1
        }
        Attribute::Integer(value) => {
            put_integer(&mut out, 3, *value);
            2
        }
        Attribute::Text(value) => {
            put_bytes(&mut out, 4, value.as_bytes());
            3
        }
        Attribute::Integers(values) => {
            for value in values {
                put_integer(&mut out, 8, *value);
            }
            7
        }
    };
    put_integer(&mut out, 20, kind);
    out
}

/// A `TensorProto` without its data.
pub(super) fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    for axis in shape {
        put_integer(&mut out, 1, *axis as i64);
    }
    put_integer(&mut out, 2, data_type(dtype));
    put_bytes(&mut out, 8, name.as_bytes());
    out
}

/// A `ValueInfoProto` of floats, whose first axis is the batch.
pub(super) fn value_info(name: &str, shape: &[usize]) -> Vec<u8> {
    let mut axes = Vec::new();
    let mut batch = Vec::new();
    put_bytes(&mut batch, 2, b"N");
    put_bytes(&mut axes, 1, &batch);
    for axis in shape {
        let mut dimension = Vec::new();
        put_integer(&mut dimension, 1, *axis as i64);
        put_bytes(&mut axes, 1, &dimension);
    }
    let mut tensor = Vec::new();
    put_integer(&mut tensor, 1, data_type(Dtype::F32));
    put_bytes(&mut tensor, 2, &axes);
    let mut kind = Vec::new();
    put_bytes(&mut kind, 1, &tensor);
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, &kind);
    out
}

/// The fields of a `ModelProto` in front of its graph.
pub(super) fn model_head() -> Vec<u8> {
    let mut opset = Vec::new();
    put_bytes(&mut opset, 1, b"");
    put_integer(&mut opset, 2, OPSET);
    let mut out = Vec::new();
    put_integer(&mut out, 1, IR_VERSION);
    put_bytes(&mut out, 2, b"engraft");
    put_bytes(&mut out, 3, env!("CARGO_PKG_VERSION").as_bytes());
    put_bytes(&mut out, 8, &opset);
    out
}
