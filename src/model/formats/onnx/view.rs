//! How a value's axes lie in the output of an operation: every reshape, transpose and slice is a matter of names until
//! something computes with the value.

use super::size::AxisSize;

/// An axis of an operation's output, or the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ViewAxis {
    Batch,
    /// Axis of the shape of one example: 0 are the channels.
    Axis(usize),
}

/// A part of an axis: every `stride`-th index, `size` of them; one index again and again where `stride` is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Atom {
    pub(super) place: ViewAxis,
    pub(super) stride: usize,
    pub(super) size: AxisSize,
}

impl Atom {
    pub(super) fn new(axis: usize, stride: usize, size: usize) -> Self {
        Self { place: ViewAxis::Axis(axis), stride, size: AxisSize::of(size as i64) }
    }

    fn is_trivial(&self) -> bool {
        self.place != ViewAxis::Batch && self.size == AxisSize::ONE
    }
}

/// A value as the output of an operation, whose elements are counted through in another order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueView {
    /// The operation.
    pub(super) node: usize,
    /// For each axis of the value what it counts through, from the outside in; nothing where its size is 1.
    pub(super) axes: Vec<Vec<Atom>>,
    /// Where the value begins along each axis of the output.
    pub(super) starts: Vec<usize>,
}

/// A list of parts without those of size 1; neighbours that count through one axis together are one.
pub(super) fn merged(atoms: impl IntoIterator<Item = Atom>) -> Vec<Atom> {
    let mut list: Vec<Atom> = Vec::new();
    for atom in atoms.into_iter().filter(|atom| !atom.is_trivial()) {
        match list.last_mut() {
            Some(last)
                if last.place == atom.place
                    && atom.place != ViewAxis::Batch
                    && Some(last.stride) == atom.size.usize().and_then(|size| atom.stride.checked_mul(size)) =>
            {
                last.stride = atom.stride;
                last.size.factor *= atom.size.factor;
            }
            _ => list.push(atom),
        }
    }
    list
}

/// All of an output of this shape, axis by axis from `first` on.
pub(super) fn whole(shape: &[usize], first: usize) -> Vec<Atom> {
    let axes = shape.iter().enumerate().skip(first);
    merged(axes.map(|(axis, size)| Atom::new(axis, 1, *size)))
}

impl ValueView {
    /// The output of `node`, N x its shape.
    pub(super) fn of(node: usize, shape: &[usize], batch: AxisSize) -> Self {
        let examples = vec![Atom { place: ViewAxis::Batch, stride: 1, size: batch }];
        let axes = shape.iter().enumerate().map(|(axis, size)| merged([Atom::new(axis, 1, *size)]));
        Self { node, axes: std::iter::once(examples).chain(axes).collect(), starts: vec![0; shape.len()] }
    }

    /// Size of an axis.
    pub(super) fn size(&self, axis: usize) -> AxisSize {
        AxisSize::product(self.axes[axis].iter().map(|atom| atom.size)).unwrap_or(AxisSize::ONE)
    }

    /// Sizes of all axes.
    pub(super) fn sizes(&self) -> Vec<AxisSize> {
        (0..self.axes.len()).map(|axis| self.size(axis)).collect()
    }

    /// The same order of another operation's output of the same shape.
    pub(super) fn onto(&self, node: usize) -> Self {
        Self { node, ..self.clone() }
    }

    /// The axis that is the batch and nothing else.
    pub(super) fn batch_axis(&self) -> Option<usize> {
        self.axes.iter().position(|atoms| matches!(atoms[..], [Atom { place: ViewAxis::Batch, .. }]))
    }

    /// Whether it is all of an output of this shape, and nothing twice.
    pub(super) fn is_whole(&self, shape: &[usize]) -> bool {
        let atoms = self.axes.iter().flatten().filter(|atom| atom.place != ViewAxis::Batch);
        let all: i64 = atoms.clone().map(|atom| atom.size.factor).product();
        atoms.clone().all(|atom| atom.stride > 0)
            && all == shape.iter().product::<usize>() as i64
            && self.starts.iter().all(|start| *start == 0)
    }

    /// The axis that counts through all channels, in their order, and nothing else.
    pub(super) fn channel_axis(&self, shape: &[usize]) -> Option<usize> {
        let channels = merged([Atom::new(0, 1, shape[0])]);
        if channels.is_empty() {
            // One channel leaves no trace; it is where channels usually are.
            return [1, self.axes.len().saturating_sub(1)]
                .into_iter()
                .find(|axis| self.axes.get(*axis).is_some_and(Vec::is_empty));
        }
        self.axes.iter().position(|atoms| *atoms == channels)
    }

    /// The value with axes of other sizes, in the same order of elements.
    pub(super) fn reshape(&self, sizes: &[AxisSize]) -> Option<Self> {
        let mut rest: Vec<Atom> = self.axes.iter().flatten().copied().rev().collect();
        let mut axes = Vec::with_capacity(sizes.len());
        for size in sizes {
            let (mut atoms, mut open) = (Vec::new(), *size);
            // A batch of one example.
            if open == AxisSize::ONE
                && rest.last().is_some_and(|atom| atom.place == ViewAxis::Batch && atom.size == open)
            {
                atoms.extend(rest.pop());
            }
            while open != AxisSize::ONE {
                let atom = rest.pop()?;
                if let Some(left) = open.over(atom.size) {
                    open = left;
                    atoms.push(atom);
                } else {
                    let inner = atom.size.over(open).filter(|_| atom.place != ViewAxis::Batch)?;
                    let stride = atom.stride.checked_mul(inner.usize()?)?;
                    atoms.push(Atom { stride, size: open, ..atom });
                    rest.push(Atom { size: inner, ..atom });
                    open = AxisSize::ONE;
                }
            }
            axes.push(merged(atoms));
        }
        rest.is_empty().then(|| Self { axes, ..self.clone() })
    }

    /// The value with its axes in another order.
    pub(super) fn transpose(&self, order: &[usize]) -> Option<Self> {
        let mut seen = vec![false; self.axes.len()];
        for axis in order {
            if std::mem::replace(seen.get_mut(*axis)?, true) {
                return None;
            }
        }
        (order.len() == self.axes.len())
            .then(|| Self { axes: order.iter().map(|axis| self.axes[*axis].clone()).collect(), ..self.clone() })
    }

    /// The indices from `begin` to before `end` of an axis.
    pub(super) fn slice(&self, axis: usize, begin: usize, end: usize) -> Option<Self> {
        if (begin, Some(end)) == (0, self.size(axis).usize()) {
            return Some(self.clone());
        }
        let mut part = self.clone();
        let (outer, inner) = part.axes[axis].split_first_mut()?;
        let ViewAxis::Axis(place) = outer.place else { return None };
        let inner = AxisSize::product(inner.iter().map(|atom| atom.size))?.usize()?;
        let size = outer.size.usize()?.checked_mul(inner)?;
        if end > size || !begin.is_multiple_of(inner) || !end.is_multiple_of(inner) || end <= begin {
            return None;
        }
        part.starts[place] += begin / inner * outer.stride;
        outer.size = AxisSize::of(((end - begin) / inner) as i64);
        part.axes[axis] = merged(part.axes[axis].clone());
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(list: &[i64]) -> Vec<AxisSize> {
        list.iter()
            .map(|size| if *size < 0 { AxisSize { factor: -size, batch: true } } else { AxisSize::of(*size) })
            .collect()
    }

    #[test]
    fn reshapes_and_transposes_are_found_again() {
        let image = ValueView::of(0, &[6, 4, 5], AxisSize::BATCH);
        let tokens = image.reshape(&sizes(&[-1, 6, 20])).unwrap().transpose(&[0, 2, 1]).unwrap();
        assert_eq!(tokens.sizes(), sizes(&[-1, 20, 6]));
        assert_eq!(tokens.channel_axis(&[6, 4, 5]), Some(2));
        let back = tokens.transpose(&[0, 2, 1]).unwrap().reshape(&sizes(&[-1, 6, 4, 5])).unwrap();
        assert_eq!(back, image);
        assert_eq!(image.reshape(&sizes(&[-1, 120])).unwrap().axes[1], whole(&[6, 4, 5], 0));
        assert!(tokens.reshape(&sizes(&[-1, 7, 17])).is_none());
        assert!(tokens.reshape(&sizes(&[-1, 120])).unwrap().channel_axis(&[6, 4, 5]).is_none());
    }

    #[test]
    fn heads_and_batches_come_apart() {
        let packed = ValueView::of(0, &[24, 5], AxisSize::BATCH).transpose(&[2, 0, 1]).unwrap();
        let heads = packed.reshape(&sizes(&[5, -1, 3, 2, 4])).unwrap();
        let keys = heads.slice(2, 1, 2).unwrap();
        assert_eq!(keys.starts, [8, 0]);
        assert_eq!(keys.axes[3], [Atom::new(0, 4, 2)]);
        let merged = keys.reshape(&sizes(&[5, -2, 4])).unwrap();
        assert_eq!(merged.sizes(), sizes(&[5, -2, 4]));
        assert!(!keys.is_whole(&[24, 5]) && heads.is_whole(&[24, 5]));
    }

    #[test]
    fn a_batch_of_one_stays_an_axis() {
        let one = ValueView::of(0, &[6, 4], AxisSize::ONE);
        let vector = one.reshape(&sizes(&[1, 24])).unwrap();
        assert_eq!(vector.batch_axis(), Some(0));
        let first = one.transpose(&[2, 0, 1]).unwrap().reshape(&sizes(&[4, 2, 3])).unwrap();
        assert_eq!(first.reshape(&sizes(&[4, 1, 6])).unwrap().batch_axis(), Some(1));
    }
}
