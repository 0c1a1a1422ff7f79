//! How a fused network is trained where the job leaves that to the network.

use crate::model::graph::{Graph, Op};
use crate::settings::{
    Compensate, Finetune, Method, MethodName, Objective, Optimizer, PredictionTask, RecoveryRule, Undecided,
};

/// Learning rate on labels: of networks that convolve, and of chains of matrices, which learn from the ensemble as well.
const ON_LABELS: f32 = 0.02;
/// Weight of what the ensemble says to chains of matrices: on the labels alone they are as good after two epochs, and a point
/// worse after ten.
const SOFT_WEIGHT: f32 = 0.3;
/// Learning rate of what mostly learns from the ensemble, behind a refit: there is little left to learn.
const AFTER_COMPENSATION: f32 = 0.003;
/// The same without a refit.
const PLAIN: f32 = 0.01;

/// A training with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// The training.
    pub finetune: Finetune,
    /// What was decided, and why.
    pub decision: RecoveryRule,
    /// Whether the rate was left open, so that it may still be lowered.
    pub may_lower_rate: bool,
}

impl Recovery {
    /// The same training at another rate.
    #[must_use]
    pub fn with_rate(mut self, rate: f32) -> Self {
        self.finetune.optimizer = self.finetune.optimizer.with_rate(rate);
        self.decision.lr = shown(rate);
        self
    }
}

/// The shortest decimal that reads back as `rate`, not the nearest float.
fn shown(rate: f32) -> f64 {
    rate.to_string().parse().unwrap_or(f64::from(rate))
}

/// The network that is trained.
#[derive(Debug, Clone, Copy)]
pub struct Fused<'a> {
    /// What it computes.
    pub graph: &'a Graph,
    /// What makes it of the members.
    pub method: &'a Method,
    /// How its layers are refitted.
    pub compensate: Compensate,
}

/// Decides what `finetune` leaves open for a fused network that predicts `task`; `has_labels` says whether the dataset has some.
#[must_use]
pub fn decide(finetune: &Finetune, fused: Fused<'_>, task: PredictionTask, has_labels: bool) -> Recovery {
    let Fused { graph, method, compensate } = fused;
    let mut finetune = finetune.clone();
    let open = finetune.undecided;
    let (convolves, attends) = (convolves(graph), attends(graph));
    // A network that only learns from the ensemble has nothing else to minimise.
    let decides = open.objective && method.name != MethodName::DistillOnly && has_labels;
    let chain = decides && !convolves && !attends;
    match &mut finetune.objective {
        Objective::Distill { soft_weight, .. } if open.objective && !has_labels => *soft_weight = 1.0,
        objective if decides && convolves => *objective = Objective::CrossEntropy,
        Objective::Distill { soft_weight, .. } if chain => *soft_weight = SOFT_WEIGHT,
        _ => {}
    }
    let compensated = method.name.selects() && compensate != Compensate::None;
    if open.rate {
        let rate = match finetune.objective {
            Objective::CrossEntropy if convolves => ON_LABELS,
            _ if chain => ON_LABELS,
            _ if compensated => AFTER_COMPENSATION,
            _ => PLAIN,
        };
        finetune.optimizer = finetune.optimizer.with_rate(rate);
    }
    finetune.undecided = Undecided::default();
    let (objective, soft_weight) = match finetune.objective {
        Objective::CrossEntropy => (loss_name(task), None),
        Objective::Distill { soft_weight, .. } => ("distill", Some(shown(soft_weight))),
    };
    let kind = match (convolves, attends, compensated) {
        _ if open.objective && !has_labels => "the dataset has no labels",
        (true, ..) => "the network convolves",
        (false, false, _) if chain => "the network is a chain of matrices",
        (false, _, true) => "the network does not convolve, and its layers were refitted",
        (false, _, false) => "the network does not convolve",
    };
    let rule = (open.objective || open.rate).then(|| kind.to_owned());
    let (Optimizer::Sgd { lr, .. } | Optimizer::AdamW { lr, .. }) = finetune.optimizer;
    let decision = RecoveryRule { objective: objective.to_owned(), soft_weight, lr: shown(lr), rule };
    Recovery { finetune, decision, may_lower_rate: open.rate }
}

/// What is minimised on labels alone.
fn loss_name(task: PredictionTask) -> &'static str {
    match task {
        PredictionTask::Classification => "cross_entropy",
        PredictionTask::Binary | PredictionTask::MultiLabel => "binary_cross_entropy",
        PredictionTask::Regression => "mean_squared_error",
    }
}

/// Whether layers of convolutions follow each other, without attentions: a single one that cuts an image into patches does
/// not count.
fn convolves(graph: &Graph) -> bool {
    let convolutions = graph.nodes().iter().filter(|node| node.op.convolution().is_some()).count();
    !attends(graph) && convolutions > 1
}

fn attends(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| matches!(node.op, Op::Attention { .. }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::families::fresh;
    use crate::plan::parse::parse;

    fn decided(
        graph: &Graph,
        finetune: &serde_json::Value,
        method: &serde_json::Value,
        compensate: Compensate,
    ) -> String {
        let body = json!({"members": ["a"], "dataset": "d", "finetune": finetune, "method": method});
        let job = parse(&body).expect("a job");
        let fused = Fused { graph, method: &job.method, compensate };
        decide(&job.finetune.expect("a training"), fused, PredictionTask::default(), true).decision.to_string()
    }

    #[test]
    fn without_labels_the_ensemble_alone_is_learned_from() {
        let lenet = fresh::lenet(&vec![3, 32, 32], fresh::LENET, 10).expect("a network");
        let body = json!({"members": ["a"], "dataset": "d", "finetune": {"epochs": 1}});
        let job = parse(&body).expect("a job");
        let fused = Fused { graph: &lenet, method: &job.method, compensate: Compensate::Calibration };
        let recovery = decide(&job.finetune.expect("a training"), fused, PredictionTask::default(), false);
        assert_eq!(
            recovery.decision.to_string(),
            "recovery by `distill` with a soft weight of 1 at a learning rate of 0.003, since the dataset has no labels"
        );
    }

    #[test]
    fn what_is_left_open_follows_from_the_network_and_what_is_given_stays() {
        let lenet = fresh::lenet(&vec![3, 32, 32], fresh::LENET, 10).expect("a network");
        let mlp = fresh::mlp(&vec![12], &[8, 8], 3).expect("a network");
        let (refits, plain) = (Compensate::Calibration, Compensate::None);
        let open = &json!({"epochs": 1});
        let of =
            |graph: &Graph, finetune: serde_json::Value, compensate| decided(graph, &finetune, &json!({}), compensate);
        assert_eq!(
            of(&lenet, open.clone(), refits),
            "recovery by `cross_entropy` at a learning rate of 0.02, since the network convolves"
        );
        let chain = "recovery by `distill` with a soft weight of 0.3 at a learning rate of 0.02, since the network is a chain of matrices";
        assert_eq!([of(&mlp, open.clone(), refits), of(&mlp, open.clone(), plain)], [chain, chain]);
        let mostly = "recovery by `distill` with a soft weight of 0.9 at a learning rate of";
        let distilled = json!({"objective": "distill"});
        assert!(of(&mlp, distilled.clone(), refits).starts_with(&format!("{mostly} 0.003, since")));
        assert!(of(&mlp, distilled, plain).starts_with(&format!("{mostly} 0.01, since")));
        let given = json!({"objective": "distill", "optimizer": {"lr": 0.5}});
        assert_eq!(of(&lenet, given, refits), format!("{mostly} 0.5"));
        assert!(of(&lenet, json!({"temperature": 4}), refits).starts_with(&format!("{mostly} 0.003")));
        let adam = json!({"optimizer": {"name": "adamw"}});
        assert!(of(&lenet, adam, refits).starts_with("recovery by `cross_entropy` at a learning rate of 0.001"));
        let alone = decided(&lenet, open, &json!({"name": "distill_only"}), plain);
        assert!(alone.starts_with(&format!("{mostly} 0.01")), "{alone}");
    }
}
