//! `POST /v1/jobs`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::submission::read;
use crate::domain::problem::Problem;
use crate::http::idempotent::{Creation, accept};
use crate::http::listing::flags;
use crate::http::shared_responses::{ReadsJson, Writes};
use crate::http::views::jobs::JobView;
use crate::plan::Plan;

/// Queue a fusion
///
/// `{"members": ["m0.safetensors", "m1.safetensors"], "dataset": "mnist.npz", "finetune": {"epochs": 3}}` is a complete body; its schema
/// has every field with its default. `resolved` in the answer shows what they have become. With `validate_only=true` nothing is queued and
/// the answer is the plan: widths, parameters, operations and bytes before and after, estimates of memory and time with what they rest on,
/// and warnings. All mistakes are named at once.
///
/// A `state_dict` does not say what activations, strides, pools or heads a network has. Where several networks fit the members,
/// `evidence` in the plan says which and what is open; a labelled dataset, `"accuracy": [0.961, 0.963]` (of each member on the test
/// split) or `"reference": {"name": "reference.safetensors", "member": 0}` (inputs with a member's own logits) decides when the job
/// runs, or `architecture` says it: `{"family": "resnet", "activation": "relu", "stem_stride": 1, "stem_pool": false}`, a whole
/// `{"graph": …}`, or `{"assume": true}` for the most usual network.
///
/// Networks are chosen on `dataset.validation`, or on the dataset's own validation split, or, where there is none or
/// `validation_fraction` is given, on a part of the train split. Members that have been trained on that part are flattered there, so a warning says where that
/// is not known, and of a training the last epoch counts, not the best. Images of one channel are repeated for networks that read three.
///
/// A budget (`params`, `macs` or `bytes` of `target`) is never exceeded and is spent to the last unit. Where `finetune` leaves `objective` or the
/// learning rate open, both follow from the network, and `recovery` in the plan and in the report says what they are and why. Its
/// controls `trained_on` and `distilled`, the best member after as many epochs, are compared unless `evaluate` leaves them out.
#[utoipa::path(post, path = "/v1/jobs", operation_id = "createJob", tag = "Jobs",
    params(
        ("validate_only" = Option<bool>, Query, description = "Whether to plan only, without queueing anything.", example = false),
        ("Idempotency-Key" = Option<String>, Header, description = "Requests with the same key and the same body get the same answer for 24 hours.",
            example = "5b0e2a51-7f0c-4b6e-9d0e-0b5f6f0f3c55")),
    request_body(content = ref("#/components/schemas/JobRequest"), description = "The description of the job.",
        example = json!({"members": ["m0.safetensors", "m1.safetensors"], "dataset": "mnist.npz", "finetune": {"epochs": 3}})),
    responses(
        (status = 200, description = "The plan; only with `validate_only`.", body = Plan),
        (status = 202, description = "The job was queued.", body = JobView,
            headers(("Location", description = "The address of the job."), ("Retry-After", description = "After how many seconds to look at the job."))),
        Writes, ReadsJson))]
pub(super) async fn create(request: Creation) -> Result<Response, Problem> {
    let Creation { state, caller, query, body, .. } = &request;
    let [validate_only] = flags(query, ["validate_only"])?;
    if validate_only {
        let plan = read(state, caller, &body.value).await?.plan;
        return Ok(Json(if plan.is_null() { unknown_plan() } else { plan }).into_response());
    }
    let key = request.key()?;
    let key = key.as_ref();
    accept(state, caller, key, async {
        let job = Box::pin(read(state, caller, &body.value)).await?;
        Ok(state.jobs.insert(&job, key).await?)
    })
    .await
}

/// The plan of a job whose input shape is only known from its dataset.
fn unknown_plan() -> Value {
    json!({
        "architecture": null, "evidence": null, "assumptions": [], "layers": [], "parameters": null, "macs": null, "bytes": null,
        "memory_peak_bytes": null, "memory_basis": null, "gpu_memory_bytes": null, "gpu_memory_basis": null, "disk_peak_bytes": null,
        "disk_data_bytes": null, "disk_basis": null, "seconds_estimate": null, "seconds_basis": null, "seconds_by_phase": null,
        "warnings": ["The dataset is still being read; ask again once it is `ready`, or give `input_shape`."],
    })
}
