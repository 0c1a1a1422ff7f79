//! Workers that drain, vanish or are killed: their jobs go on.

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_worker_that_drains_gives_its_jobs_back_with_their_checkpoints() {
    let mut house = House::new(
        r#"
        say "{\"type\":\"checkpoint\",\"epoch\":1,\"file\":$(file checkpoint first)}"
        read -r command && say '{"type":"stopped"}'"#,
    )
    .await;
    house.start();
    let id = house.queue(Duration::from_hours(1)).await;
    house.wait(id, "at a checkpoint", |job| job.checkpoint.is_some()).await;
    let jobs = house.jobs().clone();
    let _folder = house.stop().await;
    let job = jobs.get(&Tenant::default(), id).await.expect("a job");
    let State::Queued(queued) = &job.state else { panic!("{:?}", job.state) };
    assert_eq!((queued.effort.attempts, queued.effort.stalled), (1, 0));
    assert!(job.checkpoint.is_some());
}

#[tokio::test]
async fn the_job_of_a_worker_that_vanishes_goes_to_another_one() {
    let mut house = House::new(r#"say '{"type":"phase","phase":"load"}'; read -r command; sleep 600"#).await;
    house.start();
    let id = house.queue(Duration::from_hours(1)).await;
    house.wait(id, "loading", |job| !job.phases.is_empty()).await;
    house.running.take().expect("runs").abort();
    house.worker.policy.program.args = ["-c".into(), format!("{PRELUDE}finish").into()].into();
    house.start();
    let job = house.wait(id, "ended", |job| job.state.is_terminal()).await;
    assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 2), "{:?}", job.state);
}

#[tokio::test]
async fn the_jobs_of_a_killed_worker_go_on_at_once_and_those_of_a_living_one_never() {
    let mut house = House::new("finish").await;
    let (gone, alive) = (WorkerId::new(), WorkerId::new());
    let mut ids = Vec::new();
    for worker in [gone, alive] {
        ids.push(house.queue(Duration::from_hours(1)).await);
        let claimant = Claimant {
            worker,
            host: "here".to_owned(),
            devices: vec![Device::Cpu],
            lease: Duration::from_hours(1),
            room: u64::MAX,
        };
        house.jobs().claim(&claimant).await.expect("claims").expect("a job");
    }
    let roll = house.folder.path().join("workers");
    let _living = RollEntry::new(&roll, alive).expect("enters");
    // The system has let go of the other one's lock.
    std::fs::write(roll.join(format!("{gone}.lock")), "").expect("writes");
    house.start();
    let job = house.wait(ids[0], "ended", |job| job.state.is_terminal()).await;
    assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 2), "{:?}", job.state);
    let job = house.job(ids[1]).await;
    assert!(matches!(&job.state, State::Running(running) if running.worker == alive), "{:?}", job.state);
    house.stop().await;
}

#[tokio::test]
async fn a_worker_whose_stint_is_one_job_ends_with_it_and_an_idle_one_by_itself() {
    let house = House::new("finish").await;
    let jobs = [house.queue(Duration::from_hours(1)).await, house.queue(Duration::from_hours(1)).await];
    let work = async |stint| {
        let ended = run(house.worker.clone(), stint, Arc::new(Notify::new()), house.shutdown.clone());
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("ends by itself");
        assert!(house.worker.workers.live().await.expect("reads").is_empty(), "it has taken itself off the list");
        let mut ended = 0;
        for job in jobs {
            ended += usize::from(house.job(job).await.state.is_terminal());
        }
        ended
    };
    let idle = Some(Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(work(Stint { once: true, idle: None }).await, 1, "one job");
    assert_eq!(work(Stint { once: false, idle }).await, 2, "every job there was");
    assert_eq!(work(Stint { once: true, idle }).await, 2, "none came");
    assert!(began.elapsed() >= 2 * Duration::from_millis(200), "two of them have waited for another job");
}

#[tokio::test]
async fn a_worker_is_not_idle_while_a_job_runs_however_long() {
    let house = House::new("sleep 0.6; finish").await;
    house.queue(Duration::from_hours(1)).await;
    let (began, idle) = (Instant::now(), Duration::from_millis(300));
    let stint = Stint { once: false, idle: Some(idle) };
    run(house.worker.clone(), stint, Arc::new(Notify::new()), house.shutdown.clone()).await;
    assert!(
        began.elapsed() >= Duration::from_millis(600) + idle,
        "it waits for another job from the end of the last one on"
    );
}
