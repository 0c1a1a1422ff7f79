//! What the messages of an ONNX file may hold.

use super::error::OnnxError;
use crate::model::formats::protobuf::Field;

/// Most names, numbers and attributes that are kept apart from the file.
const MAX_PARTS: usize = 1 << 22;
/// Longest name of a node, value or tensor, in bytes.
const MAX_NAME: usize = 1024;

/// How much may still be kept apart from the file.
pub(super) struct CopyBudget(usize);

impl Default for CopyBudget {
    fn default() -> Self {
        Self(MAX_PARTS)
    }
}

impl CopyBudget {
    pub(super) fn take(&mut self, parts: usize) -> Result<(), OnnxError> {
        let left = self.0.checked_sub(parts);
        let limit = || OnnxError::Limit { what: "more names and numbers".to_owned(), most: MAX_PARTS };
        self.0 = left.ok_or_else(limit)?;
        Ok(())
    }
}

/// A name.
pub(super) fn text<'a>(field: &Field<'a>) -> Result<&'a str, OnnxError> {
    let piece = field.piece()?;
    let text = std::str::from_utf8(piece.bytes).ok().filter(|text| text.len() <= MAX_NAME);
    text.ok_or_else(|| OnnxError::Model(format!("the text at byte {} is too long, or no text", piece.begin)))
}
