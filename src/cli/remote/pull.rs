//! `engraft pull`: downloads what a job has made.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::{ServerOptions, bars};
use crate::export::ExportFormat;

/// Download the fused model of a job, or its report.
///
/// The end of the name of `--out` is the format: .safetensors, .pt, .onnx, .py, .json (the architecture), .tar (shards), .html (the report), .md
/// (the model card). What was cut goes on by itself, and what arrived is checked against the server's digest.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Pull {
    #[command(flatten)]
    server: ServerOptions,
    /// Its id.
    job: String,
    /// The file to write.
    #[arg(long, short, default_value = "fused.safetensors", value_name = "FILE")]
    out: PathBuf,
    /// Whether an ONNX model takes its inputs before the job's normalisation.
    #[arg(long)]
    normalize: bool,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

impl Pull {
    /// Downloads it.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let Self { server, job, out, normalize, force } = self;
        ensure!(force || !out.exists(), "{} is there already: --force replaces it", out.display());
        let path = format!("jobs/{job}/{}", resource(&out, normalize)?);
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        server.run(async |server| {
            // It gets its name when all of it is there.
            let scratch = tempfile::Builder::new().prefix(".engraft-pull-").tempdir_in(folder)?;
            let part = scratch.path().join("part");
            let bar = bars::bytes(&out.display().to_string());
            let advance = |bytes, whole: Option<u64>| {
                bar.set_position(bytes);
                bar.set_length(whole.unwrap_or(bytes));
            };
            let downloaded = server.download(&path, &part, &advance).await;
            bar.finish_and_clear();
            let bytes = downloaded?;
            std::fs::rename(&part, &out).with_context(|| out.display().to_string())?;
            eprintln!("{}: {bytes} bytes, checked", out.display());
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// What a job has of the form of `out`.
fn resource(out: &Path, normalize: bool) -> Result<String> {
    let end = out.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
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
