//! Values of an ONNX file.

use super::constant::Constant;
use super::view::ValueView;

/// A value of the file.
#[derive(Debug, Clone)]
pub(super) enum OnnxValue<'a> {
    /// Independent of the input.
    Constant(Constant<'a>),
    /// Computed from the input.
    Live(ValueView),
    /// The parts of another value.
    Parts(Vec<OnnxValue<'a>>),
}
