//! Leases, pauses and running times count the machine's own time, whatever becomes of its date.

use super::*;
use crate::domain::clock::Clock;
use crate::store::workers::{Registration, Workers};

const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn a_date_that_is_set_neither_ends_a_lease_nor_holds_it_nor_uses_up_time() {
    for jump in [HOUR, -HOUR, 24 * HOUR] {
        let house = House::new().await;
        let job = NewJob { max_runtime: Duration::from_mins(30), ..house.new_job(Vec::new()) };
        let id = house.jobs.insert(&job, None).await.expect("inserts");
        let claim = house.claim().await.expect("a job");
        house.clock.set_date_by(jump);
        assert!(house.claim().await.is_none(), "the lease is good: {jump}");
        let heartbeat = house.jobs.renew(claim.fence, LEASE).await.expect("renews");
        assert_eq!(heartbeat.time_left, Duration::from_mins(30), "no time has passed: {jump}");
        house.clock.advance(LEASE + Duration::from_secs(1));
        let again = house.claim().await.expect("the lease has lapsed");
        assert_eq!((again.fence.job, again.fence.attempt), (id, 2));
        let State::Running(running) = house.jobs.get(&house.tenant, id).await.expect("a job").state else {
            panic!("it runs")
        };
        assert_eq!(running.effort.ran, LEASE, "up to the end of its lease: {jump}");
    }
}

#[tokio::test]
async fn a_pause_is_as_long_as_it_says_whatever_the_date() {
    let house = House::new().await;
    house.queue().await;
    let claim = house.claim().await.expect("a job");
    house.jobs.fail_for_now(claim.fence, Problem::new(Code::DiskFull, "no room.")).await.expect("writes");
    house.clock.set_date_by(-HOUR);
    assert!(house.claim().await.is_none());
    house.clock.advance(Duration::from_secs(4));
    assert!(house.claim().await.is_some(), "the date is an hour behind, the pause is over");
}

#[tokio::test]
async fn after_another_start_of_the_machine_every_lease_has_lapsed() {
    let house = House::new().await;
    let id = house.queue().await;
    house.claim().await.expect("a job");
    // The machine starts anew with a date that is long gone, as one without a battery does.
    house.clock.reboot();
    house.clock.set_date_by(-1_000_000);
    let jobs = Jobs::new(house.jobs.database.clone(), house.clock.clone());
    let claimant = Claimant {
        worker: WorkerId::new(),
        host: "here".to_owned(),
        devices: vec![Device::Cpu],
        lease: LEASE,
        room: ROOM,
    };
    let claim = jobs.claim(&claimant).await.expect("claims").expect("at once");
    assert_eq!((claim.fence.job, claim.fence.attempt), (id, 2));
    let other = Jobs::new(house.jobs.database.clone(), house.clock.clone());
    assert!(other.claim(&claimant).await.expect("claims").is_none(), "all processes agree on the new lease");
}

#[tokio::test]
async fn jobs_of_a_worker_that_is_gone_are_given_back_and_no_others() {
    let house = House::new().await;
    let (one, two) = (house.queue().await, house.queue().await);
    let (first, second) = (house.claim().await.expect("a job"), house.claim().await.expect("a job"));
    assert_eq!([first.fence.job, second.fence.job], [one, two]);
    let holder = async |job| match house.jobs.get(&house.tenant, job).await.expect("a job").state {
        State::Running(running) => running.worker,
        other => panic!("{other:?}"),
    };
    let gone = holder(one).await;
    assert_eq!(house.jobs.abandon(gone).await.expect("writes"), 1);
    assert!(matches!(house.jobs.get(&house.tenant, one).await.expect("a job").state, State::Queued(_)));
    assert_ne!(holder(two).await, gone);
    assert!(house.jobs.renew(first.fence, LEASE).await.is_err(), "a worker that was only thought gone writes nothing");
    let events = house.jobs.events(one, 0, 100).await.expect("reads");
    assert_eq!(events.last().expect("an event").data["reason"], "worker_gone");
}

#[tokio::test]
async fn workers_stay_listed_when_the_date_is_set() {
    let house = House::new().await;
    let workers = Workers::new(house.jobs.database.clone(), house.clock.clone());
    let now = house.clock.now();
    let worker = Registration {
        id: WorkerId::new(),
        host: "here".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        slots: 1,
        devices: vec![Device::Cpu],
        speeds: Vec::new(),
        started: now,
        heartbeat: now,
    };
    workers.heartbeat(&worker).await.expect("writes");
    house.clock.set_date_by(HOUR);
    assert_eq!(workers.live().await.expect("reads").len(), 1);
    house.clock.set_date_by(-2 * HOUR);
    house.clock.advance(Duration::from_mins(1));
    assert_eq!(workers.live().await.expect("reads").len(), 0, "it has been silent for a minute");
}

#[tokio::test]
async fn a_job_whose_worker_is_silent_waits_again_also_where_no_worker_is_left_to_claim_it() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.settle().await.expect("looks");
    assert_eq!(house.state(fence.job).await, "running");
    house.clock.advance(LEASE + Duration::from_millis(1));
    house.jobs.settle().await.expect("settles");
    assert_eq!(house.state(fence.job).await, "queued");
}
