//! What a network is computed with.

use super::{Device, Precision};

/// What a network is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeOptions {
    /// Where; [`Device::Auto`] is the processor.
    pub device: Device,
    /// Threads, of the processor and of what prepares a GPU's batches.
    pub threads: usize,
    /// How exactly a GPU multiplies.
    pub precision: Precision,
    /// Whether a GPU computes the same bits each time.
    pub deterministic: bool,
    /// Bytes of a GPU's memory that may be taken.
    pub memory_limit: Option<u64>,
}

impl ComputeOptions {
    /// On the processor, with so many threads.
    #[must_use]
    pub fn cpu(threads: usize) -> Self {
        Self { device: Device::Cpu, threads, precision: Precision::F32, deterministic: true, memory_limit: None }
    }

    /// What holds on the device: the processor has one precision, and the same bits each time.
    #[must_use]
    pub fn effective(self) -> Self {
        if self.device.is_gpu() { self } else { Self { device: Device::Cpu, ..Self::cpu(self.threads) } }
    }
}
