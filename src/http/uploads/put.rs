//! `PUT /v1/checkpoints/{name}` and `PUT /v1/datasets/{name}`.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};

use super::announced::Announced;
use super::incoming::Incoming;
use super::receive::{Bounds, End, gate, receive, reopen};
use super::refusal::{Refusal, disk_full, intake_problem, superseded};
use crate::domain::id::UploadId;
use crate::domain::name::FileName;
use crate::domain::problem::{Code, Fault, FaultCode, Problem};
use crate::domain::quota::TenantResource;
use crate::http::addressed::Addressed;
use crate::http::auth::Caller;
use crate::http::listing;
use crate::http::state::AppState;
use crate::store::files::{Kind, StoredFile};
use crate::store::idempotency::RequestKey;
use crate::store::intake::{Complete, Intake};
use crate::store::multipart::MultipartUpload;
use crate::store::publish::{Destination, Published};
use crate::store::staging::Held;
use crate::store::uploads::Upload;

/// What came of a PUT.
#[derive(Debug)]
pub enum UploadOutcome {
    /// A new file.
    Created(StoredFile),
    /// The name had the same bytes already.
    Same(StoredFile),
    /// A part has arrived; the file goes on at this offset.
    Partial(u64),
}

/// Takes an upload.
///
/// # Errors
/// Every way in which an upload can be refused.
pub(in crate::http) async fn put(request: &Addressed, kind: Kind, sent: Request) -> Result<UploadOutcome, Refusal> {
    let (state, caller) = (request.state.clone(), request.caller.clone());
    let (parts, body) = sent.into_parts();
    let server = &state.settings.server;
    let incoming = Incoming::new(body, &parts.headers, server.body_idle_timeout.0, server.min_upload_rate.0);
    let name = parse_name(&request.name);
    apart(&state.clone(), incoming, move || Put::prepare(state, caller, kind, name, &parts)).await
}

/// Takes a body by what `prepare` makes, in a task of its own, so that bytes are kept when the client goes away.
///
/// # Errors
/// Every way in which an upload can be refused.
pub(super) async fn apart(
    state: &AppState,
    mut incoming: Incoming,
    prepare: impl FnOnce() -> Result<Put, Problem> + Send + 'static,
) -> Result<UploadOutcome, Refusal> {
    let task = state.tasks.spawn(async move {
        let result = match prepare() {
            Ok(put) => put.run(&mut incoming).await,
            Err(problem) => Err(problem.into()),
        };
        incoming.drain();
        result
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an upload's task failed");
        Err(Problem::new(Code::Internal, "The upload failed; the log has the details under this request id.").into())
    })
}

/// Reads the name in a path.
///
/// # Errors
/// `invalid_request` that says what a name may be.
fn parse_name(text: &str) -> Result<FileName, Problem> {
    text.parse::<FileName>()
        .map_err(|error| Problem::faults(vec![Fault::new("/path/name", FaultCode::InvalidValue, error.to_string())]))
}

/// One upload request.
pub(super) struct Put {
    pub(super) state: AppState,
    pub(super) caller: Caller,
    pub(super) kind: Kind,
    pub(super) name: FileName,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) announced: Announced,
    /// Largest file, in bytes.
    pub(super) limit: u64,
    /// Whether nothing of the body counts unless all of it arrives.
    pub(super) is_indivisible: bool,
    /// The key of the request, if it has one.
    pub(super) key: Option<RequestKey>,
}

impl Put {
    fn prepare(
        state: AppState,
        caller: Caller,
        kind: Kind,
        name: Result<FileName, Problem>,
        parts: &Parts,
    ) -> Result<Self, Problem> {
        let limits = &state.settings.limits;
        let limit = match kind {
            Kind::Checkpoint => limits.max_checkpoint.0,
            Kind::Dataset => limits.max_dataset.0,
        };
        let announced = Announced::read(&parts.headers)?;
        if let Some(bytes) = announced.expected().filter(|&bytes| bytes > limit) {
            return Err(Problem::new(Code::TooLarge, format!("The file has {bytes} bytes; the limit is {limit}.")));
        }
        let labels = listing::upload_labels(parts.uri.query().unwrap_or_default())?;
        Ok(Self { name: name?, state, caller, kind, labels, announced, limit, is_indivisible: false, key: None })
    }

    /// Takes the bytes that come.
    pub(super) async fn run(&self, incoming: &mut Incoming) -> Result<UploadOutcome, Refusal> {
        let taken = self.state.publisher.taken(self.kind, &self.caller.tenant, &self.name).await?;
        if let Some(existing) = taken {
            return self.compare(existing, incoming).await;
        }
        let unfinished = self.state.staging.uploads().find(self.kind, &self.caller.tenant, &self.name).await?;
        self.room(unfinished.map(|upload| upload.id)).await?;
        // What is in a bucket already is needed here again, before the file is checked.
        let arriving =
            if self.state.blobs.bucket().is_some() { self.announced.expected() } else { self.announced.length };
        let needed = arriving.unwrap_or(0).saturating_add(self.state.settings.storage.keep_free.0);
        if self.state.blobs.room(&self.state.settings.storage.data_dir)? < needed {
            return Err(disk_full().into());
        }
        let held = self.hold().await?;
        let id = held.upload.id;
        // Others may have begun in the meantime.
        let room = match self.room(Some(id)).await {
            Ok(room) => room,
            Err(problem) => {
                if held.upload.acknowledged == 0 {
                    self.state.staging.discard(id).await?;
                }
                return Err(problem.into());
            }
        };
        let (upload, intake, mut multipart) = reopen(&self.state, held, self.kind, self.limit).await?;
        let bounds = Bounds {
            length: self.announced.length,
            limit: self.limit,
            room,
            kind: self.kind,
            is_indivisible: self.is_indivisible,
        };
        match receive(&self.state, &upload, incoming, intake, multipart.as_mut(), bounds).await? {
            End::Complete(intake) => self.complete(&upload, intake, multipart).await,
            End::Cut(problem) => Err(problem.into()),
            End::Unusable(problem) => {
                self.state.staging.discard(id).await?;
                Err(problem.into())
            }
        }
    }

    /// Bytes that the file may have beside everything that its tenant has but the upload `own`; none where there is no limit.
    ///
    /// # Errors
    /// `quota_exceeded` or `too_many` where the tenant may not have it.
    pub(super) async fn room(&self, own: Option<UploadId>) -> Result<Option<u64>, Problem> {
        let (tenants, tenant) = (&self.state.tenants, &self.caller.tenant);
        let quota = tenants.quota(tenant).await?;
        let limited = quota.limited(&[TenantResource::Bytes, TenantResource::Files, TenantResource::Uploads]);
        let usage = tenants.usage(tenant, &limited, own).await?;
        quota.check(TenantResource::Files, &usage, 1)?;
        quota.check(TenantResource::Uploads, &usage, 1)?;
        quota.check(TenantResource::Bytes, &usage, self.announced.expected().unwrap_or(1))?;
        Ok(quota.limit(TenantResource::Bytes).map(|most| most.saturating_sub(usage.of(TenantResource::Bytes))))
    }

    /// Takes the unfinished upload to this name, or a fresh one, at the announced offset.
    async fn hold(&self) -> Result<Held, Refusal> {
        let busy = || Problem::new(Code::UploadInProgress, format!("Another request is uploading to `{}`.", self.name));
        let held = self.state.staging.hold(self.kind, &self.caller.tenant, &self.name).await?;
        let mut held = held.ok_or_else(busy)?;
        let Announced { start, total, .. } = self.announced;
        let known = held.upload.total;
        let offset = held.upload.acknowledged;
        if start > 0 && start != offset {
            if offset == 0 {
                self.state.staging.discard(held.upload.id).await?;
            }
            let detail = format!("The upload of `{}` continues at byte {offset}, not at {start}.", self.name);
            return Err(Refusal::offset(offset, false, detail));
        }
        if let (true, Some(known), Some(total)) = (start > 0, known, total)
            && known != total
        {
            let detail = format!("The upload began as a file of {known} bytes; {total} bytes are another file.");
            return Err(Refusal::offset(offset, false, detail));
        }
        held.upload.acknowledged = start;
        held.upload.total = if start > 0 { total.or(known) } else { total };
        self.state.staging.uploads().acknowledge(held.upload.id, start, held.upload.total).await?;
        Ok(held)
    }

    /// The body has ended as it should; the file may still lack a part.
    async fn complete(
        &self,
        upload: &Upload,
        mut intake: Intake,
        mut multipart: Option<MultipartUpload>,
    ) -> Result<UploadOutcome, Refusal> {
        let length = intake.length();
        if upload.total.is_some_and(|total| length < total) {
            let synced = blocking(move || intake.sync()).await?;
            synced.map_err(|error| intake_problem(&error))?;
            match &mut multipart {
                Some(multipart) => {
                    if !multipart.keep(length).await? {
                        return Err(superseded().into());
                    }
                }
                None => self.state.staging.uploads().acknowledge(upload.id, length, upload.total).await?,
            }
            return Ok(UploadOutcome::Partial(length));
        }
        match self.check(self.finish(intake, multipart.as_mut()).await) {
            Ok(complete) => {
                // What was here as a whole was checked before it becomes an object.
                if let Some(multipart) = &mut multipart
                    && !multipart.complete(length).await?
                {
                    return Err(superseded().into());
                }
                self.publish(upload, &complete, multipart.as_ref().map(MultipartUpload::blob_key)).await
            }
            Err(problem)
                if problem.code.is_transient() || matches!(problem.code, Code::Internal | Code::UploadInProgress) =>
            {
                Err(problem.into())
            }
            Err(problem) => {
                self.state.staging.discard(upload.id).await?;
                Err(problem.into())
            }
        }
    }

    /// Ends the file. One whose front was sent on by earlier requests becomes an object first, which gives the front back.
    async fn finish(&self, intake: Intake, multipart: Option<&mut MultipartUpload>) -> Result<Complete, Problem> {
        let length = intake.length();
        let intake = match multipart.filter(|_| intake.lacks_front()) {
            None => intake,
            Some(multipart) => {
                if !multipart.complete(length).await? {
                    return Err(superseded());
                }
                multipart.fetch_front().await?;
                let gate = gate(self.kind, Some(length));
                blocking(move || intake.again(gate)).await?.map_err(|error| intake_problem(&error))?
            }
        };
        blocking(move || intake.finish()).await?.map_err(|error| intake_problem(&error))
    }

    /// What can be said of the whole file only.
    fn check(&self, complete: Result<Complete, Problem>) -> Result<Complete, Problem> {
        let complete = complete?;
        if complete.bytes == 0 {
            return Err(Problem::new(Code::DatasetInvalid, "The file is empty."));
        }
        if let Some(announced) = self.announced.sha256.filter(|announced| *announced != complete.sha256) {
            let (announced, got) = (hex::encode(announced), hex::encode(complete.sha256));
            let detail = format!("Expected the SHA-256 {announced}, as announced; the bytes that arrived have {got}.");
            return Err(Problem::new(Code::DigestMismatch, detail));
        }
        Ok(complete)
    }

    /// Publishes the file; `object` is the key of the object that has its bytes, if one has.
    async fn publish(
        &self,
        upload: &Upload,
        complete: &Complete,
        object: Option<&str>,
    ) -> Result<UploadOutcome, Refusal> {
        let destination = Destination {
            kind: self.kind,
            tenant: &self.caller.tenant,
            name: &self.name,
            labels: &self.labels,
            key: self.key.as_ref(),
            object,
        };
        match self.state.publisher.publish(upload.id, complete, &destination).await? {
            Published::New(file) => Ok(UploadOutcome::Created(file)),
            Published::Taken(existing) => self.same(existing, complete.sha256),
            Published::Refused(problem) => Err(problem.into()),
        }
    }

    /// The name has a file: reads the body only as far as needed to decide whether it is the same one.
    async fn compare(&self, existing: StoredFile, incoming: &mut Incoming) -> Result<UploadOutcome, Refusal> {
        if self.announced.start > 0 {
            let detail = format!("The upload of `{}` is complete.", self.name);
            return Err(Refusal::offset(existing.bytes, true, detail));
        }
        if self.announced.total.is_some_and(|total| total != existing.bytes) {
            return Err(self.name_taken(&existing));
        }
        if let Some(sha256) = self.announced.sha256 {
            return self.same(existing, sha256);
        }
        let mut hasher = Sha256::new();
        let mut left = existing.bytes;
        while let Some(bytes) = incoming.next().await {
            let bytes = bytes?;
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| self.name_taken(&existing))?;
            hasher.update(&bytes);
        }
        self.same(existing, hasher.finalize().into())
    }

    fn same(&self, existing: StoredFile, sha256: [u8; 32]) -> Result<UploadOutcome, Refusal> {
        if existing.sha256 == hex::encode(sha256) {
            Ok(UploadOutcome::Same(existing))
        } else {
            Err(self.name_taken(&existing))
        }
    }

    fn name_taken(&self, existing: &StoredFile) -> Refusal {
        let detail = format!(
            "`{}` is taken by {} ({} bytes, SHA-256 {}). Choose another name, or delete that one first.",
            self.name, existing.id, existing.bytes, existing.sha256
        );
        Problem::new(Code::NameTaken, detail).into()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Problem::new(Code::Internal, format!("The upload could not be finished: {error}")))
}
