//! What jobs report: metrics, logs, lists.

use super::*;

#[tokio::test]
async fn metrics_of_an_epoch_that_is_computed_again_replace_the_old_ones() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.add_metrics(fence, &metrics(1, 0.5)).await.expect("writes");
    house.jobs.interrupt(fence, Interruption::Crashed).await.expect("crashes");
    let fence = house.claim().await.expect("again").fence;
    house.jobs.add_metrics(fence, &metrics(1, 0.25)).await.expect("writes");
    let stored = house.jobs.metrics(fence.job).await.expect("reads");
    assert_eq!((stored.len(), &stored[0]["train_loss"]), (1, &json!(0.25)));
    let events = house.jobs.events(fence.job, 0, 100).await.expect("reads");
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::Metric).count(), 1);
}

#[tokio::test]
async fn logs_page_forwards_and_from_the_end() {
    let house = House::new().await;
    let fence = house.running().await;
    house.jobs.log(fence, &["a", "b", "c"].map(line)).await.expect("writes");
    let texts = |events: Vec<Event>| events.iter().map(|event| event.data["message"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(house.jobs.last_logs(fence.job, 2).await.expect("reads")), ["b", "c"]);
    let first = house.jobs.logs(fence.job, 0, 1).await.expect("reads");
    assert_eq!(texts(house.jobs.logs(fence.job, first[0].seq, 10).await.expect("reads")), ["b", "c"]);
}

#[tokio::test]
async fn lists_show_the_tenants_own_jobs_newest_first() {
    let house = House::new().await;
    let first = house.queue().await;
    let second = house.queue().await;
    let other = NewJob { labels: [("team".to_owned(), "audio".to_owned())].into(), ..house.new_job(Vec::new()) };
    let third = house.jobs.insert(&other, None).await.expect("inserts");
    house.jobs.cancel(&house.tenant, second).await.expect("cancels");
    let all = Listing { limit: 10, after: None, state: None, labels: BTreeMap::new() };
    let list = async |listing: Listing| {
        let jobs = house.jobs.list(&house.tenant, &listing).await.expect("lists");
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(list(all.clone()).await, [third, second, first]);
    assert_eq!(list(Listing { after: Some(second.to_string()), ..all.clone() }).await, [first]);
    assert_eq!(list(Listing { state: Some("queued".to_owned()), ..all.clone() }).await, [third, first]);
    let labels = [("team".to_owned(), "vision".to_owned())].into();
    assert_eq!(list(Listing { labels, ..all.clone() }).await, [second, first]);
    let stranger: Tenant = "stranger".parse().expect("a tenant");
    assert!(house.jobs.list(&stranger, &all).await.expect("lists").is_empty());
    assert!(matches!(house.jobs.get(&stranger, first).await, Err(JobError::NotFound(_))));
    assert!(matches!(house.jobs.cancel(&stranger, first).await, Err(JobError::NotFound(_))));
    let blobs = Blobs::open(house.folder.path()).expect("opens");
    assert!(matches!(house.jobs.delete(&blobs, &stranger, second).await, Err(JobError::NotFound(_))));
    assert!(
        matches!(house.jobs.delete(&blobs, &house.tenant, first).await, Err(JobError::Transition(_))),
        "still active"
    );
}
