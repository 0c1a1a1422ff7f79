//! Where the logits come from that a network learns from.

use crate::exec::{EngineError, Inputs};

/// A teacher's logits for the train split.
#[derive(Debug, Clone, Copy)]
pub enum TeacherLogits<'a> {
    /// Computed once: examples x classes, in the order of the train split.
    Stored(&'a [f32]),
    /// Computed for each batch as the network sees it.
    PerBatch(&'a dyn Teach),
}

/// A teacher that computes anew for each batch.
pub trait Teach: std::fmt::Debug {
    /// Writes the logits (batch x classes) of `inputs`, which are never the same twice.
    ///
    /// # Errors
    /// When the teacher does not take such a batch, or its device fails.
    fn teach(&self, inputs: Inputs<'_>, logits: &mut [f32]) -> Result<(), EngineError>;
}
