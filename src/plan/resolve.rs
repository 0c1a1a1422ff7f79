//! What a request means for the files that it names: the network, the widths, the plan, or every reason why it cannot be.

use crate::cost::Counts;
use crate::domain::dataset::DatasetFacts;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::model::allocate::Curve;
use crate::model::depth::{self, Aligned};
use crate::model::families::{Detected, ExampleShape, ShapeOrigin, Source};
use crate::model::graph::{Graph, Shape};
use crate::model::plan::FusionPlan;
use crate::model::precision::Precision;
use crate::model::prefix;
use crate::plan::Plan;
use crate::plan::datasets::{Agreed, is_repeated, is_rows};
use crate::plan::network::{DatasetInput, JobFiles, Network};
use crate::plan::recovery::Fused;
use crate::plan::request::JobRequest;
use crate::plan::{averaging, compensation, identity, labels, recovery, task};
use crate::settings::{Method, NetworkChoice, PredictionTask, Size, Target};

/// A request whose files fit together.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The request with every default filled in.
    pub job: JobRequest,
    /// The networks; `None` while a dataset that decides the input's shape is being read.
    pub planned: Option<Planned>,
}

/// The networks of a job, and what becomes of them.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The members' networks and the fused widths.
    pub network: Network,
    /// The plan as it is shown.
    pub plan: Plan,
    /// What the job will have done in the end, as far as it is known before.
    pub counts: Counts,
}

/// Fits a request to its files.
///
/// # Errors
/// Everything that keeps them from fitting, each fault with the pointer to its cause.
pub fn resolve(mut job: JobRequest, inputs: &JobFiles<'_>) -> Result<Resolved, Problem> {
    let headers = prefix::aligned(&inputs.members);
    let inputs = JobFiles { members: headers.iter().map(AsRef::as_ref).collect(), ..inputs.clone() };
    let mut agreed = Agreed::of(job.dataset.as_ref(), &inputs).map_err(Problem::faults)?;
    let mut faults = target_faults(&job);
    let waiting = job.input_shape.is_none() && agreed.main().is_none() && inputs.dataset.is_some();
    let mut detected = depth::detect(&inputs.members, &job.architecture, example(&job, &agreed));
    let coloured = coloured(&job, &inputs, &agreed, &mut detected);
    let is_coloured = coloured.is_some();
    agreed = coloured.unwrap_or(agreed);
    let inputs = &agreed.in_place_of(&inputs);
    let has_labels = inputs.has_labels();
    labels::narrow(&mut job, inputs.facts());
    let aligned = match detected {
        Ok(aligned) => aligned,
        Err(_) if waiting => {
            return if faults.is_empty() { Ok(Resolved { job, planned: None }) } else { Err(Problem::faults(faults)) };
        }
        Err(problem) => return Err(with_faults(problem, faults)),
    };
    let Aligned { detected, own, paddings } = aligned;
    let task = match predicted(&job, inputs, &detected.graphs[0]) {
        Ok(task) => {
            faults.extend(task::faults(task, &job));
            if let Some(dataset) = job.dataset.as_mut().filter(|_| !task.is_classification()) {
                dataset.task = Some(task);
            }
            task
        }
        Err(fault) => {
            faults.push(fault);
            PredictionTask::default()
        }
    };
    faults.extend(data_faults(&job, inputs, &detected, task));
    faults.extend(averaging::faults(&job, &detected));
    let requested = job.method.clone();
    match compensation::resolve(
        &job.method,
        &detected.graphs,
        job.dataset.is_some(),
        identity::is_known(&job, &detected, has_labels),
    ) {
        Ok(compensate) => job.method.compensate = compensate,
        Err(refused) => faults.extend(refused),
    }
    job.method.importance = compensation::importance(&job.method);
    job.method.calibration.output_layer = task::output_targets(task, job.method.calibration.output_layer);
    job.method.batch_norm = averaging::batch_norm(&job, &detected);
    let precision = Precision::shared(&inputs.members);
    if !faults.is_empty() {
        // What else is wrong comes first: it may be what decides.
        let target = reachable(&job.target, job.members.len());
        return match FusionPlan::new(&detected.graphs, &target, &precision, None) {
            Ok(_) => Err(Problem::faults(faults)),
            Err(problem) => Err(with_faults(problem, faults)),
        };
    }
    let padded = paddings.iter().any(Option::is_some);
    let evidence = identity::evidence(&job, &detected, padded, has_labels, &precision)?;
    let fusion = FusionPlan::new(&detected.graphs, &job.target, &precision, None)?;
    averaging::check_levels(&job, &fusion.fused, &detected.graphs)?;
    if job.architecture.network == NetworkChoice::Auto
        && detected.source == Source::Recognised
        && detected.candidates.iter().all(|candidate| candidate.family == detected.family)
    {
        job.architecture.network = NetworkChoice::Family(detected.family.clone());
    }
    // The dataset that is still being read decides when it is there, or the result would depend on when that is.
    if !waiting {
        job.input_shape = Some(detected.graphs[0].input_shape().clone());
    }
    let Method { importance, compensate, batch_norm, .. } = job.method;
    let open = identity::decider(&job, &detected, has_labels).is_some();
    let recovery = job.finetune.as_ref().map(|finetune| {
        let of_method = Fused { graph: &fusion.fused, method: &job.method, compensate };
        recovery::decide(finetune, of_method, task, has_labels)
    });
    let network = Network {
        detected,
        evidence,
        own,
        paddings,
        task,
        precision,
        importance,
        compensate,
        batch_norm,
        fusion,
        recovery,
    };
    let (mut plan, counts) = Plan::new(&job, inputs, &network);
    if is_coloured {
        plan.warnings.push(
            "the dataset's images have one channel, which is repeated for the network's three, as torchvision's ImageFolder does"
                .to_owned(),
        );
    }
    // What compensation without data comes to follows from the network, which is decided when the job runs.
    if open && job.dataset.is_none() {
        job.method = requested;
    }
    Ok(Resolved { job, planned: Some(Planned { network, plan, counts }) })
}

impl Planned {
    /// Says in the plan what is known of the network by now.
    pub fn warn_of_evidence(&mut self) {
        let evidence = &self.network.evidence;
        self.plan.evidence = Some(evidence.clone());
        if evidence.degree.is_doubtful() {
            self.plan.warnings.insert(0, identity::warning(evidence));
        }
    }

    /// The same networks with the target's budget spent anew, by what was measured of each group.
    ///
    /// # Errors
    /// See [`FusionPlan::new`].
    pub fn allocated(&self, target: &Target, curves: &[Curve]) -> Result<Self, Problem> {
        let mut new = self.clone();
        let Network { detected, precision, fusion, .. } = &mut new.network;
        *fusion = FusionPlan::new(&detected.graphs, target, precision, Some(curves))?;
        new.plan.resize(fusion, precision);
        Ok(new)
    }
}

/// The shape of examples, as far as request and dataset tell it.
fn example<'a>(job: &'a JobRequest, agreed: &'a Agreed) -> ExampleShape<'a> {
    match &job.input_shape {
        Some(shape) => ExampleShape { shape: Some(shape), origin: ShapeOrigin::InputShape },
        None => ExampleShape { shape: agreed.main().map(|facts| &facts.example_shape), origin: ShapeOrigin::Dataset },
    }
}

/// The datasets with three channels for one, where their images are grey and the network reads colours. `detected` is then what it is
/// recognised as by these.
fn coloured(
    job: &JobRequest,
    inputs: &JobFiles<'_>,
    agreed: &Agreed,
    detected: &mut Result<Aligned, Problem>,
) -> Option<Agreed> {
    let main = agreed.main().filter(|facts| facts.is_grey())?;
    let coloured = agreed.clone().in_colour();
    match detected {
        Ok(found) => is_repeated(&main.example_shape, found.detected.graphs[0].input_shape()).then_some(coloured),
        Err(_) if job.input_shape.is_some() => None,
        Err(_) => {
            *detected = Ok(depth::detect(&inputs.members, &job.architecture, example(job, &coloured)).ok()?);
            Some(coloured)
        }
    }
}

/// The target, without a member that does not exist: [`target_faults`] has named it.
fn reachable(target: &Target, members: usize) -> Target {
    match target.size {
        Size::WidthsOf(member) if member >= members => Target { size: Size::Member, ..target.clone() },
        _ => target.clone(),
    }
}

/// The problem, with the faults found before it.
fn with_faults(mut problem: Problem, mut faults: Vec<Fault>) -> Problem {
    if faults.is_empty() {
        return problem;
    }
    let shared = problem.code;
    faults.append(&mut problem.errors);
    let merged = Problem::faults(faults);
    if merged.code == Code::InvalidRequest { Problem { code: shared, ..merged } } else { merged }
}

fn target_faults(job: &JobRequest) -> Vec<Fault> {
    match job.target.size {
        Size::WidthsOf(member) if member >= job.members.len() => {
            let last = job.members.len() - 1;
            let detail = format!("expected the position of a member, 0 to {last}, got {member}");
            vec![Fault::new("/target/width/member", FaultCode::InvalidValue, detail)]
        }
        _ => Vec::new(),
    }
}

/// What the networks predict, by the dataset or by what is stated; classes as long as nothing is known.
fn predicted(job: &JobRequest, inputs: &JobFiles<'_>, graph: &Graph) -> Result<PredictionTask, Fault> {
    let stated = job.dataset.as_ref().and_then(|dataset| dataset.task);
    match inputs.dataset.and_then(DatasetInput::facts).filter(|_| graph.is_classifier()) {
        Some(facts) => task::decide(stated, facts, Some(graph.classes())),
        None => Ok(stated.unwrap_or_default()),
    }
}

/// Every way in which the data does not fit the networks, which predict `task`.
fn data_faults(job: &JobRequest, inputs: &JobFiles<'_>, detected: &Detected, task: PredictionTask) -> Vec<Fault> {
    let (input, classes) = (detected.graphs[0].input_shape(), detected.graphs[0].classes());
    let named =
        [("/dataset", inputs.dataset), ("/dataset/validation", inputs.validation), ("/dataset/test", inputs.test)];
    let ready = named.into_iter().filter_map(|(pointer, dataset)| Some((pointer, dataset?.facts()?)));
    let mut faults: Vec<Fault> =
        ready.clone().filter_map(|(pointer, facts)| shape_fault(pointer, facts, input)).collect();
    // That of the main dataset is a fault of what is predicted.
    let others = ready.filter(|(pointer, _)| *pointer != "/dataset" && detected.graphs[0].is_classifier());
    faults.extend(others.filter_map(|(pointer, facts)| {
        if !facts.has_labels() {
            return Some(Fault::new(
                pointer,
                FaultCode::LabelsMissing,
                "networks are measured on it, and it has no labels",
            ));
        }
        task::misfit(task, facts, classes).map(|fault| Fault { pointer: pointer.to_owned(), ..fault })
    }));
    faults.extend(labels::faults(job, inputs, &detected.graphs[0], task));
    faults.extend(accuracy_fault(job, inputs));
    faults.extend(job.dataset.is_some().then(|| output_fault(&detected.graphs[0])).flatten());
    let augment = job.finetune.as_ref().and_then(|finetune| finetune.augment);
    if let (Some(augment), Some(facts)) = (augment, inputs.dataset.and_then(DatasetInput::facts)) {
        let misfit = augment.misfit(&facts.example_shape);
        faults.extend(misfit.map(|misfit| Fault::new("/finetune/augment", FaultCode::ShapeMismatch, misfit)));
    }
    if let (Some(normalize), Some(facts)) = (
        job.dataset.as_ref().and_then(|dataset| dataset.normalize.given()),
        inputs.dataset.and_then(DatasetInput::facts),
    ) {
        let channels = match facts.example_shape[..] {
            [_, rows, _] if is_rows(&facts.example_shape, input) => rows,
            [channels, _, _] => channels,
            _ => 1,
        };
        if ![1, channels].contains(&normalize.mean.len()) {
            let detail = format!("expected 1 or {channels} numbers (one per channel), got {}", normalize.mean.len());
            faults.push(Fault::new("/dataset/normalize", FaultCode::ShapeMismatch, detail));
        }
    }
    faults
}

/// Why known accuracies cannot be compared.
fn accuracy_fault(job: &JobRequest, inputs: &JobFiles<'_>) -> Option<Fault> {
    let facts = inputs.dataset.and_then(DatasetInput::facts)?;
    let has_test = (facts.splits.contains_key("test") && facts.has_labels())
        || job.dataset.as_ref().is_some_and(|dataset| dataset.test.is_some());
    let detail = "needs a test split: it is that of the members on the dataset's test split, or on `dataset.test`";
    (job.accuracy.is_some() && !has_test).then(|| Fault::new("/accuracy", FaultCode::MissingField, detail))
}

/// Why the network cannot be trained and measured on labels.
fn output_fault(graph: &Graph) -> Option<Fault> {
    let (node, shape) = (&graph.node(graph.output()).name, graph.shape(graph.output()));
    let detail = format!(
        "with a dataset the network must end in a vector, one logit per class; node `{node}` gives shape {shape:?}: add a \
         flatten or a pool, and a linear layer"
    );
    (!graph.is_classifier()).then(|| Fault::new("/architecture", FaultCode::ShapeMismatch, detail))
}

fn shape_fault(pointer: &str, facts: &DatasetFacts, input: &Shape) -> Option<Fault> {
    let elements = |shape: &Shape| shape.iter().product::<usize>();
    let both_images = input.len() == 3 && facts.example_shape.len() == 3;
    let differs = elements(&facts.example_shape) != elements(input) || (both_images && facts.example_shape != *input);
    let detail = format!("the network reads examples of shape {input:?}, the dataset has {:?}", facts.example_shape);
    differs.then(|| Fault::new(pointer, FaultCode::ShapeMismatch, detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::header::CheckpointHeader;
    use crate::plan::NetworkFigures;
    use crate::plan::parse::parse;
    use crate::settings::{Architecture, Compensate};

    fn mlp() -> CheckpointHeader {
        CheckpointHeader::of_floats(&[("fc1.weight", &[8, 12]), ("fc2.weight", &[8, 8]), ("fc3.weight", &[3, 8])])
    }

    fn lenet() -> CheckpointHeader {
        let convolutions: [(&str, &[usize]); 2] = [("conv1.weight", &[6, 3, 5, 5]), ("conv2.weight", &[16, 6, 5, 5])];
        let matrices: [(&str, &[usize]); 3] =
            [("fc1.weight", &[120, 400]), ("fc2.weight", &[84, 120]), ("fc3.weight", &[10, 84])];
        CheckpointHeader::of_floats(&[&convolutions[..], &matrices[..]].concat())
    }

    fn facts(example_shape: &[usize], classes: usize) -> DatasetFacts {
        DatasetFacts::of_arrays(example_shape, vec![100 / classes; classes])
    }

    fn job(body: &serde_json::Value) -> JobRequest {
        parse(body).expect("a valid request")
    }

    #[test]
    fn defaults_are_filled_in_and_the_plan_tells_the_widths() {
        let (member, facts) = (mlp(), facts(&[12], 3));
        let inputs = JobFiles {
            members: vec![&member, &member],
            dataset: Some(DatasetInput::Ready(&facts)),
            ..JobFiles::default()
        };
        let request = job(&json!({"members": ["a", "b"], "dataset": "d", "finetune": {"epochs": 1}}));
        let resolved = resolve(request, &inputs).expect("a job that fits");
        assert_eq!(resolved.job.architecture, Architecture::family("mlp"));
        assert_eq!(resolved.job.input_shape, Some(vec![12]));
        assert_eq!(resolved.job.method.compensate, Compensate::Calibration);
        let plan = resolved.planned.expect("a plan").plan;
        assert_eq!(plan.layers.iter().map(|layer| layer.width_after).collect::<Vec<_>>(), [8, 8, 3]);
        assert_eq!(plan.parameters, NetworkFigures { members: vec![184, 184], concatenated: 496, fused: 184 });
        assert!(plan.warnings.iter().any(|warning| warning.contains("test split")), "{:?}", plan.warnings);
        assert!(plan.seconds_estimate > 0.0 && plan.memory_peak_bytes > 0);
    }

    #[test]
    fn every_misfit_between_files_and_request_is_named() {
        let (member, facts) = (mlp(), facts(&[3, 2, 2], 5));
        let inputs =
            JobFiles { members: vec![&member], dataset: Some(DatasetInput::Ready(&facts)), ..JobFiles::default() };
        let request = job(&json!({"members": ["a"], "target": {"width": {"member": 3}},
            "dataset": {"name": "d", "normalize": {"mean": [0, 0], "std": [1, 1]}}}));
        let problem = resolve(request, &inputs).expect_err("three faults");
        let pointers: Vec<&str> = problem.errors.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/target/width/member", "/dataset", "/dataset/normalize"]);
        assert_eq!(problem.code, Code::InvalidRequest);
    }

    #[test]
    fn images_vary_by_less_than_their_size_and_vectors_do_not() {
        let member = mlp();
        let resolved = |shape: &[usize], padding: usize| {
            let facts = facts(shape, 3);
            let dataset = Some(DatasetInput::Ready(&facts));
            let inputs = JobFiles { members: vec![&member], dataset, ..JobFiles::default() };
            let finetune = json!({"epochs": 1, "augment": {"crop_padding": padding, "flip": true}});
            resolve(job(&json!({"members": ["a"], "dataset": "d", "finetune": finetune})), &inputs)
        };
        assert!(resolved(&[3, 2, 2], 1).is_ok());
        for (shape, padding, said) in [(&[3, 2, 2][..], 2, "2 x 2"), (&[12], 1, "vectors")] {
            let problem = resolved(shape, padding).expect_err("a misfit");
            assert_eq!(problem.errors[0].pointer, "/finetune/augment");
            assert!(problem.errors[0].detail.contains(said), "{problem:?}");
        }
    }

    #[test]
    fn a_network_that_ends_in_an_image_takes_no_dataset() {
        let (member, facts) = (CheckpointHeader::of_floats(&[("conv.weight", &[4, 3, 1, 1])]), facts(&[3, 2, 2], 4));
        let nodes = json!([{"name": "input", "op": "input", "shape": [3, 2, 2]},
            {"name": "conv", "op": "conv2d", "in_channels": 3, "out_channels": 4, "kernel": 1}]);
        let body = json!({"members": ["a"], "dataset": "d", "architecture": {"graph": {"nodes": nodes}}});
        let inputs =
            JobFiles { members: vec![&member], dataset: Some(DatasetInput::Ready(&facts)), ..JobFiles::default() };
        let problem = resolve(job(&body), &inputs).expect_err("no classifier");
        assert_eq!(problem.errors[0].pointer, "/architecture");
        assert!(problem.errors[0].detail.contains("`conv` gives shape [4, 2, 2]"), "{problem}");
    }

    #[test]
    fn a_wrong_input_shape_is_the_fault_of_what_decides_it() {
        let (member, facts) = (lenet(), facts(&[784], 10));
        let inputs =
            JobFiles { members: vec![&member], dataset: Some(DatasetInput::Ready(&facts)), ..JobFiles::default() };
        for (body, pointer) in [
            (json!({"members": ["a"], "dataset": "d"}), "/dataset"),
            (json!({"members": ["a"], "dataset": "d", "input_shape": [784]}), "/input_shape"),
        ] {
            let problem = resolve(job(&body), &inputs).expect_err("no LeNet reads vectors");
            assert_eq!(problem.errors[0].pointer, pointer, "{problem}");
        }
    }

    #[test]
    fn faults_of_the_target_come_with_those_of_the_data() {
        let (member, facts) = (mlp(), facts(&[3, 2, 2], 5));
        let inputs =
            JobFiles { members: vec![&member], dataset: Some(DatasetInput::Ready(&facts)), ..JobFiles::default() };
        let request = job(&json!({"members": ["a"], "dataset": "d", "target": {"params": 3, "keep": ["fc1", "fc9"]}}));
        let problem = resolve(request, &inputs).expect_err("two faults");
        let pointers: Vec<&str> = problem.errors.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/dataset", "/target/keep/1"]);
    }

    #[test]
    fn compensation_follows_network_and_data() {
        let (vectors, images) = (mlp(), lenet());
        let resolved = |member, body: &serde_json::Value| {
            resolve(job(body), &JobFiles { members: vec![member, member], ..JobFiles::default() })
        };
        let compensate = |member, body: &serde_json::Value| resolved(member, body).map(|job| job.job.method.compensate);
        let known = json!({"members": ["a", "b"], "architecture": {"activation": "relu"}});
        assert_eq!(compensate(&vectors, &known), Ok(Compensate::DataFree));
        assert_eq!(
            compensate(&vectors, &json!({"members": ["a", "b"]})),
            Ok(Compensate::None),
            "the activation is open"
        );
        let body = json!({"members": ["a", "b"], "input_shape": [3, 32, 32]});
        assert_eq!(compensate(&images, &body), Ok(Compensate::None));
        let method = json!({"compensate": "calibration", "importance": "css"});
        let refused = compensate(&vectors, &json!({"members": ["a", "b"], "method": method})).expect_err("no data");
        let pointers: Vec<&str> = refused.errors.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/method/importance", "/method/compensate"]);
        let method = json!({"compensate": "data_free"});
        let body = json!({"members": ["a", "b"], "input_shape": [3, 32, 32], "method": method});
        let refused = compensate(&images, &body).expect_err("convolutions");
        assert_eq!(refused.errors[0].pointer, "/method/compensate");
    }

    #[test]
    fn members_that_do_not_match_are_told_apart() {
        let (first, second) = (
            mlp(),
            CheckpointHeader::of_floats(&[("fc1.weight", &[8, 12]), ("fc2.weight", &[8, 9]), ("fc4.weight", &[3, 8])]),
        );
        let inputs = JobFiles { members: vec![&first, &second], ..JobFiles::default() };
        let problem = resolve(job(&json!({"members": ["a", "b"]})), &inputs).expect_err("other tensors");
        assert_eq!(problem.code, Code::MembersIncompatible);
        assert!(problem.errors.len() >= 2, "{problem}");
    }

    #[test]
    fn a_network_whose_input_is_not_known_yet_waits_for_its_dataset() {
        let member = lenet();
        let request = || job(&json!({"members": ["a"], "dataset": "d"}));
        let waiting =
            JobFiles { members: vec![&member], dataset: Some(DatasetInput::Validating), ..JobFiles::default() };
        let waited = resolve(request(), &waiting).expect("accepted");
        let facts = facts(&[3, 32, 32], 10);
        let ready = JobFiles { dataset: Some(DatasetInput::Ready(&facts)), ..waiting };
        let resolved = resolve(waited.job, &ready).expect("resolved");
        assert_eq!(resolved.planned.expect("a network").network.detected.family, "lenet");
    }

    #[test]
    fn the_input_is_the_datasets_whenever_it_becomes_ready() {
        let member = mlp();
        let request = || job(&json!({"members": ["a"], "dataset": "d"}));
        let waiting =
            JobFiles { members: vec![&member], dataset: Some(DatasetInput::Validating), ..JobFiles::default() };
        let waited = resolve(request(), &waiting).expect("accepted").job;
        let facts = facts(&[3, 2, 2], 3);
        let ready = JobFiles { dataset: Some(DatasetInput::Ready(&facts)), ..waiting };
        let [late, at_once] = [waited, request()].map(|job| resolve(job, &ready).expect("resolved").job);
        assert_eq!((late.input_shape.as_deref(), &late), (Some(&[3, 2, 2][..]), &at_once));
    }

    #[test]
    fn a_plan_that_does_not_know_its_dataset_says_so() {
        let member = mlp();
        let warned = |inputs: &JobFiles<'_>| {
            let resolved = resolve(job(&json!({"members": ["a"], "dataset": "d"})), inputs).expect("resolved");
            let warnings = resolved.planned.expect("a network").plan.warnings;
            warnings.iter().filter(|warning| warning.contains("still being read")).count()
        };
        let waiting =
            JobFiles { members: vec![&member], dataset: Some(DatasetInput::Validating), ..JobFiles::default() };
        assert_eq!(warned(&waiting), 1);
        let facts = facts(&[3, 2, 2], 3);
        assert_eq!(warned(&JobFiles { dataset: Some(DatasetInput::Ready(&facts)), ..waiting }), 0);
    }
}
