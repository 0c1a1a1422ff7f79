//! `/v1/webhooks`: where a tenant is called when something ends, and the calls.

mod body;
mod deliveries;
mod manage;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::addressed::Addressed;
use super::auth::Caller;
use super::idempotent::Made;
use super::state::AppState;
use super::views::webhooks::WebhookView;
use crate::domain::id::WebhookId;
use crate::domain::problem::{Code, Problem};
use crate::store::webhooks::Webhook;

/// Every route of webhooks.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(manage::list, manage::create))
        .routes(routes!(manage::get, manage::change, manage::delete))
        .routes(routes!(manage::renew_secret))
        .routes(routes!(deliveries::test))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::redeliver))
}

impl Made for WebhookId {
    const PATH: &'static str = "/v1/webhooks";

    async fn render(self, state: &AppState, caller: &Caller) -> Result<Vec<u8>, Problem> {
        let found = state.webhooks.find(&caller.tenant, self).await?;
        let webhook = found.ok_or_else(|| absent(&format!("There is no webhook `{self}`")))?;
        serde_json::to_vec(&WebhookView::new(webhook, None))
            .map_err(|error| Problem::new(Code::Internal, format!("The webhook cannot be shown: {error}")))
    }
}

/// The id in a path; text that is no webhook's id names no webhook.
fn parse_id(text: &str) -> Result<WebhookId, Problem> {
    text.parse().map_err(|error| absent(&format!("{error}")))
}

/// The caller's webhook.
async fn find(request: &Addressed) -> Result<Webhook, Problem> {
    let id = parse_id(&request.name)?;
    let found = request.state.webhooks.find(&request.caller.tenant, id).await?;
    found.ok_or_else(|| absent(&format!("There is no webhook `{id}`")))
}

fn absent(detail: &str) -> Problem {
    Problem::new(Code::NotFound, format!("{detail}; GET /v1/webhooks lists them."))
}
