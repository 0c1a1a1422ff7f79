//! `engraft pull`: downloads what a job has made.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use super::{ServerOptions, advised, bars};
use crate::cli::fuse::read_report;
use crate::client::Server;
use crate::export::ExportFormat;

/// What is written where nothing is named.
const MODEL: &str = "fused.safetensors";

/// Download the fused model of a job, or its report.
///
/// The end of the name of `--out` is the format: .safetensors, .pt, .onnx, .py, .json (the architecture), .tar (shards), .html (the report), .md
/// (the model card). The end of the name of `--report` is the report's. What was cut goes on by itself, and what arrived is checked against the
/// server's digest.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Pull {
    #[command(flatten)]
    server: ServerOptions,
    /// Its id.
    job: String,
    /// The file of the model; fused.safetensors where no report is asked for.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The file of the report: .json (for programs), .html (a page), .txt (as `engraft fuse` prints it), .md (the model card).
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Whether an ONNX model takes its inputs before the job's normalisation.
    #[arg(long)]
    normalize: bool,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

/// Something of a job, and the file that it becomes.
struct Wanted {
    /// What it is below the job.
    resource: String,
    to: PathBuf,
    /// Whether it is a report that is written as text.
    as_text: bool,
}

impl Pull {
    /// Downloads it.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let Self { server, job, out, report, normalize, force } = self;
        let out = out.or_else(|| report.is_none().then(|| MODEL.into()));
        let model = out.map(|to| {
            let resource = model_resource(&to, normalize)?;
            Ok::<_, anyhow::Error>(Wanted { resource, to, as_text: false })
        });
        let report = report.map(|to| {
            let (resource, as_text) = report_resource(&to)?;
            Ok::<_, anyhow::Error>(Wanted { resource: resource.to_owned(), to, as_text })
        });
        let wanted = [model, report].into_iter().flatten().collect::<Result<Vec<_>>>()?;
        for Wanted { to, .. } in &wanted {
            ensure!(force || !to.exists(), "{} is there already: --force replaces it", to.display());
        }
        server.run(async |server| {
            for one in &wanted {
                one.fetch(server, &job).await?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Wanted {
    /// Downloads it; it gets its name when all of it is there.
    async fn fetch(&self, server: &Server, job: &str) -> Result<()> {
        let Self { resource, to, as_text } = self;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let scratch = tempfile::Builder::new().prefix(".engraft-pull-").tempdir_in(folder);
        let scratch = scratch.with_context(|| format!("cannot write below {}", folder.display()))?;
        let part = scratch.path().join("part");
        let bar = bars::bytes(&to.display().to_string());
        let advance = |bytes, whole: Option<u64>| {
            bar.set_position(bytes);
            bar.set_length(whole.unwrap_or(bytes));
        };
        let downloaded = server.download(&format!("jobs/{job}/{resource}"), &part, &advance).await;
        bar.finish_and_clear();
        let bytes = downloaded.map_err(|error| advised(error, job))?;
        if *as_text {
            let text = read_report(&part)?.to_string();
            std::fs::write(&part, text).with_context(|| to.display().to_string())?;
        }
        std::fs::rename(&part, to).with_context(|| to.display().to_string())?;
        eprintln!("{}: {bytes} bytes, checked", to.display());
        if resource.starts_with("model?format=json") {
            eprintln!("that is the architecture; the report is `engraft pull {job} --report FILE.json`");
        }
        Ok(())
    }
}

/// The end of a name.
fn ending(path: &Path) -> String {
    path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// What a job has of the form of the model's file `out`.
fn model_resource(out: &Path, normalize: bool) -> Result<String> {
    let end = ending(out);
    match end.as_str() {
        "html" => return Ok("report.html".to_owned()),
        "md" => return Ok("card".to_owned()),
        _ => {}
    }
    let known = ExportFormat::ALL.map(ExportFormat::extension).join(", .");
    let format = ExportFormat::of_name(&end)
        .with_context(|| format!("{}: expected a name that ends in .{known}, .html or .md", out.display()))?;
    let normalize = if normalize { "&normalize=true" } else { "" };
    Ok(format!("model?format={}{normalize}", format.extension()))
}

/// What a job has of the form of the report's file, and whether text is made of it.
fn report_resource(report: &Path) -> Result<(&'static str, bool)> {
    Ok(match ending(report).as_str() {
        "json" => ("report", false),
        "txt" => ("report", true),
        "html" => ("report.html", false),
        "md" => ("card", false),
        _ => bail!("{}: expected a name that ends in .json, .html, .txt or .md", report.display()),
    })
}
