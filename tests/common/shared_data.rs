//! Data beside the package that some tests want: reference fusions, trained members, real datasets.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder or file `path` of the shared data. Where it is absent, says aloud that `test` is skipped: the test harness keeps
/// what `eprintln!` writes to itself, but not what is written to the stream.
pub(crate) fn shared(test: &str, path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    writeln!(std::io::stderr(), "SKIPPED {test}: ../shared/{path} is absent").expect("a place to say so");
    None
}
