//! Weights: checkpoint files that are memory-mapped, state dicts that live in memory, and how one becomes the other.

mod beside;
mod checkpoint;
mod convert;
mod elements;
mod error;
mod map;
mod number;
#[cfg(test)]
pub(crate) mod operation_cases;
mod state_dict;
mod stream;
mod strided;
mod unpacked;
mod write;

use std::borrow::Cow;

pub use beside::CheckpointFiles;
pub use checkpoint::Checkpoint;
pub use elements::Elements;
pub use error::CheckpointError;
pub use map::map;
pub use number::Number;
pub use state_dict::{StateDict, StateDictError};
pub use stream::{Make, MakeRow, Rows, write_rows};
pub use write::Written;

/// Anything that weights can be read from by their name in the `state_dict`.
pub trait Weights: Sync {
    /// The elements of the float tensor `name` as f32, in row-major order.
    ///
    /// # Errors
    /// When there is no such tensor or it holds integers.
    fn f32(&self, name: &str) -> Result<Cow<'_, [f32]>, CheckpointError>;

    /// As [`Self::f32`], for reading piece by piece without a copy of the whole.
    ///
    /// # Errors
    /// When there is no such tensor or it holds integers.
    fn elements(&self, name: &str) -> Result<Elements<'_>, CheckpointError> {
        self.f32(name).map(Elements::Floats)
    }

    /// The only element of the integer tensor `name` (a BatchNorm counter); `None` where there is no such tensor.
    fn counter(&self, name: &str) -> Option<i64>;
}
