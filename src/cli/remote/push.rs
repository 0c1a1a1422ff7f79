//! `engraft push`: uploads files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::{ServerOptions, bars, text};
use crate::client::{Collection, Server, Uploaded};

/// Upload members and datasets to a server.
///
/// What was cut goes on by itself, also by another call; what the server has already is not sent again. The names of the files are printed, as a
/// job takes them.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Push {
    #[command(flatten)]
    server: ServerOptions,
    /// Checkpoints: safetensors, of `torch.save`, ONNX, npz, a folder as tar or zip.
    #[arg(required_unless_present = "dataset", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// A dataset; may be given several times.
    #[arg(long, value_name = "FILE")]
    dataset: Vec<PathBuf>,
    /// What the server calls it, where it is one file; its own name unless given.
    #[arg(long)]
    name: Option<String>,
}

impl Push {
    /// Uploads one after another.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let Self { server, checkpoints, dataset, name } = self;
        ensure!(name.is_none() || checkpoints.len() + dataset.len() == 1, "--name is for one file");
        server.run(async |server| {
            let checkpoints = checkpoints.iter().map(|file| (Collection::Checkpoints, file));
            for (collection, file) in checkpoints.chain(dataset.iter().map(|file| (Collection::Datasets, file))) {
                println!("{}", push(server, collection, file, name.as_deref()).await?);
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Uploads a file, and waits until a dataset has been read; its name there.
async fn push(server: &Server, collection: Collection, file: &Path, name: Option<&str>) -> Result<String> {
    let own = || file.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.map(str::to_owned).or_else(own).with_context(|| format!("{} has no name", file.display()))?;
    let bar = bars::bytes(&name);
    bar.set_length(file.metadata().with_context(|| file.display().to_string())?.len());
    let uploaded = server.upload(collection, file, &name, &|bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    match uploaded.with_context(|| format!("{} was not uploaded", file.display()))? {
        Uploaded::New(view) => eprintln!("{name}: uploaded as {}", text(&view, "/id")),
        Uploaded::Known => eprintln!("{name}: the server has it already"),
    }
    if collection == Collection::Datasets {
        let path = format!("datasets/{name}");
        let mut dataset = server.get(&path).await?;
        while text(&dataset, "/state") == "validating" {
            dataset = server.get_later(&path, 30).await?;
        }
        let fault = text(&dataset, "/error/detail");
        ensure!(text(&dataset, "/state") == "ready", "the dataset {name} cannot be used: {fault}");
    }
    Ok(name)
}
