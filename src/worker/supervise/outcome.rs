//! How an attempt's work has ended, and what that says.

use crate::domain::job::Fence;
use crate::domain::problem::{Code, Problem};
use crate::process::protocol::OutputFile;

/// How a child's work has ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has a result.
    Finished(Vec<OutputFile>),
    /// The job cannot succeed: the child has found that, or the supervisor.
    Failed(Problem),
    /// The child has found that the machine lacks something; another attempt may succeed.
    TransientFailure(Problem),
    /// The supervisor could not begin the attempt, go on with it or keep its results; another attempt may succeed.
    Aborted(Problem),
    /// It has stopped, by itself or killed, because of this.
    Stopped(Stop),
    /// It has ended without a last message.
    Crashed(String),
    /// Another attempt has taken over; nothing may be written any more.
    FenceLost,
}

impl Outcome {
    /// The outcome of an attempt that has no child.
    pub(super) fn not_begun(what: &str, error: &std::io::Error) -> Self {
        let (code, why) = (Code::of_system(error), format!("{what}: {error}"));
        if code.is_transient() { Self::Aborted(Problem::new(code, why)) } else { Self::Crashed(why) }
    }

    /// The outcome of an attempt that may not have the disk that it needs, or cannot have what it reads.
    pub(super) fn without(problem: Problem) -> Self {
        if problem.code.is_transient() { Self::Aborted(problem) } else { Self::Failed(problem) }
    }

    /// Logs why an attempt has no result.
    pub(super) fn log(&self, fence: Fence) {
        match self {
            Self::Finished(_) | Self::Stopped(_) | Self::FenceLost => {}
            Self::Failed(problem) => {
                tracing::warn!(%fence, code = problem.code.as_str(), detail = problem.detail, "the job has failed");
            }
            Self::TransientFailure(problem) | Self::Aborted(problem) => {
                tracing::warn!(%fence, code = problem.code.as_str(), detail = problem.detail, "the attempt has failed");
            }
            Self::Crashed(detail) => tracing::warn!(%fence, detail, "the attempt has crashed"),
        }
    }

    /// What it says of the device.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::TransientFailure(problem) if problem.code == Code::DeviceLost => Ending::DeviceLost,
            _ => Ending::Usual,
        }
    }
}

/// What an attempt's end says of the device that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Ending {
    /// It may take the next job.
    Usual,
    /// It did not answer any more.
    DeviceLost,
}

/// Why a child had to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    OutOfTime,
    Draining,
}
