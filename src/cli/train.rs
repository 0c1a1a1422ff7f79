//! `engraft train`: an ensemble from data, an architecture and seeds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::compute::{self, ComputeArgs};
use super::fuse::{checkpoint, input, threads};
use super::interrupt::{Signals, say};
use super::job::{name, nested, normalization, object_file};
use super::progress::ProgressDisplay;
use crate::config::ByteSize;
use crate::domain::problem::Problem;
use crate::domain::score::Score;
use crate::pipeline::ensemble::{TrainedEnsemble, TrainingTask, train_ensemble};
use crate::plan::parse::recipe;
use crate::plan::recipe::NetworkSource;
use crate::settings::{ComputeOptions, HeldOut};

const EXAMPLE: &str = "\
Train three members and fuse them:

  engraft train --dataset mnist.tar --network mlp:512,512,512 --seeds 0,1,2 --epochs 10 --out members
  engraft fuse --dataset mnist.tar $(printf -- '--member %s ' members/m*.safetensors) --out fused.safetensors

The recipe file is a JSON object with `network`, `dataset` (as in a job), `train` (as a job's `finetune`) and `seeds`; flags win
over it. A member's epoch with the best validation accuracy is kept. The validation part is the one that `engraft fuse`
draws by default, so that no member has seen it. The comparison goes to stdout, progress to stderr.";

/// Train an ensemble from scratch: one network for each seed, on the same data.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Train {
    /// Dataset to train and validate on.
    #[arg(long, value_name = "FILE")]
    dataset: Option<PathBuf>,
    /// How inputs are normalised: `train`, `none`, or numbers for each channel, as in `0.1307:0.3081`.
    #[arg(long, value_name = "train|none|MEAN:STD", value_parser = normalization, allow_hyphen_values = true)]
    normalize: Option<Value>,
    /// Another dataset to test on; else the dataset's own test split.
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// The network: `mlp:WIDTH,…`, `lenet:WIDTH`, `vgg11:WIDTH`, `resnet18:WIDTH`, a graph (.json, see docs/graph.md) or a checkpoint of the same network
    /// (.safetensors, .pt, .npz, …).
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// One member for each seed [default: 0,1,2].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Epochs of each member.
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Recipe file (JSON).
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Threads to compute with; all cores by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory of the GPU to take at most, as in 40GiB.
    #[arg(long, value_name = "SIZE")]
    gpu_memory_limit: Option<ByteSize>,
    /// Folder for the members, `m0.safetensors` and so on by their seeds, and what is known of them, `ensemble.json`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Train {
    /// Trains every member.
    pub(super) fn run(self) -> Result<ExitCode> {
        let interruption = Signals::listen()?;
        let is_new = !self.out.exists();
        let memory_limit = self.gpu_memory_limit.map(|limit| limit.0);
        let task = task(&self.body()?, &self.out, self.threads, memory_limit)?;
        interruption.files(task.unfinished_files());
        if is_new {
            interruption.made(&self.out);
        }
        let mut view = ProgressDisplay::default();
        let trained = train_ensemble(&task, &mut |message| view.show(&message), interruption.stop());
        view.finish();
        let Some(ensemble) = trained? else {
            if interruption.remove_made() {
                say("stopped; nothing was written");
            } else {
                say(&format!("stopped; finished members are in {}", self.out.display()));
            }
            return Ok(interruption.exit_code());
        };
        let facts = self.out.join("ensemble.json");
        std::fs::write(&facts, serde_json::to_vec_pretty(&ensemble)?)
            .with_context(|| format!("cannot write {}", facts.display()))?;
        print!("{}", table(&ensemble));
        Ok(ExitCode::SUCCESS)
    }

    /// The recipe file with the flags laid over it.
    fn body(&self) -> Result<Value> {
        let mut body = self.recipe.as_deref().map_or_else(|| Ok(Map::new()), object_file)?;
        if let Some(network) = &self.network {
            let path = Path::new(network);
            let is_graph = path.extension().is_some_and(|ending| ending == "json");
            let network = if is_graph { json!({ "graph": object_file(path)? }) } else { json!(network) };
            body.insert("network".to_owned(), network);
        }
        for (field, file) in [("name", &self.dataset), ("test", &self.test)] {
            if let Some(file) = file {
                nested(&mut body, "dataset", "name").insert(field.to_owned(), name(file));
            }
        }
        if let Some(normalize) = &self.normalize {
            nested(&mut body, "dataset", "name").insert("normalize".to_owned(), normalize.clone());
        }
        if let Some(epochs) = self.epochs {
            nested(&mut body, "train", "epochs").insert("epochs".to_owned(), json!(epochs));
        }
        if !self.seeds.is_empty() {
            body.insert("seeds".to_owned(), json!(self.seeds));
        }
        self.compute.lay_over(&mut body);
        Ok(Value::Object(body))
    }
}

/// The training that `body` describes, with its files found, and its folder made.
pub(super) fn task(
    body: &Value,
    folder: &Path,
    requested: Option<usize>,
    memory_limit: Option<u64>,
) -> Result<TrainingTask> {
    let recipe = recipe(body).map_err(Problem::faults)?;
    let dataset = &recipe.dataset;
    let datasets =
        [Some(input(&dataset.name)?), optional(dataset.validation.as_ref())?, optional(dataset.test.as_ref())?];
    let like = match &recipe.network {
        NetworkSource::Like(file) => Some(checkpoint(file)?),
        _ => None,
    };
    let (device, gpu) = compute::choose(recipe.device, memory_limit)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let options = ComputeOptions {
        device,
        threads: threads(requested),
        precision: recipe.precision,
        deterministic: recipe.deterministic,
        memory_limit,
    };
    Ok(TrainingTask { datasets, like, folder: folder.to_owned(), options: options.effective(), gpu, recipe })
}

fn optional(name: Option<&String>) -> Result<Option<crate::process::protocol::InputFile>> {
    name.map(input).transpose()
}

/// The members and their ensemble, a line each.
pub(super) fn table(ensemble: &TrainedEnsemble) -> String {
    const ENSEMBLE: &str = "ensemble (mean logits)";
    let shown = |score: Option<Score>| score.map_or("-".to_owned(), |score| score.to_string());
    let names: Vec<String> = ensemble.members.iter().map(|member| member.file.display().to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).fold(ENSEMBLE.len(), usize::max);
    let scores = ensemble.members.iter().flat_map(|member| [member.validation, member.test]);
    let longest = scores.map(|score| shown(score).chars().count()).max().unwrap_or(0);
    let [validated, tested] = [longest.max(12), longest.max(10)];
    let mut out = format!("{:width$} {:>6} {:>validated$} {:>tested$}\n", "", "epoch", "validation", "test");
    let mut line = |name: &str, epoch: &str, validation, test| {
        let (validation, test) = (shown(validation), shown(test));
        let _infallible = writeln!(out, "{name:width$} {epoch:>6} {validation:>validated$} {test:>tested$}");
    };
    for (member, name) in ensemble.members.iter().zip(&names) {
        line(name, &member.best_epoch.to_string(), member.validation, member.test);
    }
    line(ENSEMBLE, "", ensemble.validation, ensemble.test);
    if let Some(HeldOut { fraction, split_seed, .. }) = &ensemble.held_out {
        let share = fraction * 100.0;
        let _infallible = writeln!(
            out,
            "validation: {share} % of the train split, which no member was trained on (split_seed {split_seed})"
        );
    }
    out
}
