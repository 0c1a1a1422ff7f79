//! `engraft convert`: a checkpoint with its network as a file that other programs run.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::job::object_file;
use super::outputs;
use crate::domain::problem::Problem;
use crate::export::{self, ExportFormat, Options};
use crate::model::families::{self, Evidence};
use crate::model::graph::Graph;
use crate::plan::parse;
use crate::settings::{Architecture, Normalize};
use crate::tensors::Checkpoint;

const EXAMPLE: &str = "\
Write a fused network for onnxruntime, with pixels from 0 to 1 as inputs:

  engraft convert fused.safetensors fused.onnx --mean 0.4914,0.4822,0.4465 --std 0.247,0.2435,0.2616

A file that engraft wrote states its network. For any other, names and shapes must leave one network only, or
--architecture says which it is.";

/// Write a checkpoint in another format, by the end of OUT's name: .safetensors, .pt, .onnx, .py
/// (source of a PyTorch module, with weights that it can load beside it) or .json (the network alone).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Convert {
    /// The checkpoint (safetensors or the index of its shards, PyTorch, npz or ONNX).
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// Where the network goes.
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// The network (JSON): a graph, as `engraft inspect --graph` prints it, or what a job takes as `architecture`.
    #[arg(long, value_name = "FILE")]
    architecture: Option<PathBuf>,
    /// Shape of one input example, such as 3,32,32, where the network leaves it open.
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    input_shape: Option<Vec<usize>>,
    /// Subtract these from the input's channels within the network.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "std", allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Divide the input's channels by these within the network.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "mean")]
    std: Option<Vec<f32>>,
    /// Replace OUT where it exists.
    #[arg(long)]
    force: bool,
}

impl Convert {
    /// Reads one file and writes the other.
    pub(super) fn run(self) -> Result<ExitCode> {
        let format = ExportFormat::of_path(&self.to)?;
        let weights = self.weights(format);
        let results: Vec<&Path> =
            [Some(&self.to), weights.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
        let inputs: Vec<&Path> =
            [Some(&self.from), self.architecture.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
        outputs::check(&results, &inputs, self.force)?;
        let checkpoint =
            Checkpoint::open(&self.from).with_context(|| format!("cannot convert {}", self.from.display()))?;
        let graph = self.network(&checkpoint, format)?;
        let named = weights.as_ref().unwrap_or(&self.from);
        let options = self.options(named);
        write(&self.to, format, &checkpoint, graph.as_ref(), &options)?;
        if let Some(weights) = &weights {
            write(weights, ExportFormat::Safetensors, &checkpoint, graph.as_ref(), &options)?;
        }
        let wrote: Vec<String> = results.iter().map(|path| path.display().to_string()).collect();
        println!("wrote {}", wrote.join(" and "));
        Ok(ExitCode::SUCCESS)
    }

    /// Where the weights go that a source loads, unless the input is a file that it can load.
    fn weights(&self, format: ExportFormat) -> Option<PathBuf> {
        let loads = self.from.extension().is_some_and(|extension| extension == "safetensors");
        (format == ExportFormat::Python && !loads).then(|| self.to.with_extension("safetensors"))
    }

    /// What the file says beside the weights, which are in the file `weights`.
    fn options(&self, weights: &Path) -> Options {
        let both = self.mean.clone().zip(self.std.clone());
        Options {
            normalize: both.map(|(mean, std)| Normalize { mean, std }),
            weights: weights.file_name().map(|name| name.to_string_lossy().into_owned()),
        }
    }

    /// The network of the checkpoint, where only one fits.
    fn network(&self, checkpoint: &Checkpoint, format: ExportFormat) -> Result<Option<Graph>> {
        let architecture = match &self.architecture {
            Some(path) => architecture(Value::Object(object_file(path)?))?,
            None => Architecture::default(),
        };
        let found = families::detect(&[checkpoint.header()], &architecture, self.input_shape.as_ref());
        let needed = format.needs_network() || self.architecture.is_some();
        let mut found = match found {
            Ok(found) => found,
            Err(_) if !needed => return Ok(None),
            Err(problem) => return Err(problem.into()),
        };
        let evidence = Evidence::of(&found.candidates, found.source);
        if evidence.degree.is_doubtful() && !architecture.assume {
            return if needed { Err(families::ambiguous(&found.candidates).into()) } else { Ok(None) };
        }
        Ok(Some(found.graphs.swap_remove(0)))
    }
}

/// Writes one file; what was there before stays until it is complete.
fn write(
    to: &Path,
    format: ExportFormat,
    checkpoint: &Checkpoint,
    graph: Option<&Graph>,
    options: &Options,
) -> Result<()> {
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = || format!("cannot write {}", to.display());
    let file = tempfile::Builder::new().prefix(".engraft-convert-").tempfile_in(folder).with_context(unwritable)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    export::write(format, checkpoint, graph, options, &mut out)?;
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(unwritable)?;
    file.as_file().sync_all().with_context(unwritable)?;
    file.persist(to).with_context(unwritable)?;
    Ok(())
}

/// A graph, or the `architecture` of a job.
fn architecture(value: Value) -> Result<Architecture, Problem> {
    let value = if value.get("nodes").is_some() { json!({ "graph": value }) } else { value };
    parse::architecture(&value).map_err(Problem::faults)
}
