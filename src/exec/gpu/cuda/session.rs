//! What all networks of a process on one GPU share.
#![expect(unsafe_code, reason = "CUDA's libraries are C libraries")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::cudnn::sys as dnn;
use cudarc::driver::{result, sys};

use crate::domain::gpu::CONTEXT_BYTES;
use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::faults::cudnn;
use crate::exec::gpu::cuda::libraries;
use crate::exec::gpu::cuda::modules::Kernels;

/// A GPU's context, the one stream that everything is computed in, its kernels and the handles of libraries. Lives as long as the process.
#[derive(Debug)]
pub struct Session {
    /// What the GPU is called.
    name: String,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Batches arrive on it while another one is computed.
    copies: sys::CUstream,
    pub(super) kernels: Kernels,
    pub(super) cublaslt: lt_sys::cublasLtHandle_t,
    pub(super) cudnn: dnn::cudnnHandle_t,
    /// Bytes that all networks have taken.
    taken: AtomicU64,
    /// Bytes that they may take.
    limit: AtomicU64,
}

// SAFETY: handles of CUDA may be used from any thread that has their context; the engine uses them from one at a time, since all
// work goes through networks of one job, whose phases use one after another.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

/// One for each GPU that has been asked for.
static SESSIONS: Mutex<Option<HashMap<usize, Arc<Session>>>> = Mutex::new(None);

impl Session {
    /// The session of the GPU `index`, opened when it is asked for the first time.
    ///
    /// # Errors
    /// When a library is missing, or the GPU cannot be used.
    pub fn open(index: usize) -> Result<Arc<Self>, DeviceFault> {
        let mut sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = sessions.get_or_insert_default();
        if let Some(session) = sessions.get(&index) {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Self::start(index)?);
        sessions.insert(index, Arc::clone(&session));
        Ok(session)
    }

    fn start(index: usize) -> Result<Self, DeviceFault> {
        libraries::load().map_err(|missing| DeviceFault::Refused(missing.to_string()))?;
        result::init()?;
        let device = result::device::get(index as i32)?;
        // SAFETY: the device exists; the context is kept until the process ends.
        let (context, capability) = unsafe {
            let context = result::primary_ctx::retain(device)?;
            result::ctx::set_current(context)?;
            let attribute = |name| result::device::get_attribute(device, name);
            let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            (context, [major, minor])
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let copies = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let kernels = Kernels::new(capability);
        let cublaslt = lt::create_handle()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the handle's place is one, and the stream exists.
        unsafe {
            cudnn(dnn::cudnnCreate(&raw mut handle))?;
            cudnn(dnn::cudnnSetStream(handle, stream.cast()))?;
        }
        let (taken, limit) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        let name = result::device::get_name(device)?;
        Ok(Self { name, context, stream, copies, kernels, cublaslt, cudnn: handle, taken, limit })
    }

    /// What the GPU is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bounds what this process may take of the device's memory; the driver and the libraries take their part first.
    pub fn limit_memory(&self, bytes: u64) {
        self.limit.store(bytes.saturating_sub(CONTEXT_BYTES), Ordering::Relaxed);
    }

    /// Bytes that may be taken still.
    pub(super) fn room(&self) -> Result<u64, DeviceFault> {
        self.make_current()?;
        let (free, _) = result::mem_get_info()?;
        let left = self.limit.load(Ordering::Relaxed).saturating_sub(self.taken.load(Ordering::Relaxed));
        Ok(left.min(free as u64))
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(super) fn copies(&self) -> sys::CUstream {
        self.copies
    }

    /// Makes the GPU the one that the calling thread works with.
    pub(super) fn make_current(&self) -> Result<(), DeviceFault> {
        // SAFETY: the context lives as long as the process.
        Ok(unsafe { result::ctx::set_current(self.context) }?)
    }

    /// Waits until all is done that was asked for.
    pub(super) fn wait(&self) -> Result<(), DeviceFault> {
        // SAFETY: the stream lives as long as the process.
        Ok(unsafe { result::stream::synchronize(self.stream) }?)
    }

    /// Counts memory that is about to be taken.
    pub(super) fn take_memory(&self, bytes: u64) -> Result<(), DeviceFault> {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        if taken.saturating_add(bytes) > limit {
            self.give_memory(bytes);
            return Err(DeviceFault::OutOfMemory { needed: bytes, free: limit.saturating_sub(taken) });
        }
        Ok(())
    }

    /// Counts memory that was given back.
    pub(super) fn give_memory(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A lack of memory with its figures, or the fault as it is.
pub(super) fn with_figures(fault: DeviceFault, needed: u64) -> DeviceFault {
    if !matches!(fault, DeviceFault::OutOfMemory { .. }) {
        return fault;
    }
    let free = result::mem_get_info().map_or(0, |(free, _)| free as u64);
    DeviceFault::OutOfMemory { needed, free }
}
