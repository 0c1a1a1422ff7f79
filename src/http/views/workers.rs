//! Workers as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::store::workers::Worker;

/// The workers that are alive.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkersView {
    /// Oldest first.
    pub data: Vec<WorkerView>,
}

/// A process that runs jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerView {
    /// Its id, new with each start.
    #[schema(example = "work_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// Version of its program.
    #[schema(example = "0.1.0")]
    version: String,
    /// Devices that a job can ask for, the one that `auto` takes first.
    #[schema(example = json!(["cuda:0", "cpu"]))]
    devices: Vec<String>,
    /// Jobs it runs at the same time.
    #[schema(example = 1)]
    slots: u32,
    /// When it started.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    started_at: String,
    /// When it was last heard of.
    #[schema(example = "2026-01-31T12:30:00.000Z", format = DateTime)]
    heartbeat_at: String,
}

impl From<Worker> for WorkerView {
    fn from(worker: Worker) -> Self {
        Self {
            id: worker.id.to_string(),
            version: worker.version,
            devices: worker.devices.iter().map(ToString::to_string).collect(),
            slots: worker.slots,
            started_at: time(worker.started.as_millisecond()),
            heartbeat_at: time(worker.heartbeat.as_millisecond()),
        }
    }
}
