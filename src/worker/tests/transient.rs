//! What the machine lacks passes, or ends the job with a word.

use super::*;

#[tokio::test]
async fn a_transient_failure_is_tried_again_after_a_pause_that_grows() {
    let clock = Arc::new(ManualClock::at(from_millis(1_000_000)));
    let script = r#"
        say '{"type":"phase","phase":"load"}'
        case "$PWD" in
            *-1|*-2) say '{"type":"transient_failure","problem":{"code":"disk_full","detail":"no room for epoch 1"}}' ;;
            *) finish ;;
        esac"#;
    let mut house = House::at(clock.clone(), script).await;
    house.start();
    let id = house.queue(Duration::from_hours(1)).await;
    for (attempt, pause) in [(1, Duration::from_secs(1)), (2, Duration::from_secs(4))] {
        let waits = |job: &Job| matches!(&job.state, State::Queued(queued) if queued.effort.attempts == attempt);
        let job = house.wait(id, "waiting for a better time", waits).await;
        let State::Queued(queued) = &job.state else { panic!("{:?}", job.state) };
        let until = SteadyTime::from_millis(clock.now().as_millisecond()).after(pause);
        assert_eq!(queued.not_before, Some(until));
        clock.advance(pause);
    }
    let job = house.wait(id, "ended", |job| job.state.is_terminal()).await;
    assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 3), "{:?}", job.state);
    let logs = house.logs(id).await;
    assert!(
        logs.iter().any(|line| line.contains("attempt 2 ended") && line.contains("no room for epoch 1")),
        "{logs:?}"
    );
    house.stop().await;
}

#[tokio::test]
async fn a_transient_failure_that_persists_ends_the_job_with_what_the_machine_lacks() {
    let clock = Arc::new(ManualClock::at(from_millis(1_000_000)));
    let script = r#"say '{"type":"transient_failure","problem":{"code":"disk_full","detail":"no room."}}'"#;
    let mut house = House::at(clock.clone(), script).await;
    house.start();
    let id = house.queue(Duration::from_hours(1)).await;
    for attempt in 1..=MAX_STALLED_ATTEMPTS {
        let waits = |job: &Job| matches!(&job.state, State::Queued(queued) if queued.effort.attempts == attempt);
        house.wait(id, "waiting for a better time", waits).await;
        clock.advance(Duration::from_hours(1));
    }
    let job = house.wait(id, "ended", |job| job.state.is_terminal()).await;
    let State::Failed(ended, problem) = &job.state else { panic!("{:?}", job.state) };
    assert_eq!((problem.code, ended.effort.attempts), (Code::DiskFull, MAX_STALLED_ATTEMPTS + 1));
    assert!(ended.effort.ran < Duration::from_secs(1), "waiting is not running");
    house.stop().await;
}
