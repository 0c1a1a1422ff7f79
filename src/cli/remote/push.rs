//! `engraft push`: uploads files to a server, or brings a fused model to where it is used.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::publish::Publication;
use super::{ServerOptions, bars, text};
use crate::client::{Collection, Server, Uploaded};

const EXAMPLE: &str = "\
Upload two members and a dataset to a server:

  engraft push m0.safetensors m1.safetensors --dataset mnist.tar

Bring the fused model of a job, or of a folder with its report, to where it is used:

  engraft push job_019324a5b7c07f3e8d1c2b3a4f5e6d7c --to hf://my-org/letters --private
  engraft push FOLDER --to mlflow --tracking-uri http://mlflow.example:5000 --experiment letters --register letters
  engraft push FOLDER --to tensorboard:runs";

/// Upload members and datasets to a server, or bring a fused model to the Hugging Face Hub, MLflow or TensorBoard.
///
/// What was cut goes on by itself, also by another call; what is there already is not sent again. The names of uploaded files are printed, as a
/// job takes them; of a fused model, where it is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(in crate::cli) struct Push {
    #[command(flatten)]
    server: ServerOptions,
    /// Checkpoints: safetensors, of `torch.save`, ONNX, npz, a folder as tar or zip. With `--to`, a job's id or a folder with a fused model and
    /// its report.
    #[arg(required_unless_present = "dataset", value_name = "FILE|JOB|FOLDER")]
    what: Vec<PathBuf>,
    /// A dataset; may be given several times.
    #[arg(long, value_name = "FILE")]
    dataset: Vec<PathBuf>,
    /// What the server calls it, where it is one file; its own name unless given.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    publication: Publication,
}

impl Push {
    /// Uploads one after another, or publishes.
    pub(in crate::cli) fn run(self) -> Result<ExitCode> {
        let Self { server, what, dataset, name, mut publication } = self;
        if let Some(destination) = publication.to.take() {
            return publication.run(destination, &what, server);
        }
        ensure!(name.is_none() || what.len() + dataset.len() == 1, "--name is for one file");
        server.run(async |server| {
            let checkpoints = what.iter().map(|file| (Collection::Checkpoints, file));
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
    let folder = file.display();
    ensure!(
        !file.is_dir(),
        "{folder} is a folder, and one file is uploaded: pack it, as in `tar -cf {name}.tar -C {folder} .`"
    );
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
