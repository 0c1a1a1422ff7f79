//! What every handler can reach.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::connection::Connections;
use super::exports::Exports;
use super::live::Live;
use super::metrics::Metrics;
use super::pace::RequestRate;
use super::soundness::Soundness;
use crate::config::Configuration;
use crate::domain::clock::SharedClock;
use crate::domain::gpu::Gpus;
use crate::outbound::sources::Services;
use crate::outbound::{Networks, Outbound};
use crate::runtime::lifecycle::Shutdown;
use crate::store::blobs::environment;
use crate::store::census::Counting;
use crate::store::changes::Changes;
use crate::store::checkpoints::Checkpoints;
use crate::store::comparisons::Comparisons;
use crate::store::datasets::Datasets;
use crate::store::idempotency::Idempotency;
use crate::store::imports::Imports;
use crate::store::jobs::Jobs;
use crate::store::keys::{Keys, Secret};
use crate::store::multipart::MultipartUploads;
use crate::store::publish::Publisher;
use crate::store::readiness::Readiness;
use crate::store::reserve::Reserve;
use crate::store::staging::Staging;
use crate::store::tenants::Tenants;
use crate::store::trash::Trash;
use crate::store::upkeep::{Pins, Retention};
use crate::store::uploads::Uploads;
use crate::store::webhooks::Webhooks;
use crate::store::workers::Workers;
use crate::store::{Backend, Blobs, Database, StoreError};

/// The shared state; clones are cheap.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

/// What is behind an [`AppState`].
#[derive(Debug)]
pub struct Shared {
    /// Every setting.
    pub settings: Configuration,
    /// Rows.
    pub database: Database,
    /// Bytes.
    pub blobs: Blobs,
    /// API keys.
    pub keys: Keys,
    /// What tenants may take and have taken.
    pub tenants: Tenants,
    /// What retention leaves alone.
    pub pins: Pins,
    /// What may go after some time.
    pub retention: Retention,
    /// Which stored files are known to be whole.
    pub soundness: Soundness,
    /// Fused models in other formats.
    pub exports: Exports,
    /// How fast tenants send requests.
    pub pace: RequestRate,
    /// The key from the environment.
    pub bootstrap: Option<Secret>,
    /// Uploaded checkpoints.
    pub checkpoints: Checkpoints,
    /// Uploaded datasets.
    pub datasets: Datasets,
    /// Files that are fetched from elsewhere.
    pub imports: Imports,
    /// Which services they come from.
    pub services: Services,
    /// Sends requests to others.
    pub outbound: Outbound,
    /// Jobs.
    pub jobs: Jobs,
    /// Jobs that somebody follows.
    pub live: Live,
    /// Whether anybody has written.
    pub changes: Changes,
    /// Groups of jobs.
    pub comparisons: Comparisons,
    /// Where tenants are called when something ends.
    pub webhooks: Webhooks,
    /// Workers and their devices.
    pub workers: Workers,
    /// What this machine has for computing on GPUs, once that is known.
    pub gpus: OnceLock<Gpus>,
    /// Unfinished uploads.
    pub staging: Staging,
    /// Turns uploads into checkpoints and datasets.
    pub publisher: Publisher,
    /// Where files go that nobody seems to need.
    pub trash: Trash,
    /// Room for deletions on a full disk.
    pub reserve: Reserve,
    /// Whether the storage can be written.
    pub readiness: Readiness,
    /// Answers to repeated requests.
    pub idempotency: Idempotency,
    /// Figures about what is stored.
    pub census: Counting,
    /// Places for connections.
    pub connections: Connections,
    /// Figures that the server counts itself.
    pub metrics: Metrics,
    /// The time.
    pub clock: SharedClock,
    /// Whether the program is about to end.
    pub shutdown: Shutdown,
    /// Work that outlives its request; the program waits for it before it ends.
    pub tasks: TaskTracker,
    /// Rings when a job was queued: a hint for workers in this process, who also poll.
    pub job_queued: Arc<Notify>,
    /// Rings when a dataset was uploaded.
    pub dataset_arrived: Arc<Notify>,
}

impl AppState {
    /// Opens the stores below the data directory of `settings`, which must exist.
    ///
    /// # Errors
    /// When a store cannot be opened.
    pub async fn open(settings: Configuration, clock: SharedClock, shutdown: Shutdown) -> Result<Self, StoreError> {
        let data_dir = &settings.storage.data_dir;
        let variables = settings.aws.clone().unwrap_or_else(environment);
        let backend = Backend::of(&settings.storage.blobs, data_dir, &variables)?;
        let database = Database::open_at(&settings.storage.database, data_dir, &backend).await?;
        let clock = database.clock(clock);
        let blobs = Blobs::of(&backend, data_dir, settings.storage.cache_size.0)?;
        let uploads = Uploads::new(database.clone(), clock.clone(), settings.limits.upload_expiry.0);
        let multipart =
            blobs.bucket().map(|bucket| MultipartUploads::new(database.clone(), uploads.clone(), bucket.clone()));
        let staging = Staging::open(data_dir, uploads)?.with_bucket(multipart);
        let quota = settings.tenants.quota();
        let elsewhere = &settings.outbound;
        let jobs = Jobs::new(database.clone(), clock.clone()).with_quota(quota);
        let tasks = TaskTracker::new();
        let changes = Changes::new(database.clone(), tasks.clone());
        Ok(Self(Arc::new(Shared {
            keys: Keys::new(database.clone(), clock.clone()),
            tenants: Tenants::new(database.clone(), quota),
            pins: Pins::new(database.clone(), clock.clone()),
            retention: Retention::new(database.clone(), blobs.clone(), clock.clone()),
            soundness: Soundness::default(),
            exports: Exports::new(data_dir, settings.storage.keep_free.0, clock.clone()),
            pace: RequestRate::default(),
            bootstrap: settings.bootstrap_key.as_deref().and_then(Secret::parse),
            checkpoints: Checkpoints::new(database.clone(), blobs.clone()),
            datasets: Datasets::new(database.clone(), blobs.clone(), clock.clone()),
            comparisons: Comparisons::new(database.clone(), jobs.clone(), clock.clone()),
            imports: Imports::new(database.clone(), clock.clone()),
            services: Services::new(
                elsewhere.hub_endpoint.0.clone(),
                elsewhere.s3_endpoint.0.clone(),
                elsewhere.s3_buckets.0.clone(),
            ),
            outbound: Outbound::new(Networks::allowing(elsewhere.allow_address.0.clone())),
            gpus: OnceLock::new(),
            webhooks: Webhooks::new(database.clone(), clock.clone()),
            workers: Workers::new(database.clone(), clock.clone()),
            publisher: Publisher::new(database.clone(), blobs.clone(), staging.clone(), clock.clone(), quota),
            trash: Trash::new(data_dir, settings.storage.trash.0, clock.clone()),
            reserve: Reserve::new(data_dir, settings.storage.keep_free.0),
            readiness: Readiness::new(database.clone(), clock.clone()),
            idempotency: Idempotency::new(database.clone(), clock.clone()),
            census: Counting::new(database.clone(), Tenants::new(database.clone(), quota), clock.clone()),
            connections: Connections::new(settings.server.max_connections),
            metrics: Metrics::default(),
            job_queued: Arc::default(),
            dataset_arrived: Arc::default(),
            live: Live::new(jobs.clone(), changes.clone(), tasks.clone()),
            settings,
            changes,
            tasks,
            jobs,
            database,
            blobs,
            staging,
            clock,
            shutdown,
        })))
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
