//! Which devices a worker computes on, and how its children see them.

use std::ffi::{OsStr, OsString};

use crate::domain::gpu::Gpus;
use crate::settings::Device;

/// By this the driver knows which GPUs a process may see.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// A device that nothing can be computed on here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be computed on `{wanted}` here: {why}")]
pub struct NoSuchDevice {
    wanted: Device,
    why: String,
}

/// A worker's places for jobs, each by its device, the preferred one first: one for each GPU, `workers` on the processor. `auto` takes
/// GPUs only where `auto_takes_gpus`, a name only what it names.
///
/// # Errors
/// When the machine has no such device, in words.
pub fn slots(wanted: Device, workers: usize, gpus: &Gpus, auto_takes_gpus: bool) -> Result<Vec<Device>, NoSuchDevice> {
    let all = || gpus.usable().map(|gpu| Device::Cuda(gpu.index));
    let processor = std::iter::repeat_n(Device::Cpu, workers);
    let refused = |why: String| Err(NoSuchDevice { wanted, why });
    match wanted {
        Device::Auto if auto_takes_gpus => Ok(all().chain(processor).collect()),
        Device::Auto | Device::Cpu => Ok(processor.collect()),
        Device::AnyCuda => match gpus.why_not_in_full() {
            Some(why) => refused(why),
            None => Ok(all().collect()),
        },
        Device::Cuda(index) => match gpus.why_not_in_full().or_else(|| gpus.refusal(index)) {
            Some(why) => refused(why),
            None => Ok(vec![wanted]),
        },
    }
}

/// What a worker with these places computes on, and why not on a GPU, for its log.
#[must_use]
pub fn described(slots: &[Device], gpus: &Gpus) -> String {
    let usable: Vec<String> = gpus.usable().map(|gpu| format!("{} (`cuda:{}`)", gpu.name, gpu.index)).collect();
    let used = slots.iter().any(|device| device.is_gpu());
    match gpus.why_not_in_full() {
        None if used => format!("this machine's GPUs: {}", usable.join(", ")),
        None => format!("jobs are computed on the processor; `--device cuda` computes them on {}", usable.join(", ")),
        Some(why) => format!("jobs are computed on the processor: {why}"),
    }
}

/// The devices, each once, in their order.
pub(super) fn distinct(devices: impl Iterator<Item = Device>) -> Vec<Device> {
    let mut found = Vec::new();
    devices.for_each(|device| {
        if !found.contains(&device) {
            found.push(device);
        }
    });
    found
}

/// The variable that shows a child only the GPU with this number, which this process may see as one of several.
pub(super) fn only(index: usize) -> (&'static str, OsString) {
    (VISIBLE, one_of(std::env::var_os(VISIBLE).as_deref(), index))
}

/// The GPU that is `index` of those that `visible` lists; the number itself where nothing limits them.
fn one_of(visible: Option<&OsStr>, index: usize) -> OsString {
    let listed = visible.and_then(OsStr::to_str).and_then(|list| list.split(',').nth(index));
    let listed = listed.map(str::trim).filter(|entry| !entry.is_empty());
    listed.map_or_else(|| index.to_string().into(), OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gpu::Gpu;

    fn gpus() -> Gpus {
        let gpu = |index, compute_capability| Gpu {
            index,
            name: "Card".to_owned(),
            memory_bytes: 1 << 34,
            compute_capability,
            multiprocessors: 9,
        };
        Gpus { devices: vec![gpu(0, [9, 0]), gpu(1, [7, 0]), gpu(2, [8, 0])], ..Gpus::default() }
    }

    #[test]
    fn every_usable_gpu_has_a_slot_and_a_name_offers_only_itself() {
        let slots = |wanted, auto| slots(wanted, 2, &gpus(), auto);
        let [first, last, cpu] = [Device::Cuda(0), Device::Cuda(2), Device::Cpu];
        assert_eq!(slots(Device::Auto, true), Ok(vec![first, last, cpu, cpu]));
        assert_eq!(slots(Device::Auto, false), Ok(vec![cpu, cpu]));
        assert_eq!(slots(Device::AnyCuda, false), Ok(vec![first, last]));
        assert_eq!(slots(last, false), Ok(vec![last]));
        for (wanted, why) in
            [(Device::Cuda(1), "capability 7.0"), (Device::Cuda(3), "has 3 GPUs, `cuda:0` to `cuda:2`")]
        {
            let words = slots(wanted, false).expect_err("refused").to_string();
            assert!(words.contains(&format!("`{wanted}` here: ")) && words.contains(why), "{words}");
        }
        assert_eq!(distinct([first, cpu, cpu].into_iter()), [first, cpu]);
    }

    #[test]
    fn without_a_gpu_the_processor_computes_and_the_log_says_why() {
        let none = Gpus { detail: Some("/opt/x.so".to_owned()), ..Gpus::none("cuDNN is missing") };
        assert_eq!(slots(Device::Auto, 1, &none, true), Ok(vec![Device::Cpu]));
        for wanted in [Device::AnyCuda, Device::Cuda(0)] {
            let words = slots(wanted, 1, &none, true).expect_err("refused").to_string();
            assert!(words.contains("cuDNN is missing (/opt/x.so)"), "{words}");
        }
        let words = described(&[Device::Cpu], &none);
        assert_eq!(words, "jobs are computed on the processor: cuDNN is missing (/opt/x.so)");
        assert!(described(&[Device::Cpu], &gpus()).contains("`--device cuda`"));
        assert!(described(&[Device::Cuda(0)], &gpus()).starts_with("this machine's GPUs: Card (`cuda:0`), "));
    }

    #[test]
    fn a_child_sees_its_gpu_by_the_name_that_this_process_knows_it_by() {
        assert_eq!(one_of(None, 3), "3");
        assert_eq!(one_of(Some(OsStr::new("5, GPU-ab")), 1), "GPU-ab");
        assert_eq!(one_of(Some(OsStr::new("5")), 1), "1");
    }
}
