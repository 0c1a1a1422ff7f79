//! Activations and gradients of a network in few buffers: values that are never alive together share one.

use crate::kernels::Float;

/// A value that one layer writes and others read.
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferValue {
    /// Elements per example.
    pub(super) len: usize,
    /// The layer that writes it.
    pub(super) producer: usize,
    /// The last layer that reads it; the number of layers for the network's output.
    pub(super) last_reader: usize,
    /// Whether its gradient leads to a parameter.
    pub(super) needs_gradient: bool,
}

/// What the buffers must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Each activation until its last reader has run.
    Inference,
    /// All activations, and each gradient from its first writer on.
    Training,
}

/// When a value is alive, in steps: first and last.
#[derive(Debug, Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
    len: usize,
}

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
        let back = |layer: usize| 2 * layers - layer;
        let activation = values.iter().map(|value| {
            let last = if purpose == Purpose::Training { back(value.producer) } else { value.last_reader };
            Life { first: value.producer, last, len: value.len }
        });
        let gradient = values.iter().filter(|_| purpose == Purpose::Training).map(|value| {
            let len = if value.needs_gradient { value.len } else { 0 };
            Life { first: back(value.last_reader), last: back(value.producer), len }
        });
        let lives: Vec<Life> = activation.chain(gradient).collect();
        let (places, lens) = share(&lives);
        let (activation, gradient) = places.split_at(values.len());
        let slots = lens.into_iter().map(|len| vec![T::ZERO; len * batch]).collect();
        Self { purpose, slots, activation: activation.to_vec(), gradient: gradient.to_vec() }
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

/// Gives each life a slot that is free all its time, the largest free one first; also returns the slots' lengths.
fn share(lives: &[Life]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (lives[i].first, i));
    let mut places = vec![0; lives.len()];
    let mut slots: Vec<(usize, usize)> = Vec::new(); // (length, last step in use)
    for i in order {
        let life = lives[i];
        let free = (0..slots.len()).filter(|&slot| slots[slot].1 < life.first).max_by_key(|&slot| slots[slot].0);
        let slot = free.unwrap_or_else(|| {
            slots.push((0, 0));
            slots.len() - 1
        });
        slots[slot] = (slots[slot].0.max(life.len), life.last);
        places[i] = slot;
    }
    (places, slots.into_iter().map(|(len, _)| len).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_share_a_slot_only_when_they_are_not_alive_together() {
        let life = |first, last, len| Life { first, last, len };
        let lives = [life(0, 1, 5), life(1, 2, 9), life(2, 4, 3), life(3, 4, 8), life(5, 6, 1)];
        let (places, lens) = share(&lives);
        for (i, a) in lives.iter().enumerate() {
            assert!(lens[places[i]] >= a.len);
            for (j, b) in lives.iter().enumerate().skip(i + 1) {
                assert!(places[i] != places[j] || a.last < b.first || b.last < a.first, "{i} and {j}");
            }
        }
        assert_eq!(lens.len(), 2);
    }
}
