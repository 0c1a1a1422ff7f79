//! What a job was computed with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::gpu::GpuVersions;
use crate::settings::Precision;

/// What a job was computed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Computation {
    /// `cpu`, or the name of the GPU.
    #[schema(example = "NVIDIA H200")]
    pub device: String,
    /// How exactly it multiplied; the processor computes in `f32`.
    pub precision: Precision,
    /// Whether the same job computes the same bits on another such device with the same versions.
    pub deterministic: bool,
    /// The driver and the libraries that computed; none of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<GpuVersions>,
}

impl fmt::Display for Computation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "computed on the {} in {}", self.device, self.precision.as_str())?;
        if self.deterministic { Ok(()) } else { write!(f, ", not deterministically") }
    }
}
