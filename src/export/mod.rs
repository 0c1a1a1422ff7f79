//! Networks as files that other programs run.

pub mod onnx;
pub mod python;
pub mod pytorch;
mod safetensors;
mod shards;
mod tar;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;

pub use shards::{came_in_shards, shards_of};

use crate::domain::problem::{Code, Problem};
use crate::model::formats::protobuf::MAX_MESSAGE;
use crate::model::graph::Graph;
use crate::settings::Normalize;
use crate::tensors::Checkpoint;

use self::onnx::OnnxFile;

/// A form in which a network leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExportFormat {
    /// Weights by their names.
    Safetensors,
    /// The same as several files with their index, in a tar archive.
    Shards,
    /// The same as `torch.save` writes them.
    PyTorch,
    /// Open Neural Network Exchange, for onnxruntime and what else reads it.
    Onnx,
    /// Source of a PyTorch module.
    Python,
    /// The network without weights, as `architecture.graph` of a job takes it.
    Architecture,
}

impl ExportFormat {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Safetensors, Self::Shards, Self::PyTorch, Self::Onnx, Self::Python, Self::Architecture];

    /// The end of its files' names, which is its name too.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Shards => "tar",
            Self::PyTorch => "pt",
            Self::Onnx => "onnx",
            Self::Python => "py",
            Self::Architecture => "json",
        }
    }

    /// The media type of its files.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Safetensors | Self::Shards | Self::PyTorch | Self::Onnx => "application/octet-stream",
            Self::Python => "text/x-python; charset=utf-8",
            Self::Architecture => "application/json",
        }
    }

    /// Whether a file says which network it is, and so needs to know.
    #[must_use]
    pub fn needs_network(self) -> bool {
        !matches!(self, Self::Safetensors | Self::Shards | Self::PyTorch)
    }

    /// The format of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == name)
    }

    /// The format of a file by the end of its name; `.pth`, `.bin` and `.ckpt` are PyTorch's too.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] where no format has it.
    pub fn of_path(path: &Path) -> Result<Self, Problem> {
        let own = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let known = match own.as_str() {
            "pth" | "bin" | "ckpt" => Some(Self::PyTorch),
            own => Self::of_name(own),
        };
        known.ok_or_else(|| {
            let all = Self::ALL.map(|format| format!(".{}", format.extension())).join(", ");
            Problem::new(Code::InvalidRequest, format!("{}: expected a name that ends in {all}", path.display()))
        })
    }
}

/// What an export says beside the weights, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportOptions {
    /// How inputs were normalised: in sources a function, in ONNX a part of the network.
    pub normalize: Option<Normalize>,
    /// Name of the file of the weights, for sources.
    pub weights: Option<String>,
    /// How many shards there are to be at most; without it as many as keep them below 5 GB.
    pub shards: Option<NonZeroUsize>,
    /// Most bytes of an ONNX file; the weights of a larger one lie in a file beside it.
    pub onnx_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { normalize: None, weights: None, shards: None, onnx_bytes: MAX_MESSAGE }
    }
}

/// How an export is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// It is one file of its format.
    Alone,
    /// It is a tar archive of several.
    Tar,
}

/// Names of the two files of a large ONNX model.
const ONNX_FILES: [&str; 2] = ["model.onnx", "model.onnx.data"];

/// Writes a checkpoint in another format; says how it is packed. The same input gives the same bytes, in constant memory.
///
/// # Errors
/// Where writing fails, the format cannot hold the network, or it needs one and there is no `graph`.
pub fn write(
    format: ExportFormat,
    checkpoint: &Checkpoint,
    graph: Option<&Graph>,
    options: &ExportOptions,
    out: &mut impl Write,
) -> Result<Packing, Problem> {
    let known = || {
        let detail = format!("the network of these weights is not known, which .{} needs", format.extension());
        graph.ok_or_else(|| Problem::new(Code::ArchitectureUnknown, detail))
    };
    let written = match format {
        ExportFormat::Safetensors => safetensors::write(checkpoint, graph, out),
        ExportFormat::Shards => {
            let shards = options.shards.or_else(|| shards_of(checkpoint));
            shards::write(checkpoint, graph, shards, out)
        }
        ExportFormat::PyTorch => pytorch::write_pytorch(&checkpoint.tensors(), out),
        ExportFormat::Onnx => {
            let file = OnnxFile::new(known()?, checkpoint, options.normalize.as_ref())?;
            if file.bytes() > options.onnx_bytes {
                write_both(&file, out)?;
                return Ok(Packing::Tar);
            }
            file.write(out)?;
            return Ok(Packing::Alone);
        }
        ExportFormat::Python => out.write_all(python::source(known()?, options)?.as_bytes()),
        ExportFormat::Architecture => {
            let text = serde_json::to_string_pretty(known()?).map_err(|error| unwritten(&error.into()))?;
            writeln!(out, "{text}")
        }
    };
    written.map_err(|error| unwritten(&error))?;
    Ok(if format == ExportFormat::Shards { Packing::Tar } else { Packing::Alone })
}

/// Writes a large ONNX model and its weights as a tar archive.
fn write_both(file: &OnnxFile<'_>, out: &mut impl Write) -> Result<(), Problem> {
    let [name, data] = ONNX_FILES;
    let model = file.without_data(data)?;
    let mut write = || {
        tar::file(out, name, model.len() as u64, |out| out.write_all(&model))?;
        tar::file(out, data, file.data_bytes(), |out| file.write_data(out).map_err(io::Error::other))?;
        tar::end(out)
    };
    write().map_err(|error| unwritten(&error))
}

/// Writes the checkpoint `model` in another format; `architecture` is the file of its network, if that is known. See [`write`].
///
/// # Errors
/// As [`write`], and where a file cannot be read.
pub fn convert(
    model: &Path,
    architecture: Option<&Path>,
    format: ExportFormat,
    options: &ExportOptions,
    out: &mut impl Write,
) -> Result<Packing, Problem> {
    let graph = architecture.map(network).transpose()?;
    write(format, &Checkpoint::open(model)?, graph.as_ref(), options, out)
}

/// Reads a network's file.
///
/// # Errors
/// When it cannot be read, or is no network.
pub fn network(path: &Path) -> Result<Graph, Problem> {
    let unread =
        |error: io::Error| Problem::new(Code::of_system(&error), format!("reading the network failed: {error}"));
    serde_json::from_slice(&std::fs::read(path).map_err(unread)?).map_err(|error| unread(error.into()))
}

/// The problem of a file that cannot be written.
fn unwritten(error: &io::Error) -> Problem {
    Problem::new(Code::of_system(error), format!("writing failed: {error}"))
}
