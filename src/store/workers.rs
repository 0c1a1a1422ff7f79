//! Worker processes and the devices they offer.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sql;
use super::steady::Steady;
use super::{Database, StoreError};
use crate::domain::clock::{SharedClock, from_millis};
use crate::domain::id::WorkerId;
use crate::domain::speed::Speed;
use crate::settings::Device;
use crate::store::sql::{Count, FromRow};

/// How long a worker counts as alive after a heartbeat.
pub const LIVE_FOR: Duration = Duration::from_secs(30);
/// How long a dead worker is remembered.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// What a worker process says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Its id, new with each start.
    pub id: WorkerId,
    /// The machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Jobs it runs at the same time.
    pub slots: u32,
    /// What it computes on, the preferred device first.
    pub devices: Vec<Device>,
    /// How fast those of them are that could be measured.
    pub speeds: Vec<DeviceSpeed>,
    /// When it started.
    pub started: Timestamp,
    /// When it last sent a heartbeat.
    pub heartbeat: Timestamp,
}

/// How fast a device is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeviceSpeed {
    /// The device.
    pub device: Device,
    /// How much it does in a second.
    pub speed: Speed,
}

impl Registration {
    /// How fast a job that requests `wanted` is computed here, if it can be and somebody has measured it.
    #[must_use]
    pub fn speed(&self, wanted: Device) -> Option<&DeviceSpeed> {
        let device = self.devices.iter().find(|device| wanted.may_be(**device))?;
        self.speeds.iter().find(|speed| speed.device == *device)
    }
}

#[derive(FromRow)]
struct WorkerRow {
    id: String,
    host: String,
    pid: Count,
    version: String,
    slots: Count,
    devices: String,
    speeds: String,
    started_at: i64,
    heartbeat_at: i64,
}

impl TryFrom<WorkerRow> for Registration {
    type Error = StoreError;

    fn try_from(row: WorkerRow) -> Result<Self, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("workers", row.id.as_str(), detail);
        Ok(Self {
            id: row.id.parse().map_err(|error| wrong(format!("{error}")))?,
            devices: serde_json::from_str(&row.devices).map_err(|error| wrong(error.to_string()))?,
            speeds: serde_json::from_str(&row.speeds).map_err(|error| wrong(error.to_string()))?,
            started: from_millis(row.started_at),
            heartbeat: from_millis(row.heartbeat_at),
            host: row.host,
            pid: row.pid.0,
            version: row.version,
            slots: row.slots.0,
        })
    }
}

/// The table of workers; clones share the database.
#[derive(Debug, Clone)]
pub struct Workers {
    database: Database,
    clock: SharedClock,
    steady: Steady,
}

impl Workers {
    /// The workers in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { steady: Steady::new(database.clone(), clock.clone()), database, clock }
    }

    /// Makes a worker known, or records that it is alive.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn heartbeat(&self, worker: &Registration) -> Result<(), StoreError> {
        let (now, seen) = (self.clock.now(), self.steady.now().await?.as_millis());
        let mut transaction = self.database.write().await?;
        sql::query("DELETE FROM workers WHERE seen < $1")
            .bind(seen - FORGET_AFTER.as_millis() as i64)
            .execute(&mut *transaction)
            .await?;
        sql::query(
            "INSERT INTO workers (id, host, pid, version, slots, devices, speeds, started_at, heartbeat_at, seen) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (id) DO UPDATE SET speeds = excluded.speeds, heartbeat_at = excluded.heartbeat_at, seen = excluded.seen",
        )
        .bind(worker.id.to_string())
        .bind(&worker.host)
        .bind(worker.pid)
        .bind(&worker.version)
        .bind(worker.slots)
        .bind(json!(worker.devices).to_string())
        .bind(json!(worker.speeds).to_string())
        .bind(worker.started.as_millisecond())
        .bind(now.as_millisecond())
        .bind(seen)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// The worker stops and offers nothing any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&self, id: WorkerId) -> Result<(), StoreError> {
        let mut transaction = self.database.write().await?;
        sql::query("DELETE FROM workers WHERE id = $1").bind(id.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// The workers that are alive, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn live(&self) -> Result<Vec<Registration>, StoreError> {
        let rows: Vec<WorkerRow> = sql::query_as("SELECT * FROM workers WHERE seen >= $1 ORDER BY id")
            .bind(self.steady.now().await?.as_millis() - LIVE_FOR.as_millis() as i64)
            .fetch_all(self.database.reader())
            .await?;
        rows.into_iter().map(Registration::try_from).collect()
    }

    /// Whether a live worker offers `device`; `auto` is always on offer, its jobs wait for a worker.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn offers(&self, device: Device) -> Result<bool, StoreError> {
        let offered = |found: &Device| device.may_be(*found);
        Ok(device == Device::Auto || self.live().await?.iter().any(|worker| worker.devices.iter().any(offered)))
    }
}
