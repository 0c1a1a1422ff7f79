//! Which of the devices that compute here a worker offers.

use crate::settings::Device;

/// A requested device that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this machine has no device `{wanted}`; it offers {}{hint}", .found.iter().map(Device::to_string).collect::<Vec<_>>().join(", "))]
pub struct NoSuchDevice {
    wanted: Device,
    found: Vec<Device>,
    hint: &'static str,
}

/// The devices that a worker set to `wanted` offers of those that were `found`, the preferred one first: all for `auto`,
/// else that one.
///
/// # Errors
/// When the machine has no such device.
pub fn offered(wanted: Device, found: Vec<Device>) -> Result<Vec<Device>, NoSuchDevice> {
    let gpus = found.iter().any(|device| matches!(device, Device::Cuda(_)));
    let hint = if gpus { "" } else { " (nothing here computes on GPUs)" };
    match wanted {
        Device::Auto => Ok(found),
        device if found.contains(&device) => Ok(vec![device]),
        wanted => Err(NoSuchDevice { wanted, found, hint }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_offers_everything_and_a_name_only_itself() {
        let found = || vec![Device::Cuda(0), Device::Cpu];
        assert_eq!(offered(Device::Auto, found()), Ok(found()));
        assert_eq!(offered(Device::Cpu, found()), Ok(vec![Device::Cpu]));
        let error = offered(Device::Cuda(1), found()).expect_err("there is only one GPU");
        assert!(error.to_string().contains("`cuda:1`; it offers cuda:0, cpu"), "{error}");
    }
}
