//! A [`JobRequest`] as the JSON body that requests it, with every default written out that is a value: what `resolved` shows, and what
//! [`super::parse::parse`] reads back into the same request.

use serde_json::{Map, Value, json};

use super::parse::parse;
use super::request::JobRequest;
use crate::domain::problem::Problem;
use crate::settings::{
    Allocation, Architecture, Augment, DatasetRequest, Finetune, LayerSize, NetworkChoice, Normalization, Normalize,
    Objective, Optimizer, Reference, Schedule, Size, Target, Teacher,
};

impl From<JobRequest> for Value {
    fn from(job: JobRequest) -> Self {
        without_nulls(json!({
            "name": job.name,
            "members": job.members,
            "architecture": architecture(job.architecture),
            "reference": job.reference.map(|Reference { name, member }| json!({ "name": name, "member": member })),
            "accuracy": job.accuracy,
            "input_shape": job.input_shape,
            "method": job.method,
            "target": target(&job.target),
            "dataset": job.dataset.map(dataset),
            "finetune": job.finetune.map(finetune),
            "evaluate": job.evaluate,
            "device": job.device,
            "precision": job.precision,
            "deterministic": job.deterministic,
            "seed": job.seed,
            "max_runtime_s": job.max_runtime_s,
            "priority": job.priority,
            "labels": job.labels,
        }))
    }
}

/// Without the fields that are not set: the schema of a request knows no null. A network is left as the client has written it.
fn without_nulls(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let set = fields.into_iter().filter(|(_, field)| !field.is_null());
    set.map(|(name, field)| if name == "graph" { (name, field) } else { (name, without_nulls(field)) }).collect()
}

impl TryFrom<Value> for JobRequest {
    type Error = Problem;

    fn try_from(body: Value) -> Result<Self, Problem> {
        parse(&body).map_err(Problem::faults)
    }
}

fn architecture(architecture: Architecture) -> Value {
    if architecture == Architecture::default() {
        return json!("auto");
    }
    let mut body = architecture.settings.entries();
    match architecture.network {
        NetworkChoice::Auto => None,
        NetworkChoice::Family(name) => body.insert("family".to_owned(), json!(name)),
        NetworkChoice::Graph(graph) => body.insert("graph".to_owned(), graph),
    };
    if architecture.assume {
        body.insert("assume".to_owned(), json!(true));
    }
    if !architecture.ignore.is_empty() {
        body.insert("ignore".to_owned(), json!(architecture.ignore));
    }
    Value::Object(body)
}

fn target(target: &Target) -> Value {
    let mut body = match target.size {
        Size::Member => json!({ "width": "member" }),
        Size::WidthsOf(member) => json!({ "width": { "member": member } }),
        Size::Factor(factor) => json!({ "width": factor }),
        Size::Budget(budget) => {
            let allocation = match budget.allocation {
                Allocation::Uniform => "uniform",
                Allocation::Sensitivity => "sensitivity",
            };
            json!({ budget.resource.name(): budget.limit, "allocation": allocation })
        }
    };
    let layer = |size: &LayerSize| match size {
        LayerSize::Width(width) => json!({ "width": width }),
        LayerSize::Factor(factor) => json!({ "factor": factor }),
    };
    let layers: Map<String, Value> = target.layers.iter().map(|(name, size)| (name.clone(), layer(size))).collect();
    body["round_to"] = json!(target.round_to);
    body["keep"] = json!(target.keep);
    body["layers"] = Value::from(layers);
    body
}

fn dataset(dataset: DatasetRequest) -> Value {
    let normalize = match dataset.normalize {
        Normalization::None => Value::Null,
        Normalization::Train => json!("train"),
        Normalization::Given(Normalize { mean, std }) => json!({ "mean": decimals(&mean), "std": decimals(&std) }),
    };
    let mut body = json!({
        "name": dataset.name,
        "normalize": normalize,
        "validation_fraction": dataset.validation_fraction,
        "split_seed": dataset.split_seed,
        "validation": dataset.validation,
        "test": dataset.test,
        "classes": dataset.classes,
    });
    if let Some(task) = dataset.task {
        body["task"] = json!(task);
    }
    body
}

fn finetune(finetune: Finetune) -> Value {
    let undecided = finetune.undecided;
    let mut body = json!({
        "epochs": finetune.epochs,
        "label_smoothing": decimal(finetune.label_smoothing),
        "optimizer": optimizer(finetune.optimizer),
        "schedule": schedule(finetune.schedule),
        "warmup_epochs": decimal(finetune.warmup_epochs),
        "clip_norm": finetune.clip_norm.map(decimal),
        "patience": finetune.patience,
        "batch_size": finetune.batch_size,
        "augment": finetune.augment.map(|Augment { crop_padding, flip }| json!({ "crop_padding": crop_padding, "flip": flip })),
        "batch_norm_reestimate": finetune.batch_norm_reestimate,
        "publish": finetune.publish,
    });
    if undecided.rate {
        body["optimizer"]["lr"] = Value::Null;
    }
    match finetune.objective {
        _ if undecided.objective => body["objective"] = json!("auto"),
        Objective::CrossEntropy => body["objective"] = json!("cross_entropy"),
        Objective::Distill { temperature, soft_weight, teacher } => {
            body["objective"] = json!("distill");
            body["temperature"] = decimal(temperature);
            body["soft_weight"] = decimal(soft_weight);
            body["teacher"] = json!(match teacher {
                Teacher::Ensemble => "ensemble",
                Teacher::MeanLogits => "mean_logits",
                Teacher::MeanProbabilities => "mean_probabilities",
            });
        }
    }
    body
}

fn optimizer(optimizer: Optimizer) -> Value {
    match optimizer {
        Optimizer::Sgd { lr, momentum, nesterov, weight_decay, decay_norms_and_biases } => json!({
            "name": "sgd",
            "lr": decimal(lr),
            "momentum": decimal(momentum),
            "nesterov": nesterov,
            "weight_decay": decimal(weight_decay),
            "decay_norms_and_biases": decay_norms_and_biases,
        }),
        Optimizer::AdamW { lr, betas, eps, weight_decay, decay_norms_and_biases } => json!({
            "name": "adamw",
            "lr": decimal(lr),
            "betas": decimals(&betas),
            "eps": decimal(eps),
            "weight_decay": decimal(weight_decay),
            "decay_norms_and_biases": decay_norms_and_biases,
        }),
    }
}

fn schedule(schedule: Schedule) -> Value {
    match schedule {
        Schedule::Cosine => json!("cosine"),
        Schedule::Constant => json!("constant"),
        Schedule::Linear => json!("linear"),
        Schedule::Multistep { milestones, gamma } => {
            json!({ "name": "multistep", "milestones": milestones, "gamma": decimal(gamma) })
        }
    }
}

/// The shortest decimal that reads back as `value`: 0.1, not 0.10000000149.
fn decimal(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}

fn decimals(values: &[f32]) -> Value {
    values.iter().copied().map(decimal).collect()
}
