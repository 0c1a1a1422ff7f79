//! How fast a worker's devices are: measured in child processes before its first job, so that plans know.

use std::process::Stdio;
use std::time::Duration;

use super::{Policy, Program, devices, spawn};
use crate::domain::speed::Speed;
use crate::settings::Device;
use crate::store::workers::DeviceSpeed;

/// Time that a device may take; what a GPU computes with has to be compiled when it is used for the first time.
const LIMIT: Duration = Duration::from_mins(2);

/// Measures every device of `policy`, one after another. A device that cannot be measured is none of them: its jobs' times are
/// estimated by assumption.
pub(super) async fn measure(policy: &Policy) -> Vec<DeviceSpeed> {
    let mut speeds = Vec::new();
    let Some(stopwatch) = &policy.stopwatch else { return speeds };
    for device in devices::distinct(policy.slots.iter().copied()) {
        match tokio::time::timeout(LIMIT, one(stopwatch, device, policy.threads)).await {
            Ok(Ok(speed)) => speeds.push(DeviceSpeed { device, speed }),
            Ok(Err(error)) => tracing::warn!(%device, %error, "how fast it computes could not be measured"),
            Err(_) => {
                tracing::warn!(%device, seconds = LIMIT.as_secs(), "measuring how fast it computes took too long");
            }
        }
    }
    speeds
}

/// What a child measures on `device`.
async fn one(stopwatch: &Program, device: Device, threads: usize) -> anyhow::Result<Speed> {
    let mut command = spawn::child(&stopwatch.path, &stopwatch.args);
    let seen = match device {
        Device::Cuda(index) => {
            let (name, value) = devices::only(index);
            command.env(name, value);
            Device::Cuda(0)
        }
        Device::Auto | Device::Cpu | Device::AnyCuda => device,
    };
    command.arg("--device").arg(seen.to_string()).arg("--threads").arg(threads.to_string());
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await?;
    anyhow::ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}
