//! How often a job does what takes most of its time: planned before, and counted while it runs.

/// Numbers of joins, of measured networks, and of what they are measured on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that several networks are made one.
    pub joins: usize,
    /// Members that are measured.
    pub members: usize,
    /// Other networks that are measured.
    pub candidates: usize,
    /// Examples that all of these compute logits of.
    pub examples: usize,
}
