//! Workers as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use super::time;
use crate::domain::speed::Speed;
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

impl From<Registration> for WorkerView {
    fn from(worker: Registration) -> Self {
        Self {
            id: worker.id.to_string(),
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
