//! The `method` part of a job: how the members become one network.

use serde_json::Value;

use super::MAX_MEMBERS;
use super::reader::{Object, UnplacedFault, choice, integer, list, number};
use crate::domain::problem::FaultCode;
use crate::settings::{
    AlignmentOptions, BatchNorm, Calibration, Compensate, Convolutions, EnsembleRule, GroundCost, Grouping, Importance,
    MemberWeights, Method, MethodName, Order, OutputAlignment, OutputTargets, Start, WeightRule,
};

/// Reads the object `method`.
pub(super) fn method(object: &Object<'_>) -> Method {
    let names = [
        ("neuron_transplantation", Some(MethodName::NeuronTransplantation)),
        ("average", Some(MethodName::Average)),
        ("optimal_transport", Some(MethodName::OptimalTransport)),
        ("permutation_alignment", Some(MethodName::PermutationAlignment)),
        ("neuron_interpolation", Some(MethodName::NeuronInterpolation)),
        ("distill_only", Some(MethodName::DistillOnly)),
    ];
    let orders = [
        ("joint", Some(Order::Joint)),
        ("iterative", Some(Order::Iterative)),
        ("hierarchical", Some(Order::Hierarchical)),
        ("prune_then_merge", Some(Order::PruneThenMerge)),
        ("merge_finetune_prune", Some(Order::MergeFinetunePrune)),
    ];
    let importances = [
        ("auto", Some(Importance::Auto)),
        ("magnitude", Some(Importance::Magnitude)),
        ("l1", Some(Importance::L1)),
        ("random", Some(Importance::Random)),
        ("taylor", Some(Importance::Taylor)),
        ("fisher", Some(Importance::Fisher)),
        ("activation", Some(Importance::Activation)),
        ("css", Some(Importance::Css)),
    ];
    let compensations = [
        ("auto", Some(Compensate::Auto)),
        ("none", Some(Compensate::None)),
        ("calibration", Some(Compensate::Calibration)),
        ("data_free", Some(Compensate::DataFree)),
    ];
    let groupings = [("k_means", Some(Grouping::KMeans)), ("hungarian", Some(Grouping::Hungarian))];
    let norms = [("auto", Some(BatchNorm::Auto)), ("keep", Some(BatchNorm::Keep)), ("reset", Some(BatchNorm::Reset))];
    let starts = [("member", Some(Start::Member)), ("scratch", Some(Start::Scratch))];
    let name = object.field("name", choice(&names)).unwrap_or_default();
    let order = object.field("order", choice(&orders)).unwrap_or_default();
    if !name.selects() && order != Order::Joint {
        object.fault("order", FaultCode::InvalidValue, "goes with `neuron_transplantation` only");
    }
    let ensembles = EnsembleRule::ALL.map(|rule| (rule.as_str(), Some(rule)));
    let method = Method {
        name,
        ensemble: object.field("ensemble", choice(&ensembles)).unwrap_or_default(),
        order,
        importance: object.field("importance", choice(&importances)).unwrap_or_default(),
        compensate: object.field("compensate", choice(&compensations)).unwrap_or_default(),
        calibration: object.object("calibration", calibration).unwrap_or_default(),
        matching: object.field("matching", choice(&groupings)).unwrap_or_default(),
        alignment: object.object("alignment", alignment).unwrap_or_default(),
        batch_norm: object.field("batch_norm", choice(&norms)).unwrap_or_default(),
        member_weights: object.field("member_weights", member_weights).unwrap_or_default(),
        rates: object.field("rates", parts),
        merge_epochs: object.field("merge_epochs", integer(1..=100_000)).map(|epochs| epochs as usize),
        start: object.field("start", choice(&starts)).unwrap_or_default(),
    };
    misplaced(object, &method);
    method
}

/// Notes settings that the method or its order does not have.
fn misplaced(object: &Object<'_>, method: &Method) {
    let Method { name, order, alignment, .. } = method;
    let only = |wrong: bool, field: &str, owner: &str| {
        if wrong {
            object.fault(field, FaultCode::InvalidValue, format!("goes with {owner} only"));
        }
    };
    let interpolates = *name == MethodName::NeuronInterpolation;
    only(!interpolates && method.matching != Grouping::default(), "matching", "`neuron_interpolation`");
    let aligned = "`optimal_transport` and `permutation_alignment`";
    only(!name.aligns() && *alignment != AlignmentOptions::default(), "alignment", aligned);
    let transported = *name == MethodName::OptimalTransport && alignment.cost == GroundCost::Weights;
    let owner = "the outputs `fixed`, or with `optimal_transport` by the cost `weights`";
    only(name.aligns() && alignment.outputs == OutputAlignment::Transported && !transported, "alignment", owner);
    only(method.rates.is_some() && *order != Order::PruneThenMerge, "rates", "the order `prune_then_merge`");
    let merges = *order == Order::MergeFinetunePrune;
    only(method.merge_epochs.is_some() && !merges, "merge_epochs", "the order `merge_finetune_prune`");
    only(method.start != Start::Member && *name != MethodName::DistillOnly, "start", "`distill_only`");
    let stepwise = matches!(order, Order::Iterative | Order::Hierarchical);
    let owner = "the orders that see all members at once";
    only(stepwise && method.member_weights != MemberWeights::default(), "member_weights", owner);
}

/// One number for each member, not all 0.
fn parts(value: &Value) -> Result<Vec<f64>, UnplacedFault> {
    let parts = list(1..=MAX_MEMBERS, number("a number from 0 to 1e6", |part| (0.0..=1e6).contains(&part)))(value)?;
    if parts.iter().sum::<f64>() > 0.0 {
        Ok(parts)
    } else {
        super::reader::refuse("expected a number above 0 among them")
    }
}

fn member_weights(value: &Value) -> Result<MemberWeights, UnplacedFault> {
    let rules = [
        ("width", Some(WeightRule::Width)),
        ("uniform", Some(WeightRule::Uniform)),
        ("fitted", Some(WeightRule::Fitted)),
    ];
    if value.is_array() {
        parts(value).map(MemberWeights::Given)
    } else {
        choice(&rules)(value).map(MemberWeights::Rule)
    }
}

fn alignment(object: &Object<'_>) -> AlignmentOptions {
    let costs = [("weights", Some(GroundCost::Weights)), ("activations", Some(GroundCost::Activations))];
    let outputs = [("fixed", Some(OutputAlignment::Fixed)), ("transported", Some(OutputAlignment::Transported))];
    AlignmentOptions {
        cost: object.field("cost", choice(&costs)).unwrap_or_default(),
        outputs: object.field("outputs", choice(&outputs)).unwrap_or_default(),
    }
}

fn calibration(object: &Object<'_>) -> Calibration {
    let default = Calibration::default();
    let convolutions = [("shared", Some(Convolutions::Shared)), ("full", Some(Convolutions::Full))];
    let targets = [("probabilities", Some(OutputTargets::Probabilities)), ("logits", Some(OutputTargets::Logits))];
    let count = |name, most| object.field(name, integer(1..=most)).map(|count| count as usize);
    Calibration {
        samples: count("samples", 10_000_000),
        positions: count("positions", 1 << 20).unwrap_or(default.positions),
        convolutions: object.field("convolutions", choice(&convolutions)).unwrap_or(default.convolutions),
        output_layer: object.field("output_layer", choice(&targets)).unwrap_or(default.output_layer),
        ridge: object.field("ridge", number("a number above 0 and up to 10", |ridge| ridge > 0.0 && ridge <= 10.0)),
    }
}
