//! A file system that hands every call on to a folder, unless the [`Switch`] says that it fails. Database, blobs and scratch
//! files see it alike, whichever process they are used from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};

use crate::durable::{Durable, Plan};
use crate::switch::{Call, Fault, Switch};

/// Nothing is remembered by the kernel for longer: tests change files behind its back.
const TTL: Duration = Duration::ZERO;

/// Mounts the layer of `backing` and serves it until the session is dropped.
pub(crate) fn mount(
    backing: &Path,
    mountpoint: &Path,
    switch: Arc<Switch>,
    power: Arc<Power>,
) -> io::Result<BackgroundSession> {
    fuser::spawn_mount(Layer::new(backing, switch, power)?, mountpoint, &Config::default())
}

/// The disk whose power may fail, while that is played.
#[derive(Debug, Default)]
pub(crate) struct Power(Mutex<Option<Durable>>);

impl Power {
    /// Everything that is there now is on the disk.
    pub(crate) fn begin(&self, plan: Plan, backing: &Path) -> io::Result<()> {
        let durable = Durable::begin(plan, INodeNo::ROOT.0, backing)?;
        *self.0.lock().expect("no panic before") = Some(durable);
        Ok(())
    }

    /// The power stays. Calls and cuts.
    pub(crate) fn end(&self) -> (u64, u64) {
        let durable = self.0.lock().expect("no panic before").take();
        durable.map_or((0, 0), |durable| durable.counts())
    }
}

struct Layer {
    switch: Arc<Switch>,
    power: Arc<Power>,
    /// A handle to each file that the kernel knows, also without a name, by the number that the kernel knows it by.
    nodes: Mutex<BTreeMap<u64, Arc<OwnedFd>>>,
    /// Open files and folders.
    open: Mutex<BTreeMap<u64, Arc<File>>>,
    next: AtomicU64,
}

impl Layer {
    fn new(backing: &Path, switch: Arc<Switch>, power: Arc<Power>) -> io::Result<Self> {
        let root = rustix::fs::open(backing, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        let nodes = Mutex::new(BTreeMap::from([(INodeNo::ROOT.0, Arc::new(root))]));
        Ok(Self { switch, power, nodes, open: Mutex::default(), next: AtomicU64::new(1) })
    }

    /// EIO or ENOSPC where the switch says so.
    fn ask(&self, call: Call, what: &'static str) -> Result<(), Errno> {
        match self.switch.strikes(call, what) {
            Some(Fault::Broken) => Err(Errno::EIO),
            Some(Fault::Full) => Err(Errno::ENOSPC),
            Some(Fault::Short) | None => Ok(()),
        }
    }

    fn node(&self, ino: INodeNo) -> Result<Arc<OwnedFd>, Errno> {
        self.nodes.lock().expect("no panic before").get(&ino.0).cloned().ok_or(Errno::ESTALE)
    }

    /// The file `name` in `parent`, as the kernel sees it.
    fn entry(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let parent = self.node(parent)?;
        let node = rustix::fs::openat(&*parent, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).map_err(errno)?;
        let attr = attr(&rustix::fs::fstat(&node).map_err(errno)?);
        self.nodes.lock().expect("no panic before").insert(attr.ino.0, Arc::new(node));
        Ok(attr)
    }

    fn attr(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let stat = rustix::fs::fstat(&*self.node(ino)?).map_err(errno)?;
        Ok(FileAttr { ino, ..attr(&stat) })
    }

    fn opened(&self, ino: INodeNo, flags: i32) -> Result<FileHandle, Errno> {
        let flags = OFlags::from_bits_retain(flags as u32) & !(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
        let file = rustix::fs::open(of_node(&*self.node(ino)?), flags, Mode::empty()).map_err(errno)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().expect("no panic before").insert(number, Arc::new(File::from(file)));
        Ok(FileHandle(number))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        self.open.lock().expect("no panic before").get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn close(&self, handle: FileHandle) {
        self.open.lock().expect("no panic before").remove(&handle.0);
    }

    fn sync(&self, ino: INodeNo, handle: FileHandle) -> Result<(), Errno> {
        // The machine goes on, so nothing has to reach the disk: only that it fails, or the power, is played.
        self.ask(Call::Frugal, "sync")?;
        self.file(handle)?;
        if let Some(durable) = &mut *self.power.0.lock().expect("no panic before") {
            durable.synced(ino.0, &of_node(&*self.node(ino)?))?;
        }
        self.changed();
        Ok(())
    }

    /// Something has changed: the power may fail now.
    fn changed(&self) {
        if let Some(durable) = &mut *self.power.0.lock().expect("no panic before") {
            let open = |ino| self.node(INodeNo(ino)).ok().map(|node| of_node(&node));
            durable.called(&open).expect("what a cut leaves can be written");
        }
    }

    fn change(
        &self,
        ino: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
        modified: Option<TimeOrNow>,
    ) -> Result<FileAttr, Errno> {
        let path = of_node(&*self.node(ino)?);
        if let Some(mode) = mode {
            std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        if let Some(size) = size {
            self.ask(if size > self.attr(ino)?.size { Call::Growing } else { Call::Frugal }, "truncate")?;
            File::options().write(true).open(&path)?.set_len(size)?;
        }
        if let Some(TimeOrNow::SpecificTime(time)) = modified {
            File::options().write(true).open(&path)?.set_modified(time)?;
        }
        self.attr(ino)
    }

    fn list(&self, ino: INodeNo) -> Result<Vec<(INodeNo, FileType, std::ffi::OsString)>, Errno> {
        self.ask(Call::Frugal, "list")?;
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(of_node(&*self.node(ino)?))? {
            let entry = entry?;
            let kind = if entry.file_type()?.is_dir() { FileType::Directory } else { FileType::RegularFile };
            entries.push((INodeNo(std::os::unix::fs::DirEntryExt::ino(&entry)), kind, entry.file_name()));
        }
        Ok(entries)
    }
}

/// A path that opens the file behind a handle, whether or not it has a name.
fn of_node(node: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", node.as_raw_fd()))
}

/// Whether it is the file that processes share through their memory maps, SQLite's `-shm`. Whoever reads it that way gets no
/// error but a signal; it is written anew with each start, and its pages are in memory for as long as anybody uses them.
fn is_shared_memory(file: &File) -> bool {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    path.is_ok_and(|path| path.to_string_lossy().ends_with("-shm"))
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn attr(stat: &Stat) -> FileAttr {
    let time = |seconds: i64, nanos: u64| {
        SystemTime::UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), u32::try_from(nanos).unwrap_or(0))
    };
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::Directory => FileType::Directory,
        _ => FileType::RegularFile,
    };
    FileAttr {
        ino: INodeNo(stat.st_ino),
        size: stat.st_size.unsigned_abs(),
        blocks: stat.st_blocks.unsigned_abs(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $answered:expr) => {
        match $result {
            Ok($value) => $answered,
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Layer {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.entry(parent, name), attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.attr(ino), attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, self.change(ino, mode, size, modified), attr => reply.attr(&TTL, &attr));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.ask(Call::Growing, "mkdir").and_then(|()| {
            let parent_node = self.node(parent)?;
            rustix::fs::mkdirat(&*parent_node, name, Mode::from_raw_mode(mode)).map_err(errno)?;
            self.entry(parent, name)
        });
        self.changed();
        answer!(reply, made, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self
            .ask(Call::Frugal, "unlink")
            .and_then(|()| rustix::fs::unlinkat(&*self.node(parent)?, name, AtFlags::empty()).map_err(errno));
        self.changed();
        answer!(reply, removed, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self
            .ask(Call::Frugal, "rmdir")
            .and_then(|()| rustix::fs::unlinkat(&*self.node(parent)?, name, AtFlags::REMOVEDIR).map_err(errno));
        self.changed();
        answer!(reply, removed, () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.ask(Call::Growing, "rename").and_then(|()| {
            rustix::fs::renameat(&*self.node(parent)?, name, &*self.node(newparent)?, newname).map_err(errno)
        });
        self.changed();
        answer!(reply, renamed, () => reply.ok());
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let linked = self.ask(Call::Growing, "link").and_then(|()| {
            let (node, parent) = (self.node(ino)?, self.node(newparent)?);
            rustix::fs::linkat(rustix::fs::CWD, of_node(&node), &*parent, newname, AtFlags::SYMLINK_FOLLOW)
                .map_err(errno)?;
            self.entry(newparent, newname)
        });
        self.changed();
        answer!(reply, linked, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.ask(Call::Frugal, "open").and_then(|()| self.opened(ino, flags.0));
        answer!(reply, opened, handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        let created = self.ask(Call::Growing, "create").and_then(|()| {
            let parent_node = self.node(parent)?;
            let making = OFlags::CREATE | OFlags::WRONLY | (OFlags::from_bits_retain(flags as u32) & OFlags::EXCL);
            rustix::fs::openat(&*parent_node, name, making, Mode::from_raw_mode(mode)).map_err(errno)?;
            let attr = self.entry(parent, name)?;
            Ok((attr, self.opened(attr.ino, flags)?))
        });
        self.changed();
        answer!(reply, created, (attr, handle) => reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.file(handle).and_then(|file| {
            if !is_shared_memory(&file) {
                self.ask(Call::Frugal, "read")?;
            }
            let mut bytes = vec![0; size as usize];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                    0 => break,
                    count => filled += count,
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        });
        answer!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = match self.switch.strikes(Call::Writing, "write") {
            Some(Fault::Broken) => Err(Errno::EIO),
            Some(Fault::Full) => Err(Errno::ENOSPC),
            Some(Fault::Short) => Ok(&data[..data.len().div_ceil(2)]),
            None => Ok(data),
        };
        let written = written.and_then(|bytes| {
            self.file(handle)?.write_all_at(bytes, offset)?;
            Ok(bytes.len() as u32)
        });
        self.changed();
        answer!(reply, written, bytes => reply.written(bytes));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.close(handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(ino, handle), () => reply.ok());
    }

    fn opendir(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.opened(ino, flags.0), handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        answer!(reply, self.list(ino), entries => {
            for (number, (ino, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
                if reply.add(ino, number as u64 + 1, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.close(handle);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(ino, handle), () => reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let stat = self.node(INodeNo::ROOT).and_then(|root| rustix::fs::fstatvfs(&*root).map_err(errno));
        answer!(reply, stat, stat => reply.statfs(
            stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree,
            stat.f_bsize as u32, stat.f_namemax as u32, stat.f_frsize as u32,
        ));
    }
}
