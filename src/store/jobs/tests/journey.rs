//! A worker's calls for one job, made one by one.

use super::*;

/// How far the calls have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The job is queued.
    Queued,
    /// A worker holds it.
    Claimed,
    /// The attempt has entered a phase.
    Training,
    /// The worker has renewed its lease.
    Renewed,
    /// Another attempt can go on from here.
    Checkpointed,
    /// The result is published.
    Published,
}

impl Stage {
    const ALL: [Self; 6] =
        [Self::Queued, Self::Claimed, Self::Training, Self::Renewed, Self::Checkpointed, Self::Published];
}

/// One job on its way. Each call that succeeds takes a second.
pub(super) struct Journey<'a> {
    house: &'a House,
    worker: WorkerId,
    key: RequestKey,
    reached: Option<Stage>,
    job: Option<JobId>,
    fence: Option<Fence>,
}

impl<'a> Journey<'a> {
    pub(super) fn new(house: &'a House) -> Self {
        let key = RequestKey { key: "k".to_owned(), fingerprint: [7; 32] };
        Self { house, worker: WorkerId::new(), key, reached: None, job: None, fence: None }
    }

    /// Makes the calls that lead to `goal`. One that fails is made again by the next call of this.
    pub(super) async fn advance_till(&mut self, goal: Stage) -> Result<(), JobError> {
        let reached = self.reached;
        for stage in Stage::ALL.into_iter().filter(|stage| Some(*stage) > reached && *stage <= goal) {
            self.step(stage).await?;
            self.reached = Some(stage);
            self.house.clock.advance(Duration::from_secs(1));
        }
        Ok(())
    }

    /// The job, which is queued.
    pub(super) fn job(&self) -> JobId {
        self.job.expect("the job is queued")
    }

    /// The right to write for the job.
    pub(super) fn fence(&self) -> Fence {
        self.fence.expect("the job is claimed")
    }

    async fn step(&mut self, stage: Stage) -> Result<(), JobError> {
        let jobs = &self.house.jobs;
        match stage {
            Stage::Queued => {
                self.job = Some(jobs.insert(&self.house.new_job(Vec::new()), Some(&self.key)).await?);
            }
            Stage::Claimed => {
                let devices = vec![Device::Cpu];
                let claimant =
                    Claimant { worker: self.worker, host: "here".to_owned(), devices, lease: LEASE, room: ROOM };
                self.fence = Some(jobs.claim(&claimant).await?.expect("a job to claim").fence);
            }
            Stage::Training => jobs.enter_phase(self.fence(), Phase::Finetune).await?,
            Stage::Renewed => drop(jobs.renew(self.fence(), LEASE).await?),
            Stage::Checkpointed => {
                let key = Jobs::blob_key(self.fence(), "checkpoint");
                jobs.save_checkpoint(self.fence(), 1, &key).await?;
            }
            Stage::Published => drop(jobs.publish(self.fence(), &[model(self.fence())]).await?),
        }
        Ok(())
    }
}
