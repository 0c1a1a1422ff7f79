//! Buffers that kernels use and leave behind for the next step.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::kernels::Float;

/// Scratch memory of one thread.
#[derive(Debug)]
pub(super) struct Lane<T> {
    /// Images with their padding.
    pub(super) images: Vec<T>,
    /// Transformed tiles.
    pub(super) tiles: Vec<T>,
    /// Sums of tiles.
    pub(super) sums: Vec<T>,
}

/// Scratch memory of all threads.
#[derive(Debug)]
pub(super) struct Lanes<T>(Vec<Mutex<Lane<T>>>);

impl<T> Lanes<T> {
    /// The calling thread's own. A task must not wait for other tasks while it holds it.
    pub(super) fn take(&self) -> MutexGuard<'_, Lane<T>> {
        let thread = rayon::current_thread_index().unwrap_or(0) % self.0.len();
        self.0[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Scratch memory that grows to what the largest operation needs and stays.
#[derive(Debug)]
pub struct Workspace<T> {
    threads: NonZeroUsize,
    pub(super) lanes: Lanes<T>,
    /// A packed operand.
    pub(super) panels: Vec<T>,
    /// Images with their padding, that all threads read.
    pub(super) images: Vec<T>,
    /// Parts of a sum.
    pub(super) sums: Vec<T>,
    pub(super) partials: Vec<f64>,
}

impl<T: Float> Workspace<T> {
    /// For work that is split among `threads`.
    #[must_use]
    pub fn new(threads: NonZeroUsize) -> Self {
        let lanes =
            (0..threads.get()).map(|_| Mutex::new(Lane { images: Vec::new(), tiles: Vec::new(), sums: Vec::new() }));
        let (panels, images, sums, partials) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { threads, lanes: Lanes(lanes.collect()), panels, images, sums, partials }
    }

    /// How many threads share the work.
    #[must_use]
    pub fn threads(&self) -> NonZeroUsize {
        self.threads
    }
}

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// `len` elements of `buffer`, which grows as needed; what they hold is left over from earlier use. They begin where a cache line does, so that
/// no vector of a packed operand lies in two of them.
pub(super) fn scratch<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    let spare = LINE / size_of::<T>();
    if buffer.len() < len + spare {
        buffer.resize(len + spare, T::default());
    }
    let start = buffer.as_ptr().align_offset(LINE).min(spare);
    &mut buffer[start..start + len]
}
