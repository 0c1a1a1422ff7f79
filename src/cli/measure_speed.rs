//! `engraft measure-speed`: the child process by which a worker learns how fast its devices are.

use std::process::ExitCode;

use anyhow::Result;

use crate::pipeline::speed;
use crate::settings::{ComputeOptions, Device, Precision};

/// Measure how fast a device computes; for `engraft` itself.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct MeasureSpeed {
    /// `cpu`, or a GPU as this process sees it.
    #[arg(long)]
    device: Device,
    /// Threads to compute with.
    #[arg(long)]
    threads: usize,
}

impl MeasureSpeed {
    /// Prints the speed as JSON.
    pub(super) fn run(self) -> Result<ExitCode> {
        let options = ComputeOptions {
            device: self.device,
            precision: Precision::default(),
            ..ComputeOptions::cpu(self.threads)
        };
        let speed = speed::measure(&options.effective())?;
        println!("{}", serde_json::to_string(&speed)?);
        Ok(ExitCode::SUCCESS)
    }
}
