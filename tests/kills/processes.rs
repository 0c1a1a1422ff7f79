//! Worker processes of the real program, and what `/proc` says of them and their children.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Where processes of one machine run.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) data_dir: PathBuf,
    /// Where the state and the blobs are, as the environment says it.
    pub(crate) variables: BTreeMap<String, String>,
    /// What processes log is appended to this file.
    pub(crate) log: PathBuf,
}

impl Home {
    /// The program with these arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let log = || File::options().create(true).append(true).open(&self.log).expect("a log file");
        Command::new(env!("CARGO_BIN_EXE_engraft"))
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .expect("a process")
    }
}

/// An `engraft worker` with one slot and one thread.
pub(crate) struct Worker {
    process: Child,
    home: Home,
}

/// How long a silent worker keeps its job, and how often it says that it is alive; in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) lease: &'static str,
    pub(crate) heartbeat: &'static str,
}

impl Worker {
    /// Starts one at `home`.
    pub(crate) fn start(home: &Home, lease: Lease) -> Self {
        let slots = ["worker", "--workers", "1", "--threads", "1", "--device", "cpu"];
        let promises = ["--lease", lease.lease, "--heartbeat", lease.heartbeat];
        Self { process: home.start(&[&slots[..], &promises[..]].concat()), home: home.clone() }
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The process that computes for it, if one is alive.
    pub(crate) fn child(&self) -> Option<Pid> {
        living().find(|process| process.parent == self.pid()).map(|process| process.pid)
    }

    /// Stops it where it stands.
    pub(crate) fn freeze(&self) {
        self.send(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.send(Signal::CONT);
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("the worker was alive");
    }

    /// Kills it without a warning.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("the worker was alive");
        self.process.wait().expect("it can be waited for");
    }

    /// Asks it to end, as an administrator would.
    pub(crate) fn stop(mut self) {
        self.send(Signal::TERM);
        let status = self.process.wait().expect("it can be waited for");
        assert!(status.success(), "a worker that was asked to end ended with {status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _killed = self.process.kill();
            let _gone = self.process.wait();
        }
    }
}

struct Process {
    pid: Pid,
    parent: u32,
}

/// Every process that has not ended.
fn living() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").expect("the process table").filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let status = fs::read_to_string(entry.path().join("stat")).ok()?;
        // `pid (name) state parent …`, where the name may hold anything.
        let mut fields = status.rsplit_once(')')?.1.split_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        (state != "Z" && state != "X").then_some(Process { pid, parent })
    })
}

/// The processes that work in a folder below `folder`, by their command lines.
pub(crate) fn working_below(folder: &Path) -> Vec<String> {
    let inside = |process: &Process| {
        let home = PathBuf::from(format!("/proc/{}/cwd", process.pid.as_raw_nonzero()));
        fs::read_link(home).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    let line = |process: Process| {
        let line = fs::read(format!("/proc/{}/cmdline", process.pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    };
    living().filter(inside).map(line).collect()
}
