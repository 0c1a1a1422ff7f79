//! Batches of calibration inputs on their way through several networks.

use std::borrow::Cow;
use std::num::NonZeroUsize;

use super::copied::CopiedLayer;
use super::forward::{LayerwiseNetwork, channels_and_size};
use super::value::NodeValue;
use super::{Monitor, UnlabelledInputs};
use crate::cost::calibration::{batch, largest_activation};
use crate::fusion::FusionError;
use crate::kernels::{Workspace, layout};
use crate::model::graph::{Graph, NodeId};

/// How far one network has come with one batch.
#[derive(Debug)]
struct Run {
    /// Outputs that somebody has yet to read.
    values: Vec<Option<NodeValue>>,
    /// All nodes before this one are computed.
    next: usize,
}

impl Run {
    fn new(network: &LayerwiseNetwork<'_>, input: &NodeValue) -> Self {
        let mut values = vec![None; network.graph().nodes().len()];
        values[0] = Some(input.clone());
        Self { values, next: 1 }
    }

    /// Computes all nodes before `to`.
    fn advance(&mut self, network: &LayerwiseNetwork<'_>, to: usize, work: &mut Workspace<f32>) {
        while self.next < to {
            let id = NodeId(self.next);
            let inputs = &network.graph().node(id).inputs;
            let operands: Vec<&NodeValue> = inputs.iter().filter_map(|input| self.values[input.0].as_ref()).collect();
            let output = network.compute(id, &operands, work);
            self.values[id.0] = Some(output);
            for input in inputs.iter().filter(|input| network.last_use(**input) == id.0) {
                self.values[input.0] = None;
            }
            self.next += 1;
        }
    }

    /// Takes the output of `node`, behind which nothing before it is read.
    fn go_on_behind(&mut self, node: NodeId, output: NodeValue) {
        self.values.fill(None);
        self.values[node.0] = Some(output);
        self.next = node.0 + 1;
    }

    fn bytes(&self) -> usize {
        self.values.iter().flatten().map(|value| value.values.len() * size_of::<f32>()).sum()
    }
}

/// One batch, run through all networks up to a node.
#[derive(Debug)]
pub(in crate::fusion) struct RunningBatch {
    /// Position among the batches.
    pub(in crate::fusion) index: usize,
    runs: Vec<Run>,
}

impl RunningBatch {
    /// The output of `node` in the network with this index.
    ///
    /// # Errors
    /// When the node has not been computed, or its readers have all had it.
    pub(in crate::fusion) fn value(&self, network: usize, node: NodeId) -> Result<&NodeValue, FusionError> {
        self.runs[network].values[node.0].as_ref().ok_or(FusionError::Lost(node.0))
    }

    /// Lets one network compute all nodes before `to`.
    pub(in crate::fusion) fn advance(
        &mut self,
        network: usize,
        of: &LayerwiseNetwork<'_>,
        to: NodeId,
        work: &mut Workspace<f32>,
    ) {
        self.runs[network].advance(of, to.0, work);
    }
}

/// All calibration inputs in batches.
pub(in crate::fusion) struct Stream<'a> {
    inputs: &'a dyn UnlabelledInputs,
    batches: Vec<Vec<usize>>,
    held: Vec<Option<RunningBatch>>,
    held_bytes: usize,
    /// Inputs of batches as they come, for devices that keep nothing themselves.
    rows: Vec<Option<Vec<f32>>>,
    most_held: usize,
    graph: &'a Graph,
    copied: Option<CopiedLayer>,
    /// Scratch memory of the kernels.
    pub(in crate::fusion) work: Workspace<f32>,
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("batches", &self.batches.len()).finish_non_exhaustive()
    }
}

impl<'a> Stream<'a> {
    /// Batches of the examples `chosen`; `widest` is the network with the largest activations. At most `most_held` bytes of
    /// activations are kept between two passes.
    pub(in crate::fusion) fn new(
        inputs: &'a dyn UnlabelledInputs,
        chosen: &[usize],
        widest: &'a Graph,
        most_held: usize,
    ) -> Self {
        let batch = batch(largest_activation(widest), chosen.len());
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        let batches: Vec<Vec<usize>> = chosen.chunks(batch).map(<[usize]>::to_vec).collect();
        let held = batches.iter().map(|_| None).collect();
        let rows = vec![None; batches.len()];
        let work = Workspace::new(threads);
        Self { inputs, batches, held, held_bytes: 0, rows, most_held, graph: widest, copied: None, work }
    }

    /// The last networks, as many as the layer has routes for, get its outputs from those before them.
    pub(in crate::fusion) fn copy(&mut self, layer: Option<CopiedLayer>) {
        self.copied = layer;
    }

    /// Number of batches.
    pub(in crate::fusion) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Runs every batch through every network until all nodes before `to` are computed, and shows it to `visit`.
    /// `done` and `total` place this pass within the whole work, for `monitor`.
    pub(in crate::fusion) fn pass(
        &mut self,
        networks: &[LayerwiseNetwork<'_>],
        to: NodeId,
        done: usize,
        total: usize,
        monitor: Monitor<'_>,
        mut visit: impl FnMut(&mut RunningBatch, &mut Workspace<f32>) -> Result<(), FusionError>,
    ) -> Result<(), FusionError> {
        for index in 0..self.batches.len() {
            let share = index as f64 / self.batches.len() as f64;
            if !monitor((done as f64 + share) / total.max(1) as f64) {
                return Err(FusionError::Stopped);
            }
            let mut batch = self.take(index, networks);
            for (run, network) in batch.runs.iter_mut().zip(networks) {
                run.advance(network, to.0, &mut self.work);
            }
            visit(&mut batch, &mut self.work)?;
            self.keep(batch);
        }
        Ok(())
    }

    /// The batch as far as it was kept, or from its inputs.
    fn take(&mut self, index: usize, networks: &[LayerwiseNetwork<'_>]) -> RunningBatch {
        if let Some(batch) = self.held[index].take() {
            self.held_bytes -= batch.runs.iter().map(Run::bytes).sum::<usize>();
            return batch;
        }
        let input = self.input(&self.batches[index]);
        let mut runs: Vec<Run> = networks.iter().map(|network| Run::new(network, &input)).collect();
        if let Some(CopiedLayer { node, routes }) = &self.copied {
            let (members, fused) = runs.split_at_mut(networks.len() - routes.len());
            for (run, network) in members.iter_mut().zip(networks) {
                run.advance(network, node.0 + 1, &mut self.work);
            }
            let outputs: Vec<&NodeValue> = members.iter().filter_map(|run| run.values[node.0].as_ref()).collect();
            for (run, routes) in fused.iter_mut().zip(routes) {
                run.go_on_behind(*node, CopiedLayer::outputs(routes, &outputs));
            }
        }
        RunningBatch { index, runs }
    }

    fn keep(&mut self, batch: RunningBatch) {
        let bytes: usize = batch.runs.iter().map(Run::bytes).sum();
        if self.held_bytes + bytes <= self.most_held {
            self.held_bytes += bytes;
            let index = batch.index;
            self.held[index] = Some(batch);
        }
    }

    /// Most examples of a batch.
    pub(in crate::fusion) fn batch(&self) -> usize {
        self.batches.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// The inputs of a batch, channels first; kept as far as there is room.
    pub(super) fn rows(&mut self, index: usize) -> Cow<'_, [f32]> {
        if self.rows[index].is_none() {
            let rows = self.read(&self.batches[index]);
            if self.held_bytes + size_of_val(&rows[..]) > self.most_held {
                return Cow::Owned(rows);
            }
            self.held_bytes += size_of_val(&rows[..]);
            self.rows[index] = Some(rows);
        }
        Cow::Borrowed(self.rows[index].as_deref().unwrap_or_default())
    }

    /// The inputs of some examples, channels first.
    fn read(&self, indices: &[usize]) -> Vec<f32> {
        let mut rows = vec![0.0; indices.len() * self.graph.input_shape().iter().product::<usize>()];
        self.inputs.fill(indices, &mut rows);
        rows
    }

    /// The inputs of some examples, channels last.
    fn input(&self, indices: &[usize]) -> NodeValue {
        let (channels, size) = channels_and_size(self.graph, NodeId(0));
        let pixels = size[0] * size[1];
        let rows = self.read(indices);
        if channels == 1 || pixels == 1 {
            return NodeValue { values: rows, channels, size };
        }
        let mut values = vec![0.0; rows.len()];
        layout::channels_last(channels, pixels, &rows, &mut values);
        NodeValue { values, channels, size }
    }
}
