//! Lines of a pipe, of bounded length however long they are.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Whether the line was longer than what is kept of it.
    pub(super) truncated: bool,
}

/// Reads lines; what has been read survives when a call is dropped before it ends.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    longest: usize,
    line: Line,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of at most `longest` bytes; the rest of a longer one is dropped.
    pub(super) fn new(reader: R, longest: usize) -> Self {
        Self { reader: BufReader::new(reader), longest, line: Line { bytes: Vec::new(), truncated: false } }
    }

    /// The next line; `None` at the end.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                let nothing = self.line.bytes.is_empty() && !self.line.truncated;
                return Ok(if nothing { None } else { Some(self.take()) });
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let kept = part.len().min(self.longest - self.line.bytes.len());
            self.line.bytes.extend_from_slice(&part[..kept]);
            self.line.truncated |= kept < part.len();
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        std::mem::replace(&mut self.line, Line { bytes: Vec::new(), truncated: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_end_at_newlines_and_at_the_limit() {
        let mut lines = Lines::new(&b"one\n\nlonger than that\nlast"[..], 5);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.expect("reads") {
            read.push((String::from_utf8(line.bytes).expect("text"), line.truncated));
        }
        let line = |text: &str, truncated| (text.to_owned(), truncated);
        assert_eq!(read, [line("one", false), line("", false), line("longe", true), line("last", false)]);
    }
}
