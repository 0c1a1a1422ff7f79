//! Networks as files that other programs run.

pub mod onnx;
pub mod pytorch;

use std::path::Path;

use crate::domain::problem::{Code, Problem};

/// A form in which a network leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// Open Neural Network Exchange, for onnxruntime and what else reads it.
    Onnx,
}

impl ExportFormat {
    /// All of them, with the ends of their files' names.
    pub const ALL: [(Self, &str); 1] = [(Self::Onnx, "onnx")];

    /// The format of a file by the end of its name.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] where no format has it.
    pub fn of_path(path: &Path) -> Result<Self, Problem> {
        let own = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let known = Self::ALL.into_iter().find(|(_, extension)| *extension == own);
        known.map(|(format, _)| format).ok_or_else(|| {
            let all = Self::ALL.map(|(_, extension)| format!(".{extension}")).join(", ");
            Problem::new(Code::InvalidRequest, format!("{}: expected a name that ends in {all}", path.display()))
        })
    }
}
