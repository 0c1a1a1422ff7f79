//! What a job needs to be queued and to begin: a device, its files, a key that names it once.

use super::*;

#[tokio::test]
async fn only_a_worker_with_the_device_claims() {
    let house = House::new().await;
    let job = NewJob { device: Device::Cuda(0), ..house.new_job(Vec::new()) };
    let id = house.jobs.insert(&job, None).await.expect("inserts");
    assert!(house.claim().await.is_none(), "a worker without a GPU");
    let devices = vec![Device::Cuda(0), Device::Cpu];
    let claimant = Claimant { worker: WorkerId::new(), host: "here".to_owned(), devices, lease: LEASE, room: ROOM };
    let claim = house.jobs.claim(&claimant).await.expect("claims").expect("a job");
    assert_eq!((claim.fence.job, claim.device), (id, Device::Cuda(0)));
}

#[tokio::test]
async fn a_job_waits_for_its_dataset_and_fails_with_it() {
    let house = House::new().await;
    let id = house.dataset("validating").await;
    let good = house.jobs.insert(&house.new_job(vec![dataset(id)]), None).await.expect("inserts");
    let overtaker = house.queue().await;
    assert_eq!(house.claim().await.expect("the other one").fence.job, overtaker);
    assert!(house.claim().await.is_none());
    house
        .sql(
            "UPDATE datasets SET state = 'ready', facts = '{\"format\": \"npz\", \"example_shape\": [1], \"classes\": 1, \
             \"class_names\": null, \"splits\": {}, \"mean\": [0], \"std\": [1], \"preview\": []}'",
        )
        .await
        .expect("updates");
    let claim = house.claim().await.expect("now it is ready");
    assert_eq!((claim.fence.job, claim.inputs[0].blob_key.clone()), (good, format!("datasets/{id}")));

    house
        .sql("UPDATE datasets SET state = 'invalid', facts = NULL, problem = '{\"detail\": \"no x\"}'")
        .await
        .expect("updates");
    let bad = house.jobs.insert(&house.new_job(vec![dataset(id)]), None).await.expect("inserts");
    assert!(house.claim().await.is_none());
    let State::Failed(_, problem) = house.job(bad).await.state else { panic!("its dataset is invalid") };
    assert_eq!(problem.code, Code::DatasetInvalid);
    assert!(problem.detail.contains("no x"), "{}", problem.detail);
}

#[tokio::test]
async fn inputs_of_live_jobs_stay_and_a_retry_needs_them() {
    let house = House::new().await;
    let (jobs, tenant) = (&house.jobs, &house.tenant);
    let file = house.checkpoint("m0").await;
    let id = jobs.insert(&house.new_job(vec![member(file)]), None).await.expect("inserts");
    assert!(house.sql("DELETE FROM checkpoints").await.is_err(), "in use");
    let active = jobs.retry(tenant, id, RetryFrom::Start, None).await.expect_err("still active");
    assert!(matches!(active, JobError::Transition(TransitionError::StillActive("queued"))));
    jobs.cancel(tenant, id).await.expect("cancels");
    let again = jobs.retry(tenant, id, RetryFrom::Start, None).await.expect("retries");
    assert_eq!(house.job(again).await.retry_of, Some(id));
    assert_eq!(jobs.get_whole(tenant, again).await.expect("reads").inputs, [member(file)]);
    jobs.cancel(tenant, again).await.expect("cancels");
    assert_eq!(house.sql("DELETE FROM checkpoints").await.expect("free now"), 1);
    let gone = jobs.retry(tenant, id, RetryFrom::Start, None).await.expect_err("the member is gone");
    assert!(matches!(gone, JobError::InputsGone(names) if names == ["m0"]));
    assert_eq!(jobs.get_whole(tenant, id).await.expect("reads").inputs[0].name, "m0", "the name is remembered");
}

#[tokio::test]
async fn a_retry_goes_on_from_the_checkpoint_and_shares_its_blob() {
    let house = House::new().await;
    let (jobs, tenant) = (&house.jobs, &house.tenant);
    let blobs = Blobs::open(house.folder.path()).expect("opens");
    let fence = house.running().await;
    for epoch in [1, 2, 3] {
        jobs.add_metrics(fence, &metrics(epoch, 0.5)).await.expect("writes");
    }
    let key = Jobs::blob_key(fence, "checkpoint-2");
    store(&house, &blobs, &key).await;
    jobs.save_checkpoint(fence, 2, &key).await.expect("writes");
    jobs.fail(fence, Problem::new(Code::TrainingDiverged, "nan")).await.expect("fails");

    let again = jobs.retry(tenant, fence.job, RetryFrom::Checkpoint, None).await.expect("retries");
    assert_eq!(jobs.metrics(again).await.expect("reads").len(), 2, "up to the checkpoint");
    let afresh = jobs.retry(tenant, fence.job, RetryFrom::Start, None).await.expect("retries");
    assert_eq!(house.job(afresh).await.checkpoint, None);
    jobs.delete(&blobs, tenant, fence.job).await.expect("deletes");
    let listed = blobs.list("jobs").await.expect("lists");
    assert_eq!(listed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), [key.as_str()], "it is in use");
    assert_eq!(house.job(again).await.retry_of, None, "the first job is gone");

    let heir = house.claim().await.expect("the retry").fence;
    let old = jobs.save_checkpoint(heir, 3, "jobs/other").await.expect("writes").expect("a checkpoint before");
    jobs.drop_blob(&blobs, &old).await;
    assert!(blobs.list("jobs").await.expect("lists").is_empty());
}

#[tokio::test]
async fn a_key_queues_one_job_for_a_day_with_or_without_its_answer() {
    let house = House::new().await;
    let keys = Idempotency::new(house.jobs.database.clone(), house.clock.clone());
    let key = RequestKey { key: "k".into(), fingerprint: [1; 32] };
    let other = RequestKey { fingerprint: [2; 32], ..key.clone() };
    let job = house.new_job(Vec::new());
    let insert = async |key: &RequestKey| house.jobs.insert(&job, Some(key)).await;
    let (first, second) = tokio::join!(insert(&key), insert(&key));
    let id = first.expect("inserts");
    assert_eq!(second.expect("the same"), id, "whoever comes first queues it");
    assert!(matches!(insert(&other).await, Err(JobError::KeyReused)));
    let earlier = async |key: &RequestKey| keys.earlier(&house.tenant, key).await.expect("reads");
    assert_eq!(earlier(&key).await, Some(Earlier::Made { id, answer: None }), "the server ended before it answered");
    assert_eq!(earlier(&other).await, Some(Earlier::Different));
    keys.keep(&house.tenant, &key, b"first").await.expect("keeps");
    keys.keep(&house.tenant, &key, b"second").await.expect("keeps");
    assert_eq!(earlier(&key).await, Some(Earlier::Made { id, answer: Some(b"first".to_vec()) }));

    let fresh = RequestKey { key: "fresh".into(), ..key.clone() };
    let active = house.jobs.retry(&house.tenant, id, RetryFrom::Start, Some(&fresh)).await;
    active.expect_err("still active");
    assert_eq!(earlier(&fresh).await, None, "a request that queued nothing leaves its key free");
    house.clock.advance(Duration::from_hours(24));
    assert_ne!(insert(&other).await.expect("the key is free again"), id);
}
