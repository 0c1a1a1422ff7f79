//! Workers as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::domain::access::Scope;
use crate::domain::speed::Speed;
use crate::http::auth::Caller;
use crate::store::jobs::RunningJob;
use crate::store::workers::Registration;

/// The workers that are running.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkersView {
    /// The workers; the oldest comes first.
    pub data: Vec<WorkerView>,
}

/// A process that runs jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerView {
    /// Its id, which is new after each start.
    #[schema(example = "work_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// The machine that it runs on; only keys of the scope `admin` see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "gpu-7")]
    host: Option<String>,
    /// The version of its program.
    #[schema(example = "0.1.0")]
    version: String,
    /// The devices that a job can request; `auto` takes the first.
    #[schema(example = json!(["cuda:0", "cpu"]))]
    devices: Vec<String>,
    /// How fast those of them are that could be measured when it started; plans estimate times by it.
    speeds: Vec<DeviceSpeedView>,
    /// How many jobs it runs at the same time.
    #[schema(example = 1)]
    slots: u32,
    /// The jobs that it runs now: your own ones, or, for a key of the scope `admin`, those of all tenants.
    jobs: Vec<WorkerJobView>,
    /// When it started.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    started_at: String,
    /// When it last reported that it is running.
    #[schema(example = "2026-01-31T12:30:00.000Z", format = DateTime)]
    heartbeat_at: String,
}

/// How fast a device is.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceSpeedView {
    /// The device.
    #[schema(example = "cpu")]
    device: String,
    /// How much it does in a second.
    speed: Speed,
}

/// A job that a worker runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerJobView {
    /// Its id.
    #[schema(example = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c")]
    id: String,
    /// Whose it is.
    #[schema(example = "default")]
    tenant: String,
}

impl WorkerView {
    /// What `caller` may see of a worker, given every job that runs.
    pub fn of(worker: Registration, running: &[RunningJob], caller: &Caller) -> Self {
        let is_admin = caller.scope == Scope::Admin;
        let jobs = running.iter().filter(|job| job.worker == worker.id && (is_admin || job.tenant == *caller.tenant));
        Self {
            id: worker.id.to_string(),
            host: is_admin.then_some(worker.host),
            jobs: jobs.map(|job| WorkerJobView { id: job.job.to_string(), tenant: job.tenant.to_string() }).collect(),
            version: worker.version,
            devices: worker.devices.iter().map(ToString::to_string).collect(),
            speeds: worker
                .speeds
                .iter()
                .map(|known| DeviceSpeedView { device: known.device.to_string(), speed: known.speed })
                .collect(),
            slots: worker.slots,
            started_at: time(worker.started.as_millisecond()),
            heartbeat_at: time(worker.heartbeat.as_millisecond()),
        }
    }
}
