//! What all targets share: an allocator that ends a run at a limit, and what a panic does.

use std::alloc::System;

use engraft::process::memory::{self, Metered};

pub mod targets;

/// Most bytes that an input of a few KiB may make a reader allocate.
const MEMORY: u64 = 256 << 20;

#[global_allocator]
static ALLOCATOR: Metered<System> = Metered(System);

/// Before the first input.
pub fn prepare() {
    // Panics that the readers catch are none of theirs; the others end the run where they leave the target.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    memory::limit(MEMORY, || {
        memory::last_words(std::io::stderr(), &format!("more than {MEMORY} bytes were allocated"));
        std::process::abort();
    });
}
