//! Where and how exactly to compute: what `engraft fuse`, `plan` and `train` share.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::interrupt::say;
use crate::domain::gpu::{Gpu, Gpus};
use crate::exec;
use crate::process::protocol::TaskGpu;
use crate::settings::Device;

/// Where, and how exactly. Flags win over the file.
#[derive(Debug, clap::Args)]
pub(super) struct ComputeArgs {
    /// Where to compute: `auto`, `cpu`, `cuda` (the first NVIDIA GPU that can be used) or `cuda:N`; `engraft devices` shows them.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// How exactly a GPU multiplies: `f32`, `tf32` or `bf16`. The processor computes in f32.
    #[arg(long, value_name = "PRECISION")]
    precision: Option<String>,
    /// Let a GPU take faster ways that may compute other last bits each time.
    #[arg(long)]
    nondeterministic: bool,
}

impl ComputeArgs {
    /// Lays the flags over a job or a recipe.
    pub(super) fn lay_over(&self, body: &mut Map<String, Value>) {
        for (field, value) in [("device", &self.device), ("precision", &self.precision)] {
            if let Some(value) = value {
                body.insert(field.to_owned(), json!(value));
            }
        }
        if self.nondeterministic {
            body.insert("deterministic".to_owned(), json!(false));
        }
    }
}

/// The device that a command computes on which was asked for `wanted`, and what is known of it if it is a GPU.
///
/// # Errors
/// When there is no such GPU, or something is missing that computes on it, in words.
pub(super) fn choose(wanted: Device, memory_limit: Option<u64>) -> Result<(Device, Option<TaskGpu>)> {
    let found = match wanted {
        Device::Cpu => None,
        Device::Auto if !exec::AUTO_TAKES_GPUS => None,
        Device::Auto => {
            let gpus = gpus()?;
            // Where there is a driver somebody may expect that it is used.
            if let Some(why) = gpus.why_not_in_full().filter(|_| gpus.has_driver()) {
                say(&format!("computing on the processor: {why}"));
            }
            gpus.usable().next().map(|gpu| (gpus, gpu))
        }
        Device::AnyCuda => Some(required(wanted, gpus()?, gpus()?.why_not_in_full(), |_| true)?),
        Device::Cuda(index) => {
            let refusal = gpus()?.why_not_in_full().or_else(|| gpus().ok()?.refusal(index));
            Some(required(wanted, gpus()?, refusal, |gpu| gpu.index == index)?)
        }
    };
    let Some((gpus, gpu)) = found else { return Ok((Device::Cpu, None)) };
    let given = TaskGpu { facts: gpu.clone(), versions: gpus.versions.clone(), memory_limit };
    Ok((Device::Cuda(gpu.index), Some(given)))
}

/// The first usable GPU that is as wanted, unless something refuses it.
fn required(
    wanted: Device,
    gpus: &'static Gpus,
    refusal: Option<String>,
    fits: impl Fn(&Gpu) -> bool,
) -> Result<(&'static Gpus, &'static Gpu)> {
    match (refusal, gpus.usable().find(|gpu| fits(gpu))) {
        (None, Some(gpu)) => Ok((gpus, gpu)),
        (Some(why), _) => bail!("nothing can be computed on `{wanted}` here: {why}"),
        (None, None) => bail!("nothing can be computed on `{wanted}` here: `engraft devices` shows what there is"),
    }
}

/// What this machine has, as a child process of this program finds it.
pub(super) fn gpus() -> Result<&'static Gpus> {
    Ok(exec::gpus(&std::env::current_exe()?))
}
