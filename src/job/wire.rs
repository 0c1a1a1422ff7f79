//! A [`JobRequest`] as the JSON body that asks for it, with every default written out: what `resolved` shows, and what
//! [`super::parse::parse`] reads back into the same request.

use serde_json::{Value, json};

use super::parse::parse;
use super::request::{
    Architecture, DatasetRequest, Finetune, JobRequest, Normalize, Objective, Optimizer, Schedule, Target,
};
use crate::domain::problem::Problem;

impl From<JobRequest> for Value {
    fn from(job: JobRequest) -> Self {
        json!({
            "members": job.members,
            "architecture": architecture(job.architecture),
            "input_shape": job.input_shape,
            "method": job.method,
            "target": target(&job.target),
            "dataset": job.dataset.map(dataset),
            "finetune": job.finetune.map(finetune),
            "evaluate": job.evaluate,
            "device": job.device,
            "seed": job.seed,
            "max_runtime_s": job.max_runtime_s,
            "labels": job.labels,
        })
    }
}

impl TryFrom<Value> for JobRequest {
    type Error = Problem;

    fn try_from(body: Value) -> Result<Self, Problem> {
        parse(&body).map_err(Problem::faults)
    }
}

fn architecture(architecture: Architecture) -> Value {
    match architecture {
        Architecture::Auto => json!("auto"),
        Architecture::Family(family) => json!({ "family": family }),
        Architecture::Graph(graph) => json!({ "graph": graph }),
    }
}

fn target(target: &Target) -> Value {
    match target {
        Target::Member => json!({ "width": "member" }),
        Target::WidthsOf(member) => json!({ "width": { "member": member } }),
        Target::Factor(factor) => json!({ "width": factor }),
    }
}

fn dataset(dataset: DatasetRequest) -> Value {
    let normalize = |Normalize { mean, std }| json!({ "mean": decimals(&mean), "std": decimals(&std) });
    json!({
        "name": dataset.name,
        "normalize": dataset.normalize.map(normalize),
        "validation_fraction": dataset.validation_fraction,
        "validation": dataset.validation,
        "test": dataset.test,
    })
}

fn finetune(finetune: Finetune) -> Value {
    let Optimizer::Sgd { lr, momentum, nesterov, weight_decay } = finetune.optimizer;
    let schedule = match finetune.schedule {
        Schedule::Cosine => json!("cosine"),
        Schedule::Constant => json!("constant"),
        Schedule::Linear => json!("linear"),
        Schedule::Multistep { milestones, gamma } => {
            json!({ "name": "multistep", "milestones": milestones, "gamma": decimal(gamma) })
        }
    };
    let mut body = json!({
        "epochs": finetune.epochs,
        "optimizer": {
            "name": "sgd",
            "lr": decimal(lr),
            "momentum": decimal(momentum),
            "nesterov": nesterov,
            "weight_decay": decimal(weight_decay),
        },
        "schedule": schedule,
        "batch_size": finetune.batch_size,
    });
    match finetune.objective {
        Objective::CrossEntropy => body["objective"] = json!("cross_entropy"),
        Objective::Distill { temperature, soft_weight } => {
            body["objective"] = json!("distill");
            body["temperature"] = decimal(temperature);
            body["soft_weight"] = decimal(soft_weight);
        }
    }
    body
}

/// The shortest decimal that reads back as `value`: 0.1, not 0.10000000149.
fn decimal(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}

fn decimals(values: &[f32]) -> Value {
    values.iter().copied().map(decimal).collect()
}
