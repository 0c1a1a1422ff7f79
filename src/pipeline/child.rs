//! The child process around the pipeline: one task in, messages out (see [`crate::process::protocol`]).

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::{JobOutcome, run};
use crate::domain::problem::{Code, Problem};
use crate::model::formats::digest::sha256;
use crate::process::memory;
use crate::process::protocol::{Command, Message, Task};

/// Exit code of a child whose supervisor is gone.
const ORPHANED: i32 = 3;

/// Reads a task from stdin, computes it, and reports on stdout until a last message is written.
#[must_use]
pub fn serve() -> ExitCode {
    let last = read_task().map_or_else(
        |error| Message::Failed { problem: Problem::new(Code::Internal, format!("the task cannot be read: {error}")) },
        |task| compute(&task),
    );
    let failed = matches!(last, Message::Failed { .. } | Message::TransientFailure { .. });
    let code = if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    emit(&last);
    code
}

/// The problem of a job that needs more than the `bytes` that it may allocate.
#[must_use]
pub fn out_of_memory(bytes: u64) -> Problem {
    let detail = format!(
        "The job needs more memory than the {bytes} bytes that `--memory-limit` allows it. A smaller `finetune.batch_size`, fewer \
         `method.calibration.samples` or `positions`, or a worker with a higher limit may do."
    );
    Problem::new(Code::OutOfMemory, detail)
}

fn read_task() -> io::Result<Task> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn compute(task: &Task) -> Message {
    let stop = Arc::new(AtomicBool::new(false));
    listen(Arc::clone(&stop));
    if let Some(bytes) = task.memory_limit {
        let problem = out_of_memory(bytes);
        // It can be written: it is text and numbers.
        let words = serde_json::to_string(&Message::Failed { problem }).unwrap_or_default();
        memory::limit(bytes, move || memory::last_words(io::stdout(), &words));
    }
    match check_digests(task).and_then(|()| run(task, &mut |message| emit(&message), &stop)) {
        Ok(JobOutcome::Finished(artifacts)) => Message::Finished { artifacts },
        Ok(JobOutcome::Stopped) => Message::Stopped,
        Err(problem) if problem.code.is_transient() => Message::TransientFailure { problem },
        Err(problem) => Message::Failed { problem },
    }
}

/// Checks that the members, and the reference, are the files that were uploaded: a disk may have changed them since.
fn check_digests(task: &Task) -> Result<(), Problem> {
    task.members.par_iter().chain(&task.reference).try_for_each(|file| {
        let got = File::open(&file.path).and_then(sha256).map_err(|error| {
            Problem::new(Code::of_system(&error), format!("`{}` cannot be read: {error}", file.name))
        })?;
        if got == file.sha256 {
            return Ok(());
        }
        let detail = format!(
            "The stored file `{}` has other bytes than when it was uploaded (SHA-256 {got}, not {}). Upload it again under another name, \
             or have it restored from a backup; `engraft verify` lists all such files.",
            file.name, file.sha256
        );
        Err(Problem::new(Code::FileDamaged, detail))
    })
}

/// Obeys commands from now on. The end of stdin means that the supervisor is gone: whatever this process would still
/// compute, nobody would take it.
fn listen(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line.map(|line| serde_json::from_str(&line)) {
                Ok(Ok(Command::Stop)) => stop.store(true, Ordering::Relaxed),
                Ok(Err(error)) => eprintln!("ignored a command that cannot be read: {error}"),
                Err(_) => break,
            }
        }
        std::process::exit(ORPHANED);
    });
}

fn emit(message: &Message) {
    let mut out = io::stdout().lock();
    let written = serde_json::to_writer(&mut out, message)
        .map_err(io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    if written.is_err() {
        std::process::exit(ORPHANED);
    }
}
