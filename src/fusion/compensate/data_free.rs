//! Compensation without data, for chains of Linear, BatchNorm, ReLU and leaky ReLU: inputs are taken for independent Gaussians,
//! and second moments pass through ReLU by the arc-cosine kernel (Cho & Saul 2009):
//! `E[relu(u) relu(v)] = sqrt(C_uu C_vv) / 2π (sin θ + (π - θ) cos θ)`, `cos θ = C_uv / sqrt(C_uu C_vv)`, for u, v of mean 0
//! and second moments C. Before each ReLU the activations are taken for Gaussian again.

use std::borrow::Cow;
use std::f64::consts::PI;
use std::num::NonZeroUsize;

use rayon::prelude::*;

use super::solve::solve;
use super::{Compensated, altered_layers, copy};
use crate::fusion::assemble::routes::Routes;
use crate::fusion::calibration::moments::Normal;
use crate::fusion::calibration::{Monitor, mixes, only_reader};
use crate::fusion::{Ensemble, Fused, FusionError, Member, Selection};
use crate::kernels::{Matrix, matmul};
use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::groups::CouplingError;
use crate::model::refit::{Compensation, FitForm, MomentSource, RefittedLayer};
use crate::tensors::Weights;

/// The ridge, relative to the mean of the diagonal: there is no noise to guard against, only rounding and the model's error.
const RIDGE: f64 = 1e-3;
/// Most units of all members and the fused network in one layer.
const MOST_UNITS: usize = 12_288;

/// Second moments and means of one layer's units: those of all members, then the fused network's. Moments are sums of products of thousands of
/// rounded weights: single precision is as good for them.
struct Joint {
    moments: Vec<f32>,
    means: Vec<f64>,
    /// Units of each network.
    widths: Vec<usize>,
}

impl Joint {
    /// Index of the fused network's first unit.
    fn fused(&self) -> usize {
        self.means.len() - self.widths.last().copied().unwrap_or(0)
    }

    /// The least-squares system whose features are the fused network's units, for `targets` (rows on all units).
    fn normal(&self, targets: &[f32], centred: bool) -> Normal {
        let (n, first) = (self.means.len(), self.fused());
        let (rows, features) = (targets.len() / n.max(1), n - first);
        let mut moments = self.moments.clone();
        if centred {
            for (row, mean) in moments.chunks_exact_mut(n.max(1)).zip(&self.means) {
                row.iter_mut().zip(&self.means).for_each(|(moment, other)| *moment -= (mean * other) as f32);
            }
        }
        let mut products = vec![0.0; targets.len()];
        matmul(threads(), Matrix::new(targets, rows, n), Matrix::new(&moments, n, n), &mut products, false);
        let lines = || products.chunks_exact(n.max(1));
        let dot = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let features_of = |row: &[f32]| row[first..].iter().copied().map(f64::from).collect::<Vec<f64>>();
        Normal {
            features,
            targets: rows,
            xx: moments.chunks_exact(n.max(1)).skip(first).flat_map(features_of).collect(),
            yx: lines().flat_map(features_of).collect(),
            yy: lines().zip(targets.chunks_exact(n.max(1))).map(dot).collect(),
        }
    }

    /// What is missing in the mean of each output when `refitted` takes the place of `targets`.
    fn shift(&self, targets: &[f32], refitted: &[f64]) -> Vec<f64> {
        let (n, first) = (self.means.len(), self.fused());
        let own = self.means[first..].iter();
        let missing = |new: &[f64]| new.iter().zip(own.clone()).map(|(w, mean)| w * mean).sum::<f64>();
        let rows = targets.chunks_exact(n.max(1)).zip(refitted.chunks_exact((n - first).max(1)));
        rows.map(|(target, new)| dot(target, &self.means) - missing(new)).collect()
    }
}

/// A row of weights on units with these means.
fn dot(row: &[f32], means: &[f64]) -> f64 {
    row.iter().zip(means).map(|(weight, mean)| f64::from(*weight) * mean).sum()
}

/// What flows through the chain.
enum State {
    /// The network's inputs: uncorrelated, of unit variance.
    Input,
    /// Units of a layer.
    Units(Joint),
}

/// Refits every layer of `fused` (gathered from `selection`) that reads pruned units.
///
/// # Errors
/// When the network is no chain of such layers, weights cannot be read, or `monitor` says to stop.
pub fn data_free(
    ensemble: &Ensemble<'_>,
    selection: &Selection,
    fused: &Fused<impl Weights>,
    monitor: Monitor<'_>,
) -> Result<Compensated, FusionError> {
    let graph = &fused.graph;
    let layers = altered_layers(ensemble, selection);
    let mut result = Compensated {
        weights: copy(fused)?,
        done: Compensation {
            source: MomentSource::DataFree,
            samples: 0,
            layers: Vec::new(),
            output_layer: None,
            kept: true,
        },
        warnings: Vec::new(),
    };
    if let Some(node) = too_wide(ensemble, graph) {
        let name = &node.name;
        result
            .warnings
            .push(format!("layer `{name}` is too wide for the data-free compensation; nothing was refitted"));
        return Ok(result);
    }
    let mut state = State::Input;
    for (id, node) in graph.iter().skip(1) {
        if !monitor(id.0 as f64 / graph.nodes().len() as f64) {
            return Err(FusionError::Stopped);
        }
        let mut chain = Chain { ensemble, selection, graph, result: &mut result };
        state = match (&node.op, state) {
            (Op::Linear { .. }, State::Units(joint)) if layers.contains(&id) => chain.refit(id, joint)?,
            (Op::Linear { .. }, state) => chain.linear(id, &state)?,
            (Op::BatchNorm { eps, .. }, State::Units(joint)) => chain.normalise(node, *eps, joint)?,
            (Op::Relu, State::Units(joint)) => State::Units(rectified(joint, 0.0)),
            (Op::LeakyRelu { negative_slope }, State::Units(joint)) => State::Units(rectified(joint, *negative_slope)),
            (Op::Flatten | Op::Dropout { .. }, state) => state,
            _ => return Err(no_chain(node)),
        };
    }
    Ok(result)
}

/// The first layer with more units than this method handles.
fn too_wide<'g>(ensemble: &Ensemble<'_>, graph: &'g Graph) -> Option<&'g Node> {
    graph.iter().map(|(id, _)| id).skip(1).find_map(|id| {
        let units = ensemble.members().iter().map(|member| member.graph.shape(id)[0]).sum::<usize>();
        (mixes(&graph.node(id).op) && units + graph.shape(id)[0] > MOST_UNITS).then(|| graph.node(id))
    })
}

fn no_chain(node: &Node) -> FusionError {
    let detail = "compensation without data needs a chain of Linear, BatchNorm, ReLU and leaky ReLU; name a dataset, or set `compensate` to `none`";
    CouplingError { node: node.name.clone(), detail: detail.to_owned() }.into()
}

/// The chain on its way.
struct Chain<'a, 'r> {
    ensemble: &'a Ensemble<'a>,
    selection: &'a Selection,
    graph: &'a Graph,
    result: &'r mut Compensated,
}

impl Chain<'_, '_> {
    /// A tensor of every member, then of the fused network; empty where there is none.
    fn tensors(&self, node: &Node, role: &str, exists: bool) -> Result<Vec<Cow<'_, [f32]>>, FusionError> {
        let name = format!("{}.{role}", node.name);
        let members = self.ensemble.members().iter().map(|Member { weights, .. }| *weights);
        let all = members.chain([&self.result.weights as &dyn Weights]);
        all.map(|weights| if exists { Ok(weights.f32(&name)?) } else { Ok(Cow::Borrowed(&[][..])) }).collect()
    }

    /// The same, one after another, in double precision.
    fn values(&self, node: &Node, role: &str, exists: bool) -> Result<Vec<f64>, FusionError> {
        let tensors = self.tensors(node, role, exists)?;
        Ok(tensors.iter().flat_map(|tensor| tensor.iter()).copied().map(f64::from).collect())
    }

    /// Refits the layer `id`, then passes it.
    fn refit(&mut self, id: NodeId, joint: Joint) -> Result<State, FusionError> {
        let node = self.graph.node(id);
        let Op::Linear { in_features, out_features, bias } = node.op else { return Err(no_chain(node)) };
        let absorber = if bias {
            Some((id, "bias", 1.0))
        } else {
            let reader = only_reader(self.graph, id);
            let norm = reader.filter(|reader| matches!(self.graph.node(*reader).op, Op::BatchNorm { .. }));
            norm.map(|norm| (norm, "running_mean", -1.0))
        };
        let targets = self.targets(id, &joint, &self.tensors(node, "weight", true)?);
        let normal = joint.normal(&targets, absorber.is_some());
        let Some((weight, ridge)) = solve(&normal, RIDGE) else { return self.linear(id, &State::Units(joint)) };
        let explained: f64 = weight.iter().zip(&normal.yx).map(|(w, c)| w * c).sum();
        let total: f64 = normal.yy.iter().sum();
        self.result.done.layers.push(RefittedLayer {
            layer: node.name.clone(),
            system: FitForm::Full,
            unknowns: in_features,
            rows: 0,
            ridge,
            relative_residual: if total > 0.0 { (1.0 - explained / total).max(0.0) } else { 0.0 },
        });
        let narrow: Vec<f32> = weight.iter().map(|weight| *weight as f32).collect();
        self.result.weights.insert_f32(&format!("{}.weight", node.name), &[out_features, in_features], narrow)?;
        if let Some((absorber, role, sign)) = absorber {
            let shift = joint.shift(&targets, &weight);
            let tensor = format!("{}.{role}", self.graph.node(absorber).name);
            let old = self.result.weights.f32(&tensor)?.into_owned();
            let new: Vec<f32> = old.iter().zip(shift).map(|(old, by)| (f64::from(*old) + sign * by) as f32).collect();
            self.result.weights.insert_f32(&tensor, &[new.len()], new)?;
        }
        self.linear(id, &State::Units(joint))
    }

    /// The kept rows of all members, as one matrix on the units of all networks.
    fn targets(&self, id: NodeId, joint: &Joint, weights: &[Cow<'_, [f32]>]) -> Vec<f32> {
        let routes = Routes::rows(self.ensemble, id, self.selection);
        let n = joint.means.len();
        let mut targets = vec![0.0; routes.len * n];
        let writes = self.ensemble.is_output_layer(id);
        let mut offset = 0;
        for (member, runs) in routes.runs.iter().enumerate() {
            let width = joint.widths[member];
            for (row, target) in runs.iter().flat_map(|run| (0..run.len).map(|at| (run.source + at, run.target + at))) {
                let line = &mut targets[target * n + offset..target * n + offset + width];
                let own = &weights[member][row * width..(row + 1) * width];
                let share = if writes { self.ensemble.shares().of(member, row) as f32 } else { 1.0 };
                line.iter_mut().zip(own).for_each(|(target, weight)| *target = share * weight);
            }
            offset += width;
        }
        targets
    }

    /// Moments behind a matrix: `W G Wᵀ`, and what the bias adds.
    fn linear(&self, id: NodeId, state: &State) -> Result<State, FusionError> {
        let node = self.graph.node(id);
        let Op::Linear { bias, .. } = node.op else { return Err(no_chain(node)) };
        let weights = self.tensors(node, "weight", true)?;
        let biases = self.values(node, "bias", bias)?;
        let graphs = self.ensemble.members().iter().map(|member| member.graph).chain([self.graph]);
        let widths: Vec<usize> = graphs.map(|graph| graph.shape(id)[0]).collect();
        let (moments, mut means) = match state {
            State::Input => {
                let rows: usize = widths.iter().sum();
                (self.of_inputs(id, &weights, &widths), vec![0.0; rows])
            }
            State::Units(joint) => through_blocks(joint, &weights, &widths),
        };
        let mut joint = Joint { moments, means: means.clone(), widths };
        if bias {
            joint = shifted(joint, &biases);
            means.clone_from(&joint.means);
        }
        Ok(State::Units(Joint { means, ..joint }))
    }

    /// `W Wᵀ` for the rows of all networks, which read the same inputs. But for an output layer, the fused network's rows are rows of members, and so
    /// are their moments.
    fn of_inputs(&self, id: NodeId, weights: &[Cow<'_, [f32]>], widths: &[usize]) -> Vec<f32> {
        let square = |weights: &[Cow<'_, [f32]>], rows: usize| {
            let stacked = weights.concat();
            let matrix = Matrix::new(&stacked, rows, stacked.len() / rows.max(1));
            let mut moments = vec![0.0; rows * rows];
            matmul(threads(), matrix, matrix.transposed(), &mut moments, false);
            moments
        };
        let all: usize = widths.iter().sum();
        let [members @ .., fused] = widths else { return Vec::new() };
        if self.ensemble.is_output_layer(id) {
            return square(weights, all);
        }
        let own = all - fused;
        let moments = square(&weights[..members.len()], own);
        // Which row of the members each row of all networks is.
        let mut source: Vec<usize> = (0..own).chain(vec![0; *fused]).collect();
        let mut offset = 0;
        for (runs, width) in Routes::rows(self.ensemble, id, self.selection).runs.iter().zip(members) {
            for (from, to) in runs.iter().flat_map(|run| (0..run.len).map(|at| (run.source + at, run.target + at))) {
                source[own + to] = offset + from;
            }
            offset += width;
        }
        let mut joint = vec![0.0; all * all];
        joint.par_chunks_exact_mut(all.max(1)).zip(&source).for_each(|(line, row)| {
            let of_row = &moments[row * own..(row + 1) * own];
            line.iter_mut().zip(&source).for_each(|(moment, column)| *moment = of_row[*column]);
        });
        joint
    }

    /// Moments behind a BatchNorm with running statistics.
    fn normalise(&self, node: &Node, eps: f64, mut joint: Joint) -> Result<State, FusionError> {
        let concat = |role| self.values(node, role, true);
        let (mean, var) = (concat("running_mean")?, concat("running_var")?);
        let (weight, bias) = match node.op {
            Op::BatchNorm { affine: false, .. } => (vec![1.0; var.len()], vec![0.0; var.len()]),
            _ => (concat("weight")?, concat("bias")?),
        };
        let factor: Vec<f64> = weight.iter().zip(&var).map(|(weight, var)| weight / (var + eps).sqrt()).collect();
        let summand: Vec<f64> =
            bias.iter().zip(mean.iter().zip(&factor)).map(|(bias, (mean, factor))| bias - mean * factor).collect();
        let n = factor.len();
        for (i, row) in joint.moments.chunks_exact_mut(n.max(1)).enumerate() {
            row.iter_mut().zip(&factor).for_each(|(moment, other)| *moment *= (factor[i] * other) as f32);
        }
        joint.means.iter_mut().zip(&factor).for_each(|(mean, factor)| *mean *= factor);
        Ok(State::Units(shifted(joint, &summand)))
    }
}

/// Moments and means of `z + b`.
fn shifted(mut joint: Joint, by: &[f64]) -> Joint {
    let n = by.len();
    for (i, row) in joint.moments.chunks_exact_mut(n.max(1)).enumerate() {
        for (j, moment) in row.iter_mut().enumerate() {
            *moment += (joint.means[i] * by[j] + by[i] * joint.means[j] + by[i] * by[j]) as f32;
        }
    }
    joint.means.iter_mut().zip(by).for_each(|(mean, by)| *mean += by);
    joint
}

/// `W G Wᵀ` and `W μ` for the block-diagonal W of all networks.
fn through_blocks(joint: &Joint, weights: &[Cow<'_, [f32]>], widths: &[usize]) -> (Vec<f32>, Vec<f64>) {
    let (before, after) = (joint.means.len(), widths.iter().sum::<usize>());
    // Half the product, W G, then the other half from its transpose: G is symmetric.
    let half = |moments: &[f32], columns: usize| {
        let mut product = vec![0.0; after * columns];
        let (mut source, mut target) = (0, 0);
        for (weight, (width, out)) in weights.iter().zip(joint.widths.iter().zip(widths)) {
            let rows = Matrix::new(&moments[source * columns..(source + width) * columns], *width, columns);
            let part = &mut product[target * columns..(target + out) * columns];
            matmul(threads(), Matrix::new(weight, *out, *width), rows, part, false);
            source += width;
            target += out;
        }
        product
    };
    let left = half(&joint.moments, before);
    let mut turned = vec![0.0; left.len()];
    for (i, row) in left.chunks_exact(before.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, value)| turned[j * after + i] = *value);
    }
    let mut means = Vec::with_capacity(after);
    let mut source = 0;
    for (weight, width) in weights.iter().zip(&joint.widths) {
        let of_network = &joint.means[source..source + width];
        means.extend(weight.chunks_exact((*width).max(1)).map(|row| dot(row, of_network)));
        source += width;
    }
    (half(&turned, after), means)
}

/// The moments of `max(x, 0) + a min(x, 0)` with the slope a: since it is `a x + (1 - a) max(x, 0)`, and `E[u max(v, 0)]` is
/// half of `E[u v]`, they are `a C + (1 - a)² K` with the arc-cosine kernel K of degree 1.
fn rectified(joint: Joint, slope: f64) -> Joint {
    let n = joint.means.len();
    let deviations: Vec<f64> = (0..n).map(|i| f64::from(joint.moments[i * n + i]).max(0.0).sqrt()).collect();
    let mut moments = joint.moments;
    moments.par_chunks_exact_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        for (moment, other) in row.iter_mut().zip(&deviations) {
            let scale = deviations[i] * other;
            let product = f64::from(*moment);
            let cosine = if scale > 0.0 { (product / scale).clamp(-1.0, 1.0) } else { 0.0 };
            let sine = (1.0 - cosine * cosine).sqrt();
            let kernel = scale / (2.0 * PI) * (sine + (PI - cosine.acos()) * cosine);
            *moment = (slope * product + (1.0 - slope).powi(2) * kernel) as f32;
        }
    });
    let means = deviations.iter().map(|deviation| (1.0 - slope) * deviation / (2.0 * PI).sqrt()).collect();
    Joint { moments, means, widths: joint.widths }
}

fn threads() -> NonZeroUsize {
    NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_kernel_gives_the_moments_of_rectified_gaussians() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut normal = || (0..12).map(|_| rng.random::<f64>() - 0.5).sum::<f64>();
        let (a, b, c) = (1.5, -0.6, 0.8); // u = a g, v = b g + c h
        for slope in [0.0, 0.3] {
            let moments = [a * a, a * b, a * b, b * b + c * c].map(|moment| moment as f32).to_vec();
            let got = rectified(Joint { moments, means: vec![0.0; 2], widths: vec![2] }, slope);
            let (mut mean, mut square, mut cross) = (0.0, 0.0, 0.0);
            let count = 200_000;
            let function = |x: f64| if x < 0.0 { slope * x } else { x };
            for _ in 0..count {
                let (g, h) = (normal(), normal());
                let (u, v) = (function(a * g), function(b * g + c * h));
                (mean, square, cross) = (mean + u, square + u * u, cross + u * v);
            }
            let n = f64::from(count);
            assert!((got.means[0] - mean / n).abs() < 0.01, "{}", got.means[0]);
            assert!((f64::from(got.moments[0]) - square / n).abs() < 0.02, "{}", got.moments[0]);
            assert!((f64::from(got.moments[1]) - cross / n).abs() < 0.01, "{} for {}", got.moments[1], cross / n);
        }
    }
}
