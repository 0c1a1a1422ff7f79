//! A worker's places for jobs: one for each GPU, and as many as are set on the processor.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::devices::distinct;
use crate::settings::Device;

/// The places; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    devices: Arc<[Device]>,
    /// Which of them no job has, in their order.
    free: Arc<Mutex<BTreeSet<usize>>>,
    permits: Arc<Semaphore>,
}

/// The right to a place, before it is known which.
#[derive(Debug)]
pub(super) struct AnySlot {
    slots: Slots,
    permit: OwnedSemaphorePermit,
}

/// A place that a job has; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    index: usize,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// A place for each of `devices`, the preferred one first.
    pub(super) fn new(devices: Vec<Device>) -> Self {
        let permits = Arc::new(Semaphore::new(devices.len()));
        let free = Arc::new(Mutex::new((0..devices.len()).collect()));
        Self { devices: devices.into(), free, permits }
    }

    /// Waits for a place.
    pub(super) async fn any(&self) -> Option<AnySlot> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        Some(AnySlot { slots: self.clone(), permit })
    }

    /// The devices with a free place, the preferred one first.
    pub(super) fn free(&self) -> Vec<Device> {
        distinct(self.lock().iter().map(|index| self.devices[*index]))
    }

    /// No panic happens while it is held, and what it guards is whole after each line.
    fn lock(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnySlot {
    /// Takes the first free place that a job which requests `wanted` may have; one that was free when it was claimed still is.
    pub(super) fn settle(self, wanted: Device) -> Slot {
        let Self { slots, permit } = self;
        let mut free = slots.lock();
        let fits = |index: &usize| wanted.may_be(slots.devices[*index]);
        let index = free.iter().copied().find(fits).or_else(|| free.first().copied()).unwrap_or_default();
        free.remove(&index);
        drop(free);
        Slot { slots, index, _permit: permit }
    }
}

impl Slot {
    /// Where its job computes.
    pub(super) fn device(&self) -> Device {
        self.slots.devices.get(self.index).copied().unwrap_or(Device::Cpu)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().insert(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_gpu_has_one_job_and_auto_takes_the_favourite() {
        let slots = Slots::new(vec![Device::Cuda(0), Device::Cuda(2), Device::Cpu]);
        let take = async |wanted| slots.any().await.map(|slot| slot.settle(wanted));
        let first = take(Device::Auto).await.unwrap();
        assert_eq!((first.device(), slots.free()), (Device::Cuda(0), vec![Device::Cuda(2), Device::Cpu]));
        let named = take(Device::Cuda(2)).await.unwrap();
        let last = take(Device::Auto).await.unwrap();
        assert_eq!((named.device(), last.device(), slots.free()), (Device::Cuda(2), Device::Cpu, Vec::new()));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), slots.any()).await.is_err());
        drop((named, last));
        assert_eq!(take(Device::AnyCuda).await.unwrap().device(), Device::Cuda(2));
        drop(first);
        assert_eq!(slots.free(), [Device::Cuda(0), Device::Cuda(2), Device::Cpu]);
    }
}
