//! Which devices this process can offer: the one place that asks.

use crate::settings::Device;

/// More GPUs than a machine has.
const MOST_GPUS: usize = 64;

/// A device that was asked for and is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this machine has no device `{wanted}`; it offers {}{hint}", .found.iter().map(Device::to_string).collect::<Vec<_>>().join(", "))]
pub struct NoSuchDevice {
    wanted: Device,
    found: Vec<Device>,
    hint: &'static str,
}

/// The devices that a worker set to `wanted` offers, the preferred one first: all for `auto`, else that one.
///
/// # Errors
/// When the machine has no such device.
pub fn offered(wanted: Device) -> Result<Vec<Device>, NoSuchDevice> {
    choose(wanted, detect())
}

fn choose(wanted: Device, found: Vec<Device>) -> Result<Vec<Device>, NoSuchDevice> {
    let hint = if cfg!(feature = "cuda") { "" } else { " (this build has no support for GPUs: feature `cuda`)" };
    match wanted {
        Device::Auto => Ok(found),
        device if found.contains(&device) => Ok(vec![device]),
        wanted => Err(NoSuchDevice { wanted, found, hint }),
    }
}

/// Every GPU that opens, then the processor.
fn detect() -> Vec<Device> {
    let opens = |index: &usize| candle_core::Device::new_cuda(*index).is_ok();
    let gpus = if cfg!(feature = "cuda") { (0..MOST_GPUS).take_while(opens).count() } else { 0 };
    (0..gpus).map(Device::Cuda).chain([Device::Cpu]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_offers_everything_and_a_name_only_itself() {
        let found = || vec![Device::Cuda(0), Device::Cpu];
        assert_eq!(choose(Device::Auto, found()), Ok(found()));
        assert_eq!(choose(Device::Cpu, found()), Ok(vec![Device::Cpu]));
        let error = choose(Device::Cuda(1), found()).expect_err("there is only one GPU");
        assert!(error.to_string().contains("`cuda:1`; it offers cuda:0, cpu"), "{error}");
    }
}
