//! Memory of a GPU.
#![expect(unsafe_code, reason = "CUDA's driver is a C library")]

use std::sync::Arc;

use cudarc::driver::{result, sys};

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::session::{Session, with_figures};

/// Bytes on a GPU, which are given back when this is dropped.
#[derive(Debug)]
pub struct Allocation {
    session: Arc<Session>,
    start: sys::CUdeviceptr,
    bytes: usize,
}

impl Allocation {
    /// Takes `bytes`, all 0.
    pub(super) fn zeros(session: &Arc<Session>, bytes: usize) -> Result<Self, DeviceFault> {
        session.make_current()?;
        let bytes = bytes.max(256);
        session.take_memory(bytes as u64)?;
        // SAFETY: the context is current, and the size is not 0.
        let start = unsafe { result::malloc_sync(bytes) };
        let start = start.map_err(|error| {
            session.give_memory(bytes as u64);
            with_figures(error.into(), bytes as u64)
        })?;
        let allocation = Self { session: Arc::clone(session), start, bytes };
        // SAFETY: the memory was just taken and has these bytes.
        unsafe { result::memset_d8_async(start, 0, bytes, session.stream()) }?;
        Ok(allocation)
    }

    /// A copy of `bytes`.
    pub(super) fn of(session: &Arc<Session>, bytes: &[u8]) -> Result<Self, DeviceFault> {
        let allocation = Self::zeros(session, bytes.len())?;
        // SAFETY: the memory was just taken and has these bytes, and the host waits before they may go.
        unsafe { result::memcpy_htod_async(allocation.start, bytes, session.stream()) }?;
        session.wait()?;
        Ok(allocation)
    }

    /// How many there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of the byte `offset`.
    pub(super) fn address(&self, offset: usize) -> sys::CUdeviceptr {
        self.start + offset as u64
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.session.make_current().is_ok() {
            // What still runs may use it. A device that fails here has lost its memory anyway.
            let _unused = self.session.wait();
            // SAFETY: it was taken by `malloc_sync` and is freed once.
            let _unused = unsafe { result::free_sync(self.start) };
        }
        self.session.give_memory(self.bytes as u64);
    }
}
