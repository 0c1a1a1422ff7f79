//! `engraft submit`: queues a job.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{ServerOptions, follow, text};
use crate::cli::plan::PlanTable;
use crate::plan::Plan;

/// Queue a fusion on a server.
///
/// The job is a JSON file as `POST /v1/jobs` takes it (docs/job.md has every field); members and dataset may be given here instead. Its id is
/// printed.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Submit {
    #[command(flatten)]
    server: ServerOptions,
    /// The job; `-` for stdin.
    #[arg(value_name = "JOB.json", required_unless_present = "member")]
    job: Option<PathBuf>,
    /// Name of a member; may be given several times.
    #[arg(long, value_name = "NAME")]
    member: Vec<String>,
    /// Name of the dataset.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Show what it would do and take, as `engraft plan` does, and queue nothing.
    #[arg(long, conflicts_with = "wait")]
    plan: bool,
    /// With `--plan`: as JSON.
    #[arg(long, requires = "plan")]
    json: bool,
    /// Wait for its end, as `engraft wait` does.
    #[arg(long)]
    wait: bool,
}

impl Submit {
    /// Queues it.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let body = self.body()?;
        let Self { server, plan, json, wait, .. } = self;
        server.run(async |server| {
            if plan {
                let plan = server.post("jobs?validate_only=true", &body).await?;
                show(plan, json)?;
                return Ok(ExitCode::SUCCESS);
            }
            let job = server.post("jobs", &body).await?;
            let id = text(&job, "/id");
            println!("{id}");
            if wait { follow::to_the_end(server, id).await } else { Ok(ExitCode::SUCCESS) }
        })
    }

    /// The job, with what the command line adds.
    fn body(&self) -> Result<Value> {
        let mut body = match &self.job {
            None => json!({}),
            Some(path) => {
                let from = path.display();
                let mut content = String::new();
                if path.as_os_str() == "-" {
                    std::io::stdin().read_to_string(&mut content).context("stdin")?;
                } else {
                    content = std::fs::read_to_string(path).with_context(|| from.to_string())?;
                }
                serde_json::from_str(&content).with_context(|| format!("{from} is no JSON"))?
            }
        };
        let fields = body.as_object_mut().context("expected a JSON object, as docs/job.md describes it")?;
        if !self.member.is_empty() {
            ensure!(!fields.contains_key("members"), "the job names its members: leave out --member");
            fields.insert("members".to_owned(), json!(self.member));
        }
        if let Some(dataset) = &self.dataset {
            match fields.get_mut("dataset") {
                None => drop(fields.insert("dataset".to_owned(), json!(dataset))),
                Some(Value::Object(given)) if !given.contains_key("name") => {
                    given.insert("name".to_owned(), json!(dataset));
                }
                Some(_) => anyhow::bail!("the job names its dataset: leave out --dataset"),
            }
        }
        Ok(body)
    }
}

/// Prints a plan, most of which is null while a dataset that it depends on is being read.
fn show(plan: Value, json: bool) -> Result<()> {
    if json {
        println!("{plan:#}");
    } else if plan["architecture"].is_null() {
        println!("the dataset is still being read: the plan follows when it has been");
        for warning in plan["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            println!("warning: {warning}");
        }
    } else {
        let plan: Plan =
            serde_json::from_value(plan).context("the server has sent another plan than expected; --json shows it")?;
        print!("{}", PlanTable(&plan));
    }
    Ok(())
}
