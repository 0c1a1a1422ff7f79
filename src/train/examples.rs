//! What training and evaluation read.

use crate::data::augment::ImageShape;

/// Labelled inputs that can be read in any order.
pub trait Examples: std::fmt::Debug + Sync {
    /// Number of examples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of one input.
    fn example_len(&self) -> usize;

    /// Shape of one input, where inputs are images.
    fn image_shape(&self) -> Option<ImageShape>;

    /// What a pixel of 0, as images are stored, becomes in `channel`.
    fn black(&self, channel: usize) -> f32;

    /// Label of the example `index`.
    fn label(&self, index: usize) -> u32;

    /// Writes the normalised inputs of the examples `indices`, each `[D]` or `[C, H, W]` row-major, one after another.
    fn fill(&self, indices: &[usize], images: &mut [f32]);
}
