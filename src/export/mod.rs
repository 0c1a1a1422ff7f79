//! Networks as files that other programs run.

pub mod onnx;
pub mod python;
pub mod pytorch;
mod safetensors;

use std::io::{self, Write};
use std::path::Path;

use crate::domain::problem::{Code, Problem};
use crate::model::graph::Graph;
use crate::settings::Normalize;
use crate::tensors::Checkpoint;

/// A form in which a network leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExportFormat {
    /// Weights by their names.
    Safetensors,
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
    pub const ALL: [Self; 5] = [Self::Safetensors, Self::PyTorch, Self::Onnx, Self::Python, Self::Architecture];

    /// The end of its files' names, which is its name too.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
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
            Self::Safetensors | Self::PyTorch | Self::Onnx => "application/octet-stream",
            Self::Python => "text/x-python; charset=utf-8",
            Self::Architecture => "application/json",
        }
    }

    /// Whether a file says which network it is, and so needs to know.
    #[must_use]
    pub fn needs_network(self) -> bool {
        !matches!(self, Self::Safetensors | Self::PyTorch)
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

/// What an export says beside the weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// How inputs were normalised: in sources a function, in ONNX a part of the network.
    pub normalize: Option<Normalize>,
    /// Name of the file of the weights, for sources.
    pub weights: Option<String>,
}

/// Writes a checkpoint in another format. The same input gives the same bytes, in constant memory.
///
/// # Errors
/// Where writing fails, the format cannot hold the network, or it needs one and there is no `graph`.
pub fn write(
    format: ExportFormat,
    checkpoint: &Checkpoint,
    graph: Option<&Graph>,
    options: &Options,
    out: &mut impl Write,
) -> Result<(), Problem> {
    let known = || {
        let detail = format!("the network of these weights is not known, which .{} needs", format.extension());
        graph.ok_or_else(|| Problem::new(Code::ArchitectureUnknown, detail))
    };
    match format {
        ExportFormat::Safetensors => safetensors::write(checkpoint, graph, out).map_err(|error| unwritten(&error)),
        ExportFormat::PyTorch => pytorch::write_pytorch(&checkpoint.tensors(), out).map_err(|error| unwritten(&error)),
        ExportFormat::Onnx => {
            onnx::write_onnx(known()?, checkpoint, options.normalize.as_ref(), out)?;
            Ok(())
        }
        ExportFormat::Python => {
            out.write_all(python::source(known()?, options)?.as_bytes()).map_err(|error| unwritten(&error))
        }
        ExportFormat::Architecture => {
            let text = serde_json::to_string_pretty(known()?).map_err(|error| unwritten(&error.into()))?;
            writeln!(out, "{text}").map_err(|error| unwritten(&error))
        }
    }
}

/// Writes the checkpoint `model` in another format; `architecture` is the file of its network, if that is known. See [`write`].
///
/// # Errors
/// As [`write`], and where a file cannot be read.
pub fn convert(
    model: &Path,
    architecture: Option<&Path>,
    format: ExportFormat,
    options: &Options,
    out: &mut impl Write,
) -> Result<(), Problem> {
    let graph = architecture.map(network).transpose()?;
    write(format, &Checkpoint::open(model)?, graph.as_ref(), options, out)
}

/// Reads a network's file.
fn network(path: &Path) -> Result<Graph, Problem> {
    let unread =
        |error: io::Error| Problem::new(Code::of_system(&error), format!("reading the network failed: {error}"));
    serde_json::from_slice(&std::fs::read(path).map_err(unread)?).map_err(|error| unread(error.into()))
}

/// The problem of a file that cannot be written.
fn unwritten(error: &io::Error) -> Problem {
    Problem::new(Code::of_system(error), format!("writing failed: {error}"))
}
