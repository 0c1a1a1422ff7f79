//! Compensation without data, for chains of Linear, BatchNorm, ReLU and leaky ReLU: inputs are taken for independent Gaussians,
//! and second moments pass through ReLU by the arc-cosine kernel (Cho & Saul 2009):
//! `E[relu(u) relu(v)] = sqrt(C_uu C_vv) / 2π (sin θ + (π - θ) cos θ)`, `cos θ = C_uv / sqrt(C_uu C_vv)`, for u, v of mean 0
//! and second moments C. Before each ReLU the activations are taken for Gaussian again.

use std::borrow::Cow;

use rayon::prelude::*;

use super::joint::{Joint, rectified, shifted, threads, through_blocks};
use super::solve::solve;
use super::{Compensated, altered_layers, copy};
use crate::fusion::assemble::routes::Routes;
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
