//! How far a file has come: a bar on a terminal, nothing elsewhere.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `name`; of an unknown length until somebody sets it.
pub(super) fn bytes(name: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{prefix} [{bar:30}] {bytes} of {total_bytes}  {binary_bytes_per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(name.to_owned())
}

/// Shows how far the file `name` is.
pub(super) fn show(bar: &ProgressBar, name: &str, done: u64, all: u64) {
    if bar.prefix() != name {
        bar.reset();
        bar.set_prefix(name.to_owned());
    }
    bar.set_length(all);
    bar.set_position(done);
}
