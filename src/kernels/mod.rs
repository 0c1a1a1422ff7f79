//! The operations of a network on plain slices, forward and backward.
//!
//! Activations are NHWC (`[batch, height, width, channels]`), `[batch, tokens, channels]` or `[batch, features]`: channels
//! last, behind all positions. Kernels of convolutions are OHWI; the
//! borders to PyTorch's layouts are in [`layout`]. Everything is generic over f32 and f64, so that tests can compare
//! gradients with finite differences. Work is split by sizes only and sums are taken in a fixed order: the same input gives
//! the same bits on any number of threads. Another kind of processor may have other instructions, and round differently.
//!
//! Slices whose lengths do not fit each other are mistakes of the caller and panic; the network's compiler rules them out.

pub mod attention;
pub mod batch_norm;
pub mod blur;
pub mod conv;
pub mod dropout;
pub mod element_loss;
pub mod elementwise;
mod exponential;
mod float;
pub mod function;
mod geometry;
pub mod group_norm;
pub mod layout;
pub mod linear;
pub mod loss;
mod matmul;
mod moments;
mod panels;
pub mod pool;
mod product;
pub mod reduce;
pub mod response_norm;
pub mod rim;
pub mod softmax;
mod tile;
pub mod tokens;
pub mod truth;
mod workspace;

#[cfg(test)]
pub(crate) mod finite_difference;

pub use float::Float;
pub use geometry::Geometry;
pub use matmul::{Matrix, matmul};
pub use moments::{Triangle, add_product};
pub use product::{Epilogue, product};
pub use workspace::Workspace;

/// Elements of one piece of element-wise work: fixed, so that pieces do not depend on the number of threads.
pub(crate) const PIECE: usize = 1 << 14;
