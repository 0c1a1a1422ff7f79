//! How fast devices are is measured before the first job, and a device that cannot be measured is used all the same.

use super::*;

impl House {
    /// A house whose devices are measured by a script; its jobs end well where they know what it said.
    async fn measuring(stopwatch: &str) -> Self {
        let mut house = Self::new("case \"$task\" in *'\"products\":3'*'this worker'*) finish ;; esac").await;
        house.worker.policy.stopwatch =
            Some(Program { path: "/bin/sh".into(), args: vec!["-c".into(), stopwatch.into(), "sh".into()] });
        house
    }
}

#[tokio::test]
async fn a_worker_is_listed_with_its_speed_and_its_jobs_know_it() {
    let script = r#"
        test "$*" = "--device cpu --threads 1" || exit 9
        printf '{"products":3e9,"convolutions":2e9,"elements":1e8,"solving":1e9,"step_seconds":0.001}\n'"#;
    let mut house = House::measuring(script).await;
    let id = house.queue(Duration::from_hours(1)).await;
    house.start();
    let job = house.wait(id, "ended", |job| job.state.is_terminal()).await;
    assert!(matches!(job.state, State::Succeeded(_)), "{:?}", job.state);
    let listed = house.worker.workers.live().await.expect("reads");
    let speed = listed[0].speed(Device::Auto).expect("it was measured");
    assert_eq!((speed.device, speed.speed.products.round()), (Device::Cpu, 3e9));
    assert!(listed[0].speed(Device::Cuda(0)).is_none());
    house.stop().await;
}

#[tokio::test]
async fn a_worker_whose_speed_cannot_be_measured_works_all_the_same() {
    for script in ["exit 3", "echo nonsense"] {
        let mut house = House::measuring(script).await;
        house.worker.policy.program.args[1] = format!("{PRELUDE}finish").into();
        let job = house.run_to_end().await;
        assert!(matches!(job.state, State::Succeeded(_)), "{script}: {:?}", job.state);
        let listed = house.worker.workers.live().await.expect("reads");
        assert_eq!(listed[0].speeds, [], "{script}");
        house.stop().await;
    }
}
