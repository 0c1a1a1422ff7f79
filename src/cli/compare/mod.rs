//! `engraft compare`: a grid of jobs, run one after another, in one report.

mod plan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use super::fuse::{artifact, read_report, task};
use super::interrupt::{Signals, say};
use super::outputs;
use super::progress::ProgressDisplay;
use crate::config::ByteSize;
use crate::pipeline::{self, JobOutcome};
use crate::plan::comparison::Grid;
use crate::plan::request::JobRequest;
use crate::report::{Comparison, Report, Run};

const EXAMPLE: &str = "\
A plan names what is varied; every combination is run with every seed:

  title = \"Rankings at half width\"
  seeds = [0, 1, 2]
  job.dataset = \"cifar.zip\"
  [[ensembles]]
  name = \"two MLPs\"
  members = [\"m0.safetensors\", \"m1.safetensors\"]
  [[methods]]
  name = \"magnitude\"
  job.method = { importance = \"magnitude\" }
  [[methods]]
  name = \"css\"
  job.method = { importance = \"css\" }
  [[targets]]
  name = \"half\"
  job.target = { width = 0.5 }
  [quick]
  seeds = [0]

`job` is (a part of) the body of POST /v1/jobs; later ones are laid over earlier ones: the plan's, the ensemble's, the
method's, the target's, and with --quick that of `quick`. Files are relative to the plan. All runs are checked before the
first begins. The exit code is 1 when a run failed; the others are done and reported all the same.";

/// Compare methods, targets and seeds by a plan.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Compare {
    /// The plan (TOML).
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Run the plan's short form.
    #[arg(long)]
    quick: bool,
    /// Threads to compute with; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory of the GPU that each job takes at most, as in 40GiB.
    #[arg(long, value_name = "SIZE")]
    gpu_memory_limit: Option<ByteSize>,
    /// Where the comparison goes (JSON), with the report of every run.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where the comparison goes as a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Compare {
    /// Runs the plan to its end.
    pub(super) fn run(self) -> Result<ExitCode> {
        let plan = plan::read(&self.plan, self.quick)?;
        self.check_outputs(&plan)?;
        plan::check(&plan)?;
        let interruption = Signals::listen()?;
        let mut comparison = Comparison::new(plan.title.clone(), self.quick);
        for (index, cell) in plan.cells().enumerate() {
            say(&format!("[{}/{}] {cell}", index + 1, plan.runs()));
            let start = Instant::now();
            let result = match self.compute(plan::job(&plan, &cell)?, &interruption) {
                Ok(Some(report)) => Ok(report),
                Ok(None) => {
                    self.write(&comparison)?;
                    say(&format!("stopped after {index} of {} runs", plan.runs()));
                    return Ok(interruption.exit_code());
                }
                Err(error) => {
                    say(&format!("failed: {error:#}"));
                    Err(format!("{error:#}"))
                }
            };
            comparison.runs.push(Run {
                job: None,
                ensemble: cell.ensemble.name.clone(),
                method: cell.method.name.clone(),
                target: cell.target.name.clone(),
                seed: cell.seed,
                seconds: start.elapsed().as_secs_f64(),
                report: result.as_ref().ok().cloned(),
                error: result.err(),
            });
            // After every run: a long comparison that is cut off has shown what it found.
            self.write(&comparison)?;
        }
        print!("{comparison}");
        let failed = comparison.runs.iter().any(|run| run.error.is_some());
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Checks that no result goes over an input; an earlier comparison is replaced.
    fn check_outputs(&self, plan: &Grid) -> Result<()> {
        let outputs: Vec<&Path> = [&self.report, &self.html].into_iter().flatten().map(PathBuf::as_path).collect();
        let jobs = plan.cells().map(|cell| plan::job(plan, &cell)).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&Path> = jobs.iter().flat_map(outputs::read_by).chain([&*self.plan]).collect();
        outputs::check(&outputs, &inputs, true)
    }

    /// Computes one job; none when it was stopped.
    fn compute(&self, job: JobRequest, interruption: &Signals) -> Result<Option<Report>> {
        let scratch = interruption.folder(|| tempfile::Builder::new().prefix("engraft-compare-").tempdir())?;
        let task = task(job, scratch.path(), self.threads, self.gpu_memory_limit.map(|limit| limit.0))?;
        let mut view = ProgressDisplay::default();
        let outcome = pipeline::run(&task, &mut |message| view.show(&message), interruption.stop());
        view.finish();
        match outcome? {
            JobOutcome::Finished(artifacts) => read_report(&artifact(&artifacts, "report")?.path).map(Some),
            JobOutcome::Stopped => Ok(None),
        }
    }

    fn write(&self, comparison: &Comparison) -> Result<()> {
        let write = |path: &Path, bytes: &[u8]| {
            std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        if let Some(path) = &self.report {
            write(path, &serde_json::to_vec_pretty(comparison)?)?;
        }
        if let Some(path) = &self.html {
            write(path, comparison.page().as_bytes())?;
        }
        Ok(())
    }
}
