//! Runs members and the fused network on calibration inputs, node by node, with all intermediate activations at hand.
//!
//! Calibration inputs need no labels. They come in batches of fixed size, and what is kept of them between two layers is
//! bounded ([`HELD_BYTES`]), so memory does not grow with their number.

mod copied;
mod device;
mod forward;
mod gather;
mod layer;
pub(super) mod moments;
mod stream;
mod value;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::cost::calibration::examples;
use crate::model::graph::{Graph, NodeId};

pub(super) use copied::CopiedLayer;
pub(super) use device::{DevicePass, PassCount, PlaceTable};
pub(super) use forward::{LayerwiseNetwork, channels_and_size};
pub(super) use gather::{channels, flattened, picks, windows};
pub(super) use layer::kernels_last;
pub(super) use stream::{RunningBatch, Stream};
pub(super) use value::NodeValue;

pub(super) use crate::cost::calibration::{HELD_BYTES, mixes};

/// Inputs without labels, readable in any order.
pub trait UnlabelledInputs: Sync {
    /// Number of examples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the normalised inputs of the examples `indices`, each `[D]` or `[C, H, W]` row-major, one after another.
    fn fill(&self, indices: &[usize], inputs: &mut [f32]);
}

/// How calibration inputs are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Number of examples; the default depends on the network.
    pub samples: Option<usize>,
    /// Positions of an image that a convolution's moments read, drawn anew for each layer and batch.
    pub positions: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// Gets how much is done, in [0, 1], and says whether to go on.
pub type Monitor<'m> = &'m mut dyn FnMut(f64) -> bool;

impl Sampling {
    /// The examples to calibrate `graphs` with: as many as requested, or `wanted`, so many that no layer overfits, as far as
    /// cost and memory allow (examples whose activations are not kept are computed anew for each layer). Ascending.
    pub(super) fn draw(&self, inputs: &dyn UnlabelledInputs, wanted: usize, graphs: &[&Graph]) -> Vec<usize> {
        let count = self.samples.unwrap_or_else(|| examples(wanted, graphs)).min(inputs.len());
        let mut all: Vec<usize> = (0..inputs.len()).collect();
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        for place in 0..count {
            all.swap(place, place + below(&mut generator, inputs.len() - place));
        }
        all.truncate(count);
        all.sort_unstable();
        all
    }

    /// The positions of an image of `count` positions that the layer `node` reads in a batch, ascending.
    pub(super) fn positions(&self, count: usize, node: NodeId, batch: usize) -> Vec<usize> {
        if count <= self.positions {
            return (0..count).collect();
        }
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        generator.set_stream(((node.0 as u64) << 32) + batch as u64 + 1);
        let mut all: Vec<usize> = (0..count).collect();
        for place in 0..self.positions {
            all.swap(place, place + below(&mut generator, count - place));
        }
        all.truncate(self.positions);
        all.sort_unstable();
        all
    }
}

/// A number below `bound`, from 64 random bits by multiplication (Lemire 2019).
fn below(generator: &mut impl Rng, bound: usize) -> usize {
    ((u128::from(generator.next_u64()) * bound as u128) >> 64) as usize
}

/// The only reader of `id`, if there is exactly one.
pub(super) fn only_reader(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let mut readers = graph.iter().filter(|(_, node)| node.inputs.contains(&id)).map(|(reader, _)| reader);
    let first = readers.next()?;
    readers.next().is_none().then_some(first)
}
