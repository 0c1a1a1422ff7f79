//! What is published: out of a job's results, or of a folder that holds a fused model with its report.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use reqwest::StatusCode;
use serde_json::Value;

use crate::cli::convert::known_network;
use crate::cli::fuse::read_report;
use crate::cli::remote::advised;
use crate::client::{ClientError, Server};
use crate::destinations::{Package, PackedFile, hub};
use crate::domain::id::JobId;
use crate::export::{self, ExportOptions, python};
use crate::model::formats::digest::sha256;
use crate::model::graph::Graph;
use crate::report::{Report, ReportFile, card, page};
use crate::tensors::Checkpoint;

/// What the model is called where it is published: tools look for this name.
const MODEL: &str = "model.safetensors";
const REPORT: &str = "report.json";
const PROVENANCE: &str = "provenance.json";
const ARCHITECTURE: &str = "architecture.json";

/// Where a fused model comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The results of a job.
    Job(JobId),
    /// A folder with the model and its report.
    Folder(PathBuf),
}

/// The files that everything else is made of.
struct Parts {
    report: PathBuf,
    provenance: Option<PathBuf>,
    architecture: Option<PathBuf>,
    model: PathBuf,
    /// A card that somebody has written.
    card: Option<PathBuf>,
}

impl Source {
    /// A folder, or the id of a job.
    pub(super) fn of(what: &Path) -> Result<Self> {
        if what.is_dir() {
            return Ok(Self::Folder(what.to_owned()));
        }
        let text = what.display().to_string();
        match text.parse() {
            Ok(id) => Ok(Self::Job(id)),
            Err(_) => bail!(
                "`{text}` is neither a folder nor the id of a job: `engraft ls` lists jobs; `engraft fuse … --out FOLDER/{MODEL} --report \
                 FOLDER/{REPORT}` makes such a folder"
            ),
        }
    }

    /// The report and the settings, without files.
    pub(super) async fn report_alone(&self, server: &Server, scratch: &Path) -> Result<Package> {
        let (report, provenance) = match self {
            Self::Job(id) => (
                first(server, *id, &scratch.join(REPORT)).await?,
                optional(fetched(server, *id, "provenance", &scratch.join(PROVENANCE)).await)?,
            ),
            Self::Folder(folder) => (report_in(folder)?, present(folder, PROVENANCE)),
        };
        Ok(Package { report: parsed(&report)?, settings: settings(provenance.as_deref())?, files: Vec::new() })
    }

    /// Everything that is published; what has to be made for it is made in `scratch`.
    pub(super) async fn package(&self, server: &Server, scratch: &Path, card: Option<&Path>) -> Result<Package> {
        let parts = match self {
            Self::Job(id) => of_job(server, *id, scratch).await?,
            Self::Folder(folder) => of_folder(folder)?,
        };
        let card = card.map(Path::to_owned).or(parts.card.clone());
        parts.package(scratch, card.as_deref())
    }
}

/// Downloads the results of a job.
async fn of_job(server: &Server, id: JobId, scratch: &Path) -> Result<Parts> {
    let at = |name: &str| scratch.join(name);
    Ok(Parts {
        report: first(server, id, &at(REPORT)).await?,
        provenance: optional(fetched(server, id, "provenance", &at(PROVENANCE)).await)?,
        architecture: optional(fetched(server, id, "architecture", &at(ARCHITECTURE)).await)?,
        model: fetched(server, id, "model?format=safetensors", &at(MODEL)).await?,
        card: None,
    })
}

/// The report, which is the first file to be fetched: a job that has not ended has none yet.
async fn first(server: &Server, id: JobId, to: &Path) -> Result<PathBuf> {
    fetched(server, id, "report", to).await.map_err(|error| advised(error, &id.to_string()))
}

async fn fetched(server: &Server, id: JobId, what: &str, to: &Path) -> Result<PathBuf, ClientError> {
    server.download(&format!("jobs/{id}/{what}"), to, &|_, _| ()).await.map(|_| to.to_owned())
}

/// Nothing where the job has none.
fn optional(fetched: Result<PathBuf, ClientError>) -> Result<Option<PathBuf>, ClientError> {
    match fetched {
        Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
        fetched => fetched.map(Some),
    }
}

/// Finds the files of a folder by their names. All others stay where they are.
fn of_folder(folder: &Path) -> Result<Parts> {
    let report = report_in(folder)?;
    let identity = parsed(&report)?.identity;
    let stated = identity.model.as_ref().and_then(|model| present(folder, &model.name));
    let model = match stated.or_else(|| present(folder, MODEL)) {
        Some(model) => model,
        None => only_model(folder)?,
    };
    if let Some(stated) = &identity.model {
        let file = std::fs::File::open(&model).with_context(|| model.display().to_string())?;
        let digest = sha256(file).with_context(|| model.display().to_string())?;
        ensure!(
            digest == stated.sha256,
            "{} is not the model that {} is about: its SHA-256 is {digest}, the report's {}",
            model.display(),
            report.display(),
            stated.sha256
        );
    }
    let card = present(folder, hub::CARD);
    Ok(Parts {
        report,
        provenance: present(folder, PROVENANCE),
        architecture: present(folder, ARCHITECTURE),
        model,
        card,
    })
}

fn present(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(Path::new(name).file_name()?);
    path.is_file().then_some(path)
}

fn report_in(folder: &Path) -> Result<PathBuf> {
    present(folder, REPORT).with_context(|| {
        format!(
            "{} holds no {REPORT}: `engraft fuse` writes one by --report {}",
            folder.display(),
            folder.join(REPORT).display()
        )
    })
}

/// The one file of safetensors.
fn only_model(folder: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [model] => Ok(model.clone()),
        [] => bail!(
            "{} holds no model: a file of safetensors, as `engraft fuse --out` and `engraft pull --out` write it",
            folder.display()
        ),
        [first, second, ..] => bail!(
            "{} and {} may both be the model: call it {MODEL}, or leave the others out",
            first.display(),
            second.display()
        ),
    }
}

fn parsed(report: &Path) -> Result<Report> {
    read_report(report).with_context(|| format!("{} is no report of engraft", report.display()))
}

/// The request that provenance states.
fn settings(provenance: Option<&Path>) -> Result<Option<Value>> {
    let Some(path) = provenance else { return Ok(None) };
    let content = std::fs::read(path).with_context(|| path.display().to_string())?;
    let mut provenance: Value =
        serde_json::from_slice(&content).with_context(|| format!("{} is no JSON", path.display()))?;
    Ok(provenance.get_mut("job").map(Value::take).filter(Value::is_object))
}

impl Parts {
    /// With the model card, the report as a page, and the network as JSON and as source where it is known; all of them name the model
    /// as it is called where it is published.
    fn package(self, scratch: &Path, card_of_ones_own: Option<&Path>) -> Result<Package> {
        let mut report = parsed(&self.report)?;
        let checkpoint = Checkpoint::open(&self.model).with_context(|| self.model.display().to_string())?;
        let graph = match &self.architecture {
            Some(path) => Some(export::network(path)?),
            None => known_network(&checkpoint),
        };
        let source = graph.as_ref().and_then(|graph| source(graph, &report));
        report.identity.has_source = source.is_some();
        if let Some(model) = &mut report.identity.model {
            MODEL.clone_into(&mut model.name);
        } else {
            let file = std::fs::File::open(&self.model)?;
            report.identity.model = Some(ReportFile { name: MODEL.to_owned(), sha256: sha256(file)? });
        }
        let made = |name: &str, content: &[u8]| {
            let path = scratch.join(format!("made-{name}"));
            std::fs::write(&path, content).with_context(|| path.display().to_string())?;
            anyhow::Ok(PackedFile::new(name, &path))
        };
        let mut files = vec![match card_of_ones_own {
            Some(path) => {
                ensure!(path.is_file(), "there is no card {}", path.display());
                PackedFile::new(hub::CARD, path)
            }
            None => made(hub::CARD, card(&report).as_bytes())?,
        }];
        files.push(PackedFile::new(MODEL, &self.model));
        if let Some(graph) = &graph {
            files.push(match &self.architecture {
                Some(path) => PackedFile::new(ARCHITECTURE, path),
                None => made(ARCHITECTURE, &serde_json::to_vec_pretty(graph)?)?,
            });
        }
        if let Some(source) = &source {
            files.push(made("model.py", source.as_bytes())?);
        }
        files.push(PackedFile::new(REPORT, &self.report));
        files.push(made("report.html", page(&report).as_bytes())?);
        files.extend(self.provenance.as_deref().map(|path| PackedFile::new(PROVENANCE, path)));
        Ok(Package { settings: settings(self.provenance.as_deref())?, report, files })
    }
}

/// The source of the network's PyTorch module; none where no source can spell it.
fn source(graph: &Graph, report: &Report) -> Option<String> {
    let options = ExportOptions {
        normalize: report.normalize.clone(),
        weights: Some(MODEL.to_owned()),
        ..ExportOptions::default()
    };
    python::source(graph, &options).ok()
}
