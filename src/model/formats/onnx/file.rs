//! The messages of an ONNX file (onnx.proto, github.com/onnx/onnx) as they lie in it; texts and data are not copied.

use super::beside::Beside;
use super::budget::{CopyBudget, text};
use super::error::OnnxError;
use super::file_tensor::{FileTensor, tensor};
use crate::model::formats::limits::MAX_TENSORS;
use crate::model::formats::protobuf::{Fields, Piece};

/// Most nodes of a graph as exporters write it, helpers and constants among them.
const MAX_FILE_NODES: usize = 100_000;

/// A model: one graph of nodes in order of computation.
#[derive(Debug, Default)]
pub(super) struct File<'a> {
    /// Version of the operators.
    pub(super) opset: i64,
    pub(super) nodes: Vec<FileNode<'a>>,
    pub(super) tensors: Vec<FileTensor<'a>>,
    pub(super) inputs: Vec<FileInput<'a>>,
    pub(super) outputs: Vec<&'a str>,
}

/// A `NodeProto`.
#[derive(Debug, Default)]
pub(super) struct FileNode<'a> {
    pub(super) name: &'a str,
    pub(super) op: &'a str,
    pub(super) domain: &'a str,
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) attributes: Vec<(&'a str, AttributeValue<'a>)>,
    /// The modules around the node, as PyTorch's exporter notes them.
    pub(super) scopes: Option<&'a str>,
}

/// The value of an attribute.
#[derive(Debug, Default)]
pub(super) enum AttributeValue<'a> {
    Integer(i64),
    Float(f32),
    Text(&'a str),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(FileTensor<'a>),
    /// Of a kind that no supported operator has.
    #[default]
    Other,
}

/// A `ValueInfoProto`.
#[derive(Debug, Default)]
pub(super) struct FileInput<'a> {
    pub(super) name: &'a str,
    /// `TensorProto.DataType`.
    pub(super) data_type: i64,
    /// Sizes of its axes; none where they are open.
    pub(super) axes: Vec<Option<i64>>,
}

impl FileNode<'_> {
    fn attribute(&self, name: &str) -> Option<&AttributeValue<'_>> {
        self.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&FileTensor<'_>> {
        match self.attribute(name)? {
            AttributeValue::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            AttributeValue::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// A float as its shortest decimal form, which is what its author wrote.
    pub(super) fn float(&self, name: &str) -> Option<f64> {
        match self.attribute(name)? {
            AttributeValue::Float(value) => Some(shortest(*value)),
            _ => None,
        }
    }

    pub(super) fn integers(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name)? {
            AttributeValue::Integers(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn floats(&self, name: &str) -> Option<&[f32]> {
        match self.attribute(name)? {
            AttributeValue::Floats(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attribute(name)? {
            AttributeValue::Text(value) => Some(value),
            _ => None,
        }
    }

    /// Names of all attributes.
    pub(super) fn attribute_names(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().map(|(name, _)| *name)
    }
}

/// The value that a float's shortest decimal form names.
pub(super) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// Reads the model in `model`, some of whose data may lie in files `beside` it.
pub(super) fn read<'a>(model: Piece<'a>, beside: &Beside<'a>) -> Result<File<'a>, OnnxError> {
    let mut file = File::default();
    let mut budget = CopyBudget::default();
    let mut graph = None;
    for field in Fields::of(model) {
        let field = field?;
        match field.number {
            7 => graph = Some(field.piece()?),
            8 => {
                let (mut domain, mut version) = ("", 0);
                for field in Fields::of(field.piece()?) {
                    let field = field?;
                    match field.number {
                        1 => domain = text(&field)?,
                        2 => version = field.integer()?,
                        _ => {}
                    }
                }
                if domain.is_empty() || domain == "ai.onnx" {
                    file.opset = version;
                }
            }
            _ => {}
        }
    }
    let graph = graph.ok_or_else(|| OnnxError::Model("it has no graph".to_owned()))?;
    for field in Fields::of(graph) {
        let field = field?;
        match field.number {
            1 => {
                limit("nodes", file.nodes.len(), MAX_FILE_NODES)?;
                file.nodes.push(node(field.piece()?, beside, &mut budget)?);
            }
            5 => {
                limit("tensors", file.tensors.len(), MAX_TENSORS)?;
                file.tensors.push(tensor(field.piece()?, beside, &mut budget)?);
            }
            11 => {
                budget.take(1)?;
                file.inputs.push(input(field.piece()?, &mut budget)?);
            }
            12 => {
                budget.take(1)?;
                file.outputs.push(input(field.piece()?, &mut budget)?.name);
            }
            15 => return Err(OnnxError::Model("it has sparse tensors".to_owned())),
            _ => {}
        }
    }
    Ok(file)
}

fn limit(what: &str, have: usize, most: usize) -> Result<(), OnnxError> {
    if have < most { Ok(()) } else { Err(OnnxError::Limit { what: format!("more {what}"), most }) }
}

fn node<'a>(piece: Piece<'a>, beside: &Beside<'a>, budget: &mut CopyBudget) -> Result<FileNode<'a>, OnnxError> {
    let mut node = FileNode::default();
    for field in Fields::of(piece) {
        let field = field?;
        budget.take(1)?;
        match field.number {
            1 => node.inputs.push(text(&field)?),
            2 => node.outputs.push(text(&field)?),
            3 => node.name = text(&field)?,
            4 => node.op = text(&field)?,
            5 => node.attributes.push(attribute(field.piece()?, beside, budget)?),
            7 => node.domain = text(&field)?,
            9 => {
                if let Some(scopes) = scopes(field.piece()?)? {
                    node.scopes = Some(scopes);
                }
            }
            _ => {}
        }
    }
    Ok(node)
}

/// The note on the modules around a node, if the entry is that.
fn scopes(piece: Piece<'_>) -> Result<Option<&str>, OnnxError> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields::of(piece) {
        let field = field?;
        match field.number {
            1 => key = field.piece()?.bytes,
            2 => value = field.piece()?.bytes,
            _ => {}
        }
    }
    Ok(if key == b"pkg.torch.onnx.name_scopes" { std::str::from_utf8(value).ok() } else { None })
}

fn attribute<'a>(
    piece: Piece<'a>,
    beside: &Beside<'a>,
    budget: &mut CopyBudget,
) -> Result<(&'a str, AttributeValue<'a>), OnnxError> {
    let (mut name, mut value, mut kind) = ("", AttributeValue::Other, None);
    let (mut integers, mut floats) = (Vec::new(), Vec::new());
    for field in Fields::of(piece) {
        let field = field?;
        match field.number {
            1 => name = text(&field)?,
            2 => value = AttributeValue::Float(field.float()?),
            3 => value = AttributeValue::Integer(field.integer()?),
            4 => value = std::str::from_utf8(field.piece()?.bytes).map_or(AttributeValue::Other, AttributeValue::Text),
            5 => value = AttributeValue::Tensor(tensor(field.piece()?, beside, budget)?),
            7 => {
                match field.piece() {
                    Ok(packed) => {
                        budget.take(packed.bytes.len() / 4)?;
                        floats.extend(packed.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                    }
                    Err(_) => floats.push(field.float()?),
                }
                budget.take(1)?;
            }
            8 => {
                budget.take(field.piece().map_or(1, |packed| packed.bytes.len()))?;
                field.integers(&mut integers)?;
            }
            20 => kind = Some(field.integer()?),
            _ => {}
        }
    }
    // An empty list has no field but its kind.
    let value = match kind {
        Some(6) => AttributeValue::Floats(floats),
        Some(7) => AttributeValue::Integers(integers),
        _ if !integers.is_empty() => AttributeValue::Integers(integers),
        _ if !floats.is_empty() => AttributeValue::Floats(floats),
        // A number that is 0 may be left out.
        Some(1) if matches!(value, AttributeValue::Other) => AttributeValue::Float(0.0),
        Some(2) if matches!(value, AttributeValue::Other) => AttributeValue::Integer(0),
        _ => value,
    };
    Ok((name, value))
}

fn input<'a>(piece: Piece<'a>, budget: &mut CopyBudget) -> Result<FileInput<'a>, OnnxError> {
    let mut input = FileInput::default();
    for field in Fields::of(piece) {
        let field = field?;
        match field.number {
            1 => input.name = text(&field)?,
            2 => {
                for field in Fields::of(field.piece()?) {
                    let field = field?;
                    if field.number == 1 {
                        tensor_type(field.piece()?, &mut input, budget)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(input)
}

fn tensor_type<'a>(piece: Piece<'a>, input: &mut FileInput<'a>, budget: &mut CopyBudget) -> Result<(), OnnxError> {
    for field in Fields::of(piece) {
        let field = field?;
        match field.number {
            1 => input.data_type = field.integer()?,
            2 => {
                for field in Fields::of(field.piece()?) {
                    let field = field?;
                    if field.number == 1 {
                        budget.take(1)?;
                        let mut size = None;
                        for field in Fields::of(field.piece()?) {
                            let field = field?;
                            if field.number == 1 {
                                size = Some(field.integer()?);
                            }
                        }
                        input.axes.push(size);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}
