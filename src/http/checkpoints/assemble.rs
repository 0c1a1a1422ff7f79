//! `POST /v1/checkpoints`: an index and its shards become one checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::find;
use crate::domain::id::CheckpointId;
use crate::domain::name::FileName;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::http::addressed::Addressed;
use crate::http::auth::Caller;
use crate::http::idempotent::{Creation, Made, REPLAYED, earlier, keep};
use crate::http::shared_responses::{ReadsJson, Writes};
use crate::http::state::AppState;
use crate::http::uploads::{Assembled, UploadOutcome, assembled, file_headers};
use crate::http::views::checkpoints::CheckpointView;
use crate::http::views::problem::ProblemView;
use crate::model::formats::join::{Joined, join};
use crate::model::formats::layout::Layout;
use crate::model::formats::safetensors;
use crate::plan::assembly::{Assembly, PossibleShard, assign};
use crate::plan::parse::assembly;
use crate::store::Blobs;
use crate::store::blobs::LocalFile;
use crate::store::checkpoints::StoredCheckpoint;
use crate::store::files::Kind;

impl Made for CheckpointId {
    const PATH: &'static str = "/v1/checkpoints";

    async fn render(self, state: &AppState, caller: &Caller) -> Result<Vec<u8>, Problem> {
        let request = Addressed { state: state.clone(), caller: caller.clone(), name: self.to_string() };
        serde_json::to_vec(&CheckpointView::from(find(&request).await?))
            .map_err(|error| Problem::new(Code::Internal, format!("The checkpoint cannot be shown: {error}")))
    }
}

/// Put a sharded checkpoint together
///
/// `{"index": "model.safetensors.index.json", "name": "whole.safetensors"}` makes one checkpoint of an index and its shards, which were
/// uploaded with PUT, each by itself. Without `shards` (ids or names) they are found by the names that the index has for them. Each must hold
/// just the tensors that the index names there; all that are missing are named at once. The shards may be deleted afterwards.
#[utoipa::path(post, path = "/v1/checkpoints", operation_id = "assembleCheckpoint", tag = "Checkpoints",
    params(("Idempotency-Key" = Option<String>, Header, description = "Requests with the same key and the same body get the same answer for 24 hours.",
        example = "5b0e2a51-7f0c-4b6e-9d0e-0b5f6f0f3c55")),
    request_body(content = ref("#/components/schemas/AssemblyRequest"), description = "Index, shards and name.",
        example = json!({"index": "model.safetensors.index.json", "name": "whole.safetensors"})),
    responses(
        (status = 200, description = "The same file was already stored under this name.", body = CheckpointView),
        (status = 201, description = "The checkpoint was made.", body = CheckpointView,
            headers(("ETag", description = "The SHA-256 of the file."), ("Repr-Digest", description = "The same digest, as RFC 9530 writes it."), ("Location", description = "The address of the checkpoint."))),
        (status = 409, description = "The name belongs to another file, or an upload to it is unfinished.", body = ProblemView, content_type = "application/problem+json"),
        Writes, ReadsJson))]
pub(super) async fn assemble(request: Creation) -> Result<Response, Problem> {
    let Creation { state, caller, body, .. } = &request;
    let key = request.key()?;
    if let Some((id, body)) = earlier::<CheckpointId>(state, caller, key.as_ref()).await? {
        let headers = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::LOCATION, format!("{}/{id}", CheckpointId::PATH)),
        ];
        return Ok((StatusCode::CREATED, [(REPLAYED, "true")], headers, body).into_response());
    }
    let wanted = assembly(&body.value).map_err(Problem::faults)?;
    let shards = look_up(state, caller, &wanted).await?;
    for shard in &shards {
        state.soundness.check(&state.blobs, &shard.file.blob_key, &shard.file.sha256).await?;
    }
    let (joined, keys) = read(&state.blobs, shards).await?;
    let Assembly { name, labels, .. } = wanted;
    let bytes = joined.bytes();
    let body = stream_of(state.blobs.clone(), joined, keys);
    let file = Assembled { name, labels, bytes, body, key: key.clone() };
    let (status, file) = match assembled(state, caller, file).await? {
        UploadOutcome::Created(file) => (StatusCode::CREATED, file),
        UploadOutcome::Same(file) => (StatusCode::OK, file),
        UploadOutcome::Partial(_) => return Err(Problem::new(Code::Internal, "The checkpoint is not complete.")),
    };
    let id: CheckpointId =
        file.id.parse().map_err(|error| Problem::new(Code::Internal, format!("A checkpoint has no id: {error}")))?;
    let body = id.render(state, caller).await?;
    keep(state, caller, key.as_ref(), id, &body).await;
    let headers = file_headers(Kind::Checkpoint, &file);
    Ok((status, headers, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The shards of an assembly, in the order of their names in the index.
///
/// # Errors
/// Every file that is absent or none of the shards.
async fn look_up(state: &AppState, caller: &Caller, wanted: &Assembly) -> Result<Vec<StoredCheckpoint>, Problem> {
    let index = state.checkpoints.find(&caller.tenant, &wanted.index).await?;
    let unknown = |pointer: String, name: &str| {
        let detail = format!("there is no checkpoint `{name}`; upload it with PUT /v1/checkpoints/{{name}}");
        Fault::new(pointer, FaultCode::UnknownCheckpoint, detail)
    };
    let Some(index) = index else {
        return Err(Problem::faults(vec![unknown("/index".to_owned(), &wanted.index)]));
    };
    let names = &index.header.shards;
    if names.is_empty() {
        let detail = format!("`{}` is no index of shards (`model.safetensors.index.json`)", wanted.index);
        return Err(Problem::faults(vec![Fault::new("/index", FaultCode::InvalidValue, detail)]));
    }
    let (mut found, mut faults, is_given) = (Vec::new(), Vec::new(), !wanted.shards.is_empty());
    for (place, name) in wanted.shards.iter().enumerate() {
        match state.checkpoints.find(&caller.tenant, name).await? {
            Some(shard) => found.push(shard),
            None => faults.push(unknown(format!("/shards/{place}"), name)),
        }
    }
    if !faults.is_empty() {
        return Err(Problem::faults(faults));
    }
    for name in names.keys().filter(|name| !is_given && name.parse::<FileName>().is_ok()) {
        found.extend(state.checkpoints.find(&caller.tenant, name).await?);
    }
    let chosen = choose(names, &found, is_given).map_err(Problem::faults)?;
    let mut found: Vec<Option<StoredCheckpoint>> = found.into_iter().map(Some).collect();
    Ok(chosen.into_iter().filter_map(|place| found[place].take()).collect())
}

/// Which of the `found` files is each shard.
fn choose(
    names: &BTreeMap<String, BTreeSet<String>>,
    found: &[StoredCheckpoint],
    is_given: bool,
) -> Result<Vec<usize>, Vec<Fault>> {
    let candidate = |shard| {
        let StoredCheckpoint { file, header, .. }: &StoredCheckpoint = shard;
        PossibleShard { id: &file.id, name: &file.name, sha256: &file.sha256, header }
    };
    let candidates: Vec<PossibleShard<'_>> = found.iter().map(candidate).collect();
    assign(names, &candidates, |place| if is_given { format!("/shards/{place}") } else { "/index".to_owned() })
}

/// Reads the headers of `shards`; says what is to be made of them, and where the bytes of each lie.
///
/// # Errors
/// Names a shard that is no file of safetensors.
async fn read(blobs: &Blobs, shards: Vec<StoredCheckpoint>) -> Result<(Joined, Vec<String>), Problem> {
    let mut files = Vec::with_capacity(shards.len());
    for shard in &shards {
        files.push(blobs.local(&shard.file.blob_key, Some(&shard.file.sha256)).await?);
    }
    let work = move || {
        let both = shards.iter().zip(&files);
        let layouts = both.map(|(shard, file)| Ok((shard.file.name.as_str(), layout(file, shard)?)));
        let layouts: Vec<(&str, Layout)> = layouts.collect::<Result<_, Problem>>()?;
        let joined = join(layouts).map_err(|error| Problem::new(Code::InvalidCheckpoint, format!("{error}.")))?;
        let keys = shards.iter().map(|shard| shard.file.blob_key.clone()).collect();
        Ok((joined, keys))
    };
    let read = tokio::task::spawn_blocking(work).await;
    read.map_err(|error| Problem::new(Code::Internal, format!("The shards could not be read: {error}")))?
}

fn layout(file: &LocalFile, shard: &StoredCheckpoint) -> Result<Layout, Problem> {
    let name = &shard.file.name;
    let mut file = File::open(file.path()).map_err(|error| {
        tracing::error!(name, %error, "a stored file cannot be opened");
        Problem::new(Code::of_system(&error), "A shard could not be read; the log has the details.")
    })?;
    safetensors::read_layout(&mut file, shard.file.bytes).map_err(|error| {
        let detail = format!("`{name}` is no file of safetensors, as shards are: {error}.");
        Problem::new(Code::InvalidCheckpoint, detail)
    })
}

/// The bytes of the file, one piece after another.
fn stream_of(blobs: Blobs, joined: Joined, keys: Vec<String>) -> Body {
    let front = stream::once(async { Ok::<_, std::io::Error>(Bytes::from(joined.front)) });
    let parts = stream::iter(joined.parts).then(move |(shard, range)| {
        let (blobs, key) = (blobs.clone(), keys[shard].clone());
        async move { blobs.read(&key, range).await.map_err(std::io::Error::other) }
    });
    Body::from_stream(front.chain(parts.try_flatten()))
}
