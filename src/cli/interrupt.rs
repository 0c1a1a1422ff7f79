//! How the commands that compute end on a signal: softly on the first one, at once on the second, with nothing left behind.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// How often files are removed again that a thread still makes meanwhile.
const SWEEPS: usize = 100;

/// The signals so far, and what is to be gone in the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals(Arc<State>);

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    /// The first signal; 0 before it.
    signal: AtomicU8,
    temporary: Mutex<Vec<PathBuf>>,
    made: Mutex<Option<PathBuf>>,
}

impl Signals {
    /// Listens to SIGINT, SIGTERM and, unless `nohup` is at work, SIGHUP. The first one requests a stop between two batches,
    /// the second ends the process.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = (!hangups_are_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        drop(entered);
        let interruption = Self::default();
        let listener = interruption.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let mut next = async || {
                    let hung_up = async {
                        match &mut hangup {
                            Some(hangup) => hangup.recv().await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        _ = interrupt.recv() => SignalKind::interrupt(),
                        _ = terminate.recv() => SignalKind::terminate(),
                        _ = hung_up => SignalKind::hangup(),
                    }
                };
                listener.request_stop(next().await);
                say("stopping after this batch; once more to stop at once");
                next().await;
                listener.end();
            });
        });
        Ok(interruption)
    }

    /// What is read between batches.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.0.stop
    }

    /// The exit code of a command that was stopped: 128 and the number of the first signal.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// Makes a folder that is gone whatever ends the command.
    pub(super) fn folder(&self, make: impl FnOnce() -> io::Result<TempDir>) -> io::Result<TempDir> {
        // The lock is held, so that no signal comes between.
        let mut temporary = self.0.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = make()?;
        temporary.push(std::path::absolute(folder.path())?);
        Ok(folder)
    }

    /// Unfinished files of these names are removed at the end, too.
    pub(super) fn files(&self, paths: impl IntoIterator<Item = PathBuf>) {
        self.0.temporary.lock().unwrap_or_else(PoisonError::into_inner).extend(paths);
    }

    /// The folder for results, which the command has made: at the end it is removed where it is empty.
    pub(super) fn made(&self, folder: &Path) {
        *self.0.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.to_owned());
    }

    /// Removes the folder that the command has made, if it is empty.
    pub(super) fn remove_made(&self) -> bool {
        let made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().is_some_and(|folder| fs::remove_dir(folder).is_ok())
    }

    fn request_stop(&self, kind: SignalKind) {
        self.0.signal.store(u8::try_from(kind.as_raw_value()).unwrap_or_default(), Ordering::Relaxed);
        self.0.stop.store(true, Ordering::Relaxed);
    }

    fn code(&self) -> u8 {
        128 + self.0.signal.load(Ordering::Relaxed)
    }

    /// Ends the process, whatever its other threads do.
    fn end(&self) -> ! {
        // Never unlocked: nothing more is made.
        let temporary = self.0.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        temporary.iter().for_each(|path| remove(path));
        self.remove_made();
        std::process::exit(i32::from(self.code()));
    }
}

/// A line for a person, who may have closed the terminal.
pub(super) fn say(line: &str) {
    let _nobody_listens = writeln!(io::stderr(), "{line}");
}

/// Removes a file or a folder in which other threads may still make files.
fn remove(path: &Path) {
    for _ in 0..SWEEPS {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => return,
        }
    }
}

/// Whether this process was started with SIGHUP ignored.
fn hangups_are_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_are_removed_while_others_write() {
        let folder = tempfile::tempdir().unwrap();
        let (scratch, file) = (folder.path().join("scratch"), folder.path().join("m0.unfinished"));
        fs::create_dir(&scratch).unwrap();
        fs::write(&file, "half").unwrap();
        let writing = scratch.clone();
        let writer = std::thread::spawn(move || {
            let mut index = 0;
            while fs::write(writing.join(format!("{index}")), "more").is_ok() {
                index += 1;
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(5));
        for path in [&scratch, &file, &folder.path().join("never made")] {
            remove(path);
        }
        writer.join().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_exit_code_is_that_of_the_first_signal() {
        for (kind, code) in
            [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143), (SignalKind::hangup(), 129)]
        {
            let interruption = Signals::default();
            assert!(!interruption.stop().load(Ordering::Relaxed));
            interruption.request_stop(kind);
            assert!(interruption.stop().load(Ordering::Relaxed));
            assert_eq!(interruption.code(), code);
        }
    }
}
