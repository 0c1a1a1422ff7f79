//! The names of uploaded files.

use std::fmt;
use std::str::FromStr;

use crate::domain::id::{CheckpointId, DatasetId};

const LONGEST: usize = 128;

/// A name that a user gave a file: 1-128 characters of `[A-Za-z0-9._-]`, not only dots, and not the form of an id.
/// It is never used as a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be a file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or too long.
    #[error("expected a name of 1-{LONGEST} characters, got {0}")]
    Length(usize),
    /// A character that is not allowed.
    #[error("expected only characters of [A-Za-z0-9._-] in a name, found {0:?}")]
    Character(char),
    /// Only dots.
    #[error("a name must hold something besides dots")]
    Dots,
    /// Would be taken for an id.
    #[error("a name must not have the form of an id")]
    Id,
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !(1..=LONGEST).contains(&text.len()) {
            return Err(NameError::Length(text.chars().count()));
        }
        let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(other) = text.chars().find(|c| !allowed(c)) {
            return Err(NameError::Character(other));
        }
        if text.bytes().all(|byte| byte == b'.') {
            return Err(NameError::Dots);
        }
        if text.parse::<CheckpointId>().is_ok() || text.parse::<DatasetId>().is_ok() {
            return Err(NameError::Id);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        let error = |text: &str| text.parse::<FileName>().expect_err(text);
        assert!("m0.safetensors".parse::<FileName>().is_ok());
        assert_eq!(error(""), NameError::Length(0));
        assert_eq!(error(&"a".repeat(129)), NameError::Length(129));
        assert_eq!(error("../a"), NameError::Character('/'));
        assert_eq!(error("a b"), NameError::Character(' '));
        assert_eq!(error("é"), NameError::Character('é'));
        assert_eq!(error(".."), NameError::Dots);
        assert_eq!(error(&CheckpointId::new().to_string()), NameError::Id);
    }
}
