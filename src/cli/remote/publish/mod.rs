//! `engraft push … --to`: brings a fused model to where it is used.

mod package;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use super::{ServerOptions, bars};
use crate::destinations::hub::{self, HubPush, Pushed, Repository};
use crate::destinations::mlflow::{self, MlflowPush, SignIn, Tracked};
use crate::destinations::{Destination, Outline, Package, tensorboard};

use self::package::Source;

/// Where a fused model goes, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Publication {
    /// Where the fused model of a job, or of a folder that holds one with its report, goes: `hf://OWNER/NAME` or `hf://OWNER/NAME@BRANCH`
    /// (a repository of the Hugging Face Hub), `mlflow` (a run), `tensorboard:FOLDER` (the curves).
    #[arg(long, value_name = "DESTINATION", conflicts_with_all = ["dataset", "name"])]
    pub(super) to: Option<Destination>,
    /// The model card to publish, in the place of the one that is made of the report.
    #[arg(long, value_name = "FILE", requires = "to")]
    card: Option<PathBuf>,
    /// The repository of the Hub has to be private: it is made so, and nothing is sent to one that is public.
    #[arg(long, requires = "to")]
    private: bool,
    /// First line of the commit on the Hub.
    #[arg(long, value_name = "TEXT", requires = "to")]
    message: Option<String>,
    /// Address of the Hub.
    #[arg(long, env = "HF_ENDPOINT", default_value = hub::ENDPOINT, value_name = "URL")]
    hub_endpoint: String,
    /// Address of MLflow's tracking server.
    #[arg(long, env = "MLFLOW_TRACKING_URI", hide_env_values = true, value_name = "URL")]
    tracking_uri: Option<String>,
    /// Experiment of MLflow that gets the run; it is made where there is none.
    #[arg(long, env = "MLFLOW_EXPERIMENT_NAME", default_value = mlflow::EXPERIMENT, value_name = "NAME")]
    experiment: String,
    /// Registered model of MLflow that gets a version; it is made where there is none.
    #[arg(long, value_name = "NAME", requires = "to")]
    register: Option<String>,
}

impl Publication {
    /// Publishes what is named, a job or a folder.
    pub(super) fn run(self, destination: Destination, what: &[PathBuf], server: ServerOptions) -> Result<ExitCode> {
        let [what] = what else { bail!("--to takes one job, or one folder that holds a fused model with its report") };
        self.check(&destination)?;
        let source = Source::of(what)?;
        server.run(async |server| {
            let scratch =
                tempfile::Builder::new().prefix("engraft-push-").tempdir().context("no room for its files")?;
            if let Destination::TensorBoard(folder) = &destination {
                let package = source.report_alone(server, scratch.path()).await?;
                return write_events(&package, folder);
            }
            let package = source.package(server, scratch.path(), self.card.as_deref()).await?;
            match destination {
                Destination::Hub(repository) => self.push_to_hub(repository, &package).await,
                _ => self.push_to_mlflow(&package).await,
            }
        })
    }

    /// Checks that every option is one of this destination.
    fn check(&self, destination: &Destination) -> Result<()> {
        let is_hub = matches!(destination, Destination::Hub(_));
        let is_mlflow = *destination == Destination::Mlflow;
        ensure!(is_hub || !self.private && self.message.is_none(), "--private and --message are for hf:// alone");
        ensure!(is_mlflow || self.register.is_none(), "--register is for mlflow alone");
        ensure!(is_hub || is_mlflow || self.card.is_none(), "--card is for hf:// and mlflow");
        Ok(())
    }

    async fn push_to_hub(self, repository: Repository, package: &Package) -> Result<ExitCode> {
        let variable = |name: &str| std::env::var(name).ok();
        let push = HubPush {
            endpoint: self.hub_endpoint,
            token: hub::token(variable, |path: &Path| std::fs::read_to_string(path).ok()),
            summary: self.message.unwrap_or_else(|| summary(package)),
            private: self.private,
            repository,
        };
        let bar = bars::bytes("");
        let pushed = push.run(&package.files, &|name, done, all| bars::show(&bar, name, done, all)).await;
        bar.finish_and_clear();
        let Pushed { url, sent, unchanged, known, ignored, warnings } = pushed?;
        for warning in warnings {
            eprintln!("the Hub says of the model card: {warning}");
        }
        let about = [
            ("sent", sent),
            ("the same there", unchanged),
            ("the Hub had them already", known),
            ("left out, as the repository's .gitignore says", ignored),
        ];
        for (how, names) in about {
            if !names.is_empty() {
                eprintln!("{how}: {}", names.join(", "));
            }
        }
        println!("{url}");
        Ok(ExitCode::SUCCESS)
    }

    async fn push_to_mlflow(self, package: &Package) -> Result<ExitCode> {
        let tracking_uri =
            self.tracking_uri.context("--tracking-uri or MLFLOW_TRACKING_URI has to name MLflow's tracking server")?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let push = MlflowPush {
            tracking_uri,
            sign_in: SignIn {
                token: variable("MLFLOW_TRACKING_TOKEN"),
                user: variable("MLFLOW_TRACKING_USERNAME"),
                password: variable("MLFLOW_TRACKING_PASSWORD"),
            },
            experiment: self.experiment,
            register: self.register.clone(),
        };
        let bar = bars::bytes("");
        let advance = |name: &str, done, all| bars::show(&bar, name, done, all);
        let tracked = push.run(&Outline::of(package), &package.files, &advance).await;
        bar.finish_and_clear();
        let Tracked { run, url, version } = tracked?;
        eprintln!("run {run}");
        if let Some((version, name)) = version.zip(self.register) {
            eprintln!("version {version} of the registered model {name}");
        }
        println!("{url}");
        Ok(ExitCode::SUCCESS)
    }
}

fn write_events(package: &Package, folder: &Path) -> Result<ExitCode> {
    let path = tensorboard::write(&Outline::of(package), folder).with_context(|| folder.display().to_string())?;
    eprintln!("to look at them: tensorboard --logdir {}", folder.display());
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// What the commit is called.
fn summary(package: &Package) -> String {
    let identity = &package.report.identity;
    let name = identity.name.as_ref().or(identity.job.as_ref());
    name.map_or_else(|| "Fused model".to_owned(), |name| format!("Fused model: {}", name.replace(['\r', '\n'], " ")))
}
