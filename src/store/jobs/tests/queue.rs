//! Whose job is next.

use super::*;
use crate::domain::quota::TenantResource;
use crate::store::jobs::insert::JobOrigin;
use crate::store::tenants::Tenants;

impl House {
    async fn queue_as(&self, tenant: &str, priority: i8, origin: JobOrigin) -> JobId {
        let tenant = tenant.parse().expect("a tenant");
        let (id, job) = (JobId::new(), NewJob { tenant, priority, ..self.new_job(Vec::new()) });
        let mut transaction = self.jobs.database.write().await.expect("begins");
        self.jobs.enqueue(&mut transaction, id, &job, origin).await.expect("queues");
        transaction.commit().await.expect("commits");
        id
    }

    /// Claims every job and ends it at once; the order in which they came.
    async fn served(&self) -> Vec<JobId> {
        let mut order = Vec::new();
        while let Some(claim) = self.claim().await {
            order.push(claim.fence.job);
            let failed = Problem::new(Code::Internal, "over");
            self.jobs.fail(claim.fence, failed).await.expect("writes");
        }
        order
    }
}

#[tokio::test]
async fn a_tenant_with_one_job_does_not_wait_for_hundreds_of_another() {
    let house = House::new().await;
    let mut many = Vec::new();
    for _ in 0..200 {
        many.push(house.queue_as("a", 0, JobOrigin::Single).await);
    }
    let one = house.queue_as("b", 0, JobOrigin::Single).await;
    let position = house.jobs.queue_position(one).await.expect("counts");
    assert_eq!(position, Some(2), "behind one of the other tenant's");
    assert_eq!(house.jobs.queue_position(many[150]).await.expect("counts"), Some(152));
    let order = house.served().await;
    assert_eq!(order[1], one);
    assert_eq!(order.len(), 201);
    let of_many: Vec<JobId> = order.into_iter().filter(|job| *job != one).collect();
    assert_eq!(of_many, many, "a tenant's own jobs come in their order");
    // Whoever has not asked before gets no answer from before.
    let fresh = Jobs::new(house.jobs.database.clone(), house.clock.clone());
    assert_eq!(fresh.queue_position(one).await.expect("counts"), None, "it waits no longer");
}

#[tokio::test]
async fn tenants_take_turns_and_a_job_that_runs_counts() {
    let house = House::new().await;
    let mut of = std::collections::BTreeMap::new();
    for tenant in ["a", "b", "c"] {
        for _ in 0..3 {
            of.insert(house.queue_as(tenant, 0, JobOrigin::Single).await, tenant);
        }
    }
    // None of these ends: whoever has the fewest running jobs is next.
    let mut order = Vec::new();
    while let Some(claim) = house.claim().await {
        order.push(of[&claim.fence.job]);
    }
    assert_eq!(order, ["a", "b", "c", "a", "b", "c", "a", "b", "c"]);
}

#[tokio::test]
async fn priority_comes_before_age_and_comparisons_let_others_pass() {
    let house = House::new().await;
    let run = house.queue_as("a", 0, JobOrigin::Comparison).await;
    let early = house.queue_as("a", 0, JobOrigin::Single).await;
    let low = house.queue_as("a", -10, JobOrigin::Single).await;
    let late = house.queue_as("a", 0, JobOrigin::Single).await;
    let high = house.queue_as("a", 10, JobOrigin::Comparison).await;
    let expected = [high, early, late, run, low];
    for (place, job) in expected.into_iter().enumerate() {
        let position = house.jobs.queue_position(job).await.expect("counts");
        assert_eq!(position, Some(place as i64 + 1));
    }
    assert_eq!(house.served().await, expected);
}

#[tokio::test]
async fn jobs_for_a_device_and_for_any_have_one_order_and_those_for_others_are_passed_over() {
    let house = House::new().await;
    let queue = async |device: Device, priority: i8| {
        let job = NewJob { device, priority, ..house.new_job(Vec::new()) };
        house.jobs.insert(&job, None).await.expect("inserts")
    };
    let early = queue(Device::Cpu, 0).await;
    queue(Device::AnyCuda, 9).await;
    let late = queue(Device::Auto, 0).await;
    let urgent = queue(Device::Auto, 5).await;
    let last = queue(Device::Cpu, 0).await;
    assert_eq!(house.served().await, [urgent, early, late, last]);
}

#[tokio::test]
async fn limits_of_a_tenant_hold_in_the_queue_and_at_the_claim() {
    let mut house = House::new().await;
    house.jobs =
        house.jobs.with_quota(Quota::default().with(TenantResource::Queued, 2).with(TenantResource::Running, 1));
    let other: Tenant = "b".parse().expect("a tenant");
    let tenants = Tenants::new(house.jobs.database.clone(), Quota::default());
    tenants.set(&other, TenantResource::Queued, Some(0)).await.expect("writes");

    house.queue().await;
    house.queue().await;
    let refused = house.jobs.insert(&house.new_job(Vec::new()), None).await.expect_err("too many");
    let problem = Problem::from(refused);
    assert_eq!(problem.code, Code::TooMany);
    assert!(problem.detail.contains("At most 2 queued jobs") && problem.detail.contains("2 are there"), "{problem:?}");
    for _ in 0..3 {
        house.queue_as("b", 0, JobOrigin::Single).await;
    }

    assert!(house.claim().await.is_some());
    assert!(house.claim().await.is_some(), "the other tenant's");
    assert!(house.claim().await.is_none(), "both have one running");
    let used = tenants.usage(&other, &TenantResource::ALL, None).await.expect("counts");
    assert_eq!((used.of(TenantResource::Queued), used.of(TenantResource::Running)), (2, 1));
}
