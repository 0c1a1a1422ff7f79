//! Starts child processes, those that compute jobs and those that read datasets; only those that look for GPUs start elsewhere.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

/// `program` with `args`, ready to be started once its streams are set; none is open.
///
/// The child gets a process group of its own, so that a Ctrl-C on the server's terminal is the server's to handle, and
/// nothing secret; it is killed when its handle is dropped.
pub(super) fn child(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_for_children(name)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Whether children get a variable: nothing of engraft's own, which may be secret, but where libraries and compiled kernels lie.
fn is_for_children(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b"ENGRAFT_")
        || ["ENGRAFT_CUDA_LIBRARIES", "ENGRAFT_KERNEL_CACHE"].iter().any(|known| name == *known)
}
