//! Who may read what the program writes.

use rustix::fs::Mode;

/// From now on files and folders that this process makes, and its children, are their owner's alone (0600 and 0700): a data
/// directory holds every tenant's weights and data.
pub fn keep_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}
