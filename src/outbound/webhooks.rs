//! Calls webhooks: takes deliveries that are due, sends each once, writes down what became of it.

use std::time::{Duration, Instant};

use reqwest::{Method, Response, header};
use tokio::task::JoinSet;

use super::{Outbound, OutboundError};
use crate::domain::clock::SharedClock;
use crate::domain::webhook::Call;
use crate::runtime::lifecycle::Shutdown;
use crate::store::StoreError;
use crate::store::webhooks::{ToSend, Webhooks};

/// Time between two looks for deliveries.
const POLL: Duration = Duration::from_millis(500);
/// Time that a receiver gets to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a delivery belongs to whoever sends it; longer than sending takes.
const LEASE: Duration = Duration::from_mins(1);
/// Calls at the same time.
const AT_ONCE: usize = 16;

/// Sends what is due until the shutdown begins; calls that have begun are ended first.
pub async fn run(webhooks: Webhooks, outbound: Outbound, clock: SharedClock, shutdown: Shutdown) {
    let mut calls = JoinSet::new();
    loop {
        while calls.len() < AT_ONCE {
            match webhooks.claim(LEASE).await {
                Ok(Some(delivery)) => {
                    calls.spawn(deliver(webhooks.clone(), outbound.clone(), clock.clone(), delivery));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "deliveries of webhooks could not be read; it is tried again");
                    break;
                }
            }
        }
        tokio::select! {
            () = shutdown.draining() => break,
            () = tokio::time::sleep(POLL) => {}
            Some(_ended) = calls.join_next() => {}
        }
    }
    while calls.join_next().await.is_some() {}
}

async fn deliver(webhooks: Webhooks, outbound: Outbound, clock: SharedClock, delivery: ToSend) {
    let at = clock.now();
    let began = Instant::now();
    let answer = send(&outbound, &clock, &delivery).await;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (call, least) = match answer {
        Ok(response) => {
            (Call { at, took_ms, status: Some(response.status().as_u16()), error: None }, retry_after(&response))
        }
        Err(error) => (Call { at, took_ms, status: None, error: Some(error.to_string()) }, None),
    };
    tracing::info!(delivery = %delivery.id, status = call.status, error = call.error, "a webhook was called");
    if let Err(error) = conclude(&webhooks, &delivery, &call, least).await {
        tracing::error!(delivery = %delivery.id, %error, "what became of a call could not be written; it is sent again");
    }
}

/// Writes down what became of a call, while the delivery is still held.
async fn conclude(
    webhooks: &Webhooks,
    delivery: &ToSend,
    call: &Call,
    least: Option<Duration>,
) -> Result<(), StoreError> {
    let first = webhooks.conclude(delivery, call, least).await;
    if first.is_ok() {
        return first;
    }
    tokio::time::sleep(POLL).await;
    webhooks.conclude(delivery, call, least).await
}

async fn send(outbound: &Outbound, clock: &SharedClock, delivery: &ToSend) -> Result<Response, OutboundError> {
    let sent = clock.now();
    let signatures: Vec<String> =
        delivery.secrets.iter().map(|secret| secret.sign(delivery.id, sent, &delivery.body)).collect();
    let request = outbound
        .request(Method::POST, delivery.url.url())?
        .timeout(PATIENCE)
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-id", delivery.id.to_string())
        .header("webhook-timestamp", sent.as_second())
        .header("webhook-signature", signatures.join(" "))
        .body(delivery.body.clone());
    request.send().await.map_err(|error| Outbound::explain(&error))
}

/// The seconds that a receiver asks to be left alone for (RFC 9110, section 10.2.3); dates are not read.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
