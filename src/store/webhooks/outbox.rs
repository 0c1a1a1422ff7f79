//! Events enter here, in the transaction that makes them true.

use crate::store::database::Connection;
use crate::store::sql;
use serde_json::{Value, json};

use crate::domain::clock::Moment;
use crate::domain::id::DeliveryId;
use crate::domain::webhook::EventType;

/// Puts an event on its way to each of the tenant's webhooks that ask for it; `data` is only called where there is one.
pub(in crate::store) async fn announce(
    conn: &mut Connection,
    tenant: &str,
    event: EventType,
    now: Moment,
    data: impl FnOnce() -> Value,
) -> Result<(), sqlx::Error> {
    let webhooks: Vec<(String, String)> =
        sql::query_as("SELECT id, events FROM webhooks WHERE tenant = $1 AND disabled IS NULL ORDER BY id")
            .bind(tenant)
            .fetch_all(&mut *conn)
            .await?;
    let asks =
        |events: &str| serde_json::from_str::<Vec<EventType>>(events).is_ok_and(|events| events.contains(&event));
    let webhooks: Vec<String> =
        webhooks.into_iter().filter(|(_, events)| asks(events)).map(|(webhook, _)| webhook).collect();
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
    conn: &mut Connection,
    webhook: &str,
    event: EventType,
    body: &str,
    now: Moment,
) -> Result<DeliveryId, sqlx::Error> {
    let id = DeliveryId::new();
    sql::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event, body, state, due, created_at) VALUES ($1, $2, $3, $4, 'waiting', $5, $6)",
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
