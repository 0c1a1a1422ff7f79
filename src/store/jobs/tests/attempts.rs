//! An attempt from claim to end: leases, fences, crash loops, cancelling, time limits.

use super::*;

#[tokio::test]
async fn a_job_runs_and_publishes_once() {
    let house = House::new().await;
    let first = house.queue().await;
    let second = house.queue().await;
    assert_eq!(house.jobs.queue_position(second).await.expect("counts"), Some(2));
    let claim = house.claim().await.expect("a job");
    assert_eq!((claim.fence, claim.resolved), (Fence { job: first, attempt: 1 }, json!({ "seed": 0 })), "oldest first");
    let fence = claim.fence;
    house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
    house.clock.advance(Duration::from_secs(2));
    house.jobs.enter_phase(fence, Phase::Finetune).await.expect("writes");
    house.jobs.publish(fence, &[model(fence)]).await.expect("publishes");
    let job = house.job(first).await;
    assert_eq!(job.state.name(), "succeeded");
    assert_eq!(job.state.effort().ran, Duration::from_secs(2));
    assert!(job.phases.iter().all(|phase| phase.ended.is_some()), "{:?}", job.phases);
    assert_eq!(house.jobs.artifacts(first).await.expect("reads"), [model(fence)]);
    lost(house.jobs.publish(fence, &[model(fence)]).await);
    assert_eq!(house.history(first).await, ["queued", "running", "succeeded"]);
    assert_eq!(house.state(second).await, "queued");
}

#[tokio::test]
async fn a_lapsed_lease_is_queued_again_and_the_zombie_writes_nothing() {
    let house = House::new().await;
    let zombie = house.running().await;
    house.clock.advance(LEASE);
    assert!(house.claim().await.is_none(), "the lease still holds");
    house.jobs.renew(zombie, LEASE).await.expect("renews");
    house.clock.advance(LEASE + Duration::from_millis(1));
    let heir = house.claim().await.expect("the lapsed job").fence;
    assert_eq!(heir, Fence { job: zombie.job, attempt: 2 });

    let jobs = &house.jobs;
    lost(jobs.renew(zombie, LEASE).await);
    lost(jobs.enter_phase(zombie, Phase::Load).await);
    let progress = Progress { fraction: 0.5, ..Progress::at(Phase::Load) };
    lost(jobs.report_progress(zombie, &progress).await);
    lost(jobs.add_metrics(zombie, &metrics(1, 0.5)).await);
    lost(jobs.log(zombie, &[line("boo")]).await);
    lost(jobs.save_checkpoint(zombie, 1, "k").await);
    lost(jobs.publish(zombie, &[model(zombie)]).await);
    lost(jobs.fail(zombie, Problem::new(Code::Internal, "boo")).await);
    lost(jobs.fail_out_of_time(zombie).await);
    lost(jobs.end_cancelled(zombie).await);
    lost(jobs.interrupt(zombie, Interruption::Crashed).await);
    assert!(jobs.artifacts(zombie.job).await.expect("reads").is_empty());
    assert_eq!(house.history(zombie.job).await, ["queued", "running", "queued", "running"]);

    jobs.publish(heir, &[model(heir)]).await.expect("publishes");
    assert_eq!(jobs.artifacts(heir.job).await.expect("reads")[0].blob_key, model(heir).blob_key);
}

#[tokio::test]
async fn cancelling_ends_a_waiting_job_and_flags_a_running_one() {
    let house = House::new().await;
    let (jobs, tenant) = (&house.jobs, &house.tenant);
    let waiting = house.queue().await;
    assert!(jobs.cancel(tenant, waiting).await.expect("cancels"));
    assert!(!jobs.cancel(tenant, waiting).await.expect("stays"));
    assert_eq!(house.history(waiting).await, ["queued", "cancelled"]);

    let fence = house.running().await;
    assert!(jobs.cancel(tenant, fence.job).await.expect("flags"));
    assert!(!jobs.cancel(tenant, fence.job).await.expect("is flagged"));
    assert_eq!(house.state(fence.job).await, "running");
    assert!(jobs.renew(fence, LEASE).await.expect("renews").cancel_requested);
    jobs.end_cancelled(fence).await.expect("ends");
    assert_eq!(house.state(fence.job).await, "cancelled");
}

#[tokio::test]
async fn a_publish_that_commits_before_the_cancel_takes_effect_wins() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.cancel(&house.tenant, fence.job).await.expect("flags");
    house.jobs.publish(fence, &[model(fence)]).await.expect("publishes");
    lost(house.jobs.end_cancelled(fence).await);
    assert_eq!(house.state(fence.job).await, "succeeded");
}

#[tokio::test]
async fn a_lapsed_lease_with_the_cancel_flag_ends_as_cancelled() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.cancel(&house.tenant, fence.job).await.expect("flags");
    house.clock.advance(LEASE * 2);
    assert!(house.claim().await.is_none());
    assert_eq!(house.state(fence.job).await, "cancelled");
}

#[tokio::test]
async fn attempts_that_get_nowhere_are_a_crash_loop_and_headway_resets_the_count() {
    let house = House::new().await;
    let job = house.queue().await;
    for _ in 0..MAX_STALLED_ATTEMPTS {
        let fence = house.claim().await.expect("queued again").fence;
        house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    }
    // A phase that is new is headway, the same phase once more is none; a checkpoint of a later epoch is.
    let fence = house.claim().await.expect("queued again").fence;
    house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
    house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    for attempt in 0..MAX_STALLED_ATTEMPTS {
        let fence = house.claim().await.unwrap_or_else(|| panic!("attempt {attempt}")).fence;
        house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
        house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    }
    let fence = house.claim().await.expect("queued again").fence;
    assert_eq!(house.jobs.save_checkpoint(fence, 1, "one").await.expect("writes"), None);
    house.jobs.interrupt(fence, Interruption::Crashed).await.expect("ends the attempt");
    for _ in 0..=MAX_STALLED_ATTEMPTS {
        let claim = house.claim().await.expect("queued again");
        assert_eq!(claim.checkpoint, Some(EpochCheckpoint { epoch: 1, key: "one".to_owned() }));
        house.jobs.save_checkpoint(claim.fence, 1, "one").await.expect("writes");
        house.jobs.interrupt(claim.fence, Interruption::Crashed).await.expect("ends the attempt");
    }
    let State::Failed(_, problem) = house.job(job).await.state else { panic!("a crash loop must end") };
    assert_eq!(problem.code, Code::CrashLoop);
    assert!(house.claim().await.is_none());
}

#[tokio::test]
async fn a_job_waits_after_a_transient_failure_while_others_pass() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.enter_phase(fence, Phase::Load).await.expect("writes");
    let problem = Problem::new(Code::DiskFull, "no room.");
    house.jobs.fail_for_now(fence, problem).await.expect("ends the attempt");
    assert!(house.claim().await.is_none(), "too early");
    let other = house.queue().await;
    assert_eq!(house.claim().await.expect("the other one").fence.job, other);
    house.clock.advance(Duration::from_millis(999));
    assert!(house.claim().await.is_none(), "still too early");
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(house.claim().await.expect("the second attempt").fence, Fence { attempt: 2, ..fence });
    let events = house.jobs.events(fence.job, 0, 100).await.expect("reads");
    let waited = events.iter().find(|event| event.data["reason"] == "transient_failure").expect("an event");
    assert_eq!(waited.data["not_before"], "1970-01-01T00:16:41Z", "{:?}", waited.data);
}

#[tokio::test]
async fn a_lease_begins_when_it_is_granted_however_long_the_claim_has_waited() {
    let house = House::new().await;
    let job = house.queue().await;
    let other_process = testing::open(house.folder.path()).await;
    let long_write = other_process.write().await.expect("begins");
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.clock.advance(LEASE * 2);
        drop(long_write);
    };
    let (claim, ()) = tokio::join!(house.claim(), release);
    assert_eq!(claim.expect("a job").fence.job, job);
    assert!(house.claim().await.is_none(), "the lease is good");
}

#[tokio::test]
async fn the_time_limit_counts_all_attempts() {
    let house = House::new().await;
    let fence = house.running().await;
    house.clock.advance(Duration::from_secs(30));
    assert_eq!(house.jobs.renew(fence, LEASE).await.expect("renews").time_left, Duration::from_secs(3570));
    house.jobs.interrupt(fence, Interruption::HandedBack).await.expect("gives back");
    let fence = house.claim().await.expect("queued again").fence;
    house.clock.advance(Duration::from_hours(1));
    assert_eq!(house.jobs.renew(fence, LEASE).await.expect("renews").time_left, Duration::ZERO);
    house.jobs.fail_out_of_time(fence).await.expect("fails");
    let State::Failed(_, problem) = house.job(fence.job).await.state else { panic!("out of time") };
    assert_eq!(problem.code, Code::MaxRuntimeExceeded);
}

#[tokio::test]
async fn an_ended_job_cannot_be_changed_even_by_sql() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.fail(fence, Problem::new(Code::Internal, "broken")).await.expect("fails");
    assert!(house.sql("UPDATE jobs SET state = 'queued', finished_at = NULL, error = NULL").await.is_err());
    assert!(house.sql("UPDATE job_events SET data = '{}'").await.is_err());
    assert_eq!(house.state(fence.job).await, "failed");
}
