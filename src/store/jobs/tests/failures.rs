//! The storage fails within a transaction, or behind its commit: the queue is as if the call had not been made, or as if it
//! had been made once, and a second call doubles nothing.

use super::journey::{Journey, Stage};
use super::*;
use crate::store::jobs::failure::FailurePoint;

/// What is left of a journey without any failure.
const UNDISTURBED: &str = r#"
job 1: succeeded, attempt 1, stalled 0, ran 4s, ended 5s, phase Finetune 2s-5s, fraction 1
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
job 1: succeeded, attempt 2, stalled 0, ran 64s, ended 66s, phase Finetune 63s-66s, fraction 1
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

/// What a worker reports of the job that it holds.
#[derive(Debug, Clone, Copy)]
enum Report {
    Progress,
    Metrics,
    Plan,
    Lines,
}

impl Report {
    async fn send(self, jobs: &Jobs, fence: Fence) -> Result<(), JobError> {
        let (phase, epoch) = (Phase::Finetune, Some(1));
        let progress = Progress { fraction: 0.5, epoch, ..Progress::at(phase) };
        match self {
            Self::Progress => jobs.report_progress(fence, &progress).await,
            Self::Metrics => jobs.add_metrics(fence, &metrics(1, 0.25)).await,
            Self::Plan => jobs.replace_plan(fence, &json!({ "layers": [8] })).await,
            Self::Lines => jobs.log(fence, &["a", "b"].map(line)).await,
        }
    }
}

#[tokio::test]
async fn a_report_that_is_made_again_after_a_failure_is_written_once() {
    let job = |report: &str| {
        format!(
            "\njob 1: running, attempt 1, stalled 0, ran 0s, of worker 1, leased until 61s, phase Finetune 2s-{report}"
        )
    };
    let events = r#"
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 2s attempt 1: progress {"fraction":0.0,"phase":"finetune"}
"#;
    let (epoch, key) = (r#"{"epoch":1,"train_loss":0.25}"#, "key k: job 1\n");
    let progress = format!("{}{events}{key}", job(", fraction 0.5"));
    let metrics = format!("{}\n  epoch 1: {epoch}{events}  4. 3s attempt 1: metric {epoch}\n{key}", job(""));
    let plan = format!("{}{events}{key}", job(r#", plan {"layers":[8]}"#));
    let logged =
        |seq: u8, text: &str| format!("  {seq}. 3s attempt 1: log {{\"message\":\"{text}\",\"source\":\"job\"}}\n");
    let lines = format!("{}{events}{}{}{key}", job(""), logged(4, "a"), logged(5, "b"));
    for (report, point, committed, expected) in [
        (Report::Progress, FailurePoint::ReportProgressBeforeCommit, false, &progress),
        (Report::Metrics, FailurePoint::AddMetricsBeforeCommit, false, &metrics),
        (Report::Metrics, FailurePoint::AddMetricsAfterCommit, true, &metrics),
        (Report::Plan, FailurePoint::ReplacePlanBeforeCommit, false, &plan),
        (Report::Lines, FailurePoint::LogBeforeCommit, false, &lines),
    ] {
        let house = House::new().await;
        let mut journey = Journey::new(&house);
        journey.advance_till(Stage::Training).await.expect("works");
        let before = house.snapshot().await;
        house.jobs.failures.arm(point);
        failed(&house, report.send(&house.jobs, journey.fence()).await);
        let left = if committed { expected } else { &before };
        assert_eq!(&house.snapshot().await, left, "{point:?}");
        report.send(&house.jobs, journey.fence()).await.unwrap_or_else(|error| panic!("{point:?}: {error}"));
        assert_eq!(&house.snapshot().await, expected, "{point:?}");
    }
}

#[tokio::test]
async fn an_end_that_is_requested_again_after_a_failure_is_requested_once() {
    let waiting = r#"
job 1: cancelled, attempt 0, stalled 0, ran 0s, ended 1s
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 0: state {"state":"cancelled"}
key k: job 1
"#;
    let running = r#"
job 1: running, attempt 1, stalled 0, ran 0s, of worker 1, leased until 61s, end requested, phase Finetune 2s-
  1. 0s attempt 0: state {"state":"queued"}
  2. 1s attempt 1: state {"state":"running","worker":"worker 1"}
  3. 2s attempt 1: progress {"fraction":0.0,"phase":"finetune"}
  4. 3s attempt 1: state {"state":"cancelling"}
key k: job 1
"#;
    for (stage, expected) in [(Stage::Queued, waiting), (Stage::Training, running)] {
        for (point, committed) in [(FailurePoint::CancelBeforeCommit, false), (FailurePoint::CancelAfterCommit, true)] {
            let house = House::new().await;
            let mut journey = Journey::new(&house);
            journey.advance_till(stage).await.expect("works");
            let (job, before) = (journey.job(), house.snapshot().await);
            house.jobs.failures.arm(point);
            failed(&house, house.jobs.cancel(&house.tenant, job).await);
            assert_eq!(house.snapshot().await, if committed { expected } else { &before }, "{stage:?} {point:?}");
            let changed = house.jobs.cancel(&house.tenant, job).await.expect("cancels");
            assert_eq!(changed, !committed, "{stage:?} {point:?}");
            assert_eq!(house.snapshot().await, expected, "{stage:?} {point:?}");
        }
    }
}

#[tokio::test]
async fn a_job_whose_deletion_is_not_written_keeps_its_history_and_its_blobs() {
    for (point, committed) in [(FailurePoint::DeleteBeforeCommit, false), (FailurePoint::DeleteAfterCommit, true)] {
        let house = House::new().await;
        let mut journey = Journey::new(&house);
        journey.advance_till(Stage::Published).await.expect("works");
        let (job, blobs) = (journey.fence().job, Blobs::open(house.folder.path()).expect("opens"));
        store(&house, &blobs, &model(journey.fence()).blob_key).await;
        let delete = async || house.jobs.delete(&blobs, &house.tenant, job).await;
        house.jobs.failures.arm(point);
        failed(&house, delete().await);
        // Behind the commit nobody deletes the blob: it has no row, and is left to the sweep.
        assert_eq!(blobs.list("jobs").await.expect("lists").len(), 1, "{point:?}");
        if committed {
            assert!(matches!(delete().await, Err(JobError::NotFound(_))));
        } else {
            assert_eq!(house.snapshot().await, UNDISTURBED);
            delete().await.expect("deletes");
            assert!(blobs.list("jobs").await.expect("lists").is_empty());
        }
        assert_eq!(house.snapshot().await, "\nkey k: job 1\n", "{point:?}");
    }
}
