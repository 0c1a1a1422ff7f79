//! A fused network that is known but not made yet: its rows are made on demand, into memory or into a file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fusion::assemble::provenance::Provenance;
use crate::fusion::{Ensemble, FusionError, Member};
use crate::model::graph::Graph;
use crate::model::parameters;
use crate::model::precision::Precision;
use crate::tensors::{Checkpoint, Rows, StateDict, Weights, Written, write_rows};

/// A network made of members.
#[derive(Debug, Clone)]
pub struct Fused<W = StateDict> {
    /// What it computes.
    pub graph: Graph,
    /// Its weights, under the members' names.
    pub weights: W,
    /// Where its units come from.
    pub provenance: Provenance,
}

impl<W: Weights> Fused<W> {
    /// A fused network as the member of another fusion.
    #[must_use]
    pub fn as_member(&self) -> Member<'_> {
        Member { graph: &self.graph, weights: &self.weights }
    }
}

/// How to make a fused network.
#[derive(Debug)]
pub struct Recipe<'a> {
    pub(in crate::fusion) graph: Graph,
    pub(in crate::fusion) tensors: Vec<Rows<'a>>,
    pub(in crate::fusion) counters: Vec<(String, i64)>,
    pub(in crate::fusion) provenance: Provenance,
}

impl Recipe<'_> {
    /// The network that it makes.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Makes it in memory.
    ///
    /// # Errors
    /// When the tensor library refuses.
    pub fn build(self) -> Result<Fused, FusionError> {
        let mut weights = StateDict::default();
        for tensor in &self.tensors {
            weights.insert_f32(&tensor.name, &tensor.shape, tensor.collect())?;
        }
        for (name, count) in &self.counters {
            weights.insert_counter(name, *count)?;
        }
        Ok(Fused { graph: self.graph, weights, provenance: self.provenance })
    }

    /// Makes it in the safetensors file `path`, block by block, with weights of `precision` and notes about the file; then
    /// the file is mapped. `progress` is called with (finished blocks, all blocks).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(
        self,
        path: &Path,
        notes: &BTreeMap<String, String>,
        precision: &Precision,
        progress: impl FnMut(usize, usize),
    ) -> Result<(Fused<Checkpoint>, Written), FusionError> {
        let written = write_rows(path, &self.tensors, &self.counters, notes, |name| precision.of(name), progress)?;
        let weights = Checkpoint::open(path)?;
        Ok((Fused { graph: self.graph, weights, provenance: self.provenance }, written))
    }
}

/// The counters of the first member's normalisations, which a fused network takes over.
pub(in crate::fusion) fn counters(ensemble: &Ensemble<'_>) -> Vec<(String, i64)> {
    let names = ensemble.graph().nodes().iter().map(|node| parameters::counter(&node.name));
    let first = ensemble.members()[0].weights;
    names.filter_map(|name| first.counter(&name).map(|count| (name, count))).collect()
}
