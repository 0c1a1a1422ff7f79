//! A network whose every value can be read, beside others in one memory.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::exec::LoadError;
use crate::exec::compile::{Compiled, Melting, Spacing, compile};
use crate::exec::engine::EngineError;
use crate::exec::gpu::arena::{Arena, shapes};
use crate::exec::gpu::device::Device;
use crate::exec::gpu::emit::{Emitter, Source};
use crate::exec::gpu::kernels::batch_norm::Running;
use crate::exec::gpu::parameters::FlatParameters;
use crate::exec::gpu::residual::Role;
use crate::exec::gpu::tape::{Place, Storage, Tape, Values};
use crate::exec::lowering::Mode;
use crate::exec::memory::Purpose;
use crate::exec::statistics::Reading;
use crate::model::graph::{Graph, NodeId};
use crate::model::parameters;
use crate::tensors::Weights;

/// A network that is run up to some value, then up to the next.
#[derive(Debug)]
pub(super) struct ReadableNetwork {
    graph: Graph,
    compiled: Compiled<f32>,
    parameters: FlatParameters,
    roles: Vec<Role>,
    arena: Arena,
}

impl ReadableNetwork {
    /// Of `graph`, for batches of up to `batch` examples, which lie at `images`; its memory begins at the byte `first`.
    pub(super) fn new(graph: &Graph, batch: usize, images: Place, first: usize) -> Self {
        let storage = Storage::F32;
        let mut compiled = compile(graph, Spacing::Padded, Melting::Never);
        compiled.parameters.iter_mut().for_each(|parameter| parameter.values = Vec::new());
        let parameters = FlatParameters::new(&compiled, &shapes(&compiled, batch, storage), storage);
        let roles = vec![Role::Alone; compiled.layers.len()];
        let sizes = [batch, graph.input_shape().iter().product()];
        let arena = Arena::plan(&compiled, &parameters, &roles, sizes, storage, Purpose::Inference, first);
        Self { graph: graph.clone(), compiled, parameters, roles, arena: Arena { images, ..arena } }
    }

    /// The first byte behind its memory.
    pub(super) fn end(&self) -> usize {
        self.arena.bytes
    }

    /// The layer that computes a value; the value is there as long as no layer behind it has run.
    pub(super) fn layer_of(&self, reading: Reading) -> usize {
        let producer = |value: usize| self.compiled.values[value].producer;
        let before = |layer: usize| producer(self.compiled.layers[layer].inputs[0]);
        let of_node = |id: NodeId| producer(self.compiled.of_node[id.0]);
        match reading {
            Reading::Output(id) => of_node(id),
            // An attention is its projections, what is between them, and a last matrix.
            Reading::Mixed(id) => before(of_node(id)),
            Reading::Projected(id) => before(before(of_node(id))),
        }
    }

    /// What the layer writes for a batch.
    pub(super) fn value(&self, layer: usize, examples: usize) -> Values {
        Values { examples, ..self.arena.activations[self.compiled.layers[layer].output] }
    }

    /// The forward pass of some layers, for a batch.
    pub(super) fn tape(&self, layers: Range<usize>, examples: usize) -> Tape {
        let mut tape = Tape::new(Storage::F32);
        let mut emitter = Emitter {
            tape: &mut tape,
            compiled: &self.compiled,
            arena: &self.arena,
            parameters: &self.parameters,
            roles: &self.roles,
            examples,
            mode: Mode::Evaluate,
            source: Source::Images,
        };
        layers.for_each(|layer| emitter.forward(layer));
        tape
    }

    /// Brings the weights of all nodes, or of one, to the device.
    pub(super) fn load(
        &mut self,
        device: &mut impl Device,
        node: Option<NodeId>,
        weights: &dyn Weights,
    ) -> Result<(), EngineError> {
        let names = node.map(|id| parameters::of_node(self.graph.node(id)).into_iter().map(|tensor| tensor.name));
        let names: Option<BTreeSet<String>> = names.map(Iterator::collect);
        let wanted = |name: &String| names.as_ref().is_none_or(|names| names.contains(name));
        let tensors = self.compiled.parameters.iter().zip(&self.parameters.layouts);
        for (parameter, layout) in tensors.filter(|(parameter, _)| wanted(&parameter.name)) {
            let own = parameter.from_pytorch(&weights.f32(&parameter.name).map_err(LoadError::from)?)?;
            let numbers = layout.padded(&own);
            let place = self.arena.weights.part(layout.first * 4, numbers.len() * 4);
            device.write(place, bytemuck::cast_slice(&numbers))?;
        }
        let of_node = |name: &str| node.is_none_or(|id| self.graph.node(id).name == name);
        for (running, Running { mean, var }) in self.compiled.running.iter_mut().zip(&self.arena.running) {
            if of_node(&running.node) {
                running.load(weights)?;
                device.write(*mean, bytemuck::cast_slice(&running.mean))?;
                device.write(*var, bytemuck::cast_slice(&running.var))?;
            }
        }
        Ok(())
    }
}
