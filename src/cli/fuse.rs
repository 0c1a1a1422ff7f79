//! `engraft fuse`: the pipeline on local files, without a server.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use super::interrupt::{Signals, say};
use super::job::JobArgs;
use super::progress::ProgressDisplay;
use super::{compute, outputs, written};
use crate::config::ByteSize;
use crate::data::expect_file;
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::problem::Problem;
use crate::export::{self, ExportFormat, ExportOptions, shards_of};
use crate::model::formats::digest::sha256;
use crate::pipeline::child::out_of_memory;
use crate::pipeline::{self, JobOutcome};
use crate::plan::network::KnownSpeed;
use crate::plan::request::JobRequest;
use crate::process::memory;
use crate::process::protocol::{InputFile, OutputFile, Task, TaskOrigin};
use crate::report::Report;
use crate::tensors::{Checkpoint, CheckpointFiles};

const EXAMPLE: &str = "\
Fuse two networks and recover by three epochs of distillation:

  engraft fuse --member m0.safetensors --member m1.safetensors --dataset mnist.npz --epochs 3 --out fused.safetensors

The job file is the body of POST /v1/jobs with file paths as names; flags win over it. Without a dataset nothing is
trained and nothing measured. The comparison goes to stdout, progress to stderr.";

/// Fuse checkpoints on this machine, without a server.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Fuse {
    #[command(flatten)]
    job: JobArgs,
    /// Threads to compute with; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory to allocate at most, as in 8GiB; mapped files do not count.
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
    /// Memory of the GPU to take at most, as in 40GiB.
    #[arg(long, value_name = "SIZE")]
    gpu_memory_limit: Option<ByteSize>,
    /// Where the fused model goes, in the format that the end of the name says: `.safetensors`, `.tar` (the same in shards, with their
    /// index), `.pt`, `.onnx` or `.py` (its PyTorch module, with the weights beside it).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where the report goes (JSON).
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where the report goes as a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// In how many files of safetensors a `.tar` has the model at most; by default as many as a member had, or as keep them below 5 GB.
    #[arg(long, value_name = "N")]
    shards: Option<NonZeroUsize>,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

impl Fuse {
    /// Computes one job to its end.
    pub(super) fn run(self) -> Result<ExitCode> {
        let job = self.job.request()?;
        let format = self.format()?;
        self.check_outputs(&job, format)?;
        let members = job.members.clone();
        let folder = self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let interruption = Signals::listen()?;
        let scratch = interruption.folder(|| tempfile::Builder::new().prefix(".engraft-fuse-").tempdir_in(folder));
        let scratch = scratch.with_context(|| format!("cannot write below {}", folder.display()))?;
        let gpu_memory_limit = self.gpu_memory_limit.map(|limit| limit.0);
        let mut task = task(job, scratch.path(), self.threads, gpu_memory_limit)?;
        task.memory_limit = self.memory_limit.map(|limit| limit.0);
        task.origin.model = match format {
            ExportFormat::Safetensors => file_name(&self.out),
            ExportFormat::Python => file_name(&self.weights()),
            _ => None,
        };
        task.origin.source = file_name(&self.out).filter(|_| format == ExportFormat::Python);
        if let Some(bytes) = task.memory_limit {
            let (words, scratch) = (format!("Error: {}", out_of_memory(bytes).detail), task.scratch.clone());
            memory::limit(bytes, move || {
                memory::last_words(io::stderr(), &words);
                // The process ends here and now; the folder would stay.
                let _gone = std::fs::remove_dir_all(&scratch);
            });
        }
        let mut view = ProgressDisplay::default();
        let outcome = pipeline::run(&task, &mut |message| view.show(&message), interruption.stop());
        view.finish();
        match outcome? {
            JobOutcome::Finished(artifacts) => {
                self.deliver(&artifacts, format, self.shards.or_else(|| shards_of_any(&members)))
            }
            JobOutcome::Stopped => {
                say("stopped; nothing was written");
                Ok(interruption.exit_code())
            }
        }
    }

    /// Checks that no result goes over an input, nor over another file unless that is asked for.
    fn check_outputs(&self, job: &JobRequest, format: ExportFormat) -> Result<()> {
        let weights = (format == ExportFormat::Python).then(|| self.weights());
        let outputs = [Some(&self.out), self.report.as_ref(), self.html.as_ref(), weights.as_ref()];
        let outputs: Vec<&Path> = outputs.into_iter().flatten().map(PathBuf::as_path).collect();
        let inputs: Vec<&Path> = outputs::read_by(job).chain(self.job.file()).collect();
        outputs::check(&outputs, &inputs, self.force)?;
        if format == ExportFormat::Onnx {
            outputs::check(&[&written::data_of(&self.out)], &inputs, true)?;
        }
        Ok(())
    }

    /// Puts the artifacts where the user wants them and prints the comparison.
    fn deliver(
        &self,
        artifacts: &[OutputFile],
        format: ExportFormat,
        shards: Option<NonZeroUsize>,
    ) -> Result<ExitCode> {
        let report = &artifact(artifacts, "report")?.path;
        let summary = read_report(report)?;
        for (from, to) in [(report, &self.report), (&artifact(artifacts, "report.html")?.path, &self.html)] {
            if let Some(to) = to {
                std::fs::copy(from, to).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
        let model = &artifact(artifacts, "model")?.path;
        let mut wrote = vec![self.out.clone()];
        if format == ExportFormat::Safetensors {
            place(model, &self.out)?;
        } else {
            let options = ExportOptions {
                normalize: summary.normalize.clone(),
                weights: file_name(&self.weights()),
                shards,
                ..ExportOptions::default()
            };
            let architecture = artifact(artifacts, "architecture").ok().map(|file| file.path.as_path());
            wrote = self.convert(model, architecture, format, &options).inspect_err(|_| self.keep(model))?;
            if format == ExportFormat::Python {
                place(model, &self.weights())?;
                wrote.push(self.weights());
            }
        }
        print!("{summary}");
        let wrote: Vec<String> = wrote.iter().map(|path| path.display().to_string()).collect();
        println!("\nwrote {}", wrote.join(" and "));
        Ok(ExitCode::SUCCESS)
    }

    /// Writes the fused model in another format.
    fn convert(
        &self,
        model: &Path,
        architecture: Option<&Path>,
        format: ExportFormat,
        options: &ExportOptions,
    ) -> Result<Vec<PathBuf>> {
        let graph = architecture.map(export::network).transpose()?;
        written::write(&self.out, format, &Checkpoint::open(model)?, graph.as_ref(), options, self.force)
    }

    /// The format of the model's file.
    fn format(&self) -> Result<ExportFormat> {
        let what = match ExportFormat::of_path(&self.out) {
            Ok(ExportFormat::Architecture) => "a .json holds no weights",
            Ok(format) => return Ok(format),
            Err(_) => "the end of the name says the format",
        };
        bail!("{}: {what}; expected .safetensors, .tar, .pt, .onnx or .py", self.out.display())
    }

    /// Where the weights go beside the source of their module.
    fn weights(&self) -> PathBuf {
        self.out.with_extension("safetensors")
    }

    /// Saves the model from the scratch folder where it cannot be had in the format that was asked for.
    fn keep(&self, model: &Path) {
        let weights = self.weights();
        if !weights.exists() && std::fs::rename(model, &weights).is_ok() {
            say(&format!("the fused model was written as {}", weights.display()));
        }
    }
}

/// In how many shards the first sharded member came.
fn shards_of_any(members: &[String]) -> Option<NonZeroUsize> {
    members.iter().find_map(|name| shards_of(&Checkpoint::open(Path::new(name)).ok()?))
}

/// Moves a finished file to its place.
fn place(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).with_context(|| format!("cannot write {}", to.display()))
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// The artifact `name`.
pub(super) fn artifact<'a>(artifacts: &'a [OutputFile], name: &str) -> Result<&'a OutputFile> {
    let found = artifacts.iter().find(|artifact| artifact.name == name);
    found.with_context(|| format!("the pipeline made no {name}"))
}

/// Reads a report.
pub(super) fn read_report(path: &Path) -> Result<Report> {
    Ok(serde_json::from_reader(io::BufReader::new(File::open(path)?))?)
}

/// The job with its files found and hashed.
pub(super) fn task(
    job: JobRequest,
    scratch: &Path,
    threads: Option<usize>,
    gpu_memory_limit: Option<u64>,
) -> Result<Task> {
    let dataset = job.dataset.as_ref();
    let (device, gpu) = compute::choose(job.device, gpu_memory_limit)?;
    let date = Some(format!("{:.0}", SystemClock.now()));
    Ok(Task {
        origin: TaskOrigin { date, ..TaskOrigin::default() },
        members: job.members.par_iter().map(checkpoint).collect::<Result<_>>()?,
        dataset: dataset.map(|dataset| input(&dataset.name)).transpose()?,
        validation: dataset.and_then(|dataset| dataset.validation.as_ref()).map(input).transpose()?,
        test: dataset.and_then(|dataset| dataset.test.as_ref()).map(input).transpose()?,
        reference: job.reference.as_ref().map(|reference| checkpoint(&reference.name)).transpose()?,
        scratch: scratch.to_owned(),
        resume: None,
        memory_limit: None,
        device,
        gpu,
        speed: KnownSpeed::default(),
        threads: self::threads(threads),
        job,
    })
}

/// A dataset of the user's, found and hashed.
pub(super) fn input(name: &String) -> Result<InputFile> {
    expect_file(Path::new(name)).map_err(|error| named(name, error))?;
    let path = std::path::absolute(name)?;
    Ok(InputFile { name: name.clone(), sha256: digest(&path)?, path })
}

/// A checkpoint of the user's, with the files beside it that it names, found and hashed.
pub(super) fn checkpoint(name: &String) -> Result<InputFile> {
    let path = std::path::absolute(name)?;
    is_there(&path)?;
    let files = CheckpointFiles::open(&path).map_err(|error| named(name, error))?;
    let sha256 = files.sha256().with_context(|| format!("cannot read {name}"))?;
    Ok(InputFile { name: name.clone(), sha256, path })
}

/// What is wrong with a file, by the name that the user gave.
fn named(name: &str, error: impl Into<Problem>) -> Problem {
    let problem = error.into();
    Problem { detail: format!("{name}: {}", problem.detail), ..problem }
}

/// Threads to compute with: the given number, or one per core.
pub(super) fn threads(requested: Option<usize>) -> usize {
    requested.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The file that a user has named, before anything is said of what it holds.
pub(super) fn is_there(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// SHA-256 of a file, in hexadecimal.
fn digest(path: &Path) -> Result<String> {
    let file = is_there(path)?;
    sha256(file).with_context(|| format!("cannot read {}", path.display()))
}
