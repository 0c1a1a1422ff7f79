//! `engraft plan`: what a fusion would do, before it is done.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::compute::choose;
use super::fuse::{is_there, threads};
use super::job::JobArgs;
use crate::data::{Limits, inspect};
use crate::domain::dataset::DatasetFacts;
use crate::domain::problem::Problem;
use crate::pipeline::speed;
use crate::plan::network::{DatasetInput, JobFiles, KnownSpeed};
use crate::plan::request::JobRequest;
use crate::plan::resolve::resolve;
use crate::plan::{NetworkFigures, Plan};
use crate::settings::{ComputeOptions, Device};
use crate::tensors::Checkpoint;

const EXAMPLE: &str = "\
Plan a network of at most a million weights from two members:

  engraft plan --member m0.safetensors --member m1.safetensors --params 1000000

Takes what `engraft fuse` takes. Only the headers of checkpoints are read; a dataset is read through once. Everything that
keeps the members from being fused is named at once.";

/// Show what a fusion would do: widths, weights, operations, bytes, memory and time.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct PlanCommand {
    #[command(flatten)]
    job: JobArgs,
    /// Print the plan as JSON, as `POST /v1/jobs?validate_only=true` answers.
    #[arg(long)]
    json: bool,
}

impl PlanCommand {
    /// Prints the plan.
    pub(super) fn run(self) -> Result<ExitCode> {
        let plan = plan(self.job.request()?)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&plan)?);
        } else {
            print!("{}", PlanTable(&plan));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The plan of a job on local files.
fn plan(job: JobRequest) -> Result<Plan> {
    let speed = speed(job.device)?;
    planned(job, speed, &mut Inspected::default())
}

/// Datasets that have been read through, by their names.
pub(super) type Inspected = BTreeMap<String, DatasetFacts>;

/// The plan of a job on local files, where it takes the time that `speed` gives; each dataset is read once into `inspected`.
pub(super) fn planned(job: JobRequest, speed: KnownSpeed, inspected: &mut Inspected) -> Result<Plan> {
    let dataset = job.dataset.as_ref();
    let datasets = dataset.map(|dataset| [Some(&dataset.name), dataset.validation.as_ref(), dataset.test.as_ref()]);
    let names: Vec<&String> = datasets.into_iter().flatten().flatten().collect();
    for name in job.members.iter().chain(names.iter().copied()) {
        is_there(Path::new(name))?;
    }
    let members: Vec<Checkpoint> = job
        .members
        .iter()
        .map(|name| Checkpoint::open(Path::new(name)).map_err(|error| named(name, error.into())))
        .collect::<Result<_, Problem>>()?;
    for name in names {
        if !inspected.contains_key(name) {
            let facts = inspect(Path::new(name), &Limits::default()).map_err(|error| named(name, error.into()))?;
            inspected.insert(name.clone(), facts);
        }
    }
    let facts = |name: Option<&String>| inspected.get(name?).map(DatasetInput::Ready);
    let inputs = JobFiles {
        members: members.iter().map(Checkpoint::header).collect(),
        dataset: facts(dataset.map(|dataset| &dataset.name)),
        validation: facts(dataset.and_then(|dataset| dataset.validation.as_ref())),
        test: facts(dataset.and_then(|dataset| dataset.test.as_ref())),
        speed,
    };
    let planned = resolve(job, &inputs)?.planned;
    Ok(planned.ok_or_else(|| anyhow::anyhow!("a job with all its files has no plan"))?.plan)
}

/// How fast this machine computes a job that requests `device`; a GPU, which may have to compile for a minute first, is not measured.
fn speed(device: Device) -> Result<KnownSpeed> {
    match choose(device, None) {
        Ok((Device::Cpu, _)) => {
            let speed = speed::measure(&ComputeOptions::cpu(threads(None)))?;
            Ok(KnownSpeed { speed, measured_on: Some("this machine's processor".to_owned()) })
        }
        _ => Ok(KnownSpeed::default()),
    }
}

fn named(name: &str, problem: Problem) -> Problem {
    Problem { detail: format!("{name}: {}", problem.detail), ..problem }
}

/// A plan for a terminal.
pub(super) struct PlanTable<'a>(pub(super) &'a Plan);

impl fmt::Display for PlanTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        writeln!(f, "architecture: {}", plan.architecture)?;
        if let Some(evidence) = &plan.evidence {
            writeln!(f, "evidence: {} ({})", evidence.degree.name(), evidence.why)?;
            for open in &evidence.open {
                writeln!(f, "open: {} may be {}", open.name, open.values.join(", "))?;
            }
        }
        for assumption in &plan.assumptions {
            writeln!(f, "assumed: {assumption}")?;
        }
        writeln!(f)?;
        let layers = plan.layers.iter().map(|layer| {
            let group = layer.group.clone().unwrap_or_else(|| "(outputs)".to_owned());
            vec![layer.name.clone(), group, layer.width_before.to_string(), layer.width_after.to_string()]
        });
        columns(f, &["layer", "group", "all members", "fused"], layers.collect())?;
        writeln!(f)?;
        let members = plan.parameters.members.len();
        let heads: Vec<String> = (0..members).map(|index| format!("member {index}")).collect();
        let heads =
            [&[""][..], &heads.iter().map(String::as_str).collect::<Vec<_>>(), &["concatenated", "fused"]].concat();
        let rows = [("parameters", &plan.parameters), ("MACs", &plan.macs), ("bytes", &plan.bytes)];
        columns(f, &heads, rows.into_iter().map(|(name, costs)| figures(name, costs)).collect())?;
        writeln!(f, "\npeak memory: {:.1} MB ({})", plan.memory_peak_bytes as f64 / 1e6, plan.memory_basis)?;
        if plan.gpu_memory_bytes > 0 {
            let bytes = plan.gpu_memory_bytes as f64 / 1e6;
            writeln!(f, "on a GPU: {bytes:.1} MB of its memory ({})", plan.gpu_memory_basis)?;
        }
        writeln!(f, "scratch space: {:.1} MB ({})", plan.disk_peak_bytes as f64 / 1e6, plan.disk_basis)?;
        writeln!(f, "time: about {:.1} s ({})", plan.seconds_estimate, plan.seconds_basis)?;
        for warning in &plan.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

fn figures(name: &str, costs: &NetworkFigures) -> Vec<String> {
    let values = costs.members.iter().chain([&costs.concatenated, &costs.fused]).map(u64::to_string);
    std::iter::once(name.to_owned()).chain(values).collect()
}

/// A table whose first column is aligned to the left, the others to the right.
fn columns(f: &mut fmt::Formatter<'_>, heads: &[&str], mut rows: Vec<Vec<String>>) -> fmt::Result {
    rows.insert(0, heads.iter().map(ToString::to_string).collect());
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            write!(line, "  {cell:>width$}")?;
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
