//! What training and evaluation read.

use crate::data::augment::ImageShape;
use crate::exec::StoredImages;
use crate::kernels::truth::Truth;

/// Inputs, mostly labelled, that can be read in any order.
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

    /// Whether it is known what the outputs should be.
    fn is_labelled(&self) -> bool {
        true
    }

    /// What the outputs for the example `index` should be, of one kind for all examples; zeros where that is not known.
    fn truth(&self, index: usize) -> Truth<'_>;

    /// The images that they are seen on, where these are bytes and a device may hold them.
    fn stored(&self) -> Option<StoredImages<'_>> {
        None
    }

    /// Which of the stored images the example `index` is.
    fn stored_index(&self, index: usize) -> u32 {
        index as u32
    }

    /// Writes the normalised inputs of the examples `indices`, each `[D]` or `[C, H, W]` row-major, one after another.
    fn fill(&self, indices: &[usize], images: &mut [f32]);
}
