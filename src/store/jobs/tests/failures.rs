//! The storage fails within a transaction, or behind its commit: the queue is as if the call had not been made, or as if it
//! had been made once, and a second call doubles nothing.

use super::journey::{Journey, Stage};
use super::*;
use crate::store::jobs::failure::FailurePoint;

/// What is left of a journey without any failure.
const UNDISTURBED: &str = r#"
job 1: succeeded, attempt 1, stalled 0, ran 4s, ended 5s, phase Finetune 2s-5s
  artifact model in jobs/job 1/1/model
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 2s attempt 1: progress {"fraction":0.0,"phase":"finetune"}
  4. 5s attempt 1: state {"state":"succeeded"}
key k: job 1
"#;

/// Fails where the storage did not fail as it should.
fn failed<T: std::fmt::Debug>(house: &House, result: Result<T, JobError>) {
    let error = result.expect_err("the storage fails");
    assert!(matches!(error, JobError::Store(_)), "{error}");
    assert!(house.jobs.failures.all_met(), "the point was reached");
}

#[tokio::test]
async fn a_journey_whose_failing_calls_are_made_again_ends_like_an_undisturbed_one() {
    let house = House::new().await;
    Journey::new(&house).advance_till(Stage::Published).await.expect("works");
    assert_eq!(house.snapshot().await, UNDISTURBED);
    for point in [
        FailurePoint::InsertBeforeCommit,
        FailurePoint::InsertAfterCommit,
        FailurePoint::ClaimAfterSettling,
        FailurePoint::ClaimBeforeCommit,
        FailurePoint::EnterPhaseBeforeCommit,
        FailurePoint::RenewBeforeCommit,
        FailurePoint::SaveCheckpointBeforeCommit,
        FailurePoint::PublishBeforeState,
        FailurePoint::PublishBeforeCommit,
    ] {
        let house = House::new().await;
        let mut journey = Journey::new(&house);
        house.jobs.failures.arm(point);
        failed(&house, journey.advance_till(Stage::Published).await);
        journey.advance_till(Stage::Published).await.unwrap_or_else(|error| panic!("{point:?}: {error}"));
        assert_eq!(house.snapshot().await, UNDISTURBED, "{point:?}");
    }
}

/// The state before `goal` survives a failure at `point`.
async fn survives(point: FailurePoint, before: Stage, goal: Stage, expected: &str) {
    let house = House::new().await;
    let mut journey = Journey::new(&house);
    journey.advance_till(before).await.expect("works");
    assert_eq!(house.snapshot().await, expected);
    house.jobs.failures.arm(point);
    failed(&house, journey.advance_till(goal).await);
    assert_eq!(house.snapshot().await, expected);
}

#[tokio::test]
async fn a_call_that_fails_within_its_transaction_leaves_nothing() {
    let queued = r#"
job 1: queued, attempt 0, stalled 0, ran 0s
  1. 0s attempt 0: state {"state":"queued"}
key k: job 1
"#;
    survives(FailurePoint::ClaimBeforeCommit, Stage::Queued, Stage::Claimed, queued).await;
    let training = r#"
job 1: running, attempt 1, stalled 0, ran 0s, of worker 1, leased until 61s, phase Finetune 2s-
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 2s attempt 1: progress {"fraction":0.0,"phase":"finetune"}
key k: job 1
"#;
    survives(FailurePoint::RenewBeforeCommit, Stage::Training, Stage::Renewed, training).await;
    let checkpointed = r#"
job 1: running, attempt 1, stalled 0, ran 0s, of worker 1, leased until 63s, phase Finetune 2s-, checkpoint jobs/job 1/1/checkpoint
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 2s attempt 1: progress {"fraction":0.0,"phase":"finetune"}
key k: job 1
"#;
    survives(FailurePoint::PublishBeforeState, Stage::Checkpointed, Stage::Published, checkpointed).await;
    survives(FailurePoint::PublishBeforeCommit, Stage::Checkpointed, Stage::Published, checkpointed).await;
}

#[tokio::test]
async fn a_result_that_was_published_unnoticed_stays_the_only_one() {
    let house = House::new().await;
    let mut journey = Journey::new(&house);
    journey.advance_till(Stage::Checkpointed).await.expect("works");
    house.jobs.failures.arm(FailurePoint::PublishAfterCommit);
    failed(&house, journey.advance_till(Stage::Published).await);
    house.clock.advance(Duration::from_secs(1));
    lost(journey.advance_till(Stage::Published).await);
    lost(house.jobs.interrupt(journey.fence(), Interruption::Crashed).await);
    assert_eq!(house.snapshot().await, UNDISTURBED);
}

#[tokio::test]
async fn a_job_that_was_claimed_unnoticed_waits_for_the_end_of_its_lease() {
    let house = House::new().await;
    let mut journey = Journey::new(&house);
    journey.advance_till(Stage::Queued).await.expect("works");
    house.jobs.failures.arm(FailurePoint::ClaimAfterCommit);
    failed(&house, journey.advance_till(Stage::Claimed).await);
    assert!(house.claim().await.is_none(), "somebody holds it");
    house.clock.advance(LEASE + Duration::from_secs(1));

    // The transaction that settles the lapsed lease fails too, before it hands the job out.
    house.jobs.failures.arm(FailurePoint::ClaimAfterSettling);
    failed(&house, journey.advance_till(Stage::Claimed).await);
    journey.advance_till(Stage::Published).await.expect("works");
    let expected = r#"
job 1: succeeded, attempt 2, stalled 0, ran 64s, ended 66s, phase Finetune 63s-66s
  artifact model in jobs/job 1/2/model
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 62s attempt 1: state {"reason":"lease_lapsed","state":"queued"}
  4. 62s attempt 2: state {"state":"running","worker":"worker 1"}
  5. 63s attempt 2: progress {"fraction":0.0,"phase":"finetune"}
  6. 66s attempt 2: state {"state":"succeeded"}
key k: job 1
"#;
    assert_eq!(house.snapshot().await, expected);
}

#[tokio::test]
async fn an_attempt_whose_end_is_not_written_ends_once() {
    let house = House::new().await;
    let mut journey = Journey::new(&house);
    journey.advance_till(Stage::Training).await.expect("works");
    let before = house.snapshot().await;
    for _ in 0..2 {
        house.jobs.failures.arm(FailurePoint::LeaveBeforeCommit);
        failed(&house, house.jobs.interrupt(journey.fence(), Interruption::Crashed).await);
        assert_eq!(house.snapshot().await, before);
    }
    house.jobs.interrupt(journey.fence(), Interruption::Crashed).await.expect("ends the attempt");
    lost(house.jobs.interrupt(journey.fence(), Interruption::Crashed).await);
    let expected = r#"
job 1: queued, attempt 1, stalled 0, ran 2s, phase Finetune 2s-3s
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 2s attempt 1: progress {"fraction":0.0,"phase":"finetune"}
  4. 3s attempt 1: state {"reason":"crashed","state":"queued"}
key k: job 1
"#;
    assert_eq!(house.snapshot().await, expected);
}

#[tokio::test]
async fn a_repeated_job_that_is_not_written_leaves_nothing() {
    let house = House::new().await;
    let mut journey = Journey::new(&house);
    journey.advance_till(Stage::Checkpointed).await.expect("works");
    let job = journey.fence().job;
    house.jobs.fail(journey.fence(), Problem::new(Code::Internal, "broken")).await.expect("fails");
    let before = house.snapshot().await;
    let key = RequestKey { key: "again".to_owned(), fingerprint: [8; 32] };
    let retry = async || house.jobs.retry(&house.tenant, job, RetryFrom::Checkpoint, Some(&key)).await;
    house.jobs.failures.arm(FailurePoint::RetryBeforeCommit);
    failed(&house, retry().await);
    assert_eq!(house.snapshot().await, before);
    let again = retry().await.expect("queues");
    assert_eq!(retry().await.expect("is known"), again);
    let expected = r#"
job 1: failed, attempt 1, stalled 0, ran 4s, ended 5s, phase Finetune 2s-5s, error {"code":"internal_error","detail":"broken"}, checkpoint jobs/job 1/1/checkpoint
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 2s attempt 1: progress {"fraction":0.0,"phase":"finetune"}
  4. 5s attempt 1: state {"error":{"code":"internal_error","detail":"broken"},"state":"failed"}
job 2: queued, attempt 0, stalled 0, ran 0s, repeats job 1, checkpoint jobs/job 1/1/checkpoint
  1. 5s attempt 0: state {"retry_of":"job 1","state":"queued"}
key again: job 2
key k: job 1
"#;
    assert_eq!(house.snapshot().await, expected);
}
