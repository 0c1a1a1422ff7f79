//! Which values of a network are alive when: those that never are together share memory.

/// A value that one layer writes and others read.
#[derive(Debug, Clone, Copy)]
pub(in crate::exec) struct BufferValue {
    /// Elements per example.
    pub(in crate::exec) len: usize,
    /// Channels of each of its positions.
    pub(in crate::exec) channels: usize,
    /// The layer that writes it.
    pub(in crate::exec) producer: usize,
    /// The last layer that reads it; the number of layers for the network's output.
    pub(in crate::exec) last_reader: usize,
    /// Whether its gradient leads to a parameter.
    pub(in crate::exec) needs_gradient: bool,
}

/// What the buffers must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::exec) enum Purpose {
    /// Each activation until its last reader has run.
    Inference,
    /// All activations, and each gradient from its first writer on.
    Training,
}

/// Which slot holds what.
#[derive(Debug, Clone)]
pub(in crate::exec) struct Slots {
    /// That of each value's activation.
    pub(in crate::exec) activation: Vec<usize>,
    /// That of each value's gradient.
    pub(in crate::exec) gradient: Vec<usize>,
    /// Elements per example of each slot.
    pub(in crate::exec) lens: Vec<usize>,
}

impl Slots {
    /// For `values` of a network of `layers` layers.
    pub(in crate::exec) fn plan(values: &[BufferValue], layers: usize, purpose: Purpose) -> Self {
        let own: Vec<usize> = (0..values.len()).collect();
        Self::plan_shared(values, layers, purpose, &own)
    }

    /// The same where the gradient of each value is in the slot of the gradient of another one, which is its own otherwise.
    pub(in crate::exec) fn plan_shared(
        values: &[BufferValue],
        layers: usize,
        purpose: Purpose,
        shared: &[usize],
    ) -> Self {
        let back = |layer: usize| 2 * layers - layer;
        let activation = values.iter().map(|value| {
            let last = if purpose == Purpose::Training { back(value.producer) } else { value.last_reader };
            Life { first: value.producer, last, len: value.len }
        });
        let gradient = values.iter().filter(|_| purpose == Purpose::Training).map(|value| {
            let len = if value.needs_gradient { value.len } else { 0 };
            Life { first: back(value.last_reader), last: back(value.producer), len }
        });
        let mut gradient: Vec<Life> = gradient.collect();
        for value in 0..gradient.len() {
            let (life, whole) = (gradient[value], &mut gradient[shared[value]]);
            (whole.first, whole.last) = (whole.first.min(life.first), whole.last.max(life.last));
        }
        let owners: Vec<usize> = (0..gradient.len()).filter(|value| shared[*value] == *value).collect();
        let lives: Vec<Life> = activation.chain(owners.iter().map(|value| gradient[*value])).collect();
        let (places, lens) = share(&lives);
        let (activation, owned) = places.split_at(values.len());
        let mut slots = vec![0; gradient.len()];
        owners.iter().zip(owned).for_each(|(owner, slot)| slots[*owner] = *slot);
        let gradient = shared[..gradient.len()].iter().map(|owner| slots[*owner]).collect();
        Self { activation: activation.to_vec(), gradient, lens }
    }
}

/// When a value is alive, in steps: first and last.
#[derive(Debug, Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
    len: usize,
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
    fn gradients_that_are_one_have_one_slot_all_their_time() {
        let value =
            |producer, last_reader| BufferValue { len: 4, channels: 1, producer, last_reader, needs_gradient: true };
        // The third value is the sum of the first two.
        let values = [value(0, 2), value(1, 2), value(2, 3), value(3, 4)];
        let Slots { activation, gradient, .. } = Slots::plan_shared(&values, 4, Purpose::Training, &[2, 2, 2, 3]);
        assert!(gradient[..2] == [gradient[2]; 2] && gradient[3] != gradient[2]);
        assert!(
            !activation.contains(&gradient[2]),
            "{activation:?}: all are alive when the first two values have their turn"
        );
    }

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
