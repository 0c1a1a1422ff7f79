//! What is read of one file: its values by their names, and the operations so far.

use std::collections::BTreeMap;

use super::constant::Constant;
use super::error::OnnxError;
use super::file::{File, FileNode};
use super::file_tensor::FileTensor;
use super::operation::{OperationKind, PlacedOperation};
use super::size::AxisSize;
use super::value::OnnxValue;
use super::view::ValueView;
use crate::model::graph::{MAX_ELEMENTS, MAX_NODES, Op};

/// Operations on one value among which an equal one is looked for.
const REMEMBERED: usize = 8;

/// Reads the nodes of one file.
pub(super) struct Reader<'a> {
    pub(super) file: &'a File<'a>,
    /// All tensors of the file, those of nodes behind the others.
    pub(super) tensors: Vec<&'a FileTensor<'a>>,
    pub(super) values: BTreeMap<&'a str, OnnxValue<'a>>,
    /// How many nodes read each value.
    pub(super) uses: BTreeMap<&'a str, usize>,
    pub(super) operations: Vec<PlacedOperation<'a>>,
    /// What has been recognised in functions.
    pub(super) settled: BTreeMap<usize, usize>,
    /// The last operations that read each operation.
    pub(super) readers: BTreeMap<usize, Vec<usize>>,
    /// Number of examples, where the file fixes it.
    pub(super) batch: AxisSize,
    /// The node that is being read.
    pub(super) origin: usize,
    /// Elements that constants may still be computed of.
    pub(super) left: usize,
    /// Elements of the matrices that stand for choices of channels.
    pub(super) matrices: usize,
}

impl<'a> Reader<'a> {
    /// Adds an operation; one that is there already is not added again.
    pub(super) fn push(
        &mut self,
        kind: OperationKind,
        inputs: Vec<usize>,
        shape: Vec<usize>,
        weights: Vec<Constant<'a>>,
    ) -> Result<usize, String> {
        let elements = shape.iter().try_fold(1_usize, |all, axis| all.checked_mul(*axis));
        if elements.is_none_or(|elements| elements == 0 || elements > MAX_ELEMENTS) {
            return Err(format!("its output {shape:?} is empty or has more than {MAX_ELEMENTS} elements"));
        }
        // Parts of operations come to few for each.
        if self.operations.len() >= 4 * MAX_NODES {
            return Err(format!("the network has more than {MAX_NODES} operations"));
        }
        let first = inputs.first().copied();
        let others = first.and_then(|first| self.readers.get(&first)).into_iter().flatten().copied();
        let same = |other: &PlacedOperation<'_>| {
            let pairs = || other.weights.iter().zip(&weights);
            other.kind == kind
                && other.inputs == inputs
                && other.weights.len() == weights.len()
                && pairs().all(|(a, b)| a.is_same(b))
        };
        // Channels of zeros are units of their own, each time.
        let is_new = matches!(kind, OperationKind::Graph(Op::Zeros { .. }));
        if let Some(known) = others.rev().take(REMEMBERED).find(|other| !is_new && same(&self.operations[*other])) {
            return Ok(known);
        }
        let new = self.operations.len();
        if let Some(first) = first {
            self.readers.entry(first).or_default().push(new);
        }
        self.operations.push(PlacedOperation { kind, inputs, shape, weights, parts: Vec::new(), origin: self.origin });
        Ok(new)
    }

    /// All of an operation's output, as ONNX orders it.
    pub(super) fn view(&self, node: usize) -> ValueView {
        ValueView::of(node, &self.operations[node].shape, self.batch)
    }

    pub(super) fn shape(&self, node: usize) -> &[usize] {
        &self.operations[node].shape
    }

    pub(super) fn kind(&self, node: usize) -> &OperationKind {
        &self.operations[node].kind
    }
}

/// A fault of a node.
pub(super) fn fault(node: &FileNode<'_>, detail: String) -> OnnxError {
    let output = node.outputs.first().copied().unwrap_or_default();
    let [node, operator, output] = [node.name, node.op, output].map(str::to_owned);
    OnnxError::Node { node, operator, output, detail }
}
