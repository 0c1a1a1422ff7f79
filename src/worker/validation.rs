//! Reads uploaded datasets through, each in a child process with limits: a hostile file can end the child, not the server.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::disk::Allowance;
use super::spawn;
use crate::config::Validation;
use crate::domain::dataset::DatasetFacts;
use crate::domain::problem::{Code, Problem};
use crate::runtime::lifecycle::Shutdown;
use crate::store::datasets::{Datasets, Share, ToValidate};
use crate::store::{Blobs, StoreError};

/// Time between two looks for work when nobody gives a hint: another process may have taken an upload.
const POLL: Duration = Duration::from_secs(5);
/// Time to wait before a state that could not be written is written again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How long a claim outlives the child's time limit.
const GRACE: Duration = Duration::from_secs(30);
/// A dataset on which this many children were lost with their servers is not tried again.
const MOST_ATTEMPTS: i64 = 5;
/// How a process ends that meets a failing disk in a mapped file.
const SIGBUS: i32 = Signal::BUS.as_raw();
/// How a process ends that writes a larger file than it may.
const SIGXFSZ: i32 = Signal::XFSZ.as_raw();
/// How a process ends that somebody else ends, the system for want of memory among them. A lack of memory under the child's own
/// limit ends it differently: its allocator aborts.
const FROM_OUTSIDE: [i32; 4] =
    [Signal::KILL.as_raw(), Signal::TERM.as_raw(), Signal::INT.as_raw(), Signal::HUP.as_raw()];
/// Time between two looks at the disk.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// Longest report that is read: facts about [`crate::data::MAX_LABEL`] classes with long names fit.
const LONGEST_REPORT: u64 = 64 << 20;

/// Validates datasets, several at the same time.
#[derive(Debug, Clone)]
pub struct Validator {
    /// The rows.
    pub datasets: Datasets,
    /// The bytes.
    pub blobs: Blobs,
    /// What a child may use.
    pub limits: Validation,
    /// Seconds of reading within an hour, for tenants without a limit of their own.
    pub reading_seconds: Option<u64>,
    /// Bytes that children leave free on the disk.
    pub keep_free: u64,
    /// The `engraft` executable.
    pub program: PathBuf,
    /// Where children write what they must read out of order; made when absent.
    pub scratch: PathBuf,
    /// Rings when a dataset was uploaded.
    pub hint: Arc<Notify>,
}

/// Why a dataset was not judged.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the child process could not be run: {0}")]
    Child(#[from] std::io::Error),
    /// The machine could not read it.
    #[error("{0}")]
    Machine(Problem),
    /// Somebody has ended the child: an operator, or the system for want of memory.
    #[error("the child process was ended by signal {0}")]
    Killed(i32),
}

impl Validator {
    /// Works until the shutdown begins; a dataset that is being read then is read again after the next start.
    pub async fn run(self, shutdown: Shutdown) {
        let mut all = JoinSet::new();
        for _ in 0..self.limits.validators.max(1) {
            all.spawn(self.clone().one_after_another(shutdown.clone()));
        }
        all.join_all().await;
    }

    async fn one_after_another(self, shutdown: Shutdown) {
        loop {
            let wait = match self.next(&shutdown).await {
                Ok(true) => continue,
                Ok(false) => POLL,
                Err(error) => {
                    tracing::error!(%error, "a dataset could not be validated");
                    POLL
                }
            };
            tokio::select! {
                () = shutdown.draining() => return,
                () = self.hint.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Validates the dataset that has waited longest; false if there is none, or no time.
    async fn next(&self, shutdown: &Shutdown) -> Result<bool, Interruption> {
        if shutdown.is_draining() {
            return Ok(false);
        }
        let lease = self.limits.validation_timeout.0 + GRACE;
        // One is kept for the other tenants.
        let most = self.limits.validators.saturating_sub(1).max(1);
        let share = Share { most, seconds: self.reading_seconds };
        let Some(taken) = self.datasets.claim(lease, share).await? else { return Ok(false) };
        let judged = tokio::select! {
            judged = self.judge(&taken) => judged,
            () = shutdown.draining() => {
                self.datasets.release(&taken).await?;
                return Ok(false);
            }
        };
        match judged {
            Ok(outcome) => {
                while let Err(error) = self.datasets.conclude(&taken, &outcome).await {
                    if !error.code().is_transient() || shutdown.is_draining() {
                        return Err(error.into());
                    }
                    tracing::warn!(dataset = %taken.id, %error, "the dataset's state could not be written yet");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                let state = if outcome.is_ok() { "ready" } else { "invalid" };
                tracing::info!(dataset = %taken.id, state, "dataset validated");
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(dataset = %taken.id, %error, "the dataset could not be read; it is read again later");
                match error {
                    Interruption::Killed(_) => self.datasets.interrupted(&taken).await?,
                    _ => self.datasets.put_off(&taken).await?,
                }
                Ok(true)
            }
        }
    }

    async fn judge(&self, taken: &ToValidate) -> Result<Result<DatasetFacts, Problem>, Interruption> {
        if taken.attempt > MOST_ATTEMPTS {
            return Ok(Err(invalid("Reading the dataset has ended the reading process, or the server, repeatedly.")));
        }
        let file = match self.blobs.local(&taken.blob_key, Some(&taken.sha256)).await {
            Err(error) if error.code() == Code::FileDamaged => {
                return Ok(Err(invalid("The stored file has other bytes than when it was stored.")));
            }
            file => file?,
        };
        let scratch = std::path::absolute(&self.scratch)?.join(format!("validate-{}", taken.id));
        let outcome = self.inspect(file.path(), &scratch).await;
        if let Err(error) = std::fs::remove_dir_all(&scratch) {
            tracing::warn!(folder = %scratch.display(), %error, "a scratch folder could not be removed");
        }
        match outcome? {
            // The machine's fault, not the dataset's.
            Err(problem) if problem.code.is_transient() => Err(Interruption::Machine(problem)),
            outcome => Ok(outcome.map_err(|problem| Problem { code: Code::DatasetInvalid, ..problem })),
        }
    }

    /// Runs the child on one file; what it has to copy goes to the folder `scratch`.
    async fn inspect(&self, path: &Path, scratch: &Path) -> Result<Result<DatasetFacts, Problem>, Interruption> {
        let memory = self.limits.validation_memory.0.to_string();
        let disk = self.limits.validation_disk.0.to_string();
        let limits = [OsStr::new("--memory"), OsStr::new(&memory), OsStr::new("--disk"), OsStr::new(&disk)];
        let args = [OsStr::new("inspect-dataset")].into_iter().chain(limits).chain([path.as_os_str()]);
        std::fs::create_dir_all(scratch)?;
        let mut child = spawn::child(&self.program, args).env("TMPDIR", scratch).stdout(Stdio::piped()).spawn()?;
        let (report, process) = (read(child.stdout.take()), child.id());
        let time = self.limits.validation_timeout.0;
        let finished = tokio::select! {
            finished = async { tokio::join!(report, child.wait()) } => Ok(finished),
            problem = self.runs_out_of_disk(scratch, process) => Err(problem),
            () = tokio::time::sleep(time) => {
                Err(invalid(&format!("Reading the dataset took more than {} s.", time.as_secs_f64())))
            }
        };
        let (report, status) = match finished {
            Ok((report, status)) => (report?, status?),
            Err(problem) => {
                child.kill().await?;
                return Ok(Err(problem));
            }
        };
        match status.signal() {
            Some(SIGBUS) => {
                let detail = "the file could not be read while it was mapped";
                return Err(Interruption::Machine(Problem::new(Code::StorageFailed, detail)));
            }
            Some(SIGXFSZ) => return Ok(Err(self.needs_more_disk())),
            Some(signal) if FROM_OUTSIDE.contains(&signal) => return Err(Interruption::Killed(signal)),
            _ => {}
        }
        if !status.success() {
            let memory = self.limits.validation_memory.0 >> 20;
            return Ok(Err(invalid(&format!(
                "Reading the dataset failed ({status}): it may need more than {memory} MiB of memory."
            ))));
        }
        Ok(serde_json::from_slice(&report).map_err(std::io::Error::other)?)
    }

    /// Waits until the child has taken more disk than it may, or the disk runs full.
    async fn runs_out_of_disk(&self, scratch: &Path, process: Option<u32>) -> Problem {
        let (limit, keep_free) = (Some(self.limits.validation_disk.0), self.keep_free);
        let allowance = Allowance { reserved: 0, limit, keep_free };
        loop {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            let scratch = scratch.to_owned();
            match tokio::task::spawn_blocking(move || allowance.check(&scratch, process)).await {
                Ok(Some(Problem { code: Code::ScratchLimitExceeded, .. })) => return self.needs_more_disk(),
                Ok(Some(problem)) => return problem,
                _ => {}
            }
        }
    }

    fn needs_more_disk(&self) -> Problem {
        let disk = self.limits.validation_disk.0 >> 20;
        invalid(&format!("Reading the dataset needs more than {disk} MiB of scratch space."))
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(Code::DatasetInvalid, detail)
}

async fn read(stdout: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut report = Vec::new();
    if let Some(stdout) = stdout {
        stdout.take(LONGEST_REPORT).read_to_end(&mut report).await?;
    }
    Ok(report)
}
