//! What nodes hand on.

/// One node's output for a batch: N x P x C, where P is the number of positions (1 for vectors).
#[derive(Debug, Clone)]
pub(in crate::fusion) struct NodeValue {
    pub(in crate::fusion) values: Vec<f32>,
    pub(in crate::fusion) channels: usize,
    /// Height and width; a sequence is an image of height 1.
    pub(in crate::fusion) size: [usize; 2],
}

impl NodeValue {
    /// Number of positions.
    pub(in crate::fusion) fn positions(&self) -> usize {
        self.size[0] * self.size[1]
    }
}
