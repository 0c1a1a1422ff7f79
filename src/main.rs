//! The `engraft` command.

use std::process::ExitCode;

use engraft::process::memory::Metered;

#[global_allocator]
static ALLOCATOR: Metered<mimalloc::MiMalloc> = Metered(mimalloc::MiMalloc);

fn main() -> ExitCode {
    engraft::cli::main()
}
