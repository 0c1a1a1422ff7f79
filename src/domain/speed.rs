//! How fast a machine computes: by this a plan estimates the time of a job.

use serde::{Deserialize, Serialize};

/// How much a device does in a second. Layers that are too small to keep it busy are slower.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Speed {
    /// Multiply-accumulates of matrix products.
    #[schema(example = 5e10)]
    pub products: f64,
    /// Multiply-accumulates of convolutions.
    #[schema(example = 3e10)]
    pub convolutions: f64,
    /// Elements that everything else puts out: normalisations, pools, sums.
    #[schema(example = 1e9)]
    pub elements: f64,
    /// Multiply-accumulates in double precision, in which the processor solves systems.
    #[schema(example = 8e9)]
    pub solving: f64,
    /// Seconds that a training step takes beside its operations.
    #[schema(example = 2e-5)]
    pub step_seconds: f64,
}

impl Default for Speed {
    /// About two cores of a server.
    fn default() -> Self {
        Self { products: 5e10, convolutions: 3e10, elements: 5e8, solving: 8e9, step_seconds: 0.0 }
    }
}
