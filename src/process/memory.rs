//! What the process has allocated: a count, its peak, and a limit.
//!
//! The limit is on what is requested from the allocator, as a plan estimates it: mapped files, stacks and the program itself are
//! not counted. A process that meets it says so and ends, where the system would have killed it without a word, and others with it.

use std::alloc::{GlobalAlloc, Layout};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static FAREWELL: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Exit code of a process that has met its limit.
const EXHAUSTED: i32 = 1;

/// An allocator that counts what another one hands out.
#[derive(Debug, Default)]
pub struct Metered<A>(pub A);

// SAFETY: every call is handed to the inner allocator unchanged; what is counted beside it allocates nothing.
#[expect(unsafe_code, reason = "the trait is unsafe; this only counts")]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Metered<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise is the inner allocator's.
        handed_out(unsafe { self.0.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as above.
        handed_out(unsafe { self.0.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        // SAFETY: as above.
        let new = handed_out(unsafe { self.0.realloc(block, layout, size) }, size);
        if !new.is_null() {
            give_back(layout.size());
        }
        new
    }
}

/// The block; one that there was no memory for is counted no more.
fn handed_out(block: *mut u8, bytes: usize) -> *mut u8 {
    if block.is_null() {
        give_back(bytes);
    }
    block
}

fn give_back(bytes: usize) {
    USED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Counts `bytes` that are about to be handed out.
fn take(bytes: usize) {
    let used = USED.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    if used > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(used, Ordering::Relaxed);
        if used > LIMIT.load(Ordering::Relaxed) {
            exhausted();
        }
    }
}

/// Ends the process.
#[cold]
fn exhausted() {
    // The end itself may allocate; another thread that comes here meanwhile goes on until the process is gone.
    if LIMIT.swap(usize::MAX, Ordering::Relaxed) == usize::MAX {
        return;
    }
    if let Some(farewell) = FAREWELL.get() {
        farewell();
    }
    std::process::exit(EXHAUSTED);
}

/// From now on the process ends when it has allocated more than `bytes`, after a call of `farewell`, which may allocate, but
/// must not wait for a lock: its thread may hold any. Only the first call sets the farewell.
pub fn limit(bytes: u64, farewell: impl Fn() + Send + Sync + 'static) {
    FAREWELL.get_or_init(|| Box::new(farewell));
    PEAK.store(USED.load(Ordering::Relaxed), Ordering::Relaxed);
    LIMIT.store(usize::try_from(bytes).unwrap_or(usize::MAX), Ordering::Relaxed);
}

/// Writes a line past the buffers of the standard streams, and so without their locks.
pub fn last_words(stream: impl AsFd, line: &str) {
    let line = format!("{line}\n");
    let mut rest = line.as_bytes();
    while let Ok(written @ 1..) = rustix::io::write(&stream, rest) {
        rest = &rest[written..];
    }
}

/// Most bytes that were allocated at once since the last call; none where the allocator does not count.
pub fn peak_since_asked() -> Option<u64> {
    let used = USED.load(Ordering::Relaxed);
    let peak = PEAK.swap(used, Ordering::Relaxed);
    (peak > 0).then_some(peak.max(used) as u64)
}
