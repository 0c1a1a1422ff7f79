//! What the supervisor and the child process that computes say to each other.
//!
//! The child (`engraft run-job`) reads one [`Task`] as the first line of its stdin and then [`Command`]s, a line each;
//! the end of stdin means that the supervisor is gone, and the child ends. It writes [`Message`]s to stdout, a JSON line each.
//! The last message is [`Message::Finished`], [`Message::Stopped`], [`Message::Failed`] or
//! [`Message::TransientFailure`]; a child that ends without one has crashed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::gpu::{Gpu, GpuVersions};
use crate::domain::problem::Problem;
use crate::domain::progress::{EpochMetrics, Level, Phase, Progress};
use crate::plan::Plan;
use crate::plan::network::KnownSpeed;
use crate::plan::request::JobRequest;
use crate::settings::{ComputeOptions, Device};

/// Everything a child needs: a job and local files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The job, with every default filled in.
    pub job: JobRequest,
    /// What its report names it by.
    #[serde(default)]
    pub origin: TaskOrigin,
    /// The members' files, in the order of `job.members`.
    pub members: Vec<InputFile>,
    /// The dataset's file.
    pub dataset: Option<InputFile>,
    /// The file of `job.dataset.validation`.
    pub validation: Option<InputFile>,
    /// The file of `job.dataset.test`.
    pub test: Option<InputFile>,
    /// The file of `job.reference`.
    pub reference: Option<InputFile>,
    /// An existing folder for checkpoints and artifacts.
    pub scratch: PathBuf,
    /// An epoch checkpoint of an earlier attempt, to go on from.
    pub resume: Option<PathBuf>,
    /// The device to compute on: the processor, or one GPU by its number as the process sees it.
    pub device: Device,
    /// What is known of that GPU; none on the processor.
    #[serde(default)]
    pub gpu: Option<TaskGpu>,
    /// How fast that is, for the plan.
    #[serde(default)]
    pub speed: KnownSpeed,
    /// Threads to compute with.
    pub threads: usize,
    /// Bytes that may be allocated; no limit where there is none.
    pub memory_limit: Option<u64>,
}

impl Task {
    /// What its networks are computed with.
    #[must_use]
    pub fn compute_options(&self) -> ComputeOptions {
        let options = ComputeOptions {
            device: self.device,
            threads: self.threads,
            precision: self.job.precision,
            deterministic: self.job.deterministic,
            memory_limit: self.gpu.as_ref().and_then(|gpu| gpu.memory_limit),
        };
        options.effective()
    }
}

/// What a job's report names it by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskOrigin {
    /// Id of the job; none without a server.
    pub job: Option<String>,
    /// When this attempt began: RFC 3339, in UTC.
    pub date: Option<String>,
    /// The file that the fused weights become; none where they leave in another form alone.
    pub model: Option<String>,
    /// The file that the source of its module becomes, where one is written beside it.
    #[serde(default)]
    pub source: Option<String>,
}

/// The GPU that a job gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskGpu {
    /// What it is.
    pub facts: Gpu,
    /// What computes on it.
    pub versions: GpuVersions,
    /// Bytes of its memory that the job may take.
    pub memory_limit: Option<u64>,
}

impl TaskGpu {
    /// Bytes of its memory that the job can have at most.
    #[must_use]
    pub fn available(&self) -> Option<u64> {
        let memory = Some(self.facts.memory_bytes).filter(|bytes| *bytes > 0);
        memory.into_iter().chain(self.memory_limit).min()
    }
}

/// A local, immutable input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// The name that users know it by.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Commands to a running child, each a JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Stop between two batches; an interrupted epoch is computed again on resume.
    Stop,
}

/// A file that the child has written and synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// What it is: `model`, `report`, `architecture`, `provenance`; `checkpoint` for an epoch checkpoint.
    pub name: String,
    /// Where it lies, below [`Task::scratch`].
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// Its media type.
    pub media_type: String,
}

/// What a child reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// A phase begins; the one before it has ended.
    Phase {
        /// The phase.
        phase: Phase,
    },
    /// How far it is; at most a few per second.
    Progress(Progress),
    /// An epoch has ended.
    Metric(EpochMetrics),
    /// A line of the log.
    Log {
        /// How loud.
        level: Level,
        /// The text.
        message: String,
    },
    /// The plan, now that it is decided what network the members are.
    Planned {
        /// The whole plan.
        plan: Box<Plan>,
    },
    /// From here another attempt can go on; `Task::resume` takes the file.
    Checkpoint {
        /// Finished epochs.
        epoch: usize,
        /// The file.
        file: OutputFile,
    },
    /// Stopped by request; the last checkpoint stands.
    Stopped,
    /// The job cannot succeed.
    Failed {
        /// Why.
        problem: Problem,
    },
    /// The machine lacked something that this attempt needed; another one may succeed.
    TransientFailure {
        /// What it lacked.
        problem: Problem,
    },
    /// All artifacts are written.
    Finished {
        /// The artifacts.
        artifacts: Vec<OutputFile>,
    },
}

impl Message {
    /// Whether the child says nothing after it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        match self {
            Self::Stopped | Self::Failed { .. } | Self::TransientFailure { .. } | Self::Finished { .. } => true,
            Self::Phase { .. }
            | Self::Progress(_)
            | Self::Metric(_)
            | Self::Log { .. }
            | Self::Planned { .. }
            | Self::Checkpoint { .. } => false,
        }
    }
}
