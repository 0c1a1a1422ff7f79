//! The scratch space that a job takes at its peak.

use super::Work;

/// Files of the fused network at once, where one ranking is tried: one that is made further, the one that is made of it, and what
/// training starts from.
const NETWORKS: u64 = 3;
/// Checkpoints at once: the last two, and the one that is being written.
const CHECKPOINTS: u64 = 3;
/// Report, provenance, architecture.
const SMALL_FILES: u64 = 4 << 20;

/// What a job writes.
#[derive(Debug)]
pub(in crate::plan) struct Disk {
    /// Bytes of decoded data.
    pub(in crate::plan) data: u64,
    /// Bytes of everything else.
    pub(in crate::plan) files: u64,
    /// What they add up.
    pub(in crate::plan) basis: String,
}

impl Work {
    /// Bytes of scratch space at the peak.
    pub(in crate::plan) fn disk(&self) -> Disk {
        let tries = self.calibration.as_ref().map_or(1, |calibration| calibration.tries);
        let networks = (NETWORKS.max(tries + 1) + u64::from(tries > 2)) * self.fused.bytes;
        let checkpoints = self.training.as_ref().map_or(0, |training| {
            let trained =
                self.merged.map_or(self.fused.parameters, |(_, merged)| merged.parameters.max(self.fused.parameters));
            // The weights, the best ones, and the optimizer's buffers, at four bytes each.
            CHECKPOINTS * (2 + training.buffers) * trained * 4
        });
        let files = networks + checkpoints + SMALL_FILES;
        let parts = [
            (networks + SMALL_FILES, "networks and reports"),
            (checkpoints, "checkpoints"),
            (self.decoded_bytes, "decoded data"),
        ];
        let shown = parts.iter().filter(|(bytes, _)| *bytes > 0);
        let shown: Vec<String> = shown.map(|(bytes, of)| format!("{:.1} MB of {of}", *bytes as f64 / 1e6)).collect();
        Disk { data: self.decoded_bytes, files, basis: shown.join(" + ") }
    }
}
