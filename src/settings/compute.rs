//! How a job computes.

use serde::{Deserialize, Serialize};

use super::Device;

/// How exactly a GPU multiplies. The processor always computes in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComputePrecision {
    /// Products and sums in 32 bits.
    F32,
    /// Factors rounded to 19 bits, sums in 32.
    #[default]
    Tf32,
    /// Activations and factors in 16 bits (`bfloat16`), weights and sums in 32.
    Bf16,
}

impl ComputePrecision {
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

/// What a network is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeOptions {
    /// Where; [`Device::Auto`] is the processor.
    pub device: Device,
    /// Threads, of the processor and of what prepares a GPU's batches.
    pub threads: usize,
    /// How exactly a GPU multiplies.
    pub precision: ComputePrecision,
    /// Whether a GPU computes the same bits each time.
    pub deterministic: bool,
    /// Bytes of a GPU's memory that may be taken.
    pub memory_limit: Option<u64>,
}

impl ComputeOptions {
    /// On the processor, with so many threads.
    #[must_use]
    pub fn cpu(threads: usize) -> Self {
        Self { device: Device::Cpu, threads, precision: ComputePrecision::F32, deterministic: true, memory_limit: None }
    }

    /// What holds on the device: the processor has one precision, and the same bits each time.
    #[must_use]
    pub fn effective(self) -> Self {
        if self.device.is_gpu() { self } else { Self { device: Device::Cpu, ..Self::cpu(self.threads) } }
    }
}
