//! The outbox's promises, with a clock that moves by hand.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::domain::clock::{ManualClock, Moment};
use crate::domain::webhook::pause;
use crate::store::listing::Listing;
use crate::store::testing;

const LEASE: Duration = Duration::from_mins(1);

struct Post {
    webhooks: Webhooks,
    clock: Arc<ManualClock>,
    tenant: Tenant,
    _folder: tempfile::TempDir,
}

impl Post {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(from_millis(1_000_000)));
        let database = testing::open(folder.path()).await;
        let webhooks = Webhooks::new(database, clock.clone());
        Self { webhooks, clock, tenant: Tenant::default(), _folder: folder }
    }

    async fn hook(&self, tenant: &str, events: &[EventType]) -> (Webhook, SigningSecret) {
        let new = NewWebhook {
            url: "https://ci.example/x".parse().expect("an address"),
            events: events.iter().copied().collect(),
            description: String::new(),
        };
        let tenant = tenant.parse().expect("a tenant");
        match self.webhooks.create(&tenant, new, None).await.expect("writes") {
            WebhookCreation::Made(webhook, secret) => (webhook, secret),
            other => panic!("{other:?}"),
        }
    }

    async fn happens(&self, tenant: &str, event: EventType) {
        let steady = self.webhooks.steady.now().await.expect("a time");
        let now = Moment { date: self.webhooks.clock.now(), steady };
        let mut transaction = self.webhooks.database.write().await.expect("begins");
        announce(&mut transaction, tenant, event, now, || json!({"id": "job_1"})).await.expect("writes");
        transaction.commit().await.expect("commits");
    }

    async fn take(&self) -> Option<ToSend> {
        self.webhooks.claim(LEASE).await.expect("claims")
    }

    async fn answer(&self, sent: &ToSend, status: u16) {
        let call = Call { at: self.webhooks.clock.now(), took_ms: 7, status: Some(status), error: None };
        self.webhooks.conclude(sent, &call, None).await.expect("writes");
    }

    async fn log(&self, webhook: &Webhook) -> Vec<Delivery> {
        let listing = Listing { limit: 50, after: None, state: None, labels: std::collections::BTreeMap::new() };
        self.webhooks.deliveries(webhook.id, &listing).await.expect("reads")
    }
}

#[tokio::test]
async fn an_event_goes_to_the_webhooks_of_its_tenant_that_ask_for_it() {
    let post = Post::new().await;
    let (wants, secret) = post.hook("default", &[EventType::JobFailed]).await;
    let (other_event, _) = post.hook("default", &[EventType::JobSucceeded]).await;
    let (other_tenant, _) = post.hook("neighbour", &EventType::ALL).await;
    let (off, _) = post.hook("default", &EventType::ALL).await;
    let change = WebhookChange { enabled: Some(false), ..WebhookChange::default() };
    assert!(post.webhooks.change(&post.tenant, off.id, change).await.expect("writes").is_some());
    post.happens("default", EventType::JobFailed).await;
    for nothing in [&other_event, &other_tenant, &off] {
        assert_eq!(post.log(nothing).await, []);
    }
    let sent = post.take().await.expect("a delivery");
    assert_eq!(sent.secrets, [secret]);
    let body: Value = serde_json::from_str(&sent.body).expect("JSON");
    assert_eq!((&body["type"], &body["data"]), (&json!("job.failed"), &json!({"id": "job_1"})));
    assert!(body["timestamp"].as_str().is_some_and(|time| time.starts_with("1970-01-01T00:16:40")), "{body}");
    assert!(post.take().await.is_none(), "it is being sent");
    post.answer(&sent, 204).await;
    let log = post.log(&wants).await;
    assert_eq!((log.len(), log[0].state.as_str(), log[0].calls[0].status), (1, "delivered", Some(204)));
    post.clock.advance(Duration::from_hours(1));
    assert!(post.take().await.is_none(), "once is enough");
}

#[tokio::test]
async fn a_call_that_fails_is_repeated_ever_later_and_then_given_up() {
    let post = Post::new().await;
    let (webhook, _) = post.hook("default", &EventType::ALL).await;
    post.happens("default", EventType::JobSucceeded).await;
    let mut tried = 0;
    while let Some(sent) = post.take().await {
        tried += 1;
        post.answer(&sent, 500).await;
        let Some(wait) = pause(tried, None) else { break };
        post.clock.advance(wait / 2);
        assert!(post.take().await.is_none(), "too early after call {tried}");
        post.clock.advance(wait / 2);
    }
    assert_eq!(tried, 10);
    let log = post.log(&webhook).await;
    assert_eq!((log[0].state.as_str(), log[0].calls.len(), log[0].next), ("failed", 10, None));
    let again = post.webhooks.redeliver(webhook.id, log[0].id).await.expect("writes").expect("the delivery");
    assert_eq!(again.state, DeliveryState::Waiting);
    let sent = post.take().await.expect("sent again");
    assert_eq!((sent.id, sent.body.as_str()), (log[0].id, log[0].body.as_str()), "the same call");
    post.answer(&sent, 200).await;
    assert_eq!(post.log(&webhook).await[0].state, DeliveryState::Delivered);
}

#[tokio::test]
async fn what_a_sender_took_that_has_died_is_sent_by_the_next_and_the_first_writes_no_more() {
    let post = Post::new().await;
    let (webhook, _) = post.hook("default", &EventType::ALL).await;
    post.happens("default", EventType::JobSucceeded).await;
    let dead = post.take().await.expect("a delivery");
    post.clock.advance(LEASE + Duration::from_millis(1));
    let heir = post.take().await.expect("the same delivery");
    assert_eq!(heir.id, dead.id);
    post.answer(&dead, 500).await;
    assert_eq!(post.log(&webhook).await[0].calls, [], "it came too late");
    post.answer(&heir, 200).await;
    assert_eq!(post.log(&webhook).await[0].state, DeliveryState::Delivered);
}

#[tokio::test]
async fn a_webhook_has_one_call_at_a_time_and_a_tenant_four() {
    let post = Post::new().await;
    for _ in 0..6 {
        post.hook("default", &EventType::ALL).await;
    }
    post.hook("neighbour", &EventType::ALL).await;
    for _ in 0..3 {
        post.happens("default", EventType::JobSucceeded).await;
    }
    post.happens("neighbour", EventType::JobSucceeded).await;
    let mut taken = Vec::new();
    while let Some(sent) = post.take().await {
        taken.push(sent.webhook.clone());
    }
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 5, "four of one tenant, each of another webhook, and the neighbour's");
}

#[tokio::test]
async fn who_answers_gone_is_called_no_more_until_its_owner_wants_it() {
    let post = Post::new().await;
    let (webhook, _) = post.hook("default", &EventType::ALL).await;
    post.happens("default", EventType::JobSucceeded).await;
    post.happens("default", EventType::JobFailed).await;
    let sent = post.take().await.expect("a delivery");
    post.answer(&sent, 410).await;
    assert!(post.take().await.is_none(), "the other one waits");
    let found = post.webhooks.find(&post.tenant, webhook.id).await.expect("reads").expect("a webhook");
    assert_eq!(found.disabled, Some(DisabledBy::Receiver));
    let change = WebhookChange { enabled: Some(true), ..WebhookChange::default() };
    post.webhooks.change(&post.tenant, webhook.id, change).await.expect("writes");
    assert!(post.take().await.is_some());
}

#[tokio::test]
async fn both_secrets_sign_for_a_day_after_a_change() {
    let post = Post::new().await;
    let (webhook, old) = post.hook("default", &EventType::ALL).await;
    let new = post.webhooks.renew_secret(&post.tenant, webhook.id).await.expect("writes").expect("a secret");
    post.happens("default", EventType::JobSucceeded).await;
    let sent = post.take().await.expect("a delivery");
    assert_eq!(sent.secrets, [new.clone(), old]);
    post.answer(&sent, 200).await;
    post.clock.advance(BOTH_SIGN);
    post.happens("default", EventType::JobSucceeded).await;
    assert_eq!(post.take().await.expect("a delivery").secrets, [new]);
}

#[tokio::test]
async fn deliveries_are_forgotten_when_they_have_ended_long_ago_and_webhooks_have_a_limit() {
    let post = Post::new().await;
    let (webhook, _) = post.hook("default", &EventType::ALL).await;
    post.happens("default", EventType::JobSucceeded).await;
    let sent = post.take().await.expect("a delivery");
    post.answer(&sent, 200).await;
    post.happens("default", EventType::JobFailed).await;
    post.clock.advance(Duration::from_hours(31 * 24));
    assert_eq!(post.webhooks.forget_old().await.expect("deletes"), 1);
    assert_eq!(post.log(&webhook).await.len(), 1, "one that waits is never forgotten");
    for _ in 1..MOST {
        post.hook("default", &EventType::ALL).await;
    }
    let url: Destination = "https://ci.example/x".parse().expect("an address");
    let new = NewWebhook { url, events: EventType::ALL.into_iter().collect(), description: String::new() };
    let one_more = post.webhooks.create(&post.tenant, new, None).await.expect("reads");
    assert!(matches!(one_more, WebhookCreation::TooMany), "{one_more:?}");
    assert!(post.webhooks.delete(&post.tenant, webhook.id).await.expect("deletes"));
    assert_eq!(post.log(&webhook).await, [], "its deliveries went with it");
}
