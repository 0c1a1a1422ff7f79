//! The files that a checkpoint lies in, as one sequence of bytes: most are one file, some a file and others beside it.

use std::ops::Range;

/// The bytes of finished files, one behind the other. Nothing lies across the end of a file.
#[derive(Debug, Clone, Default)]
pub struct Files<'a> {
    /// Each file with its first byte in the sequence.
    parts: Vec<(u64, &'a [u8])>,
    len: u64,
}

impl<'a> Files<'a> {
    /// One file alone.
    #[must_use]
    pub fn one(bytes: &'a [u8]) -> Self {
        let mut files = Self::default();
        files.push(bytes);
        files
    }

    /// Puts a file behind the others; says where its bytes are then.
    pub fn push(&mut self, bytes: &'a [u8]) -> Range<u64> {
        let begin = self.len;
        self.len += bytes.len() as u64;
        self.parts.push((begin, bytes));
        begin..self.len
    }

    /// Length of all together.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which file has the byte `at`, or ends there, and where in it that is.
    #[must_use]
    pub fn locate(&self, at: u64) -> Option<(usize, usize)> {
        let part = self.parts.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
        let within = at - self.parts[part].0;
        (within <= self.parts[part].1.len() as u64).then_some((part, within as usize))
    }

    /// What one file holds from `begin` to its end.
    #[must_use]
    pub fn from(&self, begin: u64) -> Option<&'a [u8]> {
        let (part, within) = self.locate(begin)?;
        self.parts[part].1.get(within..)
    }

    /// The bytes of one file from `begin` to `end`.
    #[must_use]
    pub fn get(&self, begin: u64, end: u64) -> Option<&'a [u8]> {
        self.from(begin)?.get(..usize::try_from(end.checked_sub(begin)?).ok()?)
    }
}

/// Whether `name` is the name of a file, and nothing that leads out of its folder.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    const LONGEST: usize = 255;
    !matches!(name, "" | "." | "..")
        && name.len() <= LONGEST
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_in_the_file_that_has_them() {
        let mut files = Files::one(b"abc");
        assert_eq!(files.push(b"defg"), 3..7);
        assert_eq!(files.get(1, 3), Some(&b"bc"[..]));
        assert_eq!(files.get(3, 7), Some(&b"defg"[..]));
        assert_eq!(files.locate(4), Some((1, 1)));
        for (begin, end) in [(2, 4), (5, 8), (8, 8), (3, 2), (u64::MAX, u64::MAX), (0, u64::MAX)] {
            assert_eq!(files.get(begin, end), None, "{begin}..{end}");
        }
        assert_eq!(Files::default().get(0, 0), None);
    }

    #[test]
    fn names_stay_in_their_folder() {
        assert!(is_plain_name("model-00001-of-00002.safetensors") && is_plain_name("..data"));
        for name in ["", ".", "..", "../x", "/x", "a/b", "a\\b", "a\0b", &"x".repeat(256)] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }
}
