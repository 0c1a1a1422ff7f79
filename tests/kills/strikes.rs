//! Whom to kill, and when.

use std::time::Duration;

use engraft::domain::job::{MAX_STALLED_ATTEMPTS, State};
use engraft::job::protocol::Phase;
use engraft::store::jobs::Job;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::lab::{KINDS, Lab, ONE_SECOND};
use crate::processes::Worker;

/// Jobs that are unfinished at any time, until the last strike.
const JOBS: usize = 4;
/// After so many attempts without headway a job is left alone until it has made some: the limit on crash loops is right
/// to end a job that is killed at every attempt, and this test is about something else.
const SPARED: u32 = MAX_STALLED_ATTEMPTS - 2;
/// A strike that is meant for a certain phase falls anyway when no job came to it in this time …
const PATIENCE: Duration = Duration::from_secs(3);
/// … unless the phase has been hit fewer times than this so far: then it waits longer.
const HITS: usize = 3;
const LONG_PATIENCE: Duration = Duration::from_secs(20);

/// Whom a strike kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Worker,
    Child,
    Both,
}

/// One strike, as the dice have it.
#[derive(Debug)]
pub(crate) struct Strike {
    victim: Victim,
    /// The phase that it is meant for; none for any moment.
    phase: Option<Phase>,
    /// Time between the sight of the phase (or of a running child) and the blow.
    pub(crate) delay: Duration,
}

impl Strike {
    /// The next one.
    pub(crate) fn random(rng: &mut ChaCha8Rng) -> Self {
        let victim = [Victim::Worker, Victim::Child, Victim::Both][rng.random_range(0..3)];
        let (phase, longest) = [
            (None, 100),
            (None, 600),
            (None, 600),
            (Some(Phase::Finetune), 400),
            (Some(Phase::Evaluate), 100),
            (Some(Phase::Publish), 40),
        ][rng.random_range(0..6)];
        Self { victim, phase, delay: Duration::from_millis(rng.random_range(0..longest)) }
    }
}

impl Lab {
    /// Queues jobs until enough are unfinished.
    async fn top_up(&mut self) {
        while self.unfinished().await.len() < JOBS {
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

    /// Waits for a worker to strike: one whose child computes, in the phase that is wanted.
    pub(crate) async fn aim(&mut self, workers: &[Worker; 2], strike: &Strike) -> usize {
        let since = Instant::now();
        let rare = strike.phase.is_some_and(|phase| self.hits(phase) < HITS);
        let patience = if rare { LONG_PATIENCE } else { PATIENCE };
        loop {
            self.top_up().await;
            let patient = since.elapsed() < patience;
            for (index, job) in self.running(workers).await.into_iter().enumerate() {
                let Some(job) = job else { continue };
                let spared = job.state.effort().stalled > SPARED;
                let phase = job.progress.map(|progress| progress.phase);
                let fits = strike.phase.is_none_or(|wanted| leads_to(phase, wanted)) || !patient;
                if !spared && fits && workers[index].child().is_some() {
                    return index;
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

    /// Strikes, and puts a new worker where one was killed.
    pub(crate) async fn strike(&mut self, worker: &mut Worker, strike: &Strike) {
        let job = self.running(std::slice::from_ref(worker)).await.remove(0);
        let child = worker.child();
        if strike.victim != Victim::Child {
            let successor = self.worker(ONE_SECOND);
            std::mem::replace(worker, successor).kill();
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
}

/// Whether a job that was seen in `phase` is about to be in the `wanted` one: publishing is over before it is seen.
fn leads_to(phase: Option<Phase>, wanted: Phase) -> bool {
    phase == Some(wanted) || wanted == Phase::Publish && phase == Some(Phase::Evaluate)
}

fn kill(pid: Pid) {
    // A child that has ended by itself in the meantime is no failure.
    let _gone = kill_process(pid, Signal::KILL);
}
