//! The child process that computes, and the conversation with it.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child as Process, ChildStderr, ChildStdin, ChildStdout};

use super::lines::{Line, Lines};
use super::{Program, spawn};
use crate::process::protocol::{Command, Message, Task};

/// Longest line that a child may say; the largest is its list of artifacts.
const LONGEST_MESSAGE: usize = 1 << 20;
/// What is kept of a line that a child writes to stderr.
const LONGEST_COMPLAINT: usize = 4 << 10;
/// Time that a child gets to end after its last word.
const FAREWELL: Duration = Duration::from_secs(5);

/// Something that a child has said.
#[derive(Debug)]
pub(super) enum Said {
    /// A message.
    Message(Box<Message>),
    /// A line on stdout that is no message; the child cannot be trusted any more.
    Nonsense(String),
    /// A line on stderr.
    Complaint(String),
    /// It has closed its stdout.
    Nothing,
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    group: Option<Pid>,
    stdin: Option<ChildStdin>,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
    stderr_open: bool,
}

impl Child {
    /// Starts `program` in its scratch folder and hands it its task.
    pub(super) async fn start(program: &Program, task: &Task) -> std::io::Result<Self> {
        let mut process = spawn(program, &task.scratch)?;
        let pipe = |what: &str| std::io::Error::other(format!("the child has no {what}"));
        let stdin = process.stdin.take().ok_or_else(|| pipe("stdin"))?;
        let stdout = process.stdout.take().ok_or_else(|| pipe("stdout"))?;
        let stderr = process.stderr.take().ok_or_else(|| pipe("stderr"))?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let mut child = Self {
            process,
            group,
            stdin: Some(stdin),
            stdout: Lines::new(stdout, LONGEST_MESSAGE),
            stderr: Lines::new(stderr, LONGEST_COMPLAINT),
            stderr_open: true,
        };
        child.say(&serde_json::to_string(task)?).await;
        Ok(child)
    }

    /// The process, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// What the child says next.
    pub(super) async fn listen(&mut self) -> Said {
        tokio::select! {
            line = self.stdout.next() => said(line),
            line = self.stderr.next(), if self.stderr_open => {
                if let Ok(Some(line)) = line {
                    return Said::Complaint(readable(&line));
                }
                self.stderr_open = false;
                said(self.stdout.next().await)
            }
        }
    }

    /// Asks the child to stop between two batches.
    pub(super) async fn ask_to_stop(&mut self) {
        if let Ok(command) = serde_json::to_string(&Command::Stop) {
            self.say(&command).await;
        }
    }

    /// Kills the child and whatever it may have started.
    pub(super) fn kill(&mut self) {
        if let Some(group) = self.group {
            // A group that is gone already is as dead as it can be.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }

    /// Waits for the end of a child that has said its last word, and returns what else it wrote to stderr.
    pub(super) async fn end(mut self) -> (Option<ExitStatus>, Vec<String>) {
        self.stdin = None;
        let Ok(complaints) = tokio::time::timeout(FAREWELL, self.remaining_complaints()).await else {
            self.kill();
            return (self.process.wait().await.ok(), Vec::new());
        };
        if tokio::time::timeout(FAREWELL, self.process.wait()).await.is_err() {
            self.kill();
        }
        (self.process.wait().await.ok(), complaints)
    }

    async fn remaining_complaints(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        while let Ok(Some(line)) = self.stderr.next().await {
            complaints.push(readable(&line));
        }
        complaints
    }

    /// A child that does not listen any more is about to be noticed by its silence.
    async fn say(&mut self, line: &str) {
        let Some(stdin) = &mut self.stdin else { return };
        let said = async {
            stdin.write_all(line.as_bytes()).await?;
            stdin.write_all(b"\n").await?;
            stdin.flush().await
        };
        if said.await.is_err() {
            self.stdin = None;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.process.id().is_some() {
            self.kill();
        }
    }
}

fn spawn(program: &Program, folder: &Path) -> std::io::Result<Process> {
    spawn::child(&program.path, &program.args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// A pipe that fails is a pipe that has ended.
fn said(line: std::io::Result<Option<Line>>) -> Said {
    line.ok().flatten().map_or(Said::Nothing, |line| understand(&line))
}

fn understand(line: &Line) -> Said {
    if line.truncated {
        return Said::Nonsense(format!("a line of more than {LONGEST_MESSAGE} bytes"));
    }
    match serde_json::from_slice(&line.bytes) {
        Ok(message) => Said::Message(Box::new(message)),
        Err(error) => Said::Nonsense(error.to_string()),
    }
}

fn readable(line: &Line) -> String {
    let mut text = String::from_utf8_lossy(&line.bytes).into_owned();
    if line.truncated {
        text.push('…');
    }
    text
}
