//! Compensation: after selection, each layer that reads kept units is refitted in closed form, so that from them it computes
//! what it would from all units.
//!
//! For a layer with weights `W_i` of the members i, true activations `a_i` and the fused network's activations `â_S`:
//! `W' = (Σ W_i E[a_i â_Sᵀ]) (E[â_S â_Sᵀ] + λ mean(diag) I)⁻¹`. Layers are refitted from the input to the output, each on
//! what the fused network computes up to it, so later layers repair the errors of earlier ones. Layers with a bias (or with
//! a BatchNorm behind them, whose running mean takes it) use centred moments and a bias of their own. Since
//! `W_i E[a_i â_Sᵀ] = E[(W_i a_i) â_Sᵀ]`, full systems take the members' outputs as targets, of kept rows only.
//! Related: Singh & Alistarh 2020 and the reconstruction of pruned layers in `ThiNet` (Luo et al. 2017); no gradient is used.

mod data_free;
mod solve;
mod system;

use solve::{Solution, fit};
use system::{Refit, System};

use crate::fusion::calibration::moments::Moments;
use crate::fusion::calibration::{HELD_BYTES, Inputs, Monitor, Network, Sampling, Stream, is_dense, only_reader};
use crate::fusion::{Ensemble, Fused, FusionError, Selection};
use crate::job::calibration::PER_UNKNOWN;
use crate::job::compensation::{self, Compensation, RefittedLayer, Source};
use crate::job::request::Convolutions;
use crate::model::graph::{Graph, NodeId, Op};
use crate::model::groups::Owner;
use crate::model::header::Dtype;
use crate::model::parameters;
use crate::tensors::{Elements, StateDict, Weights};

pub use data_free::data_free;

/// One batch in so many is held out of the fits, to choose the ridge by.
const HELD_OUT: usize = 5;

/// How to compensate with calibration data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How inputs are drawn.
    pub sampling: Sampling,
    /// What the unknowns of a convolution are.
    pub convolutions: Convolutions,
    /// The ridge, relative to the mean of the diagonal; chosen on held-out examples by default.
    pub ridge: Option<f64>,
}

/// The fused network's weights after compensation.
#[derive(Debug)]
pub struct Compensated {
    /// All its weights.
    pub weights: StateDict,
    /// What was done.
    pub done: Compensation,
    /// What could not be done, in words.
    pub warnings: Vec<String>,
}

/// Refits every layer of `fused` (gathered from `selection`) that reads something other than the members' layers do.
///
/// # Errors
/// When weights cannot be read, an operation is not supported, or `monitor` says to stop.
pub fn calibrate(
    ensemble: &Ensemble<'_>,
    selection: &Selection,
    fused: &Fused<impl Weights>,
    inputs: &dyn Inputs,
    options: &Options,
    monitor: Monitor<'_>,
) -> Result<Compensated, FusionError> {
    calibrate_within(HELD_BYTES, ensemble, selection, fused, inputs, options, monitor)
}

/// As [`calibrate`], with so many bytes of activations kept between two layers.
fn calibrate_within(
    held_bytes: usize,
    ensemble: &Ensemble<'_>,
    selection: &Selection,
    fused: &Fused<impl Weights>,
    inputs: &dyn Inputs,
    options: &Options,
    monitor: Monitor<'_>,
) -> Result<Compensated, FusionError> {
    let layers = altered_layers(ensemble, selection);
    let mut warnings = Vec::new();
    let mut systems = Vec::new();
    for id in layers {
        match System::new(ensemble, selection, &fused.graph, id, options.convolutions) {
            Some(system) => systems.push(system),
            None => warnings.push(format!(
                "layer `{}` reads too many features to be refitted; its weights are the members' own",
                fused.graph.node(id).name
            )),
        }
    }
    let unknowns = systems.iter().map(|system| system.unknowns).max().unwrap_or(1);
    let graphs = || ensemble.members().iter().map(|member| member.graph).chain([&fused.graph]);
    let chosen = options.sampling.draw(inputs, PER_UNKNOWN * unknowns, &graphs().collect::<Vec<_>>());
    let widest = graphs().max_by_key(|graph| activations(graph)).unwrap_or(&fused.graph);
    let mut work = Refitter {
        networks: ensemble.members().iter().map(|member| Network::of(*member)).collect::<Result<_, _>>()?,
        stream: Stream::new(inputs, &chosen, widest, held_bytes),
        weights: copy(fused)?,
        graph: &fused.graph,
        options,
    };
    work.networks.push(Network::of(fused.as_member())?);
    let mut refitted = Vec::new();
    for (index, system) in systems.iter().enumerate() {
        refitted.extend(work.layer(system, (index, systems.len()), monitor)?);
    }
    let done = Compensation { source: Source::Calibration, samples: chosen.len(), layers: refitted, kept: true };
    Ok(Compensated { weights: work.weights, done, warnings })
}

/// A fused network's tensors, in memory; f64 where its file has that, so that what is not refitted is written back as it was.
///
/// # Errors
/// When they cannot be read.
pub fn copy(fused: &Fused<impl Weights>) -> Result<StateDict, FusionError> {
    let mut weights = StateDict::default();
    for parameter in parameters::of_graph(&fused.graph) {
        let elements = fused.weights.elements(&parameter.name)?;
        if matches!(elements, Elements::Bytes { dtype: Dtype::F64, .. }) {
            let mut values = vec![0.0_f64; elements.len()];
            elements.copy_to(0, &mut values);
            weights.insert_f64(&parameter.name, &parameter.shape, values)?;
        } else {
            let mut values = vec![0.0_f32; elements.len()];
            elements.copy_to(0, &mut values);
            weights.insert_f32(&parameter.name, &parameter.shape, values)?;
        }
    }
    for node in fused.graph.nodes() {
        let counter = parameters::counter(&node.name);
        if let Some(count) = fused.weights.counter(&counter) {
            weights.insert_counter(&counter, count)?;
        }
    }
    Ok(weights)
}

/// Dense layers that read something else in the fused network than in the members, in order of computation: pruned units, or
/// units computed from pruned ones.
fn altered_layers(ensemble: &Ensemble<'_>, selection: &Selection) -> Vec<NodeId> {
    let graph = ensemble.graph();
    let mut altered: Vec<bool> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.iter() {
        let mut differs = node.inputs.iter().any(|input| altered[input.0]);
        if is_dense(&node.op) {
            differs |= ensemble.columns(0, id).iter().any(|segment| {
                matches!(segment.owner, Owner::Group(group)
                    if selection.width(group) < ensemble.widths(group).iter().sum())
            });
        }
        altered.push(differs);
    }
    graph.iter().filter(|(id, node)| altered[id.0] && is_dense(&node.op)).map(|(id, _)| id).collect()
}

/// Elements of the largest activation.
fn activations(graph: &Graph) -> usize {
    graph.iter().map(|(id, _)| graph.shape(id).iter().product()).max().unwrap_or(0)
}

/// Everything that layers are refitted with, and the weights so far.
struct Refitter<'a> {
    /// The members, then the fused network.
    networks: Vec<Network<'a>>,
    stream: Stream<'a>,
    weights: StateDict,
    graph: &'a Graph,
    options: &'a Options,
}

impl Refitter<'_> {
    /// Refits one layer; `None` where its features are all 0.
    fn layer(
        &mut self,
        system: &System<'_>,
        place: (usize, usize),
        monitor: Monitor<'_>,
    ) -> Result<Option<RefittedLayer>, FusionError> {
        let mut moments = [0, 1].map(|_| Moments::new(system.unknowns, system.targets()));
        let holds_out = self.stream.len() >= HELD_OUT;
        let (networks, sampling) = (&self.networks, &self.options.sampling);
        self.stream.pass(networks, system.id, place, monitor, |batch, work| {
            let (features, targets) = system.gather(batch, networks, sampling, work)?;
            let part = usize::from(holds_out && batch.index % HELD_OUT == HELD_OUT - 1);
            moments[part].add(&features, &targets, work);
            Ok(())
        })?;
        let [fitted, held_out] = moments;
        let rows = fitted.rows() + held_out.rows();
        let absorber = self.absorber(system.id);
        let Some(solution) = fit(fitted, &held_out, absorber.is_some(), self.options.ridge) else { return Ok(None) };
        let refit = system.refit(&solution, &self.networks);
        self.apply(system, refit, absorber)?;
        Ok(Some(self.told(system, &solution, rows)))
    }

    fn told(&self, system: &System<'_>, solution: &Solution, rows: usize) -> RefittedLayer {
        let full = system.fits_bias();
        RefittedLayer {
            layer: self.graph.node(system.id).name.clone(),
            system: if full { compensation::System::Full } else { compensation::System::ChannelShared },
            unknowns: system.unknowns,
            rows,
            ridge: solution.ridge,
            relative_residual: solution.residual,
        }
    }

    /// Who takes a constant that the fit adds to the layer's outputs: the layer's own bias, or the running mean of the
    /// BatchNorm behind it.
    fn absorber(&self, id: NodeId) -> Option<NodeId> {
        match self.graph.node(id).op {
            Op::Linear { bias: true, .. } | Op::Conv2d { bias: true, .. } => Some(id),
            _ => {
                only_reader(self.graph, id).filter(|reader| matches!(self.graph.node(*reader).op, Op::BatchNorm { .. }))
            }
        }
    }

    /// Writes the refitted weights, and lets the running network have them.
    fn apply(&mut self, system: &System<'_>, refit: Refit, absorber: Option<NodeId>) -> Result<(), FusionError> {
        let name = &self.graph.node(system.id).name;
        let (weight, shape) = pytorch(&self.graph.node(system.id).op, refit.weight);
        self.weights.insert_f32(&format!("{name}.weight"), &shape, weight)?;
        if let Some(absorber) = absorber {
            let (role, sign) = if absorber == system.id { ("bias", 1.0) } else { ("running_mean", -1.0) };
            let tensor = format!("{}.{role}", self.graph.node(absorber).name);
            let old = self.weights.f32(&tensor)?.into_owned();
            let replaces = absorber == system.id && system.fits_bias();
            let base = |old: f32| if replaces { 0.0 } else { f64::from(old) };
            let new = old.iter().zip(&refit.shift).map(|(old, shift)| (base(*old) + sign * shift) as f32).collect();
            self.weights.insert_f32(&tensor, &[refit.shift.len()], new)?;
        }
        let fused = self.networks.len() - 1;
        self.networks[fused].reload(system.id, &self.weights)?;
        absorber.map_or(Ok(()), |absorber| self.networks[fused].reload(absorber, &self.weights))
    }
}

/// A weight in PyTorch's order with its shape, from the order out x kernel x in.
fn pytorch(op: &Op, weight: Vec<f32>) -> (Vec<f32>, Vec<usize>) {
    match op {
        Op::Conv2d { in_channels, out_channels, window, .. } => {
            let taps = window.kernel[0] * window.kernel[1];
            let mut reordered = vec![0.0; weight.len()];
            crate::kernels::layout::channels_first(*in_channels, taps, &weight, &mut reordered, false);
            (reordered, vec![*out_channels, *in_channels, window.kernel[0], window.kernel[1]])
        }
        Op::Linear { in_features, out_features, .. } => (weight, vec![*out_features, *in_features]),
        _ => {
            let len = weight.len();
            (weight, vec![len])
        }
    }
}

#[cfg(test)]
mod tests;
