//! Whom to kill, and when.

use std::time::Duration;

use engraft::domain::job::{Fence, MAX_STALLED_ATTEMPTS, State};
use engraft::domain::progress::Phase;
use engraft::store::jobs::{Job, Jobs};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::lab::{KINDS, Lab};
use crate::processes::Worker;

/// After so many attempts without headway a job is left alone until it has made some: the limit on crash loops is right
/// to end a job that is killed at every attempt, and this test is about something else.
const SPARED: u32 = MAX_STALLED_ATTEMPTS - 2;
/// A strike that is meant for a certain moment falls anyway when no job came to it in this time …
const PATIENCE: Duration = Duration::from_secs(3);
/// … unless that moment has been hit fewer times than this so far: then it waits longer.
const HITS: usize = 3;
const LONG_PATIENCE: Duration = Duration::from_secs(20);
/// A worker that publishes an artifact does so within this time after it was seen in the phase before.
const PUBLISHES: Duration = Duration::from_secs(5);
/// What a worker puts among the blobs, before the transaction that ends the job.
const ARTIFACTS: [&str; 4] = ["model", "architecture", "provenance", "report"];

/// Whom a strike kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Worker,
    Child,
    Both,
}

/// What a strike waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A child computes.
    Any,
    /// The job is in this phase.
    In(Phase),
    /// The child has ended and this artifact has become a blob; the job has not ended yet. This is over in milliseconds.
    Publishing(&'static str),
}

/// One strike, as the dice have it.
#[derive(Debug)]
pub(crate) struct Strike {
    victim: Victim,
    moment: Moment,
    /// Time between that moment and the blow.
    delay: Duration,
}

impl Strike {
    /// The next one.
    pub(crate) fn random(rng: &mut ChaCha8Rng) -> Self {
        let victim = [Victim::Worker, Victim::Child, Victim::Both][rng.random_range(0..3)];
        let artifact = ARTIFACTS[rng.random_range(0..ARTIFACTS.len())];
        let (moment, longest) = [
            (Moment::Any, 100_000),
            (Moment::Any, 600_000),
            (Moment::Any, 600_000),
            (Moment::In(Phase::Finetune), 400_000),
            (Moment::In(Phase::Evaluate), 10_000),
            (Moment::Publishing(artifact), 1_000),
        ][rng.random_range(0..6)];
        Self { victim, moment, delay: Duration::from_micros(rng.random_range(0..longest)) }
    }
}

impl Lab {
    /// Queues jobs until enough are unfinished.
    async fn top_up(&mut self) {
        while self.unfinished().await.len() < self.unfinished_jobs {
            self.post(self.jobs.len() % KINDS).await;
        }
    }

    /// The job that each of the workers runs.
    async fn running(&self, workers: &[Worker]) -> Vec<Option<Job>> {
        let listed = self.app.state.workers.live().await.expect("lists");
        let unfinished = self.unfinished().await;
        let of = |worker: &Worker| {
            let id = listed.iter().find(|listed| listed.pid == worker.pid())?.id;
            let runs = |job: &&Job| matches!(&job.state, State::Running(running) if running.worker == id);
            unfinished.iter().find(runs).cloned()
        };
        workers.iter().map(of).collect()
    }

    /// Strikes one of the workers when the moment has come, and puts a new one where one was killed.
    pub(crate) async fn strike(&mut self, workers: &mut [Worker], strike: &Strike) {
        let (struck, fence) = self.aim(workers, strike).await;
        let worker = &mut workers[struck];
        if let Moment::Publishing(artifact) = strike.moment {
            self.strike_publishing(worker, fence, artifact, strike.delay).await;
        } else {
            self.strike_computing(worker, strike).await;
        }
    }

    /// Waits for a worker to strike: one whose child computes, and about to come to the moment that is wanted.
    async fn aim(&mut self, workers: &[Worker], strike: &Strike) -> (usize, Fence) {
        let since = Instant::now();
        let wanted = match strike.moment {
            Moment::Any => None,
            Moment::In(phase) => Some((phase, phase)),
            Moment::Publishing(_) => Some((Phase::Publish, Phase::Evaluate)),
        };
        let rare = wanted.is_some_and(|(phase, _)| self.hits(phase) < HITS);
        let patience = if rare { LONG_PATIENCE } else { PATIENCE };
        loop {
            self.top_up().await;
            let patient = since.elapsed() < patience;
            for (index, job) in self.running(workers).await.into_iter().enumerate() {
                let Some(job) = job else { continue };
                let effort = job.state.effort();
                let phase = job.progress.map(|progress| progress.phase);
                let fits = wanted.is_none_or(|(_, seen)| phase == Some(seen)) || !patient;
                if effort.stalled <= SPARED && fits && workers[index].child().is_some() {
                    return (index, Fence { job: job.id, attempt: effort.attempts });
                }
            }
            self.give_up_when_late("no worker to strike").await;
            sleep(Duration::from_millis(3)).await;
        }
    }

    /// Strikes that have hit a job in `phase`.
    pub(crate) fn hits(&self, phase: Phase) -> usize {
        let hits = self.strikes.iter().filter(|((_, struck), _)| *struck == phase.as_str());
        hits.map(|(_, hits)| hits).sum()
    }

    async fn strike_computing(&mut self, worker: &mut Worker, strike: &Strike) {
        sleep(strike.delay).await;
        let job = self.running(std::slice::from_ref(worker)).await.remove(0);
        let child = worker.child();
        if strike.victim != Victim::Child {
            self.replace(worker);
        }
        if strike.victim != Victim::Worker
            && let Some(child) = child
        {
            kill(child);
        }
        // A blow between two jobs is as good as any other, but does not count.
        let (Some(job), Some(_)) = (job, child) else { return };
        let phase = job.progress.map_or("start", |progress| progress.phase.as_str());
        *self.strikes.entry((strike.victim, phase)).or_default() += 1;
    }

    /// Kills the worker between the first sight of an artifact's blob and the end of its job. One that was faster is dead
    /// too, but does not count.
    async fn strike_publishing(&mut self, worker: &mut Worker, fence: Fence, artifact: &str, delay: Duration) {
        let blob = self.file_of(&Jobs::blob_key(fence, artifact));
        let since = Instant::now();
        while !blob.exists() {
            if since.elapsed() > PUBLISHES {
                return;
            }
            // The runtime's timer is too coarse.
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(delay);
        self.replace(worker);
        if !self.job(fence.job).await.state.is_terminal() {
            *self.strikes.entry((Victim::Worker, Phase::Publish.as_str())).or_default() += 1;
        }
    }

    /// Kills the worker; another takes its place.
    fn replace(&self, worker: &mut Worker) {
        worker.kill();
        *worker = Worker::start(worker.home(), self.lease);
    }
}

fn kill(pid: Pid) {
    // A child that has ended by itself in the meantime is no failure.
    let _gone = kill_process(pid, Signal::KILL);
}
