//! Webhooks: where tenants are called when something ends, and the calls.

mod outbox;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use rand::TryRng;

use super::idempotency::RequestKey;
use super::jobs::{JobError, once};
use super::steady::Steady;
use super::{Database, StoreError};
use crate::domain::access::Tenant;
use crate::domain::clock::{SharedClock, from_millis};
use crate::domain::id::{DeliveryId, WebhookId};
use crate::domain::webhook::{Call, DeliveryState, Destination, EventType, SigningSecret};
use crate::store::sql;
use crate::store::sql::FromRow;

pub(super) use outbox::announce;
pub use queue::ToSend;

/// Most webhooks of one tenant.
pub const MOST: usize = 20;
/// How long the secret from before a change signs beside the new one.
const BOTH_SIGN: Duration = Duration::from_hours(24);

/// A webhook without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where it is called.
    pub url: Destination,
    /// What it is called for.
    pub events: BTreeSet<EventType>,
    /// What its owner wrote about it.
    pub description: String,
    /// Why it is not called; none while it is.
    pub disabled: Option<DisabledBy>,
    /// When it was made.
    pub created: Timestamp,
}

/// Why a webhook is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledBy {
    /// Its owner wanted it so.
    Owner,
    /// The receiver answered 410 Gone.
    Receiver,
}

impl DisabledBy {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "by_owner",
            Self::Receiver => "gone",
        }
    }
}

/// What a webhook is to be like; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookChange {
    /// Where it is called.
    pub url: Option<Destination>,
    /// What it is called for.
    pub events: Option<BTreeSet<EventType>>,
    /// What its owner writes about it.
    pub description: Option<String>,
    /// Whether it is called.
    pub enabled: Option<bool>,
}

/// A new webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Where it is called.
    pub url: Destination,
    /// What it is called for.
    pub events: BTreeSet<EventType>,
    /// What its owner writes about it.
    pub description: String,
}

/// What became of a wish for a webhook.
#[derive(Debug)]
pub enum WebhookCreation {
    /// It is there; the secret is shown once.
    Made(Webhook, SigningSecret),
    /// The tenant has as many as it may have.
    TooMany,
    /// The Idempotency-Key has made this one.
    Before(WebhookId),
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same for every call.
    pub id: DeliveryId,
    /// What it tells of.
    pub event: EventType,
    /// How far it is.
    pub state: DeliveryState,
    /// What is sent, as JSON.
    pub body: String,
    /// The calls so far, the oldest first.
    pub calls: Vec<Call>,
    /// When it is tried next, where it waits.
    pub next: Option<Timestamp>,
    /// When what it tells of has happened.
    pub created: Timestamp,
}

/// The tables of webhooks and their deliveries; clones share the database.
#[derive(Debug, Clone)]
pub struct Webhooks {
    database: Database,
    clock: SharedClock,
    steady: Steady,
}

#[derive(FromRow)]
struct WebhookRow {
    id: String,
    url: String,
    events: String,
    description: String,
    disabled: Option<String>,
    created_at: i64,
}

impl TryFrom<WebhookRow> for Webhook {
    type Error = StoreError;

    fn try_from(row: WebhookRow) -> Result<Self, StoreError> {
        let wrong = |detail: String| StoreError::inconsistent("webhooks", row.id.clone(), detail);
        let disabled = match row.disabled.as_deref() {
            None => None,
            Some("by_owner") => Some(DisabledBy::Owner),
            Some("gone") => Some(DisabledBy::Receiver),
            Some(other) => return Err(wrong(format!("unknown reason {other:?}"))),
        };
        Ok(Self {
            id: row.id.parse().map_err(|error| wrong(format!("{error}")))?,
            url: row.url.parse().map_err(wrong)?,
            events: serde_json::from_str(&row.events).map_err(|error| wrong(error.to_string()))?,
            description: row.description.clone(),
            disabled,
            created: from_millis(row.created_at),
        })
    }
}

impl Webhooks {
    /// The webhooks in `database`.
    #[must_use]
    pub fn new(database: Database, clock: SharedClock) -> Self {
        Self { steady: Steady::new(database.clone(), clock.clone()), database, clock }
    }

    /// Makes a webhook with a fresh secret, once for each `key`.
    ///
    /// # Errors
    /// When the database fails or there is no randomness.
    pub async fn create(
        &self,
        tenant: &Tenant,
        new: NewWebhook,
        key: Option<&RequestKey>,
    ) -> Result<WebhookCreation, JobError> {
        let secret = fresh_secret()?;
        let (id, now) = (WebhookId::new(), self.clock.now());
        let mut transaction = self.database.write().await?;
        if let Some(before) = once(&mut transaction, tenant, key, id, now).await? {
            return Ok(WebhookCreation::Before(before));
        }
        let NewWebhook { url, events, description } = new;
        let made = sql::query(
            "INSERT INTO webhooks (id, tenant, url, events, description, secret, created_at) \
             SELECT $1, $2, $3, $4, $5, $6, $7 WHERE (SELECT count(*) FROM webhooks WHERE tenant = $2) < $8",
        )
        .bind(id.to_string())
        .bind(tenant.as_str())
        .bind(url.url().as_str())
        .bind(serde_json::json!(events).to_string())
        .bind(&description)
        .bind(secret.as_bytes().to_vec())
        .bind(now.as_millisecond())
        .bind(MOST as i64)
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(WebhookCreation::TooMany);
        }
        transaction.commit().await?;
        let webhook = Webhook { id, url, events, description, disabled: None, created: now };
        Ok(WebhookCreation::Made(webhook, secret))
    }

    /// The tenant's webhooks, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, tenant: &Tenant) -> Result<Vec<Webhook>, StoreError> {
        let rows: Vec<WebhookRow> = sql::query_as("SELECT * FROM webhooks WHERE tenant = $1 ORDER BY id DESC")
            .bind(tenant.as_str())
            .fetch_all(self.database.reader())
            .await?;
        rows.into_iter().map(Webhook::try_from).collect()
    }

    /// The tenant's webhook of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, tenant: &Tenant, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
        let row: Option<WebhookRow> = sql::query_as("SELECT * FROM webhooks WHERE tenant = $1 AND id = $2")
            .bind(tenant.as_str())
            .bind(id.to_string())
            .fetch_optional(self.database.reader())
            .await?;
        row.map(Webhook::try_from).transpose()
    }

    /// Changes a webhook; none where there is none of this id. What waits for one that is enabled again is sent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change(
        &self,
        tenant: &Tenant,
        id: WebhookId,
        change: WebhookChange,
    ) -> Result<Option<Webhook>, StoreError> {
        let mut transaction = self.database.write().await?;
        let row: Option<WebhookRow> = sql::query_as(
            "UPDATE webhooks SET url = coalesce($3, url), events = coalesce($4, events), description = coalesce($5, description), \
                 disabled = CASE WHEN $6 THEN NULL WHEN NOT $6 THEN 'by_owner' ELSE disabled END \
             WHERE tenant = $1 AND id = $2 RETURNING *",
        )
        .bind(tenant.as_str())
        .bind(id.to_string())
        .bind(change.url.map(|url| url.url().to_string()))
        .bind(change.events.map(|events| serde_json::json!(events).to_string()))
        .bind(change.description)
        .bind(change.enabled)
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        row.map(Webhook::try_from).transpose()
    }

    /// Removes a webhook with its deliveries; false where there is none of this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, tenant: &Tenant, id: WebhookId) -> Result<bool, StoreError> {
        let mut transaction = self.database.write().await?;
        let gone = sql::query("DELETE FROM webhooks WHERE tenant = $1 AND id = $2")
            .bind(tenant.as_str())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(gone.rows_affected() == 1)
    }

    /// Gives a webhook a fresh secret; for a day calls carry a signature by each of both. None where there is none of this id.
    ///
    /// # Errors
    /// When the database fails or there is no randomness.
    pub async fn renew_secret(&self, tenant: &Tenant, id: WebhookId) -> Result<Option<SigningSecret>, StoreError> {
        let secret = fresh_secret()?;
        let until = self.steady.now().await?.after(BOTH_SIGN);
        let mut transaction = self.database.write().await?;
        let changed = sql::query(
            "UPDATE webhooks SET previous_secret = secret, previous_until = $1, secret = $2 WHERE tenant = $3 AND id = $4",
        )
        .bind(until.as_millis())
        .bind(secret.as_bytes().to_vec())
        .bind(tenant.as_str())
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok((changed.rows_affected() == 1).then_some(secret))
    }
}

fn fresh_secret() -> Result<SigningSecret, StoreError> {
    let mut bytes = vec![0; SigningSecret::LENGTH];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| StoreError::file("the system's random source")(std::io::Error::other(error)))?;
    Ok(SigningSecret::of(bytes))
}
