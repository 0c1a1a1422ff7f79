//! The `finetune` part of a job: objective, optimizer, schedule.

use serde_json::Value;

use super::reader::{Object, boolean, choice, integer, list, number};
use crate::domain::problem::FaultCode;
use crate::settings::{Augment, Finetune, Objective, Optimizer, PublishRule, Schedule, Teacher, Undecided};

/// Most pixels around an image.
const MOST_PADDING: u64 = 64;

/// Reads the object `finetune`.
pub(super) fn finetune(object: &Object<'_>) -> Finetune {
    let (objective, open) = objective(object);
    let mut finetune = training(object, objective);
    let rules = [("auto", Some(PublishRule::Auto)), ("fused", Some(PublishRule::Fused))];
    finetune.publish = object.field("publish", choice(&rules)).unwrap_or_default();
    let optimizer = object.value("optimizer").and_then(Value::as_object);
    let rate = optimizer.and_then(|optimizer| optimizer.get("lr")).is_some_and(|rate| !rate.is_null());
    let plain = matches!(finetune.optimizer, Optimizer::Sgd { .. });
    finetune.undecided = Undecided { objective: open, rate: plain && !rate };
    finetune
}

/// Reads the object `train` of a recipe: there is no teacher to learn from.
pub(super) fn from_scratch(object: &Object<'_>) -> Finetune {
    object.field("objective", choice(&[("cross_entropy", Some(()))]));
    only_with(object, "a fusion", &["temperature", "soft_weight", "teacher"]);
    training(object, Objective::CrossEntropy)
}

fn training(object: &Object<'_>, objective: Objective) -> Finetune {
    let default = Finetune::default();
    let epochs = object.field("epochs", integer(1..=100_000)).map_or(default.epochs, |epochs| epochs as usize);
    let share = |name| object.field(name, number("a number from 0 to below 1", |value| (0.0..1.0).contains(&value)));
    let warmup = object.field("warmup_epochs", number("a number of epochs, 0 or more", |warmup| warmup >= 0.0));
    if warmup.is_some_and(|warmup| warmup >= epochs as f64) {
        object.fault("warmup_epochs", FaultCode::InvalidValue, format!("expected less than all {epochs} epochs"));
    }
    let clip_norm = object.field("clip_norm", number("a norm above 0 and up to 1e6", |norm| norm > 0.0 && norm <= 1e6));
    Finetune {
        epochs,
        objective,
        label_smoothing: share("label_smoothing").map_or(default.label_smoothing, |value| value as f32),
        optimizer: object.object("optimizer", optimizer).unwrap_or_default(),
        schedule: schedule(object),
        warmup_epochs: warmup.map_or(default.warmup_epochs, |warmup| warmup as f32),
        clip_norm: clip_norm.map(|norm| norm as f32),
        patience: object.field("patience", integer(1..=100_000)).map(|patience| patience as usize),
        batch_size: object.field("batch_size", integer(1..=65_536)).map_or(default.batch_size, |size| size as usize),
        augment: object.object("augment", augment).flatten(),
        batch_norm_reestimate: object.field("batch_norm_reestimate", boolean).unwrap_or(default.batch_norm_reestimate),
        publish: PublishRule::default(),
        undecided: Undecided::default(),
    }
}

/// `None` where nothing varies.
fn augment(object: &Object<'_>) -> Option<Augment> {
    let crop_padding = object.field("crop_padding", integer(0..=MOST_PADDING)).unwrap_or(0) as usize;
    let flip = object.field("flip", boolean).unwrap_or(false);
    (crop_padding > 0 || flip).then_some(Augment { crop_padding, flip })
}

/// A fault for each of the fields `names` that is there although only `owner` knows it.
fn only_with(object: &Object<'_>, owner: &str, names: &[&'static str]) {
    for name in names {
        if object.value(name).is_some() {
            object.fault(name, FaultCode::InvalidValue, format!("goes with {owner} only"));
        }
    }
}

/// What is minimised, and whether the network may decide otherwise. Settings of a distillation decide for it.
fn objective(object: &Object<'_>) -> (Objective, bool) {
    const OF_DISTILLATION: [&str; 3] = ["temperature", "soft_weight", "teacher"];
    let names = [("auto", Some(None)), ("distill", Some(Some(true))), ("cross_entropy", Some(Some(false)))];
    let named = object.field("objective", choice(&names)).flatten();
    if named == Some(false) {
        only_with(object, "the objective `distill`", &OF_DISTILLATION);
        return (Objective::CrossEntropy, false);
    }
    let settled = named.is_some() || OF_DISTILLATION.iter().any(|name| object.value(name).is_some());
    let temperature = object.field("temperature", number("a number above 0 and up to 1000", |t| t > 0.0 && t <= 1e3));
    let soft_weight = object.field("soft_weight", number("a number from 0 to 1", |w| (0.0..=1.0).contains(&w)));
    let teachers = [
        ("ensemble", Some(Teacher::Ensemble)),
        ("mean_logits", Some(Teacher::MeanLogits)),
        ("mean_probabilities", Some(Teacher::MeanProbabilities)),
    ];
    let distill = Objective::Distill {
        temperature: temperature.unwrap_or(2.0) as f32,
        soft_weight: soft_weight.unwrap_or(0.9) as f32,
        teacher: object.field("teacher", choice(&teachers)).unwrap_or_default(),
    };
    (distill, !settled)
}

fn optimizer(object: &Object<'_>) -> Optimizer {
    let names = [("sgd", Some(Optimizer::default())), ("adamw", Some(Optimizer::ADAMW))];
    let mut optimizer = object.field("name", choice(&names)).unwrap_or_default();
    let float = |name, expected, accept| object.field(name, number(expected, accept)).map(|value| value as f32);
    let unit = |name| float(name, "a number from 0 to below 1", |value| (0.0..1.0).contains(&value));
    let rate = float("lr", "a learning rate above 0 and up to 100", |lr| lr > 0.0 && lr <= 100.0);
    let decay = unit("weight_decay");
    let all = object.field("decay_norms_and_biases", boolean);
    match &mut optimizer {
        Optimizer::Sgd { lr, momentum, nesterov, weight_decay, decay_norms_and_biases } => {
            only_with(object, "the optimizer `adamw`", &["betas", "eps"]);
            *momentum = unit("momentum").unwrap_or(*momentum);
            *nesterov = object.field("nesterov", boolean).unwrap_or(*nesterov);
            if *nesterov && *momentum == 0.0 {
                object.fault("nesterov", FaultCode::InvalidValue, "needs a `momentum` above 0");
            }
            (*lr, *weight_decay) = (rate.unwrap_or(*lr), decay.unwrap_or(*weight_decay));
            *decay_norms_and_biases = all.unwrap_or(*decay_norms_and_biases);
        }
        Optimizer::AdamW { lr, betas, eps, weight_decay, decay_norms_and_biases } => {
            only_with(object, "the optimizer `sgd`", &["momentum", "nesterov"]);
            let pair = list(2..=2, number("a number from 0 to below 1", |value| (0.0..1.0).contains(&value)));
            if let Some([first, second]) = object.field("betas", pair).as_deref() {
                *betas = [*first as f32, *second as f32];
            }
            *eps = float("eps", "a number above 0 and up to 1", |eps| eps > 0.0 && eps <= 1.0).unwrap_or(*eps);
            (*lr, *weight_decay) = (rate.unwrap_or(*lr), decay.unwrap_or(*weight_decay));
            *decay_norms_and_biases = all.unwrap_or(*decay_norms_and_biases);
        }
    }
    optimizer
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
        object.fault("milestones", FaultCode::InvalidValue, "expected ascending epochs");
    }
    let gamma = object.field("gamma", number("a factor above 0 and up to 1", |gamma| gamma > 0.0 && gamma <= 1.0));
    Schedule::Multistep { milestones, gamma: gamma.unwrap_or(0.1) as f32 }
}
