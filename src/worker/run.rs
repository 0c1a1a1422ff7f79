//! The claim loop of a worker process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::devices;
use super::roll::{self, RollEntry};
use super::slots::{Slot, Slots};
use super::supervise::{Ending, supervise};
use super::{Stint, Worker, disk, scratch, speed};
use crate::domain::id::WorkerId;
use crate::runtime::lifecycle::Shutdown;
use crate::store::jobs::{Claim, Claimant};
use crate::store::workers::Registration;

/// Time between two signs of life, several of which fit into [`crate::store::workers::LIVE_FOR`].
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Time to wait after the database has failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Time that a GPU gets to recover, and another worker to take over its job, when it did not answer any more.
const GPU_REST: Duration = Duration::from_mins(1);
/// Time between two looks for what killed processes have left behind.
const TIDY: Duration = Duration::from_mins(10);

/// Claims and runs jobs until the stint is over, or the shutdown begins: then what it holds is given back. `hint` rings when a job was
/// queued.
pub async fn run(worker: Worker, stint: Stint, hint: Arc<Notify>, shutdown: Shutdown) {
    let mut registration = registration(&worker);
    list(&worker, &registration).await;
    let roll = worker.scratch.with_file_name("workers");
    let entry = RollEntry::new(&roll, registration.id);
    if let Err(error) = &entry {
        tracing::warn!(folder = %roll.display(), %error, "no lock can be held: if this process is killed, its jobs wait for their leases");
    }
    release(&worker, &roll).await;
    let alive = |worker: &Worker, registration: &Registration| {
        AbortOnDropHandle::new(tokio::spawn(show_signs_of_life(worker.clone(), registration.clone(), roll.clone())))
    };
    let signs_of_life = alive(&worker, &registration);
    registration.speeds = tokio::select! {
        speeds = speed::measure(&worker.policy) => speeds,
        () = shutdown.draining() => Vec::new(),
    };
    drop(signs_of_life);
    let worker = Worker { speeds: registration.speeds.clone(), ..worker };
    list(&worker, &registration).await;
    let signs_of_life = alive(&worker, &registration);
    let tidying = AbortOnDropHandle::new(tokio::spawn(keep_tidy(worker.clone())));
    let running = claim_until_over(&worker, registration.id, stint, &hint, &shutdown).await;
    running.join_all().await;
    drop((signs_of_life, tidying, entry));
    if let Err(error) = worker.workers.remove(registration.id).await {
        tracing::warn!(%error, "this worker could not be taken off the list; it goes by itself");
    }
}

async fn claim_until_over(
    worker: &Worker,
    id: WorkerId,
    stint: Stint,
    hint: &Notify,
    shutdown: &Shutdown,
) -> JoinSet<()> {
    let policy = &worker.policy;
    let mut claimant = Claimant { worker: id, host: host(), devices: Vec::new(), lease: policy.lease, room: 0 };
    let slots = Slots::new(policy.slots.clone());
    let mut running = JoinSet::new();
    let mut busy = Instant::now();
    loop {
        let slot = tokio::select! {
            slot = slots.any() => slot,
            () = shutdown.draining() => return running,
        };
        let (Some(slot), false) = (slot, shutdown.is_draining()) else { return running };
        claimant.devices = slots.free();
        while running.try_join_next().is_some() {
            busy = Instant::now();
        }
        let claimed = match disk::room(&worker.scratch, policy.keep_free) {
            Ok(room) => {
                claimant.room = room;
                worker.jobs.claim(&claimant).await
            }
            Err(error) => Err(error.into()),
        };
        let wait = match claimed {
            Ok(Some(claim)) => {
                let slot = slot.settle(claim.device);
                running.spawn(work(worker.clone(), claim, shutdown.clone(), slot));
                if stint.once {
                    return running;
                }
                continue;
            }
            Ok(None) => policy.poll,
            Err(error) => {
                tracing::error!(%error, "no job could be claimed");
                AFTER_FAILURE
            }
        };
        if !running.is_empty() {
            busy = Instant::now();
        } else if stint.idle.is_some_and(|idle| busy.elapsed() >= idle) {
            tracing::info!("there has been no job for a while: this worker ends");
            return running;
        }
        tokio::select! {
            () = hint.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = shutdown.draining() => return running,
        }
    }
}

async fn work(worker: Worker, claim: Claim, shutdown: Shutdown, slot: Slot) {
    let ending = supervise(&worker, claim, slot.device(), &shutdown).await;
    if ending == Ending::DeviceLost {
        tracing::warn!(device = %slot.device(), seconds = GPU_REST.as_secs(), "the GPU was lost, and takes no job for a while");
        tokio::select! {
            () = tokio::time::sleep(GPU_REST) => {}
            () = shutdown.draining() => {}
        }
    }
    drop(slot);
}

/// Removes what killed processes have left behind, at once and from time to time.
async fn keep_tidy(worker: Worker) {
    loop {
        if let Err(error) = scratch::sweep(&worker.scratch, &worker.jobs).await {
            tracing::warn!(%error, "old scratch folders could not be removed");
        }
        tokio::time::sleep(TIDY).await;
    }
}

/// Enters the worker in the list of workers, or what has become known of it since.
async fn list(worker: &Worker, registration: &Registration) {
    if let Err(error) = worker.workers.heartbeat(registration).await {
        tracing::warn!(%error, "this worker could not be listed yet");
    }
}

/// Gives back the jobs of workers that were killed.
async fn release(worker: &Worker, roll: &Path) {
    match roll::release(roll, &worker.jobs, &worker.workers).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "jobs of workers that are gone were given back"),
        Err(error) => tracing::warn!(%error, "whether workers are gone could not be seen"),
    }
}

async fn show_signs_of_life(worker: Worker, registration: Registration, roll: PathBuf) {
    loop {
        tokio::time::sleep(SIGN_OF_LIFE).await;
        release(&worker, &roll).await;
        if let Err(error) = worker.workers.heartbeat(&registration).await {
            tracing::warn!(%error, "no sign of life could be written");
        }
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn registration(worker: &Worker) -> Registration {
    let now = worker.clock.now();
    Registration {
        id: WorkerId::new(),
        host: host(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: u32::try_from(worker.policy.slots.len()).unwrap_or(u32::MAX),
        devices: devices::distinct(worker.policy.slots.iter().copied()),
        speeds: Vec::new(),
        started: now,
        heartbeat: now,
    }
}
