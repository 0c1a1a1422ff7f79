//! The one place where files are mapped.

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// Maps `file`, which must be finished: one that nobody writes to or shortens any more. That holds for stored blobs, which
/// are written under fresh keys, synced, never written again, and live on until the last map of them is gone when they
/// are deleted; and for files without a name, which nobody else can open.
///
/// # Errors
/// When the system refuses.
pub fn map(file: &File) -> io::Result<Mmap> {
    #[expect(unsafe_code, reason = "finished files never change, and are only ever read through their maps")]
    // SAFETY: mapping is sound as long as nobody changes the file meanwhile; see above.
    unsafe {
        Mmap::map(file)
    }
}
