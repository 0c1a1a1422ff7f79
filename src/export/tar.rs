//! Tar archives of files whose lengths are known before they are written.

use std::io::{self, Write};

/// Bytes of a block: of a header, and what every file is padded to.
const BLOCK: usize = 512;

/// Writes the file `name` of `len` bytes, which `content` writes.
///
/// # Errors
/// Where writing fails, or the content has another length.
pub(super) fn file<W: Write>(
    out: &mut W,
    name: &str,
    len: u64,
    content: impl FnOnce(&mut Counted<'_, W>) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(len);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    let mut counted = Counted { out, bytes: 0 };
    content(&mut counted)?;
    if counted.bytes != len {
        return Err(io::Error::other(format!("`{name}` has {} bytes, not {len}", counted.bytes)));
    }
    let rest = (len % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
}

/// Writes the end of an archive.
///
/// # Errors
/// Where writing fails.
pub(super) fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Counts what is written.
#[derive(Debug)]
pub(super) struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
