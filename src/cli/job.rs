//! A job from flags and a job file: what `engraft fuse` and `engraft plan` share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::compute::ComputeArgs;
use crate::domain::problem::Problem;
use crate::plan::parse::parse;
use crate::plan::request::JobRequest;

/// What to fuse, and how. Flags win over the job file.
#[derive(Debug, clap::Args)]
pub(super) struct JobArgs {
    /// A checkpoint to fuse (safetensors, PyTorch, npz or ONNX); once per member.
    #[arg(long = "member", value_name = "FILE")]
    members: Vec<PathBuf>,
    /// Family of the networks, where it is not recognised.
    #[arg(long, value_name = "FAMILY")]
    architecture: Option<String>,
    /// Take the most usual network where several fit the members' names and shapes and nothing decides.
    #[arg(long)]
    assume: bool,
    /// Inputs with the logits of member 0, which prove what network the members are (safetensors; docs/reference.md).
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// How the members become one network: `neuron_transplantation`, `average`, `optimal_transport`,
    /// `permutation_alignment` or `neuron_interpolation`.
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// In which order members are joined: `joint`, `iterative` or `hierarchical`.
    #[arg(long, value_name = "ORDER")]
    order: Option<String>,
    /// How units are ranked: `auto` (`magnitude` or `css`, by validation), `magnitude`, `l1`, `random`, `activation`, `css`, `taylor` or `fisher`.
    #[arg(long, value_name = "RANKING")]
    importance: Option<String>,
    /// How layers behind the selection are refitted: `auto`, `none`, `calibration` or `data_free`.
    #[arg(long, value_name = "HOW")]
    compensate: Option<String>,
    /// How the members' outputs become the ensemble's: `auto` (by validation), `mean_logits`, `mean_probabilities`, `entropy`,
    /// `class_share` or `fitted_per_class`.
    #[arg(long, value_name = "RULE")]
    ensemble: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// Dataset to train and validate on; its test split is reported.
    #[arg(long, value_name = "FILE")]
    dataset: Option<PathBuf>,
    /// How inputs are normalised: `train` (by mean and standard deviation of the train split), `none`, or the numbers that the members were
    /// trained with, one for each channel: `0.1307:0.3081` or `0.485,0.456,0.406:0.229,0.224,0.225`.
    #[arg(long, value_name = "train|none|MEAN:STD", value_parser = normalization, allow_hyphen_values = true)]
    normalize: Option<Value>,
    /// Another dataset to validate on, of examples that the members have not seen; else a part of the train split.
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Another dataset to test on.
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Epochs of recovery; the other settings are the defaults or the job file's.
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Do not train the best member for as long as the fused network, which shows what fusion adds to that.
    #[arg(long)]
    no_controls: bool,
    /// Job file (JSON): the body of `POST /v1/jobs` with file paths as names.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
}

/// How large the fused network becomes: one size, and exceptions.
#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// Width as a factor of the members', or `member`.
    #[arg(long, value_name = "FACTOR", group = "size")]
    width: Option<String>,
    /// Most trainable weights.
    #[arg(long, value_name = "N", group = "size")]
    params: Option<u64>,
    /// Most multiply-accumulates for one example.
    #[arg(long, value_name = "N", group = "size")]
    macs: Option<u64>,
    /// Most bytes of the weights.
    #[arg(long, value_name = "N", group = "size")]
    bytes: Option<u64>,
    /// How a budget is spent: `uniform` or `sensitivity`.
    #[arg(long, value_name = "HOW")]
    allocation: Option<String>,
    /// Widths become multiples of this.
    #[arg(long, value_name = "N")]
    round_to: Option<u64>,
    /// A layer that stays at least as wide as a member; may be given several times.
    #[arg(long, value_name = "LAYER")]
    keep: Vec<String>,
    /// Width of one layer, such as `fc1=128`; may be given several times.
    #[arg(long = "layer", value_name = "LAYER=N")]
    layers: Vec<String>,
}

impl JobArgs {
    /// The job.
    pub(super) fn request(&self) -> Result<JobRequest> {
        let mut job = parse(&self.body()?).map_err(Problem::faults)?;
        if self.no_controls {
            job.evaluate.retain(|candidate| !candidate.is_control());
        }
        Ok(job)
    }

    /// The job file, where one is given.
    pub(super) fn file(&self) -> Option<&Path> {
        self.job.as_deref()
    }

    /// The job file with the flags laid over it.
    fn body(&self) -> Result<Value> {
        let mut body = match &self.job {
            Some(path) => object_file(path)?,
            None => Map::new(),
        };
        if !self.members.is_empty() {
            let names: Vec<Value> = self.members.iter().map(|path| name(path)).collect();
            body.insert("members".to_owned(), names.into());
        }
        if let Some(family) = &self.architecture {
            body.insert("architecture".to_owned(), json!({ "family": family }));
        }
        if self.assume {
            nested(&mut body, "architecture", "family").insert("assume".to_owned(), json!(true));
        }
        if let Some(reference) = &self.reference {
            nested(&mut body, "reference", "name").insert("name".to_owned(), name(reference));
        }
        let fields = [
            ("name", &self.method),
            ("order", &self.order),
            ("importance", &self.importance),
            ("compensate", &self.compensate),
            ("ensemble", &self.ensemble),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                nested(&mut body, "method", "name").insert(field.to_owned(), json!(value));
            }
        }
        self.target.lay_over(&mut body)?;
        if let Some(dataset) = &self.dataset {
            nested(&mut body, "dataset", "name").insert("name".to_owned(), name(dataset));
        }
        if let Some(normalize) = &self.normalize {
            nested(&mut body, "dataset", "name").insert("normalize".to_owned(), normalize.clone());
        }
        for (field, file) in [("validation", &self.validation), ("test", &self.test)] {
            if let Some(file) = file {
                nested(&mut body, "dataset", "name").insert(field.to_owned(), name(file));
            }
        }
        if let Some(epochs) = self.epochs {
            nested(&mut body, "finetune", "epochs").insert("epochs".to_owned(), json!(epochs));
        }
        self.compute.lay_over(&mut body);
        Ok(Value::Object(body))
    }
}

impl TargetArgs {
    /// Lays the flags over the job file's target; a size replaces the one there.
    fn lay_over(&self, body: &mut Map<String, Value>) -> Result<()> {
        let mut fields: Vec<(&str, Value)> = Vec::new();
        if let Some(width) = &self.width {
            fields.push(("width", width.parse::<f64>().map_or_else(|_| json!(width), |factor| json!(factor))));
        }
        let numbers = [("params", self.params), ("macs", self.macs), ("bytes", self.bytes)];
        fields.extend(numbers.into_iter().filter_map(|(field, number)| Some((field, json!(number?)))));
        if !fields.is_empty() {
            let target = nested(body, "target", "width");
            for size in ["width", "params", "macs", "bytes"] {
                target.remove(size);
            }
        }
        fields.extend(self.allocation.as_ref().map(|allocation| ("allocation", json!(allocation))));
        fields.extend(self.round_to.map(|multiple| ("round_to", json!(multiple))));
        if !self.keep.is_empty() {
            fields.push(("keep", json!(self.keep)));
        }
        if !self.layers.is_empty() {
            let layers: Result<Map<String, Value>> = self.layers.iter().map(|layer| layer_width(layer)).collect();
            fields.push(("layers", layers?.into()));
        }
        for (field, value) in fields {
            nested(body, "target", "width").insert(field.to_owned(), value);
        }
        Ok(())
    }
}

/// `train`, `none` or `MEAN:STD` as a job has it.
pub(super) fn normalization(text: &str) -> Result<Value, String> {
    let numbers =
        |list: &str| list.split(',').map(|number| number.trim().parse::<f64>().ok()).collect::<Option<Vec<_>>>();
    match text {
        "train" => Ok(json!("train")),
        "none" => Ok(Value::Null),
        _ => {
            let parts = text.split_once(':').and_then(|(mean, std)| Some((numbers(mean)?, numbers(std)?)));
            let (mean, std) = parts.ok_or("expected train, none or MEAN:STD, such as 0.1307:0.3081")?;
            Ok(json!({ "mean": mean, "std": std }))
        }
    }
}

/// `fc1=128` as an entry of `layers`.
fn layer_width(text: &str) -> Result<(String, Value)> {
    let parts = text.rsplit_once('=').and_then(|(name, width)| Some((name, width.parse::<u64>().ok()?)));
    let (name, width) = parts.with_context(|| format!("--layer {text}: expected LAYER=N, such as fc1=128"))?;
    Ok((name.to_owned(), json!({ "width": width })))
}

/// The JSON object in a file.
pub(super) fn object_file(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    match serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))? {
        Value::Object(body) => Ok(body),
        _ => bail!("{} must hold a JSON object", path.display()),
    }
}

/// The object `field` of `body`; a plain value there becomes its field `short`.
pub(super) fn nested<'a>(body: &'a mut Map<String, Value>, field: &str, short: &str) -> &'a mut Map<String, Value> {
    let value = body.entry(field.to_owned()).or_insert_with(|| json!({}));
    if !value.is_object() {
        let plain = value.take();
        *value = if plain.is_null() { json!({}) } else { json!({ short: plain }) };
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("made an object above"),
    }
}

pub(super) fn name(path: &Path) -> Value {
    Value::from(path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        job: JobArgs,
    }

    #[test]
    fn flags_win_over_the_job_file_and_keep_the_rest_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.json");
        let job = json!({"dataset": "a.npz", "finetune": null, "seed": 3, "target": {"width": 0.5, "keep": ["fc1"]}});
        std::fs::write(&file, job.to_string()).unwrap();
        let flags = [
            "engraft",
            "--test",
            "t.npz",
            "--epochs",
            "2",
            "--params",
            "900",
            "--layer",
            "fc.2=8",
            "--order",
            "iterative",
            "--device",
            "cuda:1",
            "--precision",
            "bf16",
            "--nondeterministic",
        ];
        let cli = Cli::parse_from(flags.into_iter().chain(["--job", file.to_str().unwrap()]));
        assert_eq!(
            cli.job.body().unwrap(),
            json!({
                "dataset": {"name": "a.npz", "test": "t.npz"}, "finetune": {"epochs": 2}, "seed": 3,
                "method": {"order": "iterative"}, "device": "cuda:1", "precision": "bf16", "deterministic": false,
                "target": {"params": 900, "keep": ["fc1"], "layers": {"fc.2": {"width": 8}}},
            })
        );
        assert!(Cli::try_parse_from(["engraft", "--params", "9", "--macs", "9"]).is_err());
        let normalize = |text: &str| {
            let flags = ["engraft", "--dataset", "d", "--normalize", text];
            Cli::try_parse_from(flags).ok().map(|cli| cli.job.body().unwrap()["dataset"]["normalize"].clone())
        };
        assert_eq!([normalize("train"), normalize("none")], [Some(json!("train")), Some(Value::Null)]);
        assert_eq!(normalize("-0.5,0:0.25,1"), Some(json!({"mean": [-0.5, 0.0], "std": [0.25, 1.0]})));
        assert_eq!([normalize("0.5"), normalize("a:b")], [None, None]);
        assert!(Cli::parse_from(["engraft", "--layer", "fc1"]).job.body().is_err());
    }
}
