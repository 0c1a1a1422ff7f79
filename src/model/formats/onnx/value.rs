//! Values of an ONNX file.

use super::constant::Constant;
use super::view::View;

/// A value of the file.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    /// Independent of the input.
    Constant(Constant<'a>),
    /// Computed from the input.
    Live(View),
    /// The parts of another value.
    Parts(Vec<Value<'a>>),
}
