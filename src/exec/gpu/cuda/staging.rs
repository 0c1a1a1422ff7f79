//! Bytes on their way from the host to a GPU. The driver waits for the device where it copies from memory that the system may move,
//! so everything goes through memory that it may not; large batches go on a stream of their own while the step before is computed.
#![expect(unsafe_code, reason = "CUDA's driver is a C library")]

use std::sync::Arc;

use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUevent_wait_flags, CUstream};
use cudarc::driver::{result, sys};

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::memory::Allocation;
use crate::exec::gpu::cuda::session::Session;

/// Bytes of each half of the ring that small writes go through.
const HALF: usize = 1 << 20;

/// Larger writes have lanes of their own.
const SMALL: usize = 64 << 10;

/// Bytes that go at once at most.
const LARGE: usize = 16 << 20;

/// Host memory that stays where it is.
#[derive(Debug)]
struct Pinned {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory has one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(bytes: usize) -> Result<Self, DeviceFault> {
        // SAFETY: a context is current; the size is not 0.
        let start = unsafe { result::malloc_host(bytes.max(1), sys::CU_MEMHOSTALLOC_PORTABLE) }?;
        Ok(Self { start: start.cast(), bytes })
    }

    /// A copy of `bytes` from the byte `offset` on.
    fn put(&mut self, offset: usize, bytes: &[u8]) -> &[u8] {
        assert!(offset + bytes.len() <= self.bytes, "what is written fits");
        // SAFETY: the memory has these bytes and one owner; nothing reads it at the moment, since its event has come.
        let place = unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), bytes.len()) };
        place.copy_from_slice(bytes);
        place
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: it was taken by `malloc_host` and is freed once.
        let _unused = unsafe { result::free_host(self.start.cast()) };
    }
}

/// A point of a stream.
#[derive(Debug)]
struct Event(CUevent);

// SAFETY: events may be used from any thread that has their context.
unsafe impl Send for Event {}

impl Event {
    fn new() -> Result<Self, DeviceFault> {
        Ok(Self(result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?))
    }

    fn record(&self, stream: CUstream) -> Result<(), DeviceFault> {
        // SAFETY: both exist.
        Ok(unsafe { result::event::record(self.0, stream) }?)
    }

    /// The host waits; at once where it was never recorded.
    fn wait(&self) -> Result<(), DeviceFault> {
        // SAFETY: it exists.
        Ok(unsafe { result::event::synchronize(self.0) }?)
    }

    /// What comes on `stream` waits.
    fn holds(&self, stream: CUstream) -> Result<(), DeviceFault> {
        // SAFETY: both exist.
        Ok(unsafe { result::stream::wait_event(stream, self.0, CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }?)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it was made once and is destroyed once.
        let _unused = unsafe { result::event::destroy(self.0) };
    }
}

/// One large write at a time: host memory, its copy on the device, and when each may be written again.
#[derive(Debug)]
struct Lane {
    device: Allocation,
    host: Pinned,
    arrived: Event,
    taken: Event,
}

/// The way to one network's memory.
#[derive(Debug)]
pub(super) struct Staging {
    session: Arc<Session>,
    ring: Pinned,
    /// The half that small writes go through, and its bytes that are taken.
    half: usize,
    taken: usize,
    /// When the small writes of each half have arrived.
    halves: [Event; 2],
    lanes: [Option<Lane>; 2],
    next: usize,
}

impl Staging {
    pub(super) fn new(session: &Arc<Session>) -> Result<Self, DeviceFault> {
        session.make_current()?;
        let (ring, halves) = (Pinned::new(2 * HALF)?, [Event::new()?, Event::new()?]);
        Ok(Self { session: Arc::clone(session), ring, half: 0, taken: 0, halves, lanes: [None, None], next: 0 })
    }

    /// Writes `bytes` to `to`, after all that was asked for before and before all that comes.
    pub(super) fn write(&mut self, to: CUdeviceptr, bytes: &[u8]) -> Result<(), DeviceFault> {
        if bytes.len() <= SMALL {
            return self.write_small(to, bytes);
        }
        let mut at = to;
        bytes.chunks(LARGE).try_for_each(|part| {
            self.write_ahead(at, part)?;
            at += part.len() as u64;
            Ok(())
        })
    }

    fn write_small(&mut self, to: CUdeviceptr, bytes: &[u8]) -> Result<(), DeviceFault> {
        let stream = self.session.stream();
        if self.taken + bytes.len() > HALF {
            self.halves[self.half].record(stream)?;
            (self.half, self.taken) = (1 - self.half, 0);
            self.halves[self.half].wait()?;
        }
        let pinned = self.ring.put(self.half * HALF + self.taken, bytes);
        // SAFETY: the place has these bytes; they stay until the event of their half has come.
        unsafe { result::memcpy_htod_async(to, pinned, stream) }?;
        self.taken += bytes.len().next_multiple_of(16);
        Ok(())
    }

    /// While the device is at work, the bytes come to a place of their own; from there it is a short way.
    fn write_ahead(&mut self, to: CUdeviceptr, bytes: &[u8]) -> Result<(), DeviceFault> {
        let (work, ahead) = (self.session.stream(), self.session.copies());
        let slot = &mut self.lanes[self.next];
        self.next = 1 - self.next;
        if slot.as_ref().is_none_or(|lane| lane.host.bytes < bytes.len()) {
            let (host, device) = (Pinned::new(bytes.len())?, Allocation::zeros(&self.session, bytes.len())?);
            // The zeros are written on the other stream; what is dropped here may be on its way still.
            self.session.wait()?;
            *slot = Some(Lane { device, host, arrived: Event::new()?, taken: Event::new()? });
        }
        let Some(lane) = slot else { return Ok(()) };
        lane.arrived.wait()?;
        lane.taken.holds(ahead)?;
        let (address, pinned) = (lane.device.address(0), lane.host.put(0, bytes));
        // SAFETY: both places have these bytes; the host's stay until `arrived`, the device's until `taken`.
        unsafe { result::memcpy_htod_async(address, pinned, ahead) }?;
        lane.arrived.record(ahead)?;
        lane.arrived.holds(work)?;
        // SAFETY: both places have these bytes.
        unsafe { result::memcpy_dtod_async(to, address, bytes.len(), work) }?;
        lane.taken.record(work)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is under way reads this memory.
        let _unused = self.session.make_current().and_then(|()| self.session.wait());
    }
}
