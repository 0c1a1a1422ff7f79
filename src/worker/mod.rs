//! Claims jobs, renews their leases, and supervises the child process that computes each of them; reads uploaded datasets
//! through, in child processes too.
//!
//! [`run`] is the claim loop, [`supervise`] one attempt of one job, [`child`] the conversation with the child process;
//! [`spawn`] starts all children.
//! Nothing here computes, and nothing here can lose a job: whatever dies, the lease lapses and another worker goes on.

mod child;
pub mod devices;
mod discretion;
mod disk;
mod lease;
mod lines;
mod outbox;
mod outputs;
mod roll;
mod run;
mod scratch;
mod slots;
mod spawn;
mod speed;
mod supervise;
mod task;
#[cfg(test)]
mod tests;
pub mod validation;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::clock::SharedClock;
use crate::domain::gpu::Gpus;
use crate::domain::quota::Quota;
use crate::settings::Device;
use crate::store::jobs::Jobs;
use crate::store::workers::{DeviceSpeed, Workers};
use crate::store::{Blobs, Database};

pub use run::run;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Places for jobs at the same time, each by the device that it computes on, the preferred one first; every GPU has one.
    pub slots: Vec<Device>,
    /// What is known of the GPUs.
    pub gpus: Gpus,
    /// Bytes of a GPU's memory that a job may take.
    pub gpu_memory_limit: Option<u64>,
    /// Threads of each child.
    pub threads: usize,
    /// Bytes that each child may allocate.
    pub memory_limit: Option<u64>,
    /// Bytes of disk that each job may take while it runs.
    pub scratch_limit: Option<u64>,
    /// Bytes that jobs leave free on the disk.
    pub keep_free: u64,
    /// How long a job waits for a silent worker.
    pub lease: Duration,
    /// Time between two renewals; a small part of the lease.
    pub heartbeat: Duration,
    /// Time between two looks for a job when nobody gives a hint.
    pub poll: Duration,
    /// Time that a child gets to stop between two batches before it is killed.
    pub grace: Duration,
    /// What tenants may take that have no limits of their own.
    pub quota: Quota,
    /// The program that computes.
    pub program: Program,
    /// The program that measures how fast a device is; where there is none, times are estimated by assumption.
    pub stopwatch: Option<Program>,
}

/// How long a worker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stint {
    /// For one job alone.
    pub once: bool,
    /// Until no job was there for so long; none for ever.
    pub idle: Option<Duration>,
}

/// A program that runs as a child process.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// What a worker works with; clones share it.
#[derive(Debug, Clone)]
pub struct Worker {
    /// How it works.
    pub policy: Policy,
    /// The jobs.
    pub jobs: Jobs,
    /// The list of workers.
    pub workers: Workers,
    /// Inputs, checkpoints, results.
    pub blobs: Blobs,
    /// The time.
    pub clock: SharedClock,
    /// Where children write: on the file system of the blobs.
    pub scratch: PathBuf,
    /// How fast its devices are.
    pub speeds: Vec<DeviceSpeed>,
}

impl Worker {
    /// A worker on the stores of a data directory.
    #[must_use]
    pub fn new(policy: Policy, database: &Database, blobs: Blobs, clock: SharedClock, scratch: PathBuf) -> Self {
        let jobs = Jobs::new(database.clone(), clock.clone()).with_quota(policy.quota);
        let workers = Workers::new(database.clone(), clock.clone());
        Self { policy, jobs, workers, blobs, clock, scratch, speeds: Vec::new() }
    }
}
