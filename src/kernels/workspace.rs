//! Buffers that kernels use and leave behind for the next step.

use std::num::NonZeroUsize;

use crate::kernels::Float;

/// Scratch memory of one thread's share of the work.
#[derive(Debug)]
pub(super) struct Lane<T> {
    /// Unfolded windows (im2col).
    pub(super) columns: Vec<T>,
    /// This lane's part of a weight gradient.
    pub(super) weights: Vec<T>,
}

/// Scratch memory that grows to what the largest operation needs and stays.
#[derive(Debug)]
pub struct Workspace<T> {
    threads: NonZeroUsize,
    pub(super) lanes: Vec<Lane<T>>,
    pub(super) partials: Vec<f64>,
}

impl<T: Float> Workspace<T> {
    /// For work that is split among `threads`.
    #[must_use]
    pub fn new(threads: NonZeroUsize) -> Self {
        let lanes = (0..threads.get()).map(|_| Lane { columns: Vec::new(), weights: Vec::new() });
        Self { threads, lanes: lanes.collect(), partials: Vec::new() }
    }

    /// How many threads share the work.
    #[must_use]
    pub fn threads(&self) -> NonZeroUsize {
        self.threads
    }
}

/// The first `len` elements of `buffer`, which grows to that length; what they hold is left over from earlier use.
pub(super) fn scratch<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
