//! Writes the artifacts, each synced and with its digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::context::Context;
use super::phases::Halt;
use crate::domain::problem::{Code, Problem};
use crate::export::{ExportOptions, python};
use crate::fusion::{Fused, Provenance, Recipe};
use crate::model::families;
use crate::model::graph::Graph;
use crate::model::header::{HELD_OUT_KEY, SHARDS_KEY};
use crate::model::precision::Precision;
use crate::model::refit::Compensation;
use crate::process::protocol::{InputFile, OutputFile, Task};
use crate::report::{Choice, Computation, Report, card, page};
use crate::settings::{HeldOut, Normalize};
use crate::tensors::{Checkpoint, StateDict, Written};

/// Where the fused network's units come from, and everything that it was made with.
#[derive(Debug, Serialize)]
struct ProvenanceFile<'a> {
    engraft_version: &'static str,
    job: &'a crate::plan::request::JobRequest,
    members: Vec<Input<'a>>,
    dataset: Option<Input<'a>>,
    validation: Option<Input<'a>>,
    test: Option<Input<'a>>,
    /// How layers were refitted behind the selection.
    compensation: Option<&'a Compensation>,
    /// What the ranking `auto` chose from.
    choice: Option<&'a Choice>,
    /// What it was computed with.
    computation: Option<&'a Computation>,
    #[serde(flatten)]
    units: &'a Provenance,
}

/// An input by what it is, not by where it lay.
#[derive(Debug, Serialize)]
struct Input<'a> {
    name: &'a str,
    sha256: &'a str,
}

impl<'a> From<&'a InputFile> for Input<'a> {
    fn from(file: &'a InputFile) -> Self {
        Self { name: &file.name, sha256: &file.sha256 }
    }
}

/// What the fused model is called where its files are described.
const MODEL_FILE: &str = "fused.safetensors";

/// What a job leaves behind, beside the model, which is written already.
#[derive(Debug)]
pub(super) struct Results<'a> {
    /// The fused network; none where it is not known.
    pub(super) graph: Option<&'a Graph>,
    /// Its PyTorch source; none where it has none.
    pub(super) source: Option<String>,
    pub(super) model: OutputFile,
    pub(super) provenance: &'a Provenance,
    pub(super) report: &'a Report,
}

/// Writes the report in both forms, the model card, architecture, source and provenance below the task's scratch folder; with the model they are the artifacts.
pub(super) fn publish(task: &Task, results: Results<'_>) -> Result<Vec<OutputFile>, Problem> {
    let provenance = ProvenanceFile {
        engraft_version: env!("CARGO_PKG_VERSION"),
        job: &task.job,
        members: task.members.iter().map(Input::from).collect(),
        dataset: task.dataset.as_ref().map(Input::from),
        validation: task.validation.as_ref().map(Input::from),
        test: task.test.as_ref().map(Input::from),
        compensation: results.report.compensation.as_ref(),
        choice: results.report.choice.as_ref(),
        computation: results.report.computation.as_ref(),
        units: results.provenance,
    };
    let mut artifacts = vec![
        results.model,
        json(&task.scratch, "report", results.report)?,
        text(&task.scratch, "report.html", "text/html; charset=utf-8", page(results.report).as_bytes())?,
        json(&task.scratch, "provenance", &provenance)?,
    ];
    if let Some(graph) = results.graph {
        artifacts.push(json(&task.scratch, "architecture", graph)?);
    }
    if let Some(source) = &results.source {
        artifacts.push(text(&task.scratch, "model.py", "text/x-python; charset=utf-8", source.as_bytes())?);
    }
    let card = card(results.report);
    artifacts.push(text(&task.scratch, "card", "text/markdown; charset=utf-8", card.as_bytes())?);
    Ok(artifacts)
}

/// The fused network as PyTorch source; none where no source can spell its names.
pub(super) fn source(graph: &Graph, normalize: Option<&Normalize>) -> Option<String> {
    let options = ExportOptions {
        normalize: normalize.cloned(),
        weights: Some(MODEL_FILE.to_owned()),
        ..ExportOptions::default()
    };
    python::source(graph, &options).ok()
}

/// What the file of a model says of itself: its network where that is `known`, and what its training never saw.
pub(super) fn notes(graph: &Graph, known: bool, held_out: Option<&HeldOut>) -> BTreeMap<String, String> {
    let notes = [("engraft_version", env!("CARGO_PKG_VERSION")), ("format", "pt")];
    let mut notes: BTreeMap<_, _> = notes.map(|(name, note)| (name.to_owned(), note.to_owned())).into();
    if known {
        notes.extend(families::metadata(graph));
    }
    notes.extend(held_out.map(|held_out| (HELD_OUT_KEY.to_owned(), serde_json::json!(held_out).to_string())));
    notes
}

/// As [`notes`], of a job's model.
fn notes_of(context: &Context<'_>, graph: &Graph) -> BTreeMap<String, String> {
    let mut notes = notes(graph, is_known(context), context.held_out().as_ref());
    notes.extend(context.shards.clone().map(|shards| (SHARDS_KEY.to_owned(), shards)));
    notes
}

/// Whether the members' network is known, and with it the fused one's: what was only likely does not become certain by
/// passing through a job.
fn is_known(context: &Context<'_>) -> bool {
    !context.network().evidence.degree.is_doubtful()
}

/// A model's file as an artifact.
fn model_file(path: PathBuf, written: Written) -> OutputFile {
    let media_type = "application/octet-stream".to_owned();
    OutputFile { name: "model".to_owned(), path, sha256: written.sha256, bytes: written.bytes, media_type }
}

/// What becomes of a model's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteMode {
    /// It stays, and is the job's result.
    Published,
    /// The same in the place of another result, which is still mapped.
    Replaced,
    /// It is gone with its map: more is done to the model.
    Temporary,
}

impl WriteMode {
    /// The result if this is the last that is done to the model.
    pub(super) fn last(is_last: bool) -> Self {
        if is_last { Self::Published } else { Self::Temporary }
    }

    fn path(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Published => "model.safetensors",
            Self::Replaced => "published.safetensors",
            Self::Temporary => "intermediate.safetensors",
        })
    }

    /// Removes the name of a file that is mapped and will not stay.
    fn settle(self, path: &Path) -> Result<(), Problem> {
        match self {
            Self::Published | Self::Replaced => Ok(()),
            Self::Temporary => std::fs::remove_file(path).map_err(|error| unwritten(path, &error)),
        }
    }
}

/// Writes the weights of the network `graph` in the types of `precision`, and maps them.
pub(super) fn model(
    context: &Context<'_>,
    graph: &Graph,
    weights: &StateDict,
    precision: &Precision,
    mode: WriteMode,
) -> Result<(Checkpoint, OutputFile), Problem> {
    let path = mode.path(&context.task.scratch);
    let written = weights.save_as(&path, &notes_of(context, graph), |name| precision.of(name))?;
    let checkpoint = Checkpoint::open(&path)?;
    mode.settle(&path)?;
    Ok((checkpoint, model_file(path, written)))
}

/// Writes a network row by row, and maps it.
pub(super) fn recipe(
    context: &mut Context<'_>,
    recipe: Recipe<'_>,
    precision: &Precision,
    mode: WriteMode,
) -> Result<(Fused<Checkpoint>, OutputFile), Halt> {
    let path = mode.path(&context.task.scratch);
    let notes = notes_of(context, recipe.graph());
    let (fused, written) = recipe.write(&path, &notes, precision, |done, all| context.phases.done(done, all))?;
    mode.settle(&path)?;
    Ok((fused, model_file(path, written)))
}

fn json(folder: &Path, name: &str, content: &impl Serialize) -> Result<OutputFile, Problem> {
    let mut bytes = serde_json::to_vec_pretty(content)
        .map_err(|error| unwritten(&folder.join(format!("{name}.json")), &error.into()))?;
    bytes.push(b'\n');
    let file = text(folder, &format!("{name}.json"), "application/json", &bytes)?;
    Ok(OutputFile { name: name.to_owned(), ..file })
}

/// An artifact that is called like its file.
fn text(folder: &Path, name: &str, media_type: &str, bytes: &[u8]) -> Result<OutputFile, Problem> {
    let path = folder.join(name);
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| unwritten(&path, &error))?;
    Ok(OutputFile {
        name: name.to_owned(),
        sha256: hex::encode(Sha256::digest(bytes)),
        bytes: bytes.len() as u64,
        media_type: media_type.to_owned(),
        path,
    })
}

/// The problem of a file that cannot be written.
pub(super) fn unwritten(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code::of_system(error), format!("writing {}: {error}", path.display()))
}
