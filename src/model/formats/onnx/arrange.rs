//! Values in the order in which operations read them.

use super::channels::chosen;
use super::operation::OperationKind;
use super::reader::Reader;
use super::size::shown;
use super::view::{Atom, ValueView, ViewAxis, merged, whole};
use crate::model::graph::Op;

impl Reader<'_> {
    /// The same value as an operation's output that has one axis for each axis of the value but the batch, the channels
    /// those of the axis `channels`.
    pub(super) fn arrange(&mut self, view: &ValueView, channels: usize) -> Result<ValueView, String> {
        let view = &self.selected(view)?;
        let shape = self.shape(view.node).to_vec();
        let misfit = || {
            let sizes = shown(&view.sizes());
            format!(
                "the axes of its operand {sizes} are no channels and positions of an example {shape:?} in their order"
            )
        };
        let batch = view.batch_axis().ok_or_else(misfit)?;
        if channels == batch || channels >= view.axes.len() {
            return Err(misfit());
        }
        if !view.is_whole(&shape) {
            return chosen(self, view, channels)?.ok_or_else(misfit);
        }
        let positions: Vec<usize> = (0..view.axes.len()).filter(|axis| *axis != batch && *axis != channels).collect();
        let order: Vec<usize> = std::iter::once(channels).chain(positions.iter().copied()).collect();
        let sizes: Option<Vec<usize>> = order.iter().map(|axis| view.size(*axis).usize()).collect();
        let sizes = sizes.filter(|sizes| sizes.len() <= 3).ok_or_else(misfit)?;
        let through =
            |axes: &[usize]| -> Vec<Atom> { merged(axes.iter().flat_map(|axis| view.axes[*axis].iter().copied())) };
        let own = merged([Atom::new(0, 1, shape[0])]);
        let by_position = view.axes[channels] == own && through(&positions) == whole(&shape, 1);
        let in_order = positions.iter().all(|axis| *axis > channels) && through(&order) == whole(&shape, 0);
        if !by_position && !in_order {
            return chosen(self, view, channels)?.ok_or_else(misfit);
        }
        let node = if sizes == shape {
            view.node
        } else {
            let op = match sizes[1..] {
                [] => Op::Flatten,
                _ => Op::Reshape { positions: sizes[1..].to_vec() },
            };
            let from = self.settle(view.node)?;
            self.push(OperationKind::Graph(op), vec![from], sizes.clone(), Vec::new())?
        };
        let mut axes = vec![Vec::new(); view.axes.len()];
        axes[batch].clone_from(&view.axes[batch]);
        for (place, axis) in order.iter().enumerate() {
            axes[*axis] = merged([Atom::new(place, 1, sizes[place])]);
        }
        Ok(ValueView { node, axes, starts: vec![0; sizes.len()] })
    }

    /// The same value without the other tokens, where it is all channels of one token.
    fn selected(&mut self, view: &ValueView) -> Result<ValueView, String> {
        let [channels, tokens] = self.shape(view.node)[..] else { return Ok(view.clone()) };
        let mut atoms = view.axes.iter().flatten();
        let one = tokens > 1 && atoms.all(|atom| atom.place != ViewAxis::Axis(1));
        if !one || view.starts[0] != 0 || view.channel_axis(&[channels]).is_none() {
            return Ok(view.clone());
        }
        let from = self.settle(view.node)?;
        let op = Op::TokenSelect { index: view.starts[1] };
        let node = self.push(OperationKind::Graph(op), vec![from], vec![channels], Vec::new())?;
        Ok(ValueView { node, axes: view.axes.clone(), starts: vec![0] })
    }

    /// As [`Self::arrange`], as convolutions read a value: N x C x positions.
    pub(super) fn feature_map(&mut self, view: &ValueView) -> Result<ValueView, String> {
        if view.batch_axis() != Some(0) {
            return Err(format!("the first axis of its operand {} is not the batch", shown(&view.sizes())));
        }
        self.arrange(view, 1)
    }
}
