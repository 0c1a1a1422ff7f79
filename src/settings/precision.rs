//! How exactly a GPU computes.

use serde::{Deserialize, Serialize};

/// How a GPU multiplies. The processor always computes in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Every product of f32 numbers is rounded once, to f32.
    F32,
    /// Factors of products are rounded to 10 bits behind the binary point (NVIDIA's TF32); all else is f32.
    #[default]
    Tf32,
    /// Activations and factors are bf16, sums, weights and the optimizer f32.
    Bf16,
}
