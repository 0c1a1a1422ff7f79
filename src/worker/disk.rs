//! What a job takes of the disk while it runs, and what it may take.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::domain::problem::{Code, Problem};
use crate::store::StoreError;
use crate::store::disk::free_bytes;

/// Bytes of a block, as `stat` counts them.
const BLOCK: u64 = 512;

/// What an attempt may take of the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Bytes that the job is expected to take at its peak, and has reserved.
    pub(super) reserved: u64,
    /// Bytes that it may take at most.
    pub(super) limit: Option<u64>,
    /// Bytes that jobs leave free.
    pub(super) keep_free: u64,
}

/// Bytes of disk that jobs may take where `scratch` lies, or will.
pub(super) fn room(scratch: &Path, keep_free: u64) -> Result<u64, StoreError> {
    let folder = scratch.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    Ok(free_bytes(folder)?.saturating_sub(keep_free))
}

impl Allowance {
    /// Why an attempt that would write below `scratch` cannot begin, if it cannot.
    pub(super) fn check_before(self, scratch: &Path) -> Option<Problem> {
        if let Some(limit) = self.limit.filter(|limit| self.reserved > *limit) {
            let detail = format!(
                "The job needs about {} of scratch space (`disk_basis` in its plan adds them up), and its worker lets a job take {} \
                 (--scratch-limit).",
                mb(self.reserved),
                mb(limit)
            );
            return Some(Problem::new(Code::ScratchLimitExceeded, detail));
        }
        let room = match room(scratch, self.keep_free) {
            Ok(room) => room,
            Err(error) => return Some(error.into()),
        };
        (self.reserved > room).then(|| {
            let detail = format!(
                "The job needs about {} of scratch space, and there is room for {} beside the {} that stay free (--keep-free).",
                mb(self.reserved),
                mb(room),
                mb(self.keep_free)
            );
            Problem::new(Code::DiskFull, detail)
        })
    }

    /// Why an attempt that has written to `folder`, with the process `process`, cannot go on, if it cannot: it has taken more than
    /// it may, or it is the one that has taken more than it said while the disk runs full.
    pub(super) fn check(self, folder: &Path, process: Option<u32>) -> Option<Problem> {
        let used = used(folder, process);
        if let Some(limit) = self.limit.filter(|limit| used > *limit) {
            let detail = format!(
                "The job has taken {} of scratch space, and may take {} (--scratch-limit).",
                mb(used),
                mb(limit)
            );
            return Some(Problem::new(Code::ScratchLimitExceeded, detail));
        }
        let free = free_bytes(folder).ok()?;
        (used > self.reserved && free < self.keep_free).then(|| {
            let detail = format!(
                "The job has taken {} of scratch space where {} were expected, and the disk has {} left of the {} that stay free \
                 (--keep-free).",
                mb(used),
                mb(self.reserved),
                mb(free),
                mb(self.keep_free)
            );
            Problem::new(Code::DiskFull, detail)
        })
    }
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Bytes of disk that the files in `folder` take, and those that `process` has open there without a name.
fn used(folder: &Path, process: Option<u32>) -> u64 {
    // A file of two names, or open twice, is one.
    let mut files = BTreeMap::new();
    let mut count = |file: &Metadata| files.insert((file.dev(), file.ino()), file.blocks() * BLOCK);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(file) = entry.metadata() {
            count(&file);
        }
    }
    let open = process.map(|process| format!("/proc/{process}/fd"));
    for entry in open.and_then(|open| fs::read_dir(open).ok()).into_iter().flatten().flatten() {
        let is_inside = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(folder));
        if let (true, Ok(file)) = (is_inside, fs::metadata(entry.path())) {
            count(&file);
        }
    }
    files.values().sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_with_and_without_a_name_count_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |mut file: fs::File| {
            file.write_all(&vec![1; 100_000]).and_then(|()| file.sync_all()).expect("writes");
            file
        };
        let _named = write(fs::File::create(folder.path().join("a")).expect("makes"));
        let _nameless = write(tempfile::tempfile_in(folder.path()).expect("makes"));
        let used = used(folder.path(), Some(std::process::id()));
        assert!((200_000..300_000).contains(&used), "{used}");
    }

    #[test]
    fn an_attempt_is_told_with_numbers_what_it_cannot_have() {
        let folder = tempfile::tempdir().expect("a folder");
        let nothing = Allowance { reserved: 0, limit: None, keep_free: 0 };
        assert_eq!(nothing.check_before(folder.path()), None);
        let limited = Allowance { reserved: 2_000_000, limit: Some(1_000_000), ..nothing };
        let problem = limited.check_before(folder.path()).expect("too much");
        assert_eq!(problem.code, Code::ScratchLimitExceeded);
        assert!(problem.detail.contains("2.0 MB") && problem.detail.contains("1.0 MB"), "{problem}");
        let crowded = Allowance { reserved: u64::MAX / 2, ..nothing };
        assert_eq!(crowded.check_before(folder.path()).map(|problem| problem.code), Some(Code::DiskFull));
        fs::write(folder.path().join("a"), vec![1; 100_000]).expect("writes");
        let over = Allowance { limit: Some(50_000), ..nothing };
        assert_eq!(over.check(folder.path(), None).map(|problem| problem.code), Some(Code::ScratchLimitExceeded));
        let blamed = Allowance { reserved: 50_000, keep_free: u64::MAX, ..nothing };
        assert_eq!(blamed.check(folder.path(), None).map(|problem| problem.code), Some(Code::DiskFull));
        let innocent = Allowance { reserved: 500_000, ..blamed };
        assert_eq!(innocent.check(folder.path(), None), None, "somebody else has filled the disk");
    }
}
