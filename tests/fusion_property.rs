//! Fusion that streams from the members equals a naive one that builds the concatenated network and prunes it, on random
//! small networks: chains with and without bias, BatchNorm, pooling, flatten and residual sums, members of any widths.

use std::collections::{BTreeMap, BTreeSet};

use engraft::fusion::{self, Ensemble, Fused, Member, verify};
use engraft::model::allocate::Curve;
use engraft::model::costs::Costs;
use engraft::model::graph::{Graph, Node, NodeId, Op, Window};
use engraft::model::groups::{Couplings, Group, GroupId};
use engraft::model::parameters::{self, Role};
use engraft::model::plan::FusionPlan;
use engraft::model::precision::Precision;
use engraft::model::target::{Allocation, Budget, LayerSize, Resource, Size, Target};
use engraft::tensors::{StateDict, Weights};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One step of a random network.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A convolution, or a matrix behind the flatten, to a new width.
    Dense { norm: bool, bias: bool },
    /// Two dense layers around which the input is added.
    Residual { norm: bool },
    /// As before, with a dense layer on the shortcut and a new width.
    Projection { norm: bool },
    /// Maximum or mean over windows (images only).
    Pool { mean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), any::<bool>()).prop_map(|(norm, bias)| Step::Dense { norm, bias }),
        1 => any::<bool>().prop_map(|norm| Step::Residual { norm }),
        1 => any::<bool>().prop_map(|norm| Step::Projection { norm }),
        1 => any::<bool>().prop_map(|mean| Step::Pool { mean }),
    ]
}

/// A random topology; its widths are drawn for each member.
#[derive(Debug, Clone)]
struct Plan {
    image: bool,
    steps: Vec<Step>,
    after_flatten: Vec<Step>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(step(), 0..4);
    (any::<bool>(), steps, prop::collection::vec(step(), 0..3)).prop_map(|(image, steps, after_flatten)| Plan {
        image,
        steps,
        after_flatten,
    })
}

/// Builds a plan's graph; `width` gives the width of the next free layer.
struct Builder<'a> {
    nodes: Vec<Node>,
    channels: usize,
    size: Option<usize>,
    width: &'a mut dyn FnMut() -> usize,
}

impl Builder<'_> {
    fn push(&mut self, op: Op, inputs: &[usize]) -> usize {
        let name = format!("n{}", self.nodes.len());
        self.nodes.push(Node { name, op, inputs: inputs.iter().map(|&index| NodeId(index)).collect() });
        self.nodes.len() - 1
    }

    fn last(&self) -> usize {
        self.nodes.len() - 1
    }

    fn dense(&mut self, input: usize, from: usize, to: usize, bias: bool, norm: bool) -> usize {
        let op = match self.size {
            Some(_) => Op::conv2d(from, to, Window::square(3, 1, 1), bias),
            None => Op::Linear { in_features: from, out_features: to, bias },
        };
        let out = self.push(op, &[input]);
        if norm { self.push(Op::BatchNorm { features: to, eps: 1e-5 }, &[out]) } else { out }
    }

    fn step(&mut self, step: Step, first: bool) {
        let input = self.last();
        match step {
            // The network's input has no units of its own that could be added to or pooled with those of a layer.
            Step::Residual { norm } | Step::Projection { norm } if first => {
                self.step(Step::Dense { norm, bias: true }, true);
            }
            Step::Dense { norm, bias } => {
                let to = (self.width)();
                self.dense(input, self.channels, to, bias, norm);
                self.push(Op::Relu, &[self.last()]);
                self.channels = to;
            }
            Step::Residual { norm } => {
                let inner = (self.width)();
                self.block(input, inner, self.channels, norm, input);
            }
            Step::Projection { norm } => {
                let (inner, to) = ((self.width)(), (self.width)());
                let shortcut = self.dense(input, self.channels, to, false, norm);
                self.block(input, inner, to, norm, shortcut);
                self.channels = to;
            }
            Step::Pool { mean } => {
                if let Some(size) = self.size.filter(|size| *size >= 2) {
                    let window = Window::square(2, 2, 0);
                    self.push(if mean { Op::avg_pool2d(window) } else { Op::max_pool2d(window) }, &[input]);
                    self.size = Some(size / 2);
                }
            }
        }
    }

    fn block(&mut self, input: usize, inner: usize, to: usize, norm: bool, shortcut: usize) {
        self.dense(input, self.channels, inner, true, norm);
        let relu = self.push(Op::Relu, &[self.last()]);
        let main = self.dense(relu, inner, to, true, norm);
        self.push(Op::Add, &[main, shortcut]);
        self.push(Op::Relu, &[self.last()]);
    }
}

fn graph(plan: &Plan, width: &mut dyn FnMut() -> usize) -> Graph {
    let size = plan.image.then_some(4);
    let shape = if plan.image { vec![2, 4, 4] } else { vec![6] };
    let channels = shape[0];
    let mut builder = Builder { nodes: Vec::new(), channels, size, width };
    builder.push(Op::Input { shape }, &[]);
    for (index, step) in plan.steps.iter().enumerate() {
        let first = plan.steps[..index].iter().all(|step| matches!(step, Step::Pool { .. }));
        builder.step(*step, first);
    }
    if let Some(size) = builder.size.take() {
        builder.push(Op::Flatten, &[builder.last()]);
        builder.channels *= size * size;
    }
    for (index, step) in plan.after_flatten.iter().enumerate() {
        let hidden = builder.nodes.iter().any(|node| node.op.has_parameters());
        builder.step(*step, index == 0 || !hidden);
    }
    builder.dense(builder.last(), builder.channels, 3, true, false);
    Graph::new(builder.nodes).unwrap()
}

fn weights(graph: &Graph, rng: &mut ChaCha8Rng) -> StateDict {
    let mut weights = StateDict::default();
    for parameter in parameters::of_graph(graph) {
        let count = parameter.shape.iter().product();
        let low = if parameter.role == Role::RunningVar { 0.1 } else { -1.0 };
        let values = (0..count).map(|_| rng.random_range(low..1.0_f32)).collect();
        weights.insert_f32(&parameter.name, &parameter.shape, values).unwrap();
    }
    weights
}

/// The concatenated network as a user would have it, and its coupling groups by brute force: two positions of two axes
/// belong together if the values that pass there must be kept or dropped together.
struct Naive {
    graph: Graph,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// For every node, the unit that stands at each channel (and whether it may be pruned).
    units: Vec<Vec<usize>>,
}

impl Naive {
    fn new(concatenated: &Fused) -> Self {
        let graph = concatenated.graph.clone();
        let read = |p: parameters::Parameter| {
            let values = concatenated.weights.f32(&p.name).unwrap().into_owned();
            (p.name, (p.shape, values))
        };
        let tensors = parameters::of_graph(&graph).into_iter().map(read).collect();
        let units = trace(&graph);
        Self { graph, tensors, units }
    }

    /// Sum of squares, over what is left, of every tensor slice that belongs to `unit`, as an average over tensors.
    fn score(&self, unit: usize, dropped: &BTreeSet<usize>) -> f64 {
        let mut sum = 0.0;
        let mut counted = BTreeSet::new();
        for (id, node) in self.graph.iter().filter(|(_, node)| node.op.has_parameters()) {
            let (shape, values) = &self.tensors[&format!("{}.weight", node.name)];
            let rows = &self.units[id.0];
            if shape.len() == 1 {
                for (row, _) in rows.iter().enumerate().filter(|(_, other)| **other == unit) {
                    counted.insert((id, 0));
                    sum += f64::from(values[row]).powi(2);
                }
                continue;
            }
            let columns = &self.units[node.inputs[0].0];
            let inner: usize = shape[2..].iter().product();
            for (row, row_unit) in rows.iter().enumerate() {
                for (column, column_unit) in columns.iter().enumerate() {
                    if dropped.contains(row_unit) || dropped.contains(column_unit) {
                        continue;
                    }
                    let at = (row * columns.len() + column) * inner;
                    let squares: f64 = values[at..at + inner].iter().map(|value| f64::from(*value).powi(2)).sum();
                    if *row_unit == unit {
                        counted.insert((id, 0));
                        sum += squares;
                    }
                    if *column_unit == unit {
                        counted.insert((id, 1));
                        sum += squares;
                    }
                }
            }
        }
        sum / counted.len() as f64
    }

    /// What is left of a tensor when the dropped units' rows and columns are cut out.
    fn cut(&self, name: &str, dropped: &BTreeSet<usize>) -> Vec<f32> {
        let (shape, values) = &self.tensors[name];
        let module = name.rsplit_once('.').unwrap().0;
        let (id, node) = self.graph.iter().find(|(_, node)| node.name == module).unwrap();
        let rows = &self.units[id.0];
        let no_columns = Vec::new();
        let columns = if shape.len() > 1 { &self.units[node.inputs[0].0] } else { &no_columns };
        let inner: usize = if shape.len() > 1 { shape[2..].iter().product() } else { 1 };
        let mut left = Vec::new();
        for (row, _) in rows.iter().enumerate().filter(|(_, unit)| !dropped.contains(unit)) {
            if columns.is_empty() {
                left.push(values[row]);
            }
            for (column, _) in columns.iter().enumerate().filter(|(_, unit)| !dropped.contains(unit)) {
                let at = (row * columns.len() + column) * inner;
                left.extend_from_slice(&values[at..at + inner]);
            }
        }
        left
    }
}

/// Units by relaxation: every channel starts as its own unit, and equal ones are renamed until nothing changes.
fn trace(graph: &Graph) -> Vec<Vec<usize>> {
    let mut next = 0;
    let mut units: Vec<Vec<usize>> = Vec::new();
    for (id, node) in graph.iter() {
        let channels = graph.shape(id)[0];
        let inherited = |input: usize| units[node.inputs[input].0].clone();
        let own = match node.op {
            Op::Input { .. } | Op::Linear { .. } | Op::Conv2d { .. } => {
                next += channels;
                (next - channels..next).collect()
            }
            Op::Flatten => {
                let from = inherited(0);
                (0..channels).map(|at| from[at * from.len() / channels]).collect()
            }
            Op::Add => {
                let (left, right) = (inherited(0), inherited(1));
                for (a, b) in left.iter().zip(&right) {
                    let (to, from) = (*a.min(b), *a.max(b));
                    units.iter_mut().flatten().filter(|unit| **unit == from).for_each(|unit| *unit = to);
                }
                units[node.inputs[0].0].clone()
            }
            _ => inherited(0),
        };
        units.push(own);
    }
    units
}

/// The members of a random topology, each with widths of its own.
fn members(plan: &Plan, members: usize, rng: &mut ChaCha8Rng) -> Vec<Graph> {
    (0..members).map(|_| graph(plan, &mut || rng.random_range(1..9))).collect()
}

/// The network with these widths, planned as widths of single layers.
fn with_widths(graphs: &[Graph], couplings: &Couplings, widths: &[usize]) -> FusionPlan {
    let groups = couplings.groups.iter().zip(widths);
    let name = |group: &Group| graphs[0].node(group.producers[0]).name.clone();
    let layers = groups.map(|(group, width)| (name(group), LayerSize::Width(*width))).collect();
    FusionPlan::new(graphs, &Target { layers, ..Target::default() }, &Precision::default(), None).unwrap()
}

/// A budget is never exceeded, and no group could grow by another step within it; less than the smallest network is
/// refused with what that one costs.
fn check_budget(graphs: &[Graph], resource: Resource, share: f64, round_to: usize, curves: Option<u64>) {
    let precision = Precision::default();
    let couplings = Couplings::of(&graphs[0]).unwrap();
    let total =
        |group: usize| graphs.iter().map(|graph| Couplings::of(graph).unwrap().groups[group].width).sum::<usize>();
    let totals: Vec<usize> = (0..couplings.groups.len()).map(total).collect();
    let spent = |widths: &[usize]| Costs::of(&with_widths(graphs, &couplings, widths).fused, &precision).get(resource);
    let most = spent(&totals);
    let limit = ((most as f64 * share) as u64).max(1);
    let allocation = if curves.is_some() { Allocation::Sensitivity } else { Allocation::Uniform };
    let size = Size::Budget(Budget { resource, limit, allocation });
    let target = Target { round_to, ..size.into() };
    let curves = curves.map(|seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let curve = |total: &usize| {
            let mut points: Vec<(usize, f64)> = (1..*total).map(|width| (width, rng.random())).collect();
            points.push((*total, 0.0));
            Curve { points }
        };
        totals.iter().map(curve).collect::<Vec<_>>()
    });
    let step = |width: usize| (width / round_to + 1) * round_to;
    match FusionPlan::new(graphs, &target, &precision, curves.as_deref()) {
        Ok(plan) => {
            assert_eq!(spent(&plan.targets), Costs::of(&plan.fused, &precision).get(resource));
            assert!(spent(&plan.targets) <= limit, "{:?} costs more than {limit}", plan.targets);
            for group in 0..totals.len() {
                let mut wider = plan.targets.clone();
                assert_eq!(wider[group] % round_to, 0);
                wider[group] = step(wider[group]);
                if wider[group] <= totals[group] {
                    assert!(spent(&wider) > limit, "{wider:?} would fit into {limit} as well as {:?}", plan.targets);
                }
            }
        }
        Err(problem) if totals.iter().any(|total| *total < round_to) => {
            assert!(problem.errors.iter().all(|fault| fault.pointer == "/target/round_to"), "{problem}");
        }
        Err(problem) => {
            let smallest = spent(&vec![round_to; totals.len()]);
            assert!(smallest > limit, "{problem}");
            assert_eq!(problem.errors[0].code, "budget_too_small");
            assert!(problem.detail.contains(&format!("at least {smallest},")), "{problem}");
        }
    }
}

fn check(plan: &Plan, members: usize, seed: u64, factor: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let same_widths = rng.random_range(0..2) == 0;
    let fixed: Vec<usize> = (0..64).map(|_| rng.random_range(1..5)).collect();
    let graphs: Vec<Graph> = (0..members)
        .map(|_| {
            let mut at = 0;
            graph(plan, &mut || {
                at += 1;
                if same_widths { fixed[at - 1] } else { rng.random_range(1..5) }
            })
        })
        .collect();
    let states: Vec<StateDict> = graphs.iter().map(|graph| weights(graph, &mut rng)).collect();
    let list: Vec<Member<'_>> = graphs.iter().zip(&states).map(|(graph, weights)| Member { graph, weights }).collect();
    let ensemble = Ensemble::new(list.clone()).unwrap();
    let concatenated = fusion::materialise(&ensemble).unwrap();

    let batch = 2;
    let inputs: Vec<f32> =
        (0..batch * graphs[0].input_shape().iter().product::<usize>()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mean = verify::mean_of_members(&ensemble, &inputs, batch).unwrap();
    let stacked = verify::concatenation(&ensemble, &inputs, batch).unwrap();
    let built = verify::reference(concatenated.as_member(), &inputs, batch).unwrap();
    assert!(verify::Agreement::of(&mean, &stacked).holds(), "virtual concatenation");
    assert!(verify::Agreement::of(&mean, &built).holds(), "materialised concatenation");

    let totals: Vec<usize> = (0..ensemble.groups()).map(|group| ensemble.widths(GroupId(group)).iter().sum()).collect();
    let targets: Vec<usize> = totals.iter().map(|total| ((*total as f64 * factor) as usize).clamp(1, *total)).collect();
    let fused = fusion::joint(&list, &targets).unwrap();

    let naive = Naive::new(&concatenated);
    let mut dropped = BTreeSet::new();
    for (group, &target) in ensemble.couplings()[0].groups.iter().zip(&targets) {
        // A unit stands at several rows where it is added to a flattened image.
        let units: BTreeSet<usize> = naive.units[group.producers[0].0].iter().copied().collect();
        let mut ranked: Vec<(f64, usize)> = units.iter().map(|unit| (naive.score(*unit, &dropped), *unit)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        dropped.extend(ranked[target..].iter().map(|(_, unit)| *unit));
    }
    for name in naive.tensors.keys() {
        assert_eq!(naive.cut(name, &dropped), fused.weights.f32(name).unwrap().to_vec(), "{name} of {:?}", fused.graph);
    }
    assert!(verify::reference(fused.as_member(), &inputs, batch).unwrap().iter().all(|logit| logit.is_finite()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn budgets_are_met_to_the_last_step(
        plan in plan(), count in 1_usize..4, seed in any::<u64>(), share in 0.001..1.1,
        resource in prop::sample::select(Resource::ALL.to_vec()), round_to in 1_usize..5, curves in any::<Option<u64>>(),
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        check_budget(&members(&plan, count, &mut rng), resource, share, round_to, curves);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streamed_fusion_equals_the_naive_one(plan in plan(), members in 1_usize..4, seed in any::<u64>(), factor in 0.1..1.0) {
        check(&plan, members, seed, factor);
    }
}
