//! What methods that average or interpolate units need of the members, and what becomes of BatchNorm.

use crate::cost::interpolation::{LevelError, levels_of};
use crate::domain::problem::{Fault, FaultCode, Problem};
use crate::model::families::Detected;
use crate::model::graph::{Graph, Op};
use crate::model::parameters;
use crate::plan::request::JobRequest;
use crate::settings::Target;
use crate::settings::{
    BatchNorm, GroundCost, Grouping, MemberWeights, MethodName, OwnValidation, ValidationSource, WeightRule,
};

/// Why the requested weights of the members cannot be used.
pub(super) fn faults(job: &JobRequest, detected: &Detected) -> Vec<Fault> {
    let method = &job.method;
    let mut faults = Vec::new();
    let mut missing = |field: &str| {
        let detail = "needs a dataset: its train split is the calibration data";
        faults.push(Fault::new(format!("/method/{field}"), FaultCode::MissingField, detail));
    };
    if job.dataset.is_none() && method.alignment.cost == GroundCost::Activations {
        missing("alignment/cost");
    }
    if job.dataset.is_none() && method.name == MethodName::NeuronInterpolation {
        missing("name");
    }
    if job.dataset.is_none() && method.batch_norm == BatchNorm::Reset {
        missing("batch_norm");
    }
    // Whether the dataset has a validation split of its own may still be unknown.
    let validated =
        job.dataset.as_ref().is_some_and(|data| data.validates_on(OwnValidation::Split) != ValidationSource::None);
    if method.member_weights == MemberWeights::Rule(WeightRule::Fitted) && !validated {
        let detail = "weights are fitted on the validation split: expected a dataset with one";
        faults.push(Fault::new("/method/member_weights", FaultCode::MissingField, detail));
    }
    let any_widths = method.name == MethodName::NeuronInterpolation && method.matching == Grouping::KMeans;
    if !method.name.selects() && !any_widths {
        let mut shapes = shape_faults(job, detected);
        shapes.append(&mut faults);
        return shapes;
    }
    faults
}

/// Checks that the network that is to be fitted level after level, if it is, can be.
///
/// # Errors
/// Names the node that cannot.
pub(super) fn check_levels(job: &JobRequest, fused: &Graph, members: &[Graph]) -> Result<(), Problem> {
    if job.method.name != MethodName::NeuronInterpolation {
        return Ok(());
    }
    let refused = |error: LevelError| {
        let detail = format!("{error}; take another method for this network");
        Problem::faults(vec![Fault::new("/method/name", FaultCode::NotSupportedYet, detail)])
    };
    levels_of(fused, members).map(drop).map_err(refused)
}

/// Everything in which the members and the target have other shapes than the first member.
fn shape_faults(job: &JobRequest, detected: &Detected) -> Vec<Fault> {
    let mut faults = Vec::new();
    let name = job.method.name.as_str();
    if job.target != Target::default() {
        let detail = format!("the method `{name}` keeps the members' widths: expected {{\"width\": \"member\"}} alone");
        faults.push(Fault::new("/target", FaultCode::InvalidValue, detail));
    }
    let expected = parameters::of_graph(&detected.graphs[0]);
    for (index, graph) in detected.graphs.iter().enumerate().skip(1) {
        let pairs = expected.iter().zip(parameters::of_graph(graph));
        faults.extend(pairs.filter(|(expected, got)| expected.shape != got.shape).map(|(expected, got)| {
            let detail = format!(
                "this method needs members of one shape; tensor `{}`: expected {:?} as in member 0, got {:?}",
                got.name, expected.shape, got.shape
            );
            Fault::new(format!("/members/{index}"), FaultCode::ShapeMismatch, detail)
        }));
    }
    faults
}

/// What `auto` comes to: statistics are measured anew where units are matched, there are statistics, and there is data.
pub(super) fn batch_norm(job: &JobRequest, detected: &Detected) -> BatchNorm {
    let has_statistics = |graph: &Graph| graph.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. }));
    match job.method.batch_norm {
        _ if !has_statistics(&detected.graphs[0]) => BatchNorm::Keep,
        BatchNorm::Auto if job.method.name.aligns() && job.dataset.is_some() => BatchNorm::Reset,
        BatchNorm::Auto => BatchNorm::Keep,
        given => given,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::domain::dataset::DatasetFacts;
    use crate::domain::problem::{Code, Problem};
    use crate::model::header::CheckpointHeader;
    use crate::plan::network::{DatasetInput, JobFiles};
    use crate::plan::parse::parse;
    use crate::plan::resolve::resolve;

    #[test]
    fn interpolation_needs_data_a_chain_and_by_assignment_one_shape() {
        let member =
            |width: usize| CheckpointHeader::of_floats(&[("fc1.weight", &[width, 12]), ("fc2.weight", &[3, width])]);
        let (narrow, wide) = (member(7), member(8));
        let facts = DatasetFacts::of_arrays(&[12], vec![30; 3]);
        let dataset = Some(DatasetInput::Ready(&facts));
        let inputs = JobFiles { members: vec![&wide, &narrow], dataset, ..JobFiles::default() };
        let plan = |method: Value, more: Value, inputs: &JobFiles<'_>| {
            let mut body = json!({"members": ["a", "b"], "method": method});
            body.as_object_mut().expect("fields").extend(more.as_object().cloned().expect("fields"));
            resolve(parse(&body).expect("a valid request"), inputs).map(|resolved| resolved.planned.expect("a plan"))
        };
        let name = "neuron_interpolation";
        let data = json!({"dataset": "d", "finetune": null, "target": {"width": 0.5}});
        let planned = plan(json!({"name": name}), data.clone(), &inputs).expect("any widths").plan;
        assert_eq!(planned.layers[0].width_after, 4);
        assert!(planned.memory_basis.contains("in the fit of levels"), "{}", planned.memory_basis);
        let pointers =
            |problem: Problem| -> Vec<String> { problem.errors.into_iter().map(|fault| fault.pointer).collect() };
        let refused = plan(json!({"name": name, "matching": "hungarian"}), data, &inputs).expect_err("two widths");
        assert_eq!(pointers(refused), ["/target", "/members/1", "/members/1"]);
        let without = JobFiles { dataset: None, ..inputs.clone() };
        let refused = plan(json!({"name": name}), json!({}), &without).expect_err("no data");
        assert_eq!(pointers(refused), ["/method/name"]);
        let nodes = json!([{"name": "input", "op": "input", "shape": [12]},
            {"name": "fc1", "op": "linear", "in_features": 12, "out_features": 8},
            {"name": "norm", "op": "layer_norm", "features": 8},
            {"name": "fc2", "op": "linear", "in_features": 8, "out_features": 3}]);
        let normed = CheckpointHeader::of_floats(&[
            ("fc1.weight", &[8, 12]),
            ("norm.weight", &[8]),
            ("norm.bias", &[8]),
            ("fc2.weight", &[3, 8]),
        ]);
        let inputs = JobFiles { members: vec![&normed, &normed], ..inputs.clone() };
        let graph = json!({"dataset": "d", "architecture": {"graph": {"nodes": nodes}}});
        let refused = plan(json!({"name": name}), graph, &inputs).expect_err("a LayerNorm");
        assert_eq!(refused.code, Code::NotSupportedYet);
        assert!(refused.errors[0].detail.contains("`norm`"), "{refused}");
    }

    #[test]
    fn averages_need_one_shape_and_keep_it() {
        let narrow =
            CheckpointHeader::of_floats(&[("fc1.weight", &[7, 12]), ("fc2.weight", &[8, 7]), ("fc3.weight", &[3, 8])]);
        let first =
            CheckpointHeader::of_floats(&[("fc1.weight", &[8, 12]), ("fc2.weight", &[8, 8]), ("fc3.weight", &[3, 8])]);
        let inputs = JobFiles { members: vec![&first, &narrow], ..JobFiles::default() };
        let method = json!({"name": "optimal_transport", "alignment": {"cost": "activations"}, "batch_norm": "reset", "member_weights": "fitted"});
        let request = json!({"members": ["a", "b"], "method": method, "target": {"width": 0.5}});
        let problem = resolve(parse(&request).expect("a valid request"), &inputs).expect_err("other shapes");
        let pointers: Vec<&str> = problem.errors.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/target",
                "/members/1",
                "/members/1",
                "/method/alignment/cost",
                "/method/batch_norm",
                "/method/member_weights"
            ]
        );
        assert!(problem.errors[1].detail.contains("`fc1.weight`: expected [8, 12] as in member 0, got [7, 12]"));
    }
}
