//! Activations and gradients of a network in few buffers.

use crate::exec::memory::{BufferValue, Purpose, Slots};
use crate::kernels::Float;

/// The buffers.
#[derive(Debug)]
pub(super) struct Memory<T> {
    pub(super) purpose: Purpose,
    slots: Vec<Vec<T>>,
    activation: Vec<usize>,
    gradient: Vec<usize>,
}

impl<T: Float> Memory<T> {
    /// Buffers for `values` of a network of `layers` layers and at most `batch` examples.
    pub(super) fn plan(values: &[BufferValue], layers: usize, batch: usize, purpose: Purpose) -> Self {
        let Slots { activation, gradient, lens } = Slots::plan(values, layers, purpose);
        let slots = lens.into_iter().map(|len| vec![T::ZERO; len * batch]).collect();
        Self { purpose, slots, activation, gradient }
    }

    /// The activation of a value, all of its buffer.
    pub(super) fn activation(&self, value: usize) -> &[T] {
        &self.slots[self.activation[value]]
    }

    /// Takes the buffer of an activation out, to write it while others are read.
    pub(super) fn take_activation(&mut self, value: usize) -> Vec<T> {
        std::mem::take(&mut self.slots[self.activation[value]])
    }

    /// Puts it back.
    pub(super) fn put_activation(&mut self, value: usize, buffer: Vec<T>) {
        self.slots[self.activation[value]] = buffer;
    }

    /// Takes the buffer of a gradient out.
    pub(super) fn take_gradient(&mut self, value: usize) -> Vec<T> {
        std::mem::take(&mut self.slots[self.gradient[value]])
    }

    /// Puts it back.
    pub(super) fn put_gradient(&mut self, value: usize, buffer: Vec<T>) {
        self.slots[self.gradient[value]] = buffer;
    }
}
