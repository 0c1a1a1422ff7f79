//! The messages of an ONNX file (onnx.proto, github.com/onnx/onnx) as they lie in it; texts and data are not copied.

use super::error::OnnxError;
use crate::model::formats::limits::{MAX_RANK, MAX_TENSORS};
use crate::model::formats::protobuf::{Field, Fields, Piece};
use crate::model::header::Dtype;

/// Most nodes of a graph as exporters write it, helpers and constants among them.
const MAX_FILE_NODES: usize = 200_000;
/// Most names, numbers and attributes that are kept apart from the file.
const MAX_PARTS: usize = 1 << 23;
/// Longest name of a node, value or tensor, in bytes.
const MAX_NAME: usize = 1024;

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
    pub(super) attributes: Vec<(&'a str, Attribute<'a>)>,
    /// The modules around the node, as PyTorch's exporter notes them.
    pub(super) scopes: Option<&'a str>,
}

/// The value of an attribute.
#[derive(Debug, Default)]
pub(super) enum Attribute<'a> {
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

/// A `TensorProto`.
#[derive(Debug)]
pub(super) struct FileTensor<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) data: Data<'a>,
}

/// Elements of a tensor, row-major and little endian.
#[derive(Debug, Clone)]
pub(super) enum Data<'a> {
    /// In the file.
    Span(Piece<'a>),
    /// Gathered from numbers of another form.
    Owned(Vec<u8>),
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
    fn attribute(&self, name: &str) -> Option<&Attribute<'_>> {
        self.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&FileTensor<'_>> {
        match self.attribute(name)? {
            Attribute::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            Attribute::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// A float as its shortest decimal form, which is what its author wrote.
    pub(super) fn float(&self, name: &str) -> Option<f64> {
        match self.attribute(name)? {
            Attribute::Float(value) => Some(shortest(*value)),
            _ => None,
        }
    }

    pub(super) fn integers(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name)? {
            Attribute::Integers(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn floats(&self, name: &str) -> Option<&[f32]> {
        match self.attribute(name)? {
            Attribute::Floats(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attribute(name)? {
            Attribute::Text(value) => Some(value),
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

/// How much may still be kept apart from the file.
struct Budget(usize);

impl Budget {
    fn take(&mut self, parts: usize) -> Result<(), OnnxError> {
        let left = self.0.checked_sub(parts);
        let limit = || OnnxError::Limit { what: "more names and numbers".to_owned(), most: MAX_PARTS };
        self.0 = left.ok_or_else(limit)?;
        Ok(())
    }
}

/// Reads the model in `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<File<'_>, OnnxError> {
    let mut file = File::default();
    let mut budget = Budget(MAX_PARTS);
    let mut graph = None;
    for field in Fields::of(Piece { bytes, begin: 0 }) {
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
                file.nodes.push(node(field.piece()?, &mut budget)?);
            }
            5 => {
                limit("tensors", file.tensors.len(), MAX_TENSORS)?;
                file.tensors.push(tensor(field.piece()?, &mut budget)?);
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

/// A name.
fn text<'a>(field: &Field<'a>) -> Result<&'a str, OnnxError> {
    let piece = field.piece()?;
    let text = std::str::from_utf8(piece.bytes).ok().filter(|text| text.len() <= MAX_NAME);
    text.ok_or_else(|| OnnxError::Model(format!("the text at byte {} is too long, or no text", piece.begin)))
}

fn node<'a>(piece: Piece<'a>, budget: &mut Budget) -> Result<FileNode<'a>, OnnxError> {
    let mut node = FileNode::default();
    for field in Fields::of(piece) {
        let field = field?;
        budget.take(1)?;
        match field.number {
            1 => node.inputs.push(text(&field)?),
            2 => node.outputs.push(text(&field)?),
            3 => node.name = text(&field)?,
            4 => node.op = text(&field)?,
            5 => node.attributes.push(attribute(field.piece()?, budget)?),
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

fn attribute<'a>(piece: Piece<'a>, budget: &mut Budget) -> Result<(&'a str, Attribute<'a>), OnnxError> {
    let (mut name, mut value, mut kind) = ("", Attribute::Other, None);
    let (mut integers, mut floats) = (Vec::new(), Vec::new());
    for field in Fields::of(piece) {
        let field = field?;
        match field.number {
            1 => name = text(&field)?,
            2 => value = Attribute::Float(field.float()?),
            3 => value = Attribute::Integer(field.integer()?),
            4 => value = std::str::from_utf8(field.piece()?.bytes).map_or(Attribute::Other, Attribute::Text),
            5 => value = Attribute::Tensor(tensor(field.piece()?, budget)?),
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
        Some(6) => Attribute::Floats(floats),
        Some(7) => Attribute::Integers(integers),
        _ if !integers.is_empty() => Attribute::Integers(integers),
        _ if !floats.is_empty() => Attribute::Floats(floats),
        // A number that is 0 may be left out.
        Some(1) if matches!(value, Attribute::Other) => Attribute::Float(0.0),
        Some(2) if matches!(value, Attribute::Other) => Attribute::Integer(0),
        _ => value,
    };
    Ok((name, value))
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

fn tensor<'a>(piece: Piece<'a>, budget: &mut Budget) -> Result<FileTensor<'a>, OnnxError> {
    let (mut name, mut data_type, mut axes) = ("", 0, Vec::new());
    let (mut data, mut numbers, mut wide): (Option<Piece<'a>>, Vec<i64>, Vec<u8>) = (None, Vec::new(), Vec::new());
    let (mut outside, mut place) = (false, "");
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
            13 => {
                if let Some(file) = location(field.piece()?)? {
                    place = file;
                }
            }
            14 => outside = field.integer()? == 1,
            _ => {}
        }
    }
    let fail = |detail: String| OnnxError::Tensor { name: name.to_owned(), detail };
    if outside {
        let advice = "export with external_data=False, or save the model as one file with onnx.save_model";
        return Err(fail(format!("its data lie in another file, `{place}`; {advice}")));
    }
    let dtype = dtype(data_type).ok_or_else(|| fail(format!("its element type (number {data_type}) is not read")))?;
    if axes.len() > MAX_RANK {
        return Err(fail(format!("it has {} axes; at most {MAX_RANK} are read", axes.len())));
    }
    let shape = axes.iter().map(|axis| usize::try_from(*axis)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| fail(format!("its shape {axes:?} is none")))?;
    let expected = shape.iter().try_fold(dtype.size(), |all, axis| all.checked_mul(*axis));
    let expected = expected.ok_or_else(|| fail(format!("its shape {shape:?} is larger than any file")))?;
    let data = match data {
        Some(piece) => Data::Span(piece),
        None if !wide.is_empty() => Data::Owned(wide),
        None => Data::Owned(narrowed(&numbers, dtype)),
    };
    let got = match &data {
        Data::Span(piece) => piece.bytes.len(),
        Data::Owned(bytes) => bytes.len(),
    };
    if got != expected {
        return Err(fail(format!("its shape {shape:?} takes {expected} bytes of {dtype:?}, but there are {got}")));
    }
    Ok(FileTensor { name, dtype, shape, data })
}

/// The file where a tensor's data lie, if the entry says that.
fn location(piece: Piece<'_>) -> Result<Option<&str>, OnnxError> {
    let (mut key, mut value): (&[u8], &str) = (&[], "");
    for field in Fields::of(piece) {
        let field = field?;
        match field.number {
            1 => key = field.piece()?.bytes,
            2 => value = text(&field)?,
            _ => {}
        }
    }
    Ok((key == b"location").then_some(value))
}

/// Elements that are written as wider integers: the lower bytes of each.
fn narrowed(numbers: &[i64], dtype: Dtype) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes().into_iter().take(dtype.size())).collect()
}

fn input<'a>(piece: Piece<'a>, budget: &mut Budget) -> Result<FileInput<'a>, OnnxError> {
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

fn tensor_type<'a>(piece: Piece<'a>, input: &mut FileInput<'a>, budget: &mut Budget) -> Result<(), OnnxError> {
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
