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
/// `{"members": ["m0.safetensors", "m1.safetensors"], "dataset": "mnist.npz", "finetune": {"epochs": 3}}` is a complete body;
/// `resolved` in the answer shows every default. With `validate_only=true` nothing is queued and the answer is the plan: widths,
/// parameters, operations and bytes before and after, estimates of memory and time with what they rest on, and warnings.
///
/// `target` is one size, `{"width": "member"}`, `{"width": {"member": 0}}`, `{"width": 0.5}`, or a budget, `{"params": N}`, `{"macs": N}`,
/// `{"bytes": N}`, that is never exceeded and is spent to the last unit, evenly or with `"allocation": "sensitivity"`. `round_to`,
/// `keep` and `layers` may stand beside it. `method` takes the orders `joint`, `iterative`, `hierarchical`, `prune_then_merge` (with `rates`, a number per member) and
/// `merge_finetune_prune` (with `merge_epochs`), the names `average`, `optimal_transport`, `permutation_alignment`, `neuron_interpolation` (with
/// `matching`, `k_means` or `hungarian`) and `distill_only`, and `member_weights`. Its `ensemble` says how the members' outputs become the
/// ensemble's, which teaches and is compared with: `mean_logits`, `mean_probabilities`, `entropy` (probabilities, more of the members that
/// are sure), `class_share` and `fitted_per_class` (logits, with weights in each class), or `auto`, the best of them on
/// the validation split (`fitted_per_class` only where the members are known not to have seen it).
///
/// `evaluate` lists what the report compares: `members`, `best_member`, `ensemble`, `vote`, `average`, `optimal_transport`,
/// `permutation_alignment`, `neuron_interpolation`, `trained_on`, `distilled`, `fused`. `trained_on` and `distilled` are the best member
/// after as many epochs as the fused network, on the labels and on what the ensemble says: where there is a `finetune` they are compared by
/// default, and take as long again each.
///
/// `dataset` is a name or an object: `{"name": "mnist.npz", "normalize": {"mean": [0.1307], "std": [0.3081]}, "validation_fraction": 0.1}` with
/// `validation` and `test` for other datasets; `"normalize": "train"` measures mean and standard deviation on the training examples.
/// Networks are chosen on `validation`, or on the dataset's own validation split, or, where there is none or `validation_fraction` is
/// given, on a part of the train split (a tenth), drawn by `split_seed` (0 by default, whatever `seed` is). Members that have been trained
/// on that part are flattered there, so a warning says where that is not known, and of a training the last epoch counts, not the best.
/// `"classes": ["cat", "dog"]` names the classes in the order of the networks' outputs, where labels are names. Images of one channel are
/// repeated for networks that read three. Networks predict one of several classes, or yes or no by one logit, or several labels, or numbers: labels and
/// outputs say which, and where they leave it open `"task"` has to: `classification`, `binary`, `multi_label` or `regression`.
///
/// A `state_dict` does not say what activations, strides, pools or heads a network has. Where several networks fit the members,
/// `evidence` in the plan says which and what is open; a labelled dataset, `"accuracy": [0.961, 0.963]` (of each member on the test
/// split) or `"reference": {"name": "reference.safetensors", "member": 0}` (inputs with a member's own logits) decides when the job
/// runs, or `architecture` says it: `{"family": "resnet", "activation": "relu", "stem_stride": 1, "stem_pool": false}`, a whole
/// `{"graph": …}`, or `{"assume": true}` for the most usual network. `"ignore": ["criterion.*"]` there leaves tensors out.
///
/// `priority`, from -10 to 10 and 0 by default, orders a tenant's own jobs; tenants take turns.
///
/// `finetune` minimises what `objective` says, `cross_entropy` (the task's own loss by the labels) or `distill`; where it says `auto` (the default), and where no learning rate is
/// given, both follow from the network, and `recovery` in the plan and in the report says what they are and why. It can vary the images: with `"augment": {"crop_padding": 4, "flip": true}` each gets a black border (before
/// normalisation), is cropped at random and is mirrored half of the time; members that teach see the same images. With
/// `"batch_norm_reestimate": true` the statistics of BatchNorm are measured again on the train split when training is over.
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
        let job = read(state, caller, &body.value).await?;
        Ok(state.jobs.insert(&job, key).await?)
    })
    .await
}

/// The plan of a job whose input shape is only known from its dataset.
fn unknown_plan() -> Value {
    json!({
        "architecture": null, "evidence": null, "assumptions": [], "layers": [], "parameters": null, "macs": null, "bytes": null,
        "memory_peak_bytes": null, "memory_basis": null, "disk_peak_bytes": null,
        "disk_data_bytes": null, "disk_basis": null, "seconds_estimate": null, "seconds_basis": null,
        "warnings": ["The dataset is still being read; ask again once it is `ready`, or give `input_shape`."],
    })
}
