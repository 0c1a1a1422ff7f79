//! Fusion that streams from the members equals a naive one that builds the concatenated network and prunes it, and a pruned
//! network computes what the whole one does with the same units masked; on random small networks: chains with and
//! without bias, BatchNorm, pooling, flatten, residual sums, concatenations, depthwise and grouped convolutions,
//! squeeze-excite and layer scales, members of any widths. Normalisations over channels and attentions: the virtual
//! concatenation equals the mean of the members.

use std::collections::{BTreeMap, BTreeSet};

use engraft::domain::problem::Code;
use engraft::fusion::align::{self, Alignment};
use engraft::fusion::{self, Ensemble, Fused, Member, verify};
use engraft::model::allocate::Curve;
use engraft::model::costs::Costs;
use engraft::model::graph::{Graph, Node, NodeId, Op, Window};
use engraft::model::groups::{Couplings, Group, GroupId, Owner};
use engraft::model::parameters::{self, Role};
use engraft::model::plan::FusionPlan;
use engraft::model::precision::Precision;
use engraft::model::target::{Allocation, Budget, LayerSize, Resource, Size, Target};
use engraft::tensors::{StateDict, Weights};
use proptest::prelude::*;
use rand::seq::SliceRandom;
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
    /// A dense layer whose outputs are put behind its inputs.
    Extend { norm: bool },
    /// A convolution of each channel by itself (images only).
    Depthwise { twice: bool, norm: bool },
    /// A dense layer, then a convolution in groups of two channels (images only).
    Grouped { outputs: usize },
    /// A gate per channel, computed from all of them.
    Excite,
    /// A factor per channel.
    Scale,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), any::<bool>()).prop_map(|(norm, bias)| Step::Dense { norm, bias }),
        1 => any::<bool>().prop_map(|norm| Step::Residual { norm }),
        1 => any::<bool>().prop_map(|norm| Step::Projection { norm }),
        1 => any::<bool>().prop_map(|mean| Step::Pool { mean }),
        2 => any::<bool>().prop_map(|norm| Step::Extend { norm }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(twice, norm)| Step::Depthwise { twice, norm }),
        1 => (1_usize..4).prop_map(|outputs| Step::Grouped { outputs }),
        1 => Just(Step::Excite),
        1 => Just(Step::Scale),
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
    let steps = prop::collection::vec(step(), 0..5);
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
    /// Whether the network's input is among the channels: it has no units of its own.
    shared: bool,
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

    fn step(&mut self, step: Step) {
        let input = self.last();
        match step {
            // The network's input cannot be tied to the units of a layer.
            Step::Residual { norm } if self.shared => self.step(Step::Dense { norm, bias: true }),
            Step::Depthwise { .. } | Step::Excite | Step::Scale if self.shared => {
                self.step(Step::Dense { norm: false, bias: true });
            }
            Step::Dense { norm, bias } => {
                let to = (self.width)();
                self.dense(input, self.channels, to, bias, norm);
                self.push(Op::Relu, &[self.last()]);
                (self.channels, self.shared) = (to, false);
            }
            Step::Residual { norm } => {
                let inner = (self.width)();
                self.block(input, inner, self.channels, norm, input);
            }
            Step::Projection { norm } => {
                let (inner, to) = ((self.width)(), (self.width)());
                let shortcut = self.dense(input, self.channels, to, false, norm);
                self.block(input, inner, to, norm, shortcut);
                (self.channels, self.shared) = (to, false);
            }
            Step::Pool { mean } => {
                if let Some(size) = self.size.filter(|size| *size >= 2) {
                    let window = Window::square(2, 2, 0);
                    self.push(if mean { Op::avg_pool2d(window) } else { Op::max_pool2d(window) }, &[input]);
                    self.size = Some(size / 2);
                }
            }
            step => self.channels(step),
        }
    }

    /// The steps in which channels go their own ways.
    fn channels(&mut self, step: Step) {
        let input = self.last();
        match step {
            Step::Extend { norm } => {
                let growth = (self.width)();
                let new = self.dense(input, self.channels, growth, false, norm);
                self.push(Op::Concat, &[input, new]);
                self.channels += growth;
                self.push(Op::Silu, &[self.last()]);
            }
            Step::Depthwise { twice, norm } if self.size.is_some() => {
                let to = self.channels * if twice { 2 } else { 1 };
                self.grouped(input, 1, to, norm);
                self.push(Op::LeakyRelu { negative_slope: 0.1 }, &[self.last()]);
            }
            Step::Grouped { outputs } if self.size.is_some() => {
                let width = (self.width)();
                let expanded = self.dense(input, self.channels, 2 * width, true, false);
                (self.channels, self.shared) = (2 * width, false);
                self.grouped(expanded, 2, outputs * width, true);
                self.push(Op::Relu, &[self.last()]);
            }
            Step::Excite => {
                let inner = (self.width)();
                let mean = if self.size.is_some() { self.push(Op::GlobalAvgPool2d, &[input]) } else { input };
                let point = |input, output| match self.size {
                    Some(_) => Op::conv2d(input, output, Window::square(1, 1, 0), true),
                    None => Op::Linear { in_features: input, out_features: output, bias: true },
                };
                let (squeeze, excite) = (point(self.channels, inner), point(inner, self.channels));
                self.push(squeeze, &[mean]);
                self.push(Op::Relu, &[self.last()]);
                self.push(excite, &[self.last()]);
                self.push(Op::Sigmoid, &[self.last()]);
                self.push(Op::Multiply, &[self.last(), input]);
            }
            Step::Scale => {
                self.push(Op::LayerScale { features: self.channels, unit_axes: 2 }, &[input]);
            }
            _ => {}
        }
    }

    fn grouped(&mut self, input: usize, group_width: usize, to: usize, norm: bool) {
        let window = Window::square(3, 1, 1);
        let (in_channels, group_width) = (self.channels, Some(group_width));
        self.push(Op::Conv2d { in_channels, out_channels: to, group_width, window, bias: norm }, &[input]);
        self.channels = to;
        if norm {
            self.push(Op::BatchNorm { features: to, eps: 1e-5 }, &[self.last()]);
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
    let mut builder = Builder { nodes: Vec::new(), channels, size, shared: true, width };
    builder.push(Op::Input { shape }, &[]);
    plan.steps.iter().for_each(|step| builder.step(*step));
    if let Some(size) = builder.size.take() {
        builder.push(Op::Flatten, &[builder.last()]);
        builder.channels *= size * size;
    }
    plan.after_flatten.iter().for_each(|step| builder.step(*step));
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

    /// Sum of squares, over what is left, of every tensor slice that belongs to `unit`, as an average over the tensors of
    /// its `group`.
    fn score(&self, unit: usize, group: &BTreeSet<usize>, dropped: &BTreeSet<usize>) -> f64 {
        let mut sum = 0.0;
        let mut counted = BTreeSet::new();
        for (id, node) in self.graph.iter().filter(|(_, node)| node.op.has_parameters()) {
            let (shape, values) = &self.tensors[&parameters::of_node(node)[0].name];
            let rows = &self.units[id.0];
            if !node.op.is_dense() {
                for (row, values) in values.chunks(values.len() / rows.len()).enumerate() {
                    if group.contains(&rows[row]) {
                        counted.insert((id, 0));
                    }
                    if rows[row] == unit {
                        sum += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
                    }
                }
                continue;
            }
            let columns = &self.units[node.inputs[0].0];
            let inner: usize = shape[2..].iter().product();
            for (row, row_unit) in rows.iter().enumerate() {
                for (column, column_unit) in columns.iter().enumerate() {
                    counted.extend(group.contains(row_unit).then_some((id, 0)));
                    counted.extend(group.contains(column_unit).then_some((id, 1)));
                    if dropped.contains(row_unit) || dropped.contains(column_unit) {
                        continue;
                    }
                    let at = (row * columns.len() + column) * inner;
                    let squares: f64 = values[at..at + inner].iter().map(|value| f64::from(*value).powi(2)).sum();
                    sum += squares * f64::from(u8::from(*row_unit == unit) + u8::from(*column_unit == unit));
                }
            }
        }
        sum / counted.len() as f64
    }

    /// What is left of a tensor when the dropped units' rows and columns are cut out.
    fn cut(&self, name: &str, dropped: &BTreeSet<usize>) -> Vec<f32> {
        let (_, values) = &self.tensors[name];
        let owns = |node: &Node| parameters::of_node(node).iter().position(|tensor| tensor.name == name);
        let mut nodes = self.graph.iter();
        let (id, node, tensor) = nodes.find_map(|(id, node)| Some((id, node, owns(node)?))).unwrap();
        let rows = &self.units[id.0];
        let all = [usize::MAX];
        let matrix = tensor == 0 && node.op.is_dense();
        let columns = if matrix { &self.units[node.inputs[0].0][..] } else { &all };
        let inner = values.len() / rows.len() / columns.len();
        let mut left = Vec::new();
        for (row, _) in rows.iter().enumerate().filter(|(_, unit)| !dropped.contains(unit)) {
            for (column, _) in columns.iter().enumerate().filter(|(_, unit)| !dropped.contains(unit)) {
                let at = (row * columns.len() + column) * inner;
                left.extend_from_slice(&values[at..at + inner]);
            }
        }
        left
    }

    /// The weights with every dropped unit masked where dense layers read it: behind its last operation by channel.
    fn masked(&self, dropped: &BTreeSet<usize>) -> StateDict {
        let mut weights = StateDict::default();
        for (id, node) in self.graph.iter() {
            for (index, tensor) in parameters::of_node(node).into_iter().enumerate() {
                let (shape, mut values) = self.tensors[&tensor.name].clone();
                if index == 0 && node.op.is_dense() {
                    let columns = &self.units[node.inputs[0].0];
                    let inner = values.len() / self.units[id.0].len() / columns.len();
                    for (at, values) in values.chunks_exact_mut(inner).enumerate() {
                        if dropped.contains(&columns[at % columns.len()]) {
                            values.fill(0.0);
                        }
                    }
                }
                weights.insert_f32(&tensor.name, &shape, values).unwrap();
            }
        }
        weights
    }
}

/// Units by relaxation: every channel starts as its own unit, and equal ones are renamed until nothing changes.
fn trace(graph: &Graph) -> Vec<Vec<usize>> {
    let mut next = 0;
    let mut units: Vec<Vec<usize>> = Vec::new();
    for (id, node) in graph.iter() {
        let channels = graph.shape(id)[0];
        let inherited = |input: usize| units[node.inputs[input].0].clone();
        let mut same: Vec<(usize, usize)> = Vec::new();
        let own = match node.op {
            Op::Flatten => {
                let from = inherited(0);
                (0..channels).map(|at| from[at * from.len() / channels]).collect()
            }
            Op::Add | Op::Multiply => {
                same = inherited(0).into_iter().zip(inherited(1)).collect();
                inherited(0)
            }
            Op::Concat => (0..node.inputs.len()).flat_map(inherited).collect(),
            Op::Conv2d { in_channels, out_channels, group_width: Some(width), .. } => {
                let from = inherited(0);
                same = (0..in_channels).map(|at| (from[at], from[at / width * width])).collect();
                let outputs = out_channels * width / in_channels;
                (0..out_channels).map(|at| from[at / outputs * width]).collect()
            }
            Op::Input { .. } | Op::Linear { .. } | Op::Conv2d { .. } => {
                next += channels;
                (next - channels..next).collect()
            }
            _ => inherited(0),
        };
        units.push(own);
        for at in 0..same.len() {
            let (a, b) = same[at];
            let (to, from) = (a.min(b), a.max(b));
            let renamed = units.iter_mut().flatten().chain(same.iter_mut().flat_map(|(a, b)| [a, b]));
            renamed.filter(|unit| **unit == from).for_each(|unit| *unit = to);
        }
    }
    units
}

/// The members of a random topology, each with widths of its own.
fn topology(plan: &Plan, members: usize, rng: &mut ChaCha8Rng) -> Vec<Graph> {
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
    if couplings.divided(&graphs[0]).is_some() {
        let problem = FusionPlan::new(graphs, &Target::default(), &precision, None).unwrap_err();
        assert_eq!(problem.code, Code::NotSupportedYet);
        return;
    }
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

/// Members of one topology with widths of their own, or all alike.
fn members(plan: &Plan, members: usize, rng: &mut ChaCha8Rng) -> (Vec<Graph>, Vec<StateDict>) {
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
    let states = graphs.iter().map(|graph| weights(graph, rng)).collect();
    (graphs, states)
}

fn noise(graph: &Graph, batch: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let len = batch * graph.input_shape().iter().product::<usize>();
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn targets(ensemble: &Ensemble<'_>, factor: f64) -> Vec<usize> {
    let totals = (0..ensemble.groups()).map(|group| ensemble.widths(GroupId(group)).iter().sum::<usize>());
    let least = |group| ensemble.couplings().iter().map(|member| member.group(GroupId(group)).least()).max().unwrap();
    let target =
        |(group, total): (usize, usize)| ((total as f64 * factor) as usize).clamp(least(group).min(total), total);
    totals.enumerate().map(target).collect()
}

fn check(plan: &Plan, count: usize, seed: u64, factor: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (graphs, states) = members(plan, count, &mut rng);
    let list: Vec<Member<'_>> = graphs.iter().zip(&states).map(|(graph, weights)| Member { graph, weights }).collect();
    let ensemble = Ensemble::new(list.clone()).unwrap();
    let concatenated = fusion::materialise(&ensemble).unwrap();

    let batch = 2;
    let inputs = noise(&graphs[0], batch, &mut rng);
    let mean = verify::mean_of_members(&ensemble, &inputs, batch).unwrap();
    let stacked = verify::concatenation(&ensemble, &inputs, batch).unwrap();
    let built = verify::reference(concatenated.as_member(), &inputs, batch).unwrap();
    assert!(verify::Agreement::of(&mean, &stacked).holds(), "virtual concatenation");
    assert!(verify::Agreement::of(&mean, &built).holds(), "materialised concatenation");

    let targets = targets(&ensemble, factor);
    let fused = fusion::joint(&list, &targets).unwrap();

    let naive = Naive::new(&concatenated);
    let mut dropped = BTreeSet::new();
    for (group, &target) in ensemble.couplings()[0].groups.iter().zip(&targets) {
        let units: BTreeSet<usize> = group.producers.iter().flat_map(|id| naive.units[id.0].iter().copied()).collect();
        let score = |unit: &usize| (naive.score(*unit, &units, &dropped), *unit);
        let mut ranked: Vec<(f64, usize)> = units.iter().map(score).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        // The best unit of each producer stays; then the best of all.
        let of = |id: &NodeId| ranked.iter().position(|(_, unit)| naive.units[id.0].contains(unit)).unwrap();
        let producers = group.producers.iter().filter(|id| !units.iter().all(|unit| naive.units[id.0].contains(unit)));
        let reserved: BTreeSet<usize> = producers.map(of).collect();
        let others = (0..ranked.len()).filter(|place| !reserved.contains(place));
        dropped.extend(others.skip(target - reserved.len()).map(|place| ranked[place].1));
    }
    for name in naive.tensors.keys() {
        assert_eq!(naive.cut(name, &dropped), fused.weights.f32(name).unwrap().to_vec(), "{name} of {:?}", fused.graph);
    }
    assert!(verify::reference(fused.as_member(), &inputs, batch).unwrap().iter().all(|logit| logit.is_finite()));
}

/// Drops units at random through the groups; the same units masked in the whole network must give the same outputs.
fn check_masked(plan: &Plan, seed: u64, factor: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (graphs, states) = members(plan, 1, &mut rng);
    let member = Member { graph: &graphs[0], weights: &states[0] };
    let ensemble = Ensemble::new(vec![member]).unwrap();
    let any = |ensemble: &Ensemble<'_>, group| {
        Ok(vec![(0..ensemble.widths(group)[0]).map(|_| rng.random_range(0.0..1.0)).collect()])
    };
    let mut any = any;
    let targets = targets(&ensemble, factor);
    let selection = fusion::select(&ensemble, &targets, |ensemble, _, group| any(ensemble, group), |_, _| {}).unwrap();
    let pruned = fusion::gather(&ensemble, &selection).unwrap().build().unwrap();

    let naive = Naive::new(&fusion::materialise(&ensemble).unwrap());
    let couplings = &ensemble.couplings()[0];
    let mut dropped = BTreeSet::new();
    for (id, _) in graphs[0].iter().filter(|(id, _)| couplings.rows.contains_key(id)) {
        let units = couplings.rows[&id]
            .iter()
            .flat_map(|segment| (0..segment.len()).map(|at| (segment.owner, segment.first + at / segment.repeat)));
        for ((owner, unit), naive) in units.zip(&naive.units[id.0]) {
            let kept = match owner {
                Owner::Group(group) => selection.kept(group, 0).contains(&unit),
                Owner::Input | Owner::Output => true,
            };
            dropped.extend((!kept).then_some(*naive));
        }
    }
    let inputs = noise(&graphs[0], 2, &mut rng);
    let masked = naive.masked(&dropped);
    let expected = verify::reference(Member { graph: &graphs[0], weights: &masked }, &inputs, 2).unwrap();
    let got = verify::reference(pruned.as_member(), &inputs, 2).unwrap();
    assert!(verify::Agreement::of(&expected, &got).holds(), "{expected:?} {got:?} of {:?}", pruned.graph);
}

/// A network from nodes that each read the one before, or those that are named; weights at random.
/// Puts the units of every group in another order: the same outputs.
fn check_permuted(plan: &Plan, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (graphs, states) = members(plan, 1, &mut rng);
    let ensemble = Ensemble::new(vec![Member { graph: &graphs[0], weights: &states[0] }]).unwrap();
    if ensemble.couplings()[0].divided(&graphs[0]).is_some() {
        return;
    }
    let mut order = |width: usize| {
        let mut order: Vec<usize> = (0..width).collect();
        order.shuffle(&mut rng);
        order
    };
    let groups = (0..ensemble.groups()).map(|group| order(ensemble.widths(GroupId(group))[0])).collect();
    let alignment = Alignment { groups, outputs: (0..graphs[0].classes()).collect() };
    let permuted = align::permuted(&ensemble, vec![alignment]);
    let inputs = noise(&graphs[0], 2, &mut rng);
    let expected = verify::reference(ensemble.members()[0], &inputs, 2).unwrap();
    let got = verify::reference(Member { graph: &graphs[0], weights: &permuted[0] }, &inputs, 2).unwrap();
    assert!(verify::Agreement::of(&expected, &got).holds(), "{expected:?} {got:?} of {:?}", graphs[0]);
}

fn network(nodes: &serde_json::Value, rng: &mut ChaCha8Rng) -> (Graph, StateDict) {
    let graph = engraft::model::graph::json::parse(&serde_json::json!({ "nodes": nodes })).unwrap();
    let weights = weights(&graph, rng);
    (graph, weights)
}

/// The virtual concatenation of two such networks equals their mean.
fn check_concatenation(networks: &[(Graph, StateDict)], rng: &mut ChaCha8Rng) {
    let list = networks.iter().map(|(graph, weights)| Member { graph, weights });
    let ensemble = Ensemble::new(list.collect()).unwrap();
    let inputs = noise(&networks[0].0, 3, rng);
    let mean = verify::mean_of_members(&ensemble, &inputs, 3).unwrap();
    let stacked = verify::concatenation(&ensemble, &inputs, 3).unwrap();
    assert!(verify::Agreement::of(&mean, &stacked).holds(), "{mean:?} {stacked:?}");
    assert!(mean.iter().any(|logit| logit.abs() > 1e-3), "{mean:?}");
}

#[test]
fn normalisations_over_channels_see_one_member_at_a_time() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut convnext = |width: usize, inner: usize| {
        let nodes = serde_json::json!([
            {"name": "input", "op": "input", "shape": [3, 8, 8]},
            {"name": "stem", "op": "conv2d", "in_channels": 3, "out_channels": width, "kernel": 2, "stride": 2},
            {"name": "norm", "op": "layer_norm", "features": width},
            {"name": "depthwise", "op": "conv2d", "in_channels": width, "out_channels": width, "groups": width,
             "kernel": 3, "padding": 1, "bias": true},
            {"name": "inner_norm", "op": "layer_norm", "features": width},
            {"name": "expand", "op": "linear", "in_features": width, "out_features": inner, "bias": true},
            {"name": "gelu", "op": "gelu"},
            {"name": "project", "op": "linear", "in_features": inner, "out_features": width},
            {"name": "scale", "op": "layer_scale", "features": width, "unit_axes": 2},
            {"name": "sum", "op": "add", "inputs": ["scale", "norm"]},
            {"name": "groups", "op": "group_norm", "groups": width / 2, "features": width},
            {"name": "one_group", "op": "group_norm", "groups": 1, "features": width},
            {"name": "softmax", "op": "softmax"},
            {"name": "mean", "op": "global_avg_pool2d"},
            {"name": "flatten", "op": "flatten"},
            {"name": "head", "op": "linear", "in_features": width, "out_features": 4, "bias": true},
        ]);
        network(&nodes, &mut rng)
    };
    let networks = [convnext(4, 7), convnext(6, 3)];
    check_concatenation(&networks, &mut rng);
    let list: Vec<Member<'_>> = networks.iter().map(|(graph, weights)| Member { graph, weights }).collect();
    let fused = fusion::joint(&list, &[2, 3]).unwrap();
    assert_eq!(fused.weights.f32("depthwise.weight").unwrap().len() / 9, fused.weights.f32("scale").unwrap().len());
    assert_eq!(fused.graph.shape(fused.graph.output()), &vec![4]);
}

#[test]
fn attentions_are_concatenated_head_by_head_and_not_pruned() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut transformer = |width: usize, projections: serde_json::Value| {
        let nodes = serde_json::json!([
            {"name": "input", "op": "input", "shape": [1, 6, 6]},
            {"name": "patches", "op": "conv2d", "in_channels": 1, "out_channels": width, "kernel": 2, "stride": 2},
            {"name": "tokens", "op": "reshape", "positions": [9]},
            {"name": "class_token", "op": "class_token", "features": width},
            {"name": "pos_embed", "op": "positional_embedding", "features": width, "tokens": 10},
            {"name": "norm1", "op": "layer_norm", "features": width},
            {"name": "attn", "op": "attention", "features": width, "heads": 2, "projections": projections},
            {"name": "sum1", "op": "add", "inputs": ["attn", "pos_embed"]},
            {"name": "fc1", "op": "linear", "in_features": width, "out_features": 5, "bias": true},
            {"name": "gelu", "op": "gelu"},
            {"name": "fc2", "op": "linear", "in_features": 5, "out_features": width, "bias": true},
            {"name": "sum2", "op": "add", "inputs": ["fc2", "sum1"]},
            {"name": "first", "op": "token_select", "index": 0},
            {"name": "head", "op": "linear", "in_features": width, "out_features": 3, "bias": true},
        ]);
        network(&nodes, &mut rng)
    };
    let packed = serde_json::json!({"weight": "in_proj_weight", "bias": "in_proj_bias", "output": "out_proj"});
    let separate = serde_json::json!({"query": "q", "key": "k", "value": "v", "output": "o"});
    for projections in [packed, separate] {
        let networks = [transformer(4, projections.clone()), transformer(6, projections)];
        check_concatenation(&networks, &mut ChaCha8Rng::seed_from_u64(7));
        let list: Vec<Member<'_>> = networks.iter().map(|(graph, weights)| Member { graph, weights }).collect();
        let refused = fusion::joint(&list, &[5, 5]).unwrap_err().to_string();
        assert!(refused.contains("`attn`") && refused.contains("not supported yet"), "{refused}");
        let graphs: Vec<Graph> = networks.iter().map(|(graph, _)| graph.clone()).collect();
        let problem = FusionPlan::new(&graphs, &Target::default(), &Precision::default(), None).unwrap_err();
        assert_eq!(problem.code, Code::NotSupportedYet);
        assert!(problem.detail.contains("`attn`"), "{}", problem.detail);
        let halved = fusion::joint(&list[..1], &[4, 2]).unwrap();
        assert_eq!(halved.weights.f32("fc1.weight").unwrap().len(), 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn budgets_are_met_to_the_last_step(
        plan in plan(), count in 1_usize..4, seed in any::<u64>(), share in 0.001..1.1,
        resource in prop::sample::select(Resource::ALL.to_vec()), round_to in 1_usize..5, curves in any::<Option<u64>>(),
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        check_budget(&topology(&plan, count, &mut rng), resource, share, round_to, curves);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streamed_fusion_equals_the_naive_one(plan in plan(), members in 1_usize..4, seed in any::<u64>(), factor in 0.1..1.0) {
        check(&plan, members, seed, factor);
    }

    #[test]
    fn a_pruned_network_equals_the_masked_one(plan in plan(), seed in any::<u64>(), factor in 0.1..1.0) {
        check_masked(&plan, seed, factor);
    }

    #[test]
    fn a_network_with_its_units_in_another_order_is_the_same(plan in plan(), seed in any::<u64>()) {
        check_permuted(&plan, seed);
    }
}
