//! What is known beforehand of the examples that a network reads.

use crate::model::graph::Shape;

/// The shape of one input example where it is known, and the value of the request that decides it.
#[derive(Debug, Clone, Copy)]
pub struct ExampleShape<'a> {
    /// The shape.
    pub shape: Option<&'a Shape>,
    /// What decides it.
    pub origin: ShapeOrigin,
}

/// The value of a request that decides the shape of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeOrigin {
    /// Its `input_shape`.
    InputShape,
    /// Its `dataset`.
    Dataset,
}

impl ShapeOrigin {
    /// JSON pointer to the value: faults of the shape stand there.
    pub(super) fn pointer(self) -> &'static str {
        match self {
            Self::InputShape => "/input_shape",
            Self::Dataset => "/dataset",
        }
    }
}

impl<'a> From<Option<&'a Shape>> for ExampleShape<'a> {
    fn from(shape: Option<&'a Shape>) -> Self {
        Self { shape, origin: ShapeOrigin::InputShape }
    }
}
