//! What is on the disk for certain: contents as of each file's last sync, entries as of each folder's. A power cut leaves that,
//! and of what was written since as much as chance has it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

/// Parts of a file that a disk writes as one.
const BLOCK: usize = 4096;

/// An entry of a folder.
#[derive(Debug, Clone, Copy)]
struct Entry {
    ino: u64,
    is_folder: bool,
}

type Entries = BTreeMap<OsString, Entry>;

/// Where and when the power fails.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Folder for what each cut leaves.
    pub(crate) target: PathBuf,
    /// File to which the client appends what it was promised; its length at the cut says what counts.
    pub(crate) promises: PathBuf,
    /// Calls between two cuts on average; 0 for no cuts.
    pub(crate) gap: u64,
    /// Decides what chance decides.
    pub(crate) seed: u64,
}

/// The state of the disk.
#[derive(Debug)]
pub(crate) struct Durable {
    plan: Plan,
    folders: BTreeMap<u64, Entries>,
    files: BTreeMap<u64, Vec<u8>>,
    root: u64,
    calls: u64,
    next: u64,
    cuts: u64,
    random: u64,
}

/// Opens a file or folder by its number, as it is now.
pub(crate) type Open<'a> = &'a dyn Fn(u64) -> Option<PathBuf>;

fn entries(folder: &Path) -> io::Result<Entries> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        Ok((entry.file_name(), Entry { ino: entry.ino(), is_folder }))
    };
    fs::read_dir(folder)?.map(entry).collect()
}

impl Durable {
    /// Everything that is there now is on the disk.
    pub(crate) fn begin(plan: Plan, root: u64, backing: &Path) -> io::Result<Self> {
        let random = plan.seed | 1;
        let mut durable =
            Self { plan, folders: BTreeMap::new(), files: BTreeMap::new(), root, calls: 0, next: 0, cuts: 0, random };
        durable.settle(root, backing)?;
        durable.next = durable.draw_gap();
        Ok(durable)
    }

    fn settle(&mut self, ino: u64, folder: &Path) -> io::Result<()> {
        let found = entries(folder)?;
        for (name, entry) in &found {
            let path = folder.join(name);
            if entry.is_folder {
                self.settle(entry.ino, &path)?;
            } else {
                self.files.insert(entry.ino, fs::read(path)?);
            }
        }
        self.folders.insert(ino, found);
        Ok(())
    }

    /// A file or folder was synced; `path` opens it.
    pub(crate) fn synced(&mut self, ino: u64, path: &Path) -> io::Result<()> {
        if fs::metadata(path)?.is_dir() {
            self.folders.insert(ino, entries(path)?);
        } else {
            self.files.insert(ino, fs::read(path)?);
        }
        Ok(())
    }

    /// A call has changed something; the power may fail now.
    pub(crate) fn called(&mut self, open: Open<'_>) -> io::Result<()> {
        self.calls += 1;
        if self.plan.gap == 0 || self.calls < self.next {
            return Ok(());
        }
        self.next = self.calls + self.draw_gap();
        let cut = self.plan.target.join(self.cuts.to_string());
        // The first of three loses all that was not synced, the others what chance has it.
        let mixed = !self.cuts.is_multiple_of(3);
        self.cuts += 1;
        let promises = fs::read(&self.plan.promises)?;
        self.write(self.root, &cut, mixed, open)?;
        fs::write(cut.with_extension("promises"), promises)
    }

    /// Calls and cuts so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.calls, self.cuts)
    }

    fn write(&mut self, ino: u64, to: &Path, mixed: bool, open: Open<'_>) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let now = open(ino).filter(|_| mixed && self.coin()).and_then(|path| entries(&path).ok());
        let found = now.or_else(|| self.folders.get(&ino).cloned()).unwrap_or_default();
        for (name, entry) in found {
            let path = to.join(name);
            if entry.is_folder {
                self.write(entry.ino, &path, mixed, open)?;
            } else {
                let mut content = self.files.get(&entry.ino).cloned().unwrap_or_default();
                if mixed && let Some(now) = open(entry.ino).and_then(|path| fs::read(path).ok()) {
                    self.mix(&mut content, &now);
                }
                fs::write(path, content)?;
            }
        }
        Ok(())
    }

    /// Some blocks of `content` become as they are now, and its length perhaps.
    fn mix(&mut self, content: &mut Vec<u8>, now: &[u8]) {
        if self.coin() {
            content.resize(now.len(), 0);
        }
        for (place, block) in content.chunks_mut(BLOCK).enumerate() {
            let begin = place * BLOCK;
            let new = now.get(begin..(begin + block.len()).min(now.len())).unwrap_or_default();
            if self.coin() {
                block[..new.len()].copy_from_slice(new);
            }
        }
    }

    fn draw_gap(&mut self) -> u64 {
        1 + self.draw() % (2 * self.plan.gap.max(1))
    }

    fn coin(&mut self) -> bool {
        self.draw().is_multiple_of(2)
    }

    /// Steele and Vigna's splitmix64: enough for a test.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
