//! `engraft ls`: what a server has.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;

use super::{ServerOptions, text};

/// List the jobs, checkpoints, datasets or comparisons of a server, the newest first.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Ls {
    #[command(flatten)]
    server: ServerOptions,
    /// Of what.
    #[arg(value_enum, default_value = "jobs")]
    what: Listed,
    /// Those in a state.
    #[arg(long)]
    state: Option<String>,
    /// Those with a label, as in `run=7`; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// The most entries.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// As JSON, an entry a line.
    #[arg(long)]
    json: bool,
}

/// What a server has lists of.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Listed {
    Jobs,
    Checkpoints,
    Datasets,
    Comparisons,
}

/// Most entries of a page.
const PAGE: usize = 100;

impl Listed {
    fn path(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Checkpoints => "checkpoints",
            Self::Datasets => "datasets",
            Self::Comparisons => "comparisons",
        }
    }

    /// What a line says of an entry.
    fn line(self, entry: &Value) -> String {
        let (made, id) = (text(entry, "/created_at"), text(entry, "/id"));
        let rest = match self {
            Self::Jobs => {
                let phase = text(entry, "/progress/phase");
                let done = entry["progress"]["job_fraction"]
                    .as_f64()
                    .map_or_else(String::new, |part| format!("{:.0} %", part * 100.0));
                let (name, why) = (text(entry, "/name"), text(entry, "/error/detail"));
                let gap = if name.is_empty() || why.is_empty() { "" } else { "  " };
                format!("{:<10}  {phase:<10}  {done:>5}  {name}{gap}{why}", text(entry, "/state"))
            }
            Self::Checkpoints => format!("{:>14}  {}", entry["bytes"], text(entry, "/name")),
            Self::Datasets => {
                format!("{:>14}  {:<10}  {}", entry["bytes"], text(entry, "/state"), text(entry, "/name"))
            }
            Self::Comparisons => format!("{:<10}  {}", text(entry, "/state"), text(entry, "/title")),
        };
        format!("{id}  {made}  {rest}").trim_end().to_owned()
    }
}

impl Ls {
    /// Prints them.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let Self { server, what, state, label, limit, json } = self;
        let labels = label.iter().map(|(name, value)| ("label".to_owned(), format!("{name}={value}")));
        let selected: Vec<(String, String)> =
            state.map(|state| ("state".to_owned(), state)).into_iter().chain(labels).collect();
        server.run(async |server| {
            let (mut left, mut after) = (limit, None);
            while left > 0 {
                let size = ("limit".to_owned(), left.min(PAGE).to_string());
                let place = after.map(|after| ("after".to_owned(), after));
                let query = selected.iter().cloned().chain([size]).chain(place);
                let page = server.list(what.path(), query).await?;
                for entry in page["data"].as_array().into_iter().flatten() {
                    left -= 1;
                    println!("{}", if json { entry.to_string() } else { what.line(entry) });
                }
                after = page["next_after"].as_str().map(str::to_owned);
                if after.is_none() {
                    break;
                }
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| "expected NAME=VALUE".to_owned())?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}
