//! The composition root: opens the stores, binds the socket, and runs router and workers until a signal ends them.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::config::Configuration;
use crate::domain::blob_location::BlobLocation;
use crate::domain::clock::SharedClock;
use crate::domain::database::DatabasePlace;
use crate::domain::gpu::Gpus;
use crate::domain::quota::TenantResource;
use crate::exec;
use crate::http;
use crate::http::connection::Tls;
use crate::http::state::AppState;
use crate::outbound;
use crate::runtime::lifecycle::{self, Shutdown};
use crate::store::blobs::environment;
use crate::store::database::Demand;
use crate::store::{Backend, Blobs, Database};
pub use crate::worker::Stint;
use crate::worker::validation::Validator;
use crate::worker::{self, Policy, Program, Worker, devices};

/// Time between two looks for a job when nobody gives a hint.
const POLL: Duration = Duration::from_millis(250);
/// Time that a child gets to stop between two batches before it is killed.
const CHILD_GRACE: Duration = Duration::from_secs(10);

/// A server that is bound and ready to run.
#[derive(Debug)]
pub struct Application {
    listener: TcpListener,
    tls: Option<Tls>,
    address: SocketAddr,
    state: AppState,
    shutdown: Shutdown,
}

impl Application {
    /// Opens the data directory, migrates the database and binds the socket.
    ///
    /// # Errors
    /// When a store cannot be opened, the address is taken, or the address is not loopback and there is no API key.
    pub async fn build(settings: Configuration, clock: SharedClock, shutdown: Shutdown) -> anyhow::Result<Self> {
        let data_dir = &settings.storage.data_dir;
        std::fs::create_dir_all(data_dir).with_context(|| format!("data directory {}", data_dir.display()))?;
        let listen = settings.server.listen;
        let state = AppState::open(settings, clock, shutdown.clone()).await?;
        anyhow::ensure!(
            listen.ip().is_loopback() || state.bootstrap.is_some() || state.keys.any().await?,
            "{listen} is reachable from other machines, and there is no API key yet: make one with \
             `engraft keys create --data-dir {}`, set ENGRAFT_API_KEY, or listen on 127.0.0.1",
            state.settings.storage.data_dir.display()
        );
        let tls = Tls::open(&state.settings.server)?;
        let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, tls, address, state, shutdown })
    }

    /// Where it listens; the real port if the settings said 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its address begins with: `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What the handlers share.
    #[must_use]
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Everything that runs beside the router; all of it ends with the shutdown.
    async fn start_background_work(&self) -> anyhow::Result<()> {
        let state = &self.state;
        let program = state.settings.program.clone().map_or_else(std::env::current_exe, Ok)?;
        state.tasks.spawn(http::housekeeping::run(state.clone()));
        state.tasks.spawn(http::housekeeping::settle_jobs(state.clone()));
        let (webhooks, outbound) = (state.webhooks.clone(), state.outbound.clone());
        state.tasks.spawn(outbound::webhooks::run(webhooks, outbound, state.clock.clone(), self.shutdown.clone()));
        state.tasks.spawn(http::imports::run(state.clone()));
        let validator = Validator {
            datasets: state.datasets.clone(),
            blobs: state.blobs.clone(),
            limits: state.settings.validation.clone(),
            reading_seconds: state.settings.tenants.quota().limit(TenantResource::ReadingSeconds),
            keep_free: state.settings.storage.keep_free.0,
            program: program.clone(),
            scratch: state.settings.storage.data_dir.join("scratch"),
            hint: state.dataset_arrived.clone(),
        };
        state.tasks.spawn(validator.run(self.shutdown.clone()));
        if state.settings.workers.workers == 0 {
            // Nobody waits for it: it only explains why a device is not on offer.
            let state = state.clone();
            self.state.tasks.spawn(async move {
                if let Ok(gpus) = look_for_gpus(&program).await {
                    let _known = state.gpus.set(gpus);
                }
            });
        } else {
            let gpus = look_for_gpus(&program).await?;
            let _known = state.gpus.set(gpus.clone());
            let policy = worker_policy(&state.settings, program, gpus)?;
            let scratch = state.settings.storage.data_dir.join("scratch");
            let worker = Worker::new(policy, &state.database, state.blobs.clone(), state.clock.clone(), scratch);
            let (hint, shutdown) = (state.job_queued.clone(), self.shutdown.clone());
            state.tasks.spawn(worker::run(worker, Stint::default(), hint, shutdown));
        }
        Ok(())
    }

    /// Serves until the shutdown it was built with begins, then drains.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn run_until_stopped(self) -> anyhow::Result<()> {
        self.start_background_work().await?;
        let router = http::router(self.state.clone());
        http::connection::serve(self.listener, self.tls, router, &self.state).await?;
        self.state.tasks.close();
        self.state.tasks.wait().await;
        self.state.database.close().await;
        Ok(())
    }
}

/// Runs the workers of `settings` alone, on the stores of a server, until their stint is over or `shutdown` begins.
///
/// # Errors
/// When no server has made the data directory, a store cannot be opened or the machine has no such device.
pub async fn work(settings: Configuration, stint: Stint, clock: SharedClock, shutdown: Shutdown) -> anyhow::Result<()> {
    anyhow::ensure!(settings.workers.workers > 0, "--workers is 0: a worker process runs at least one job at a time");
    let data_dir = &settings.storage.data_dir;
    let shown = data_dir.display();
    // A worker that made a folder of its own would wait there for ever; one whose jobs and files are elsewhere needs one for its scratch.
    let is_elsewhere = match &settings.storage.database {
        DatabasePlace::DataDir => false,
        DatabasePlace::File(_) => settings.storage.blobs != BlobLocation::DataDir,
        DatabasePlace::Server(_) => true,
    };
    if is_elsewhere {
        std::fs::create_dir_all(data_dir).with_context(|| format!("data directory {shown}"))?;
    } else {
        anyhow::ensure!(
            ["engraft.db", "blobs"].iter().any(|name| data_dir.join(name).exists()),
            "{shown} is no data directory of a server: correct --data-dir, or start `engraft serve --data-dir {shown}` first"
        );
    }
    let program = settings.program.clone().map_or_else(std::env::current_exe, Ok)?;
    let gpus = look_for_gpus(&program).await?;
    let policy = worker_policy(&settings, program, gpus)?;
    let variables = settings.aws.clone().unwrap_or_else(environment);
    let backend = Backend::of(&settings.storage.blobs, data_dir, &variables)?;
    let database = Database::open_for(Demand::Worker, &settings.storage.database, data_dir, &backend).await?;
    let clock = database.clock(clock);
    let blobs = Blobs::of(&backend, data_dir, settings.storage.cache_size.0)?;
    tracing::info!(jobs_at_once = policy.slots.len(), threads_each = policy.threads, "works off the jobs of {shown}");
    let worker = Worker::new(policy, &database, blobs, clock, data_dir.join("scratch"));
    worker::run(worker, stint, Arc::default(), shutdown).await;
    database.close().await;
    Ok(())
}

/// What this machine has for computing on GPUs.
async fn look_for_gpus(program: &Path) -> anyhow::Result<Gpus> {
    let program = program.to_owned();
    Ok(lifecycle::aside(move || exec::gpus(&program).clone()).await?)
}

/// How the workers of this process work on a machine with these GPUs, which is logged; `program` is the `engraft` executable.
///
/// # Errors
/// When the machine has no such device, or the lease is too short for its renewals.
pub fn worker_policy(settings: &Configuration, program: PathBuf, gpus: Gpus) -> anyhow::Result<Policy> {
    let Configuration { workers: settings, storage, tenants, .. } = settings;
    let (lease, heartbeat) = (settings.lease.0, settings.heartbeat.0);
    anyhow::ensure!(
        heartbeat * 2 <= lease,
        "a lease of {lease:?} renewed every {heartbeat:?} lapses when one renewal is late: set --heartbeat to half of --lease at most"
    );
    let slots = devices::slots(settings.device, settings.workers, &gpus, exec::AUTO_TAKES_GPUS)?;
    tracing::info!("{}", devices::described(&slots, &gpus));
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = if settings.threads == 0 { processors / slots.len().max(1) } else { settings.threads };
    Ok(Policy {
        slots,
        gpus,
        gpu_memory_limit: Some(settings.gpu_memory_limit.0).filter(|bytes| *bytes > 0),
        threads: threads.max(1),
        memory_limit: Some(settings.memory_limit.0).filter(|bytes| *bytes > 0),
        scratch_limit: Some(settings.scratch_limit.0).filter(|bytes| *bytes > 0),
        keep_free: storage.keep_free.0,
        quota: tenants.quota(),
        lease,
        heartbeat,
        poll: POLL,
        grace: CHILD_GRACE,
        stopwatch: Some(Program { path: program.clone(), args: vec!["measure-speed".into()] }),
        program: Program { path: program, args: vec!["run-job".into()] },
    })
}
