//! The `finetune` part of a job: objective, optimizer, schedule.

use serde_json::Value;

use super::reader::{Object, boolean, choice, integer, list, number};
use crate::job::request::{Finetune, Objective, Optimizer, Schedule};

/// Reads the object `finetune`.
pub(super) fn finetune(object: &Object<'_>) -> Finetune {
    Finetune {
        epochs: object.field("epochs", integer(1..=100_000)).unwrap_or(10) as usize,
        objective: objective(object),
        optimizer: object.object("optimizer", optimizer).unwrap_or_default(),
        schedule: schedule(object),
        batch_size: object.field("batch_size", integer(1..=65_536)).unwrap_or(256) as usize,
    }
}

fn objective(object: &Object<'_>) -> Objective {
    let names = [("distill", Some(true)), ("cross_entropy", Some(false))];
    let distill = object.field("objective", choice(&names)).unwrap_or(true);
    let temperature = object.field("temperature", number("a number above 0 and up to 1000", |t| t > 0.0 && t <= 1e3));
    let soft_weight = object.field("soft_weight", number("a number from 0 to 1", |w| (0.0..=1.0).contains(&w)));
    if distill {
        return Objective::Distill {
            temperature: temperature.unwrap_or(2.0) as f32,
            soft_weight: soft_weight.unwrap_or(0.9) as f32,
        };
    }
    for name in ["temperature", "soft_weight"] {
        if object.value(name).is_some() {
            object.fault(name, "invalid_value", "goes with the objective `distill` only");
        }
    }
    Objective::CrossEntropy
}

fn optimizer(object: &Object<'_>) -> Optimizer {
    let Optimizer::Sgd { lr, momentum, nesterov, weight_decay } = Optimizer::default();
    object.field("name", choice(&[("sgd", Some(())), ("adamw", None)]));
    let lr = object
        .field("lr", number("a learning rate above 0 and up to 100", |lr| lr > 0.0 && lr <= 100.0))
        .map_or(lr, |lr| lr as f32);
    let unit = |name| object.field(name, number("a number from 0 to below 1", |value| (0.0..1.0).contains(&value)));
    let momentum = unit("momentum").map_or(momentum, |value| value as f32);
    let weight_decay = unit("weight_decay").map_or(weight_decay, |value| value as f32);
    let nesterov = object.field("nesterov", boolean).unwrap_or(nesterov);
    if nesterov && momentum == 0.0 {
        object.fault("nesterov", "invalid_value", "needs a `momentum` above 0");
    }
    Optimizer::Sgd { lr, momentum, nesterov, weight_decay }
}

const SCHEDULES: [(&str, Option<Schedule>); 3] =
    [("cosine", Some(Schedule::Cosine)), ("constant", Some(Schedule::Constant)), ("linear", Some(Schedule::Linear))];

fn schedule(object: &Object<'_>) -> Schedule {
    match object.value("schedule") {
        Some(Value::Object(_)) => object.object("schedule", multistep).unwrap_or(Schedule::Cosine),
        _ => object.field("schedule", choice(&SCHEDULES)).unwrap_or(Schedule::Cosine),
    }
}

fn multistep(object: &Object<'_>) -> Schedule {
    object.required("name", "`multistep`; the other schedules are plain strings", choice(&[("multistep", Some(()))]));
    let epochs = list(1..=1000, integer(1..=100_000));
    let milestones = object.required("milestones", "the epochs after which the learning rate falls", epochs);
    let milestones: Vec<usize> = milestones.unwrap_or_default().into_iter().map(|epoch| epoch as usize).collect();
    if !milestones.is_sorted_by(|a, b| a < b) {
        object.fault("milestones", "invalid_value", "expected ascending epochs");
    }
    let gamma = object.field("gamma", number("a factor above 0 and up to 1", |gamma| gamma > 0.0 && gamma <= 1.0));
    Schedule::Multistep { milestones, gamma: gamma.unwrap_or(0.1) as f32 }
}
