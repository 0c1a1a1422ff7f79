//! Networks as ONNX files (github.com/onnx/onnx, operators of version 17).
//!
//! Initializers carry the names of the `state_dict` and the element type of the weights; what is not 32-bit is cast before
//! it is used, since the network is computed in f32 here, too. The batch is left open.

mod attention;
mod data;
mod emitter;
mod message;
mod operations;
mod pools;

use std::io::{self, Write};

use self::emitter::{ConstantSource, Emitter, Initializer};
use crate::domain::problem::{Code, Problem};
use crate::model::formats::protobuf::{MAX_MESSAGE, put_bytes, put_length, put_varint};
use crate::model::graph::Graph;
use crate::model::header::Dtype;
use crate::settings::Normalize;
use crate::tensors::{CheckpointError, Elements, Weights};

/// Name of the network's input, N examples of its input shape.
const INPUT: &str = "input";
/// Name of the network's output.
const OUTPUT: &str = "logits";
/// Elements that are converted to bytes at once.
const CHUNK: usize = 1 << 16;

/// Why a network was not written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxExportError {
    /// A tensor is missing or cannot be read.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// A tensor of another size than the network's.
    #[error("tensor `{name}` has {got} elements, but the network has {expected} there")]
    Size {
        /// The tensor.
        name: String,
        /// Elements by the network.
        expected: usize,
        /// Elements that came.
        got: usize,
    },
    /// A file that no reader would take.
    #[error("the file would have {0} bytes, and ONNX files have less than 2 GiB; write .safetensors instead")]
    TooLarge(u64),
    /// An operation that would need a constant, or a list of operators, of unreasonable size.
    #[error("node `{0}` has too many output positions to be written with ONNX's operators")]
    TooManyPositions(String),
    /// Means and deviations that do not fit the input.
    #[error(
        "expected {channels} means, or one for all channels, and as many standard deviations that are finite and not 0, got {mean:?} and {std:?}"
    )]
    Normalize {
        /// Channels of the input.
        channels: usize,
        /// What came as means.
        mean: Vec<f32>,
        /// What came as standard deviations.
        std: Vec<f32>,
    },
    /// Writing failed.
    #[error("writing the ONNX file: {0}")]
    Io(#[from] io::Error),
}

impl From<OnnxExportError> for Problem {
    fn from(error: OnnxExportError) -> Self {
        let code = match error {
            OnnxExportError::Weights(error) => return error.into(),
            OnnxExportError::Io(ref error) => Code::of_system(error),
            OnnxExportError::Size { .. } => Code::InvalidCheckpoint,
            OnnxExportError::TooLarge(_) | OnnxExportError::TooManyPositions(_) | OnnxExportError::Normalize { .. } => {
                Code::InvalidRequest
            }
        };
        Self::new(code, error.to_string())
    }
}

/// A network as the parts of an ONNX file, but for the weights: input `input`, N x the input shape; output `logits`, N x the output
/// shape. Equal networks become equal bytes.
pub struct OnnxFile<'a> {
    weights: &'a dyn Weights,
    /// The graph's fields before its tensors, and behind them.
    head: Vec<u8>,
    tail: Vec<u8>,
    initializers: Vec<Initializer>,
    /// Of each tensor what stands before its data, and how many bytes of data follow.
    fronts: Vec<(Vec<u8>, u64)>,
}

impl std::fmt::Debug for OnnxFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxFile").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl<'a> OnnxFile<'a> {
    /// Of `graph` with its `weights`; `normalize` becomes a part of it.
    ///
    /// # Errors
    /// See [`OnnxExportError`].
    pub fn new(
        graph: &Graph,
        weights: &'a dyn Weights,
        normalize: Option<&Normalize>,
    ) -> Result<Self, OnnxExportError> {
        let mut emitter = Emitter::new(graph, weights);
        emitter.run(normalize)?;
        let (mut head, initializers) = emitter.finish();
        put_bytes(&mut head, 2, b"network");
        let mut tail = Vec::new();
        put_bytes(&mut tail, 11, &message::value_info(INPUT, graph.input_shape()));
        put_bytes(&mut tail, 12, &message::value_info(OUTPUT, graph.shape(graph.output())));
        let fronts = initializers.iter().map(front).collect();
        Ok(Self { weights, head, tail, initializers, fronts })
    }

    /// How the file begins: all before the fields of the graph.
    fn start(&self) -> (Vec<u8>, u64) {
        let data = self.fronts.iter().map(|(front, data)| front.len() as u64 + data).sum::<u64>();
        let graph = (self.head.len() + self.tail.len()) as u64 + data;
        let mut start = message::model_head();
        put_length(&mut start, 7, graph);
        let bytes = start.len() as u64 + graph;
        (start, bytes)
    }

    /// Length of the file with all weights in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.start().1
    }

    /// Writes the file with all weights in it, which are read one tensor at a time.
    ///
    /// # Errors
    /// When it would be larger than a message may be, before the first byte is written; when a weight cannot be read, or writing fails.
    pub fn write(&self, out: &mut impl Write) -> Result<(), OnnxExportError> {
        let (start, bytes) = self.start();
        if bytes > MAX_MESSAGE {
            return Err(OnnxExportError::TooLarge(bytes));
        }
        out.write_all(&start)?;
        out.write_all(&self.head)?;
        for (initializer, (front, _)) in self.initializers.iter().zip(&self.fronts) {
            out.write_all(front)?;
            match &initializer.source {
                ConstantSource::Bytes(bytes) => out.write_all(bytes)?,
                ConstantSource::Weight(name) => write_elements(&self.weights.elements(name)?, out)?,
            }
        }
        Ok(out.write_all(&self.tail)?)
    }
}

/// Writes `graph` with its `weights` as one ONNX file.
///
/// # Errors
/// See [`OnnxExportError`]; but for a failing `out`, before the first byte is written.
pub fn write_onnx(
    graph: &Graph,
    weights: &dyn Weights,
    normalize: Option<&Normalize>,
    out: &mut impl Write,
) -> Result<(), OnnxExportError> {
    OnnxFile::new(graph, weights, normalize)?.write(out)
}

/// What stands before the data of an initializer in its graph, and how many bytes of data follow.
fn front(initializer: &Initializer) -> (Vec<u8>, u64) {
    let Initializer { name, dtype, shape, .. } = initializer;
    let data = shape.iter().product::<usize>() as u64 * dtype.size() as u64;
    let mut tensor = message::tensor(name, *dtype, shape);
    put_length(&mut tensor, 9, data);
    let mut front = Vec::new();
    put_varint(&mut front, 5 << 3 | 2);
    put_varint(&mut front, tensor.len() as u64 + data);
    front.extend(tensor);
    (front, data)
}

/// The element type in which a tensor is written.
fn dtype(elements: &Elements<'_>) -> Dtype {
    match elements {
        Elements::Floats(_) => Dtype::F32,
        Elements::Bytes { dtype, .. } => *dtype,
    }
}

/// Writes elements, little endian, as they lie.
fn write_elements(elements: &Elements<'_>, out: &mut impl Write) -> io::Result<()> {
    match elements {
        Elements::Bytes { bytes, .. } => out.write_all(bytes),
        // As memory has them where that has the file's order of bytes.
        Elements::Floats(values) if cfg!(target_endian = "little") => out.write_all(bytemuck::cast_slice(values)),
        Elements::Floats(values) => values.chunks(CHUNK).try_for_each(|values| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.write_all(&bytes)
        }),
    }
}

#[cfg(test)]
mod tests;
