//! The child process that computes: what it is sent, and what it writes.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child as Process, ChildStderr, ChildStdin, ChildStdout};

use super::lines::{Line, Lines};
use super::{Program, devices, spawn};
use crate::process::protocol::{Command, Message, Task};

/// Longest message of a child; the largest is its list of artifacts.
const LONGEST_MESSAGE: usize = 1 << 20;
/// What is kept of a line that a child writes to stderr.
const LONGEST_STDERR_LINE: usize = 4 << 10;
/// Time that a child gets to exit after its last message.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a child writes.
#[derive(Debug)]
pub(super) enum Output {
    /// A message.
    Message(Box<Message>),
    /// A line on stdout that is no message, with the reason; the child cannot be trusted any more.
    Malformed(String),
    /// A line on stderr.
    StderrLine(String),
    /// The end of its stdout.
    EndOfFile,
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
    /// Whether its last message has come.
    has_concluded: bool,
}

impl Child {
    /// Starts `program` in its scratch folder and hands it its task.
    pub(super) async fn start(program: &Program, task: &Task) -> std::io::Result<Self> {
        let mut process = spawn(program, task)?;
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
            stderr: Lines::new(stderr, LONGEST_STDERR_LINE),
            stderr_open: true,
            has_concluded: false,
        };
        child.send(&serde_json::to_string(task)?).await;
        Ok(child)
    }

    /// The process, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// What the child writes next.
    pub(super) async fn next_output(&mut self) -> Output {
        let line = tokio::select! {
            line = self.stdout.next() => line,
            line = self.stderr.next(), if self.stderr_open => {
                if let Ok(Some(line)) = line {
                    return Output::StderrLine(readable(&line));
                }
                self.stderr_open = false;
                self.stdout.next().await
            }
        };
        let output = parse(line);
        self.has_concluded |= matches!(&output, Output::Message(message) if message.is_last());
        output
    }

    /// Has the child stop between two batches.
    pub(super) async fn send_stop(&mut self) {
        if let Ok(command) = serde_json::to_string(&Command::Stop) {
            self.send(&command).await;
        }
    }

    /// Kills the child and whatever it may have started.
    fn kill(&mut self) {
        if let Some(group) = self.group {
            // A group that is gone already is as dead as it can be.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }

    /// Waits until the child has exited, and returns what else it wrote to stderr. One that has not sent its last message
    /// is killed first.
    pub(super) async fn end(mut self) -> (Option<ExitStatus>, Vec<String>) {
        if !self.has_concluded {
            self.kill();
        }
        self.stdin = None;
        let Ok(lines) = tokio::time::timeout(EXIT_TIMEOUT, self.remaining_stderr()).await else {
            self.kill();
            return (self.process.wait().await.ok(), Vec::new());
        };
        if tokio::time::timeout(EXIT_TIMEOUT, self.process.wait()).await.is_err() {
            self.kill();
        }
        (self.process.wait().await.ok(), lines)
    }

    async fn remaining_stderr(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(Some(line)) = self.stderr.next().await {
            lines.push(readable(&line));
        }
        lines
    }

    /// A child that does not read any more is about to be noticed by its silence.
    async fn send(&mut self, line: &str) {
        let Some(stdin) = &mut self.stdin else { return };
        let sent = async {
            stdin.write_all(line.as_bytes()).await?;
            stdin.write_all(b"\n").await?;
            stdin.flush().await
        };
        if sent.await.is_err() {
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

fn spawn(program: &Program, task: &Task) -> std::io::Result<Process> {
    let mut command = spawn::child(&program.path, &program.args);
    if let Some(gpu) = &task.gpu {
        let (name, value) = devices::only(gpu.facts.index);
        command.env(name, value);
    }
    command.current_dir(&task.scratch).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// A pipe that fails is a pipe that has ended.
fn parse(line: std::io::Result<Option<Line>>) -> Output {
    line.ok().flatten().map_or(Output::EndOfFile, |line| parse_line(&line))
}

fn parse_line(line: &Line) -> Output {
    if line.truncated {
        return Output::Malformed(format!("a line of more than {LONGEST_MESSAGE} bytes"));
    }
    match serde_json::from_slice(&line.bytes) {
        Ok(message) => Output::Message(Box::new(message)),
        Err(error) => Output::Malformed(error.to_string()),
    }
}

fn readable(line: &Line) -> String {
    let mut text = String::from_utf8_lossy(&line.bytes).into_owned();
    if line.truncated {
        text.push('…');
    }
    text
}
