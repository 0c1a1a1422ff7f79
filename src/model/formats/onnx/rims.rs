//! Sizes of windows and the rims around what they slide over.

use super::file::FileNode;
use super::operation::{OperationKind, Rim};
use super::reader::Reader;
use super::view::ValueView;

/// The sizes of a window's attribute along each of `axes` axes.
pub(super) fn along<const N: usize>(node: &FileNode<'_>, name: &str, default: usize) -> Result<[usize; N], String> {
    let Some(sizes) = node.integers(name) else { return Ok([default; N]) };
    let sizes: Option<Vec<usize>> = sizes.iter().map(|size| usize::try_from(*size).ok()).collect();
    let sizes = sizes.and_then(|sizes| <[usize; N]>::try_from(sizes).ok());
    sizes.ok_or_else(|| format!("expected {N} sizes as `{name}`"))
}

/// The rims around the positions that an operator reads.
pub(super) struct Rims {
    /// The value without the rim that a Pad has put around it.
    pub(super) from: usize,
    /// Before and behind each axis, of the Pad.
    pub(super) outer: [Vec<usize>; 2],
    /// The same, of the operator itself.
    pub(super) own: [Vec<usize>; 2],
}

impl Rims {
    /// Both together.
    pub(super) fn total(&self, side: usize) -> Vec<usize> {
        self.outer[side].iter().zip(&self.own[side]).map(|(outer, own)| outer.saturating_add(*own)).collect()
    }
}

/// The rims that an operator reads; a Pad's must be of the kind `accepted`.
pub(super) fn rims(reader: &Reader<'_>, node: &FileNode<'_>, x: &ValueView, accepted: Rim) -> Result<Rims, String> {
    let axes = reader.shape(x.node).len() - 1;
    let pads = match node.text("auto_pad") {
        Some("VALID") => &[],
        None | Some("NOTSET" | "") => node.integers("pads").unwrap_or_default(),
        Some(other) => return Err(format!("auto_pad `{other}` is not read; export with explicit pads")),
    };
    let pads: Option<Vec<usize>> = pads.iter().map(|pad| usize::try_from(*pad).ok()).collect();
    let own = match pads {
        Some(pads) if pads.is_empty() => [vec![0; axes], vec![0; axes]],
        Some(pads) if pads.len() == 2 * axes => [pads[..axes].to_vec(), pads[axes..].to_vec()],
        _ => return Err("its pads are negative or not two for each axis".to_owned()),
    };
    match reader.kind(x.node) {
        OperationKind::Padded { begin, end, rim } if *rim == accepted => {
            Ok(Rims { from: reader.operations[x.node].inputs[0], outer: [begin.clone(), end.clone()], own })
        }
        OperationKind::Padded { .. } => {
            Err("the rim that a Pad has put around its operand is not read here".to_owned())
        }
        _ => Ok(Rims { from: x.node, outer: [vec![0; axes], vec![0; axes]], own }),
    }
}
