//! Events enter here, in the transaction that makes them true.

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;

use crate::domain::clock::Moment;
use crate::domain::id::DeliveryId;
use crate::domain::webhook::EventType;

/// Puts an event on its way to each of the tenant's webhooks that ask for it; `data` is only called where there is one.
pub(in crate::store) async fn announce(
    conn: &mut SqliteConnection,
    tenant: &str,
    event: EventType,
    now: Moment,
    data: impl FnOnce() -> Value,
) -> Result<(), sqlx::Error> {
    let webhooks: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM webhooks WHERE tenant = ? AND disabled IS NULL \
         AND EXISTS (SELECT 1 FROM json_each(events) WHERE value = ?) ORDER BY id",
    )
    .bind(tenant)
    .bind(event.as_str())
    .fetch_all(&mut *conn)
    .await?;
    if webhooks.is_empty() {
        return Ok(());
    }
    let body = json!({ "type": event, "timestamp": now.date, "data": data() }).to_string();
    for webhook in webhooks {
        insert(conn, &webhook, event, &body, now).await?;
    }
    Ok(())
}

/// Puts one event on its way to one webhook.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    webhook: &str,
    event: EventType,
    body: &str,
    now: Moment,
) -> Result<DeliveryId, sqlx::Error> {
    let id = DeliveryId::new();
    sqlx::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event, body, state, due, created_at) VALUES (?, ?, ?, ?, 'waiting', ?, ?)",
    )
    .bind(id.to_string())
    .bind(webhook)
    .bind(event.as_str())
    .bind(body)
    .bind(now.steady.as_millis())
    .bind(now.date.as_millisecond())
    .execute(conn)
    .await?;
    Ok(id)
}
