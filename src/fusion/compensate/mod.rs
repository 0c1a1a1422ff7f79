//! Compensation: after selection, each layer that reads kept units is refitted in closed form, so that from them it computes
//! what it would from all units.
//!
//! For a layer with weights `W_i` of the members i, true activations `a_i` and the fused network's activations `â_S`:
//! `W' = (Σ W_i E[a_i â_Sᵀ]) (E[â_S â_Sᵀ] + λ mean(diag) I)⁻¹`. Layers are refitted from the input to the output, each on
//! what the fused network computes up to it, so later layers repair the errors of earlier ones. Layers with a bias (or with
//! a BatchNorm behind them, whose running mean takes it) use centred moments and a bias of their own. Since
//! `W_i E[a_i â_Sᵀ] = E[(W_i a_i) â_Sᵀ]`, full systems take the members' outputs as targets, of kept rows only.
//! Related: Singh & Alistarh 2020 and the reconstruction of pruned layers in `ThiNet` (Luo et al. 2017); no gradient is used.

mod altered;
mod data_free;
mod joint;
mod moments;
mod output_layer;
mod rows;
pub(super) mod solve;
mod system;
pub(super) mod tensors;

use altered::altered_layers;
use output_layer::OutputLayer;
use solve::{LayerFit, fit};
use system::{Refit, System, WeightSet};
use tensors::{joined, put, pytorch};

use crate::cost::calibration::{PER_UNKNOWN, largest_activation};
use crate::exec::statistics::{Statistics, StatisticsDevice};
use crate::fusion::calibration::moments::Moments;
use crate::fusion::calibration::{
    CopiedLayer, HELD_BYTES, LayerwiseNetwork, Monitor, PassCount, Sampling, Stream, UnlabelledInputs, only_reader,
};
use crate::fusion::{Ensemble, Fused, FusionError, Selection};
use crate::model::graph::{Graph, NodeId, Op};
use crate::model::parameters::{self, Role};
use crate::model::refit::{self, Compensation, MomentSource, RefittedLayer};
use crate::settings::{Convolutions, OutputTargets};
use crate::tensors::{StateDict, Weights};

pub use data_free::data_free;
pub use solve::solving_speed;
pub use tensors::copy;

/// How to compensate with calibration data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompensateOptions {
    /// How inputs are drawn.
    pub sampling: Sampling,
    /// What the unknowns of a convolution are.
    pub convolutions: Convolutions,
    /// The ridge, relative to the mean of the diagonal; chosen on held-out examples by default.
    pub ridge: Option<f64>,
    /// What the output layer is refitted to.
    pub output_layer: OutputTargets,
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
    inputs: &dyn UnlabelledInputs,
    options: &CompensateOptions,
    on: &dyn StatisticsDevice,
    monitor: Monitor<'_>,
) -> Result<Compensated, FusionError> {
    let mut one = calibrate_all(ensemble, &[(selection, fused)], inputs, options, on, monitor)?;
    one.pop().ok_or(FusionError::Empty)
}

/// As [`calibrate`], for several selections of the same widths, each with its network: the members run once for all.
///
/// # Errors
/// See [`calibrate`]; when there is none.
pub fn calibrate_all(
    ensemble: &Ensemble<'_>,
    candidates: &[(&Selection, &Fused<impl Weights>)],
    inputs: &dyn UnlabelledInputs,
    options: &CompensateOptions,
    on: &dyn StatisticsDevice,
    monitor: Monitor<'_>,
) -> Result<Vec<Compensated>, FusionError> {
    calibrate_within(HELD_BYTES, ensemble, candidates, inputs, options, on, monitor)
}

/// As [`calibrate_all`], with so many bytes of activations kept between two layers.
fn calibrate_within(
    held_bytes: usize,
    ensemble: &Ensemble<'_>,
    candidates: &[(&Selection, &Fused<impl Weights>)],
    inputs: &dyn UnlabelledInputs,
    options: &CompensateOptions,
    on: &dyn StatisticsDevice,
    monitor: Monitor<'_>,
) -> Result<Vec<Compensated>, FusionError> {
    let (mut work, layers) = Refitter::new(held_bytes, ensemble, candidates, inputs, options, on)?;
    for (index, layer) in layers.iter().enumerate() {
        let count = PassCount { done: index, total: layers.len() };
        work.layer(layer, count, monitor)?;
    }
    Ok(work.candidates)
}

/// A layer that is refitted in some of the candidates.
struct LayerSystems<'a> {
    id: NodeId,
    part: WeightSet,
    /// For each candidate; none where the layer computes what it should.
    systems: Vec<Option<System<'a>>>,
}

/// Everything that layers are refitted with, and the weights so far.
struct Refitter<'a> {
    ensemble: &'a Ensemble<'a>,
    /// The members, then the fused network of each candidate.
    networks: Vec<LayerwiseNetwork<'a>>,
    members: usize,
    stream: Stream<'a>,
    /// Where the networks are, unless they are run by the processor.
    device: Option<Box<dyn Statistics>>,
    candidates: Vec<Compensated>,
    graph: &'a Graph,
    options: &'a CompensateOptions,
}

impl<'a> Refitter<'a> {
    /// All networks and the systems of all layers, in order of computation.
    fn new(
        held_bytes: usize,
        ensemble: &'a Ensemble<'a>,
        candidates: &[(&Selection, &'a Fused<impl Weights>)],
        inputs: &'a dyn UnlabelledInputs,
        options: &'a CompensateOptions,
        on: &dyn StatisticsDevice,
    ) -> Result<(Self, Vec<LayerSystems<'a>>), FusionError> {
        let Some((_, fused)) = candidates.first() else { return Err(FusionError::Empty) };
        let altered: Vec<Vec<NodeId>> =
            candidates.iter().map(|(selection, _)| altered_layers(ensemble, selection)).collect();
        let mut warnings: Vec<Vec<String>> = vec![Vec::new(); candidates.len()];
        let mut layers: Vec<LayerSystems<'a>> = Vec::new();
        let nodes = fused.graph.iter().filter(|(id, _)| altered.iter().any(|altered| altered.contains(id)));
        let parts = nodes.flat_map(|(id, node)| WeightSet::of(&node.op).iter().map(move |part| (id, *part)));
        for (id, part) in parts {
            let mut systems = Vec::with_capacity(candidates.len());
            for (index, (selection, fused)) in candidates.iter().enumerate() {
                if !altered[index].contains(&id) {
                    systems.push(None);
                    continue;
                }
                match System::new(ensemble, selection, &fused.graph, id, part, options.convolutions) {
                    Ok(system) => systems.push(Some(system)),
                    Err(reason) => {
                        let name = &fused.graph.node(id).name;
                        warnings[index].push(format!(
                            "layer `{name}` was not refitted, its weights are the members' own: {reason}"
                        ));
                        systems.push(None);
                    }
                }
            }
            layers.push(LayerSystems { id, part, systems });
        }
        let systems = layers.iter().flat_map(|layer| &layer.systems).flatten();
        let unknowns = systems.map(|system| system.unknowns).max().unwrap_or(1);
        let graphs = || ensemble.members().iter().map(|member| member.graph).chain([&fused.graph]);
        let chosen = options.sampling.draw(inputs, PER_UNKNOWN * unknowns, &graphs().collect::<Vec<_>>());
        let widest = graphs().max_by_key(|graph| largest_activation(graph)).unwrap_or(&fused.graph);
        let mut work = Self {
            ensemble,
            networks: ensemble
                .members()
                .iter()
                .map(|member| LayerwiseNetwork::of(*member))
                .collect::<Result<_, _>>()?,
            members: ensemble.members().len(),
            stream: Stream::new(inputs, &chosen, widest, held_bytes),
            device: None,
            candidates: Vec::new(),
            graph: &fused.graph,
            options,
        };
        for ((_, fused), warnings) in candidates.iter().zip(warnings) {
            work.networks.push(LayerwiseNetwork::of(fused.as_member())?);
            let done = Compensation {
                source: MomentSource::Calibration,
                samples: chosen.len(),
                layers: Vec::new(),
                output_layer: None,
                kept: true,
            };
            work.candidates.push(Compensated { weights: copy(fused)?, done, warnings });
        }
        let selections = candidates.iter().map(|(selection, _)| *selection);
        let copied = work.networks.last().and_then(|fused| CopiedLayer::of(ensemble, fused, selections, &altered));
        work.stream.copy(copied);
        work.open(on, candidates, &layers)?;
        Ok((work, layers))
    }

    /// Refits one layer of every candidate that needs it, but where its features are all 0.
    fn layer(&mut self, layer: &LayerSystems<'_>, count: PassCount, monitor: Monitor<'_>) -> Result<(), FusionError> {
        let id = layer.id;
        let systems: Vec<(usize, &System<'_>)> =
            layer.systems.iter().enumerate().filter_map(|(index, system)| Some((index, system.as_ref()?))).collect();
        let Some((_, first)) = systems.first() else { return Ok(()) };
        let absorber = self.absorber(id, layer.part);
        let mut output_layer = self.output_layer(first, systems.len(), absorber.is_some());
        let moments = self.moments(count, &systems, output_layer.as_mut(), &mut *monitor)?;
        for (place, ((index, system), moments)) in systems.iter().zip(moments).enumerate() {
            let rows = moments[0].iter().map(Moments::rows).sum();
            let Some(fit) = fit(moments, absorber.is_some(), self.options.ridge) else { continue };
            let mut refit = system.refit(&fit, &self.networks);
            if let Some(output_layer) = &output_layer {
                let share = (count.done + 1) as f64 / count.total.max(1) as f64;
                let Some((better, fit)) = output_layer.fit(place, &refit, || monitor(share)) else {
                    return Err(FusionError::Stopped);
                };
                refit = better;
                self.candidates[*index].done.output_layer = Some(fit);
            }
            self.apply(*index, system, refit, absorber)?;
            let layer = self.refitted(system, &fit, rows);
            self.candidates[*index].done.layers.push(layer);
        }
        Ok(())
    }

    /// What the layer of `system` is refitted to probabilities with, if it is the output layer and that is wanted.
    fn output_layer(&self, system: &System<'_>, candidates: usize, biased: bool) -> Option<OutputLayer<'a>> {
        let wanted = self.options.output_layer == OutputTargets::Probabilities
            && self.ensemble.output_layer() == Some(system.id);
        (wanted && system.is_plain())
            .then(|| OutputLayer::new(self.ensemble.consensus(), candidates, system.unknowns, biased))
    }

    fn refitted(&self, system: &System<'_>, fit: &LayerFit, rows: usize) -> RefittedLayer {
        let full = system.fits_bias();
        let name = &self.graph.node(system.id).name;
        RefittedLayer {
            layer: match system.part {
                WeightSet::Whole => name.clone(),
                WeightSet::Projection => format!("{name} (queries, keys, values)"),
                WeightSet::Output => format!("{name} (output)"),
            },
            system: if full { refit::FitForm::Full } else { refit::FitForm::ChannelShared },
            unknowns: system.unknowns,
            rows,
            ridge: fit.ridge,
            relative_residual: fit.residual,
        }
    }

    /// Who takes a constant that the fit adds to the layer's outputs: the layer's own bias, or the running mean of the
    /// BatchNorm behind it.
    fn absorber(&self, id: NodeId, part: WeightSet) -> Option<NodeId> {
        let [_, bias] = part.roles();
        if parameters::of_node(self.graph.node(id)).iter().any(|tensor| tensor.role == bias) {
            return Some(id);
        }
        let reader = only_reader(self.graph, id).filter(|_| part != WeightSet::Projection);
        reader.filter(|reader| matches!(self.graph.node(*reader).op, Op::BatchNorm { .. }))
    }

    /// Writes the refitted weights, and lets the running network have them.
    fn apply(
        &mut self,
        candidate: usize,
        system: &System<'_>,
        refit: Refit,
        absorber: Option<NodeId>,
    ) -> Result<(), FusionError> {
        let node = self.graph.node(system.id);
        let weights = &mut self.candidates[candidate].weights;
        let [matrix, bias] = system.part.roles();
        put(weights, node, matrix, &pytorch(&node.op, refit.weight))?;
        if let Some(absorber) = absorber {
            let itself = absorber == system.id;
            let (role, sign) = if itself { (bias, 1.0) } else { (Role::RunningMean, -1.0) };
            let node = self.graph.node(absorber);
            let old = joined(weights, node, role)?;
            let base = |old: f32| if itself && system.fits_bias() { 0.0 } else { f64::from(old) };
            let new = old.iter().zip(&refit.shift).map(|(old, shift)| (base(*old) + sign * shift) as f32);
            put(weights, node, role, &new.collect::<Vec<_>>())?;
        }
        let network = &mut self.networks[self.members + candidate];
        for id in absorber.into_iter().filter(|absorber| *absorber != system.id).chain([system.id]) {
            network.reload(id, weights)?;
            if let Some(device) = &mut self.device {
                device.load(self.members + candidate, Some(id), weights)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
