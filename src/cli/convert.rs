//! `engraft convert`: a checkpoint with its network as a file that other programs run.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::job::object_file;
use super::{outputs, written};
use crate::domain::problem::Problem;
use crate::export::{ExportFormat, ExportOptions};
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

/// Write a checkpoint in another format, by the end of OUT's name: .safetensors, .tar (the same in shards, with their index), .pt, .onnx, .py
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
    /// In how many files of safetensors the tar OUT has the weights at most; by default as many as IN had, or as keep them below 5 GB.
    #[arg(long, value_name = "N")]
    shards: Option<NonZeroUsize>,
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
        if format == ExportFormat::Onnx {
            outputs::check(&[&written::data_of(&self.to)], &inputs, true)?;
        }
        let checkpoint =
            Checkpoint::open(&self.from).with_context(|| format!("cannot convert {}", self.from.display()))?;
        let graph = self.network(&checkpoint, format)?;
        let named = weights.as_ref().unwrap_or(&self.from);
        let options = ExportOptions { shards: self.shards, ..self.options(named) };
        let write = |to: &Path, format| written::write(to, format, &checkpoint, graph.as_ref(), &options, self.force);
        let mut wrote = write(&self.to, format)?;
        if let Some(weights) = &weights {
            wrote.extend(write(weights, ExportFormat::Safetensors)?);
        }
        let wrote: Vec<String> = wrote.iter().map(|path| path.display().to_string()).collect();
        println!("wrote {}", wrote.join(" and "));
        Ok(ExitCode::SUCCESS)
    }

    /// Where the weights go that a source loads, unless the input is a file that it can load.
    fn weights(&self, format: ExportFormat) -> Option<PathBuf> {
        let loads = self.from.extension().is_some_and(|extension| extension == "safetensors");
        (format == ExportFormat::Python && !loads).then(|| self.to.with_extension("safetensors"))
    }

    /// What the file says beside the weights, which are in the file `weights`.
    fn options(&self, weights: &Path) -> ExportOptions {
        let both = self.mean.clone().zip(self.std.clone());
        ExportOptions {
            normalize: both.map(|(mean, std)| Normalize { mean, std }),
            weights: weights.file_name().map(|name| name.to_string_lossy().into_owned()),
            ..ExportOptions::default()
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

/// The network of a checkpoint that leaves no doubt about it; none of any other.
pub(super) fn known_network(checkpoint: &Checkpoint) -> Option<Graph> {
    let mut found = families::detect(&[checkpoint.header()], &Architecture::default(), None).ok()?;
    let is_doubtful = Evidence::of(&found.candidates, found.source).degree.is_doubtful();
    (!is_doubtful && !found.graphs.is_empty()).then(|| found.graphs.swap_remove(0))
}

/// A graph, or the `architecture` of a job.
fn architecture(value: Value) -> Result<Architecture, Problem> {
    let value = if value.get("nodes").is_some() { json!({ "graph": value }) } else { value };
    parse::architecture(&value).map_err(Problem::faults)
}
