//! Every GPU has one job, whose child sees no other.

use super::*;
use crate::domain::gpu::Gpu;

impl House {
    /// A house with two GPUs and a place for one job on each.
    async fn with_gpus(script: &str) -> Self {
        let mut house = Self::new(script).await;
        let gpu = |index| Gpu {
            index,
            name: "Card".to_owned(),
            memory_bytes: 1 << 34,
            compute_capability: [9, 0],
            multiprocessors: 100,
        };
        let policy = &mut house.worker.policy;
        policy.slots = vec![Device::Cuda(0), Device::Cuda(1)];
        policy.gpus = Gpus { devices: vec![gpu(0), gpu(1)], ..Gpus::default() };
        policy.gpu_memory_limit = Some(12_345);
        house
    }
}

#[tokio::test]
async fn each_child_sees_its_own_gpu_as_the_first() {
    let script = r#"
        case "$task" in *'"device":"cuda:0"'*'"memory_limit":12345'*) ;; *) exit 9 ;; esac
        say "{\"type\":\"log\",\"level\":\"info\",\"message\":\"sees $CUDA_VISIBLE_DEVICES\"}"
        for i in 1 2 3 4 5 6 7 8 9 10; do
            touch "$PWD/../../seen-$CUDA_VISIBLE_DEVICES"
            test -e "$PWD/../../seen-0" -a -e "$PWD/../../seen-1" && finish && exit 0
            sleep 0.3
        done"#;
    let mut house = House::with_gpus(script).await;
    let [first, second] = [house.queue(Duration::from_hours(1)).await, house.queue(Duration::from_hours(1)).await];
    house.start();
    let mut seen = Vec::new();
    for id in [first, second] {
        let job = house.wait(id, "ended", |job| job.state.is_terminal()).await;
        assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 1), "{:?}", job.state);
        seen.extend(house.logs(id).await.into_iter().filter(|line| line.starts_with("sees ")));
    }
    seen.sort();
    assert_eq!(seen, ["sees 0", "sees 1"], "both at once, each with a GPU of its own");
    let listed = house.worker.workers.live().await.expect("reads");
    assert_eq!((listed[0].slots, &listed[0].devices[..]), (2, &[Device::Cuda(0), Device::Cuda(1)][..]));
    house.stop().await;
}

#[tokio::test]
async fn a_gpu_that_is_lost_rests_and_another_takes_over() {
    let script = r#"
        say '{"type":"phase","phase":"load"}'
        case "$CUDA_VISIBLE_DEVICES" in
            0) say '{"type":"transient_failure","problem":{"code":"device_lost","detail":"the GPU was lost: unspecified launch failure"}}' ;;
            *) finish ;;
        esac"#;
    let mut house = House::with_gpus(script).await;
    let job = house.run_to_end().await;
    assert!(matches!(&job.state, State::Succeeded(ended) if ended.effort.attempts == 2), "{:?}", job.state);
    let logs = house.logs(job.id).await;
    assert!(logs.iter().any(|line| line.contains("attempt 1 ended") && line.contains("was lost")), "{logs:?}");
    house.stop().await;
}

#[tokio::test]
async fn a_job_for_any_gpu_waits_where_there_is_none() {
    let mut house = House::with_gpus("finish").await;
    house.worker.policy.slots = vec![Device::Cpu];
    let offers = async |house: &House, device| house.worker.workers.offers(device).await.expect("reads");
    house.start();
    let plain = house.queue(Duration::from_hours(1)).await;
    house.wait(plain, "ended", |job| job.state.is_terminal()).await;
    assert!(!offers(&house, Device::AnyCuda).await && offers(&house, Device::Cpu).await);
    house.stop().await;
    let mut house = House::with_gpus("finish").await;
    let request = parse(&json!({ "members": ["m0"], "device": "cuda" })).expect("a valid body");
    let job = NewJob {
        tenant: Tenant::default(),
        owner: None,
        device: request.device,
        resolved: Value::from(request),
        plan: json!({}),
        labels: BTreeMap::new(),
        max_runtime: Duration::from_hours(1),
        priority: 0,
        inputs: Vec::new(),
    };
    let id = house.jobs().insert(&job, None).await.expect("inserts");
    house.start();
    house.wait(id, "ended", |job| matches!(job.state, State::Succeeded(_))).await;
    assert!(offers(&house, Device::AnyCuda).await && !offers(&house, Device::Cpu).await);
    house.stop().await;
}
