//! Deliveries: whose is next, what became of a call, what is sent again.

use std::time::Duration;

use serde_json::json;

use super::outbox::insert;
use super::{Delivery, Webhooks};
use crate::domain::clock::{Moment, SteadyTime, from_millis};
use crate::domain::id::{DeliveryId, WebhookId};
use crate::domain::webhook::{Call, DeliveryState, Destination, EventType, SigningSecret, pause};
use crate::store::StoreError;
use crate::store::listing::Listing;
use crate::store::sql;
use crate::store::sql::{Count, FromRow};

/// Calls of one tenant at the same time.
const AT_ONCE: i64 = 4;
/// Calls of a delivery that are remembered.
const REMEMBERED: usize = 50;
/// How long deliveries that have ended are remembered.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// A delivery that somebody is about to send.
#[derive(Debug)]
pub struct ToSend {
    /// Its id, the same for every call.
    pub id: DeliveryId,
    /// Where it goes.
    pub url: Destination,
    /// What is sent.
    pub body: String,
    /// What it is signed with: one secret, or two after a change.
    pub secrets: Vec<SigningSecret>,
    pub(super) webhook: String,
    tried: u32,
    claimed_until: i64,
}

#[derive(FromRow)]
struct Claimed {
    id: String,
    webhook_id: String,
    body: String,
    tried: Count,
}

#[derive(FromRow)]
struct Addressee {
    url: String,
    secret: Vec<u8>,
    previous: Option<Vec<u8>>,
}

#[derive(FromRow)]
struct DeliveryRow {
    id: String,
    event: String,
    state: String,
    body: String,
    calls: String,
    due: Option<i64>,
    created_at: i64,
}

impl DeliveryRow {
    fn read(self, now: Moment) -> Result<Delivery, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("webhook_deliveries", self.id.clone(), detail);
        let in_time = |due| now.date.checked_add(SteadyTime::from_millis(due).since(now.steady)).unwrap_or(now.date);
        Ok(Delivery {
            id: self.id.parse().map_err(|error| wrong(format!("{error}")))?,
            event: EventType::named(&self.event).ok_or_else(|| wrong(format!("unknown event {:?}", self.event)))?,
            calls: serde_json::from_str(&self.calls).map_err(|error| wrong(error.to_string()))?,
            next: self.due.map(in_time),
            created: from_millis(self.created_at),
            state: DeliveryState::ALL
                .into_iter()
                .find(|state| state.as_str() == self.state)
                .ok_or_else(|| wrong(format!("unknown state {:?}", self.state)))?,
            body: self.body,
        })
    }
}

impl Webhooks {
    /// Takes the delivery that has been due the longest, to be sent within `lease`; after that anyone may take it again. A webhook has
    /// one call at a time and a tenant few, so that a slow receiver keeps up nobody else.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, lease: Duration) -> Result<Option<ToSend>, StoreError> {
        let now = self.steady.now().await?;
        let due: bool =
            sql::query_scalar("SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 'waiting' AND due <= $1)")
                .bind(now.as_millis())
                .fetch_one(self.database.reader())
                .await?;
        if !due {
            return Ok(None);
        }
        let until = now.after(lease).as_millis();
        let mut transaction = self.database.write().await?;
        let claimed: Option<Claimed> = sql::query_as(
            "WITH busy AS (SELECT webhook_id, tenant FROM webhook_deliveries JOIN webhooks ON webhooks.id = webhook_id \
                           WHERE claimed_until > $1) \
             UPDATE webhook_deliveries SET claimed_until = $2, tried = tried + 1 WHERE id = ( \
                 SELECT waiting.id FROM webhook_deliveries AS waiting JOIN webhooks ON webhooks.id = waiting.webhook_id \
                 WHERE waiting.state = 'waiting' AND waiting.due <= $1 AND disabled IS NULL \
                     AND webhooks.id NOT IN (SELECT webhook_id FROM busy) \
                     AND (SELECT count(*) FROM busy WHERE busy.tenant = webhooks.tenant) < $3 \
                 ORDER BY waiting.due, waiting.id LIMIT 1) \
             RETURNING id, webhook_id, body, tried",
        )
        .bind(now.as_millis())
        .bind(until)
        .bind(AT_ONCE)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(claimed) = claimed else { return transaction.commit().await.map(|()| None) };
        let hook: Addressee =
            sql::query_as("SELECT url, secret, CASE WHEN previous_until > $1 THEN previous_secret END AS previous FROM webhooks WHERE id = $2")
                .bind(now.as_millis())
                .bind(&claimed.webhook_id)
                .fetch_one(&mut *transaction)
                .await?;
        transaction.commit().await?;
        let wrong = |detail: String| StoreError::inconsistent("webhook_deliveries", claimed.id.clone(), detail);
        Ok(Some(ToSend {
            id: claimed.id.parse().map_err(|error| wrong(format!("{error}")))?,
            url: hook.url.parse().map_err(wrong)?,
            secrets: std::iter::once(hook.secret).chain(hook.previous).map(SigningSecret::of).collect(),
            body: claimed.body,
            webhook: claimed.webhook_id,
            tried: claimed.tried.0,
            claimed_until: until,
        }))
    }

    /// Writes down what became of a call: the delivery has ended, or waits for the next one, for `least` where the receiver asks for
    /// it. Nothing if somebody else has taken the delivery in the meantime.
    ///
    /// # Errors
    /// When the database fails; the delivery is then sent again once the lease is over.
    pub async fn conclude(&self, sent: &ToSend, call: &Call, least: Option<Duration>) -> Result<(), StoreError> {
        let now = self.steady.now().await?;
        let (state, due) = match pause(sent.tried, least) {
            _ if call.was_taken() => (DeliveryState::Delivered, None),
            Some(wait) if !call.was_the_last() => (DeliveryState::Waiting, Some(now.after(wait).as_millis())),
            _ => (DeliveryState::Failed, None),
        };
        let mut transaction = self.database.write().await?;
        let id = sent.id.to_string();
        let calls: Option<String> =
            sql::query_scalar("SELECT calls FROM webhook_deliveries WHERE id = $1 AND claimed_until = $2")
                .bind(&id)
                .bind(sent.claimed_until)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(calls) = calls else { return Ok(()) };
        let wrong = |error: serde_json::Error| StoreError::inconsistent("webhook_deliveries", &id, error);
        let mut calls: Vec<Call> = serde_json::from_str(&calls).map_err(wrong)?;
        calls.drain(..(calls.len() + 1).saturating_sub(REMEMBERED));
        calls.push(call.clone());
        sql::query(
            "UPDATE webhook_deliveries SET state = $1, due = $2, claimed_until = NULL, calls = $3 WHERE id = $4",
        )
        .bind(state.as_str())
        .bind(due)
        .bind(json!(calls).to_string())
        .bind(&id)
        .execute(&mut *transaction)
        .await?;
        if call.was_the_last() {
            sql::query("UPDATE webhooks SET disabled = 'gone' WHERE id = $1 AND disabled IS NULL")
                .bind(&sent.webhook)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }

    /// A page of a webhook's deliveries, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deliveries(&self, webhook: WebhookId, listing: &Listing) -> Result<Vec<Delivery>, StoreError> {
        let now = self.steady.present().await?;
        let rows: Vec<DeliveryRow> = sql::query_as(
            "SELECT id, event, state, body, calls, due, created_at FROM webhook_deliveries \
             WHERE webhook_id = $1 AND ($2 IS NULL OR id < $2) AND ($3 IS NULL OR state = $3) ORDER BY id DESC LIMIT $4",
        )
        .bind(webhook.to_string())
        .bind(&listing.after)
        .bind(&listing.state)
        .bind(listing.fetch())
        .fetch_all(self.database.reader())
        .await?;
        rows.into_iter().map(|row| row.read(now)).collect()
    }

    /// Sends a delivery once more, now, and as often as a new one where that fails; none where the webhook has none of this id. One that is
    /// being sent is left to that call.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn redeliver(&self, webhook: WebhookId, delivery: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let now = self.steady.present().await?;
        let mut transaction = self.database.write().await?;
        let row: Option<DeliveryRow> = sql::query_as(
            "UPDATE webhook_deliveries SET state = 'waiting', due = $1, tried = CASE WHEN claimed_until > $1 THEN tried ELSE 0 END, \
                 claimed_until = CASE WHEN claimed_until > $1 THEN claimed_until END \
             WHERE id = $2 AND webhook_id = $3 RETURNING id, event, state, body, calls, due, created_at",
        )
        .bind(now.steady.as_millis())
        .bind(delivery.to_string())
        .bind(webhook.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        row.map(|row| row.read(now)).transpose()
    }

    /// Puts an event that tells of nothing but the webhook itself on its way, so that its owner sees a call arrive.
    ///
    /// # Errors
    /// When the database fails; among others, when the webhook is gone.
    pub async fn test(&self, webhook: WebhookId) -> Result<Delivery, StoreError> {
        let now = self.steady.present().await?;
        let event = EventType::Test;
        let body = json!({ "type": event, "timestamp": now.date, "data": { "webhook": webhook } }).to_string();
        let mut transaction = self.database.write().await?;
        let id = insert(&mut transaction, &webhook.to_string(), event, &body, now).await?;
        transaction.commit().await?;
        let state = DeliveryState::Waiting;
        Ok(Delivery { id, event, state, body, calls: Vec::new(), next: Some(now.date), created: now.date })
    }

    /// Forgets deliveries that ended long ago, and says how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_old(&self) -> Result<usize, StoreError> {
        let before = self.clock.now().as_millisecond() - KEPT.as_millis() as i64;
        let mut transaction = self.database.write().await?;
        let gone = sql::query("DELETE FROM webhook_deliveries WHERE state <> 'waiting' AND created_at < $1")
            .bind(before)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(usize::try_from(gone.rows_affected()).unwrap_or(usize::MAX))
    }
}
