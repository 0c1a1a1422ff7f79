//! How exactly a GPU computes.

use serde::{Deserialize, Serialize};

/// How a GPU multiplies. The processor always computes in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
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

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// The precision as it stands in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}
