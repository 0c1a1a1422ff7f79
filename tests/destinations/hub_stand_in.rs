//! Stands in for the Hugging Face Hub: its interface as `huggingface_hub` 2.4 uses it (`hf_api.py`, `_commit_api.py`, `lfs.py`), and as strict.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::Digest;

use crate::listening::Listening;
use crate::made::Faults;

pub(crate) const TOKEN: &str = "hf_right";
/// Bytes of a part of an upload.
const PART: u64 = 300;

/// What a repository has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) oid: String,
    pub(crate) content: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Repository {
    pub(crate) private: bool,
    pub(crate) branches: BTreeMap<String, BTreeMap<String, Stored>>,
    /// The first lines of the commits.
    pub(crate) commits: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) repositories: BTreeMap<String, Repository>,
    /// Large files by their SHA-256.
    pub(crate) large: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, usize), Vec<u8>>,
    /// What was asked for, in order.
    pub(crate) requests: Vec<String>,
    /// Whether large files come in parts.
    pub(crate) in_parts: bool,
    /// Names that `.gitignore` has.
    pub(crate) ignored: Vec<String>,
    /// Owners for whom the token may not write.
    pub(crate) foreign: Vec<String>,
}

#[derive(Debug, Default)]
struct Inner {
    content: Mutex<Content>,
    faults: Faults,
    base: Mutex<String>,
}

/// The Hub, ended with the test.
#[derive(Debug)]
pub(crate) struct HubStandIn {
    pub(crate) url: String,
    inner: Arc<Inner>,
    _listening: Listening,
}

type Shared = State<Arc<Inner>>;
type Answer = Result<Response, Refused>;

impl HubStandIn {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let routes = Router::new()
            .route("/api/models/{owner}/{name}", get(look))
            .route("/api/repos/create", post(create))
            .route("/api/validate-yaml", post(validate))
            .route("/api/models/{owner}/{name}/preupload/{revision}", post(preupload))
            .route("/api/models/{owner}/{name}/branch/{revision}", post(branch))
            .route("/api/models/{owner}/{name}/commit/{revision}", post(commit))
            .route("/{owner}/{name}/info/lfs/objects/batch", post(batch))
            .route("/storage/{oid}", put(whole))
            .route("/storage/{oid}/{part}", put(part))
            .route("/complete/{oid}", post(complete))
            .route("/verify/{owner}/{name}", post(verify))
            .with_state(inner.clone());
        let listening = Listening::start(routes).await;
        let url = listening.url.clone();
        url.clone_into(&mut inner.base.lock().expect("a lock"));
        Self { url, inner, _listening: listening }
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.inner.content.lock().expect("a lock")
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// How often something was asked for.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.content().requests.iter().filter(|request| request.starts_with(start)).count()
    }
}

/// An answer that is no success.
#[derive(Debug)]
struct Refused {
    status: u16,
    code: &'static str,
    message: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        let status = StatusCode::from_u16(status).expect("a status");
        let body = Json(json!({ "error": message }));
        (status, [("x-error-code", code.to_owned()), ("x-error-message", message)], body).into_response()
    }
}

fn refused(status: u16, code: &'static str, message: &str) -> Refused {
    Refused { status, code, message: message.to_owned() }
}

impl Inner {
    /// Its own address.
    fn base(&self) -> String {
        self.base.lock().expect("a lock").clone()
    }

    /// Notes the request, fails where that is planned, and lets nobody in without the token.
    fn enter(&self, step: &str, what: &str, headers: &HeaderMap) -> Result<MutexGuard<'_, Content>, Refused> {
        let mut content = self.content.lock().expect("a lock");
        content.requests.push(format!("{step} {what}"));
        self.fail(step)?;
        match headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            Some(given) if given == format!("Bearer {TOKEN}") => Ok(content),
            Some(_) => Err(refused(401, "", "Invalid credentials in Authorization header")),
            None => Err(refused(401, "RepoNotFound", "Invalid username or password.")),
        }
    }

    /// The same of an address that says by itself that it is allowed, and learns nobody's token.
    fn enter_signed(&self, step: &str, what: &str, headers: &HeaderMap) -> Result<MutexGuard<'_, Content>, Refused> {
        let mut content = self.content.lock().expect("a lock");
        content.requests.push(format!("{step} {what}"));
        self.fail(step)?;
        if headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(refused(400, "", "a token, or a body of unknown length, where there must be none"));
        }
        Ok(content)
    }

    fn fail(&self, step: &str) -> Result<(), Refused> {
        match self.faults.take(step) {
            Some(status) => Err(refused(status, "", "planned")),
            None => Ok(()),
        }
    }
}

fn repository<'a>(content: &'a mut Content, id: &str) -> Result<&'a mut Repository, Refused> {
    content.repositories.get_mut(id).ok_or_else(|| refused(404, "RepoNotFound", "Repository not found"))
}

async fn look(State(hub): Shared, Path((owner, name)): Path<(String, String)>, headers: HeaderMap) -> Answer {
    let id = format!("{owner}/{name}");
    let mut content = hub.enter("look", &id, &headers)?;
    let private = repository(&mut content, &id)?.private;
    Ok(Json(json!({ "id": id, "private": private, "sha": "0".repeat(40) })).into_response())
}

async fn create(State(hub): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let id = format!("{}/{}", text("organization"), text("name"));
    let mut content = hub.enter("create", &id, &headers)?;
    if content.foreign.contains(&text("organization")) {
        return Err(refused(403, "", "You don't have the rights to create a model under this namespace"));
    }
    assert!(body["type"].is_null() || body["type"] == "model");
    let private = match text("visibility").as_str() {
        "private" => true,
        "public" => false,
        other => panic!("visibility {other}"),
    };
    if content.repositories.contains_key(&id) {
        return Err(refused(409, "", "You already created this model repo"));
    }
    let branches = BTreeMap::from([("main".to_owned(), BTreeMap::new())]);
    content.repositories.insert(id.clone(), Repository { private, branches, commits: Vec::new() });
    Ok(Json(json!({ "url": format!("{}/{id}", hub.base()) })).into_response())
}

async fn validate(State(hub): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let _content = hub.enter("validate", "", &headers)?;
    assert_eq!(body["repoType"], "model");
    let text = body["content"].as_str().unwrap_or_default();
    if !text.starts_with("---\n") {
        let errors =
            json!({ "errors": [], "warnings": [{ "message": "empty or missing yaml metadata in repo card" }] });
        return Ok(Json(errors).into_response());
    }
    if text.contains("license: [") {
        let errors = json!({ "errors": [{ "message": "\"license\" must be a string" }], "warnings": [] });
        return Ok((StatusCode::BAD_REQUEST, Json(errors)).into_response());
    }
    Ok(Json(json!({ "errors": [], "warnings": [] })).into_response())
}

async fn preupload(
    State(hub): Shared,
    Path((owner, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Answer {
    let id = format!("{owner}/{name}");
    let mut content = hub.enter("preupload", &format!("{id} {revision}"), &headers)?;
    let ignored = content.ignored.clone();
    let branch = repository(&mut content, &id)?.branches.get(&revision);
    let branch = branch.ok_or_else(|| refused(404, "RevisionNotFound", &format!("Invalid rev id: {revision}")))?;
    let ruling = |file: &Value| {
        let path = file["path"].as_str().expect("a path");
        let sample = STANDARD.decode(file["sample"].as_str().expect("a sample")).expect("base64");
        assert_eq!(sample.len() as u64, file["size"].as_u64().expect("a size").min(512), "{path}");
        let mode = if path.ends_with(".safetensors") { "lfs" } else { "regular" };
        let mut ruling =
            json!({ "path": path, "uploadMode": mode, "shouldIgnore": ignored.contains(&path.to_owned()) });
        if let Some(stored) = branch.get(path) {
            ruling["oid"] = stored.oid.clone().into();
        }
        ruling
    };
    let files: Vec<Value> = body["files"].as_array().expect("files").iter().map(ruling).collect();
    Ok(Json(json!({ "files": files, "commitOid": "0".repeat(40) })).into_response())
}

async fn branch(
    State(hub): Shared,
    Path((owner, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let id = format!("{owner}/{name}");
    let mut content = hub.enter("branch", &revision, &headers)?;
    let repository = repository(&mut content, &id)?;
    let start = repository.branches.get("main").cloned().unwrap_or_default();
    repository.branches.insert(revision, start);
    Ok(StatusCode::CREATED.into_response())
}

async fn batch(
    State(hub): Shared,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let id = format!("{owner}/{}", name.strip_suffix(".git").expect("the address of a git repository"));
    let content = hub.enter("batch", &id, &headers)?;
    assert_eq!(headers[header::CONTENT_TYPE], "application/vnd.git-lfs+json");
    assert_eq!(headers[header::ACCEPT], "application/vnd.git-lfs+json");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&body["operation"], &body["hash_algo"]), (&json!("upload"), &json!("sha256")));
    let base = hub.base();
    let object = |object: &Value| {
        let (oid, size) = (object["oid"].as_str().expect("an oid"), object["size"].as_u64().expect("a size"));
        let mut answer = json!({ "oid": oid, "size": size });
        if content.large.contains_key(oid) {
            return answer;
        }
        let verify = json!({ "href": format!("{base}/verify/{id}"), "header": {} });
        let upload = if content.in_parts {
            let parts = size.div_ceil(PART);
            let mut header = json!({ "chunk_size": PART.to_string() });
            for part in 1..=parts {
                header[format!("{part:05}")] = format!("{base}/storage/{oid}/{part}?signature=1").into();
            }
            json!({ "href": format!("{base}/complete/{oid}?signature=1"), "header": header })
        } else {
            json!({ "href": format!("{base}/storage/{oid}?signature=1") })
        };
        answer["actions"] = json!({ "upload": upload, "verify": verify });
        answer
    };
    let objects: Vec<Value> = body["objects"].as_array().expect("objects").iter().map(object).collect();
    Ok(Json(json!({ "transfer": "basic", "objects": objects })).into_response())
}

/// Takes a large file where it is what its name says.
fn keep(content: &mut Content, oid: &str, bytes: Vec<u8>) -> Answer {
    if hex::encode(sha2::Sha256::digest(&bytes)) != oid {
        return Err(refused(400, "", "the digest is another"));
    }
    content.large.insert(oid.to_owned(), bytes);
    Ok(StatusCode::OK.into_response())
}

async fn whole(State(hub): Shared, Path(oid): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let mut content = hub.enter_signed("whole", &oid, &headers)?;
    keep(&mut content, &oid, body.to_vec())
}

async fn part(State(hub): Shared, Path((oid, part)): Path<(String, usize)>, headers: HeaderMap, body: Bytes) -> Answer {
    let mut content = hub.enter_signed("part", &part.to_string(), &headers)?;
    content.parts.insert((oid, part), body.to_vec());
    Ok([(header::ETAG, format!("\"tag{part}\""))].into_response())
}

async fn complete(State(hub): Shared, Path(oid): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let mut content = hub.enter_signed("complete", &oid, &headers)?;
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["oid"], oid);
    let mut file = Vec::new();
    for (number, part) in (1..).zip(body["parts"].as_array().expect("parts")) {
        assert_eq!(part, &json!({ "partNumber": number, "etag": format!("\"tag{number}\"") }));
        file.extend(content.parts.remove(&(oid.clone(), number)).expect("a part that came"));
    }
    keep(&mut content, &oid, file)
}

async fn verify(
    State(hub): Shared,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Answer {
    let content = hub.enter("verify", &format!("{owner}/{name}"), &headers)?;
    let kept = content.large.get(body["oid"].as_str().expect("an oid"));
    let kept = kept.ok_or_else(|| refused(404, "", "no such object"))?;
    assert_eq!(body["size"], kept.len());
    Ok(StatusCode::OK.into_response())
}

async fn commit(
    State(hub): Shared,
    Path((owner, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let id = format!("{owner}/{name}");
    let mut content = hub.enter("commit", &format!("{id} {revision}"), &headers)?;
    if content.foreign.contains(&owner) {
        return Err(refused(403, "", "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"));
    }
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-ndjson");
    let mut lines = body.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let head = lines.next().expect("a header");
    assert_eq!(head["key"], "header");
    let summary = head["value"]["summary"].as_str().expect("a summary").to_owned();
    let mut files = BTreeMap::new();
    for line in lines {
        let value = &line["value"];
        let path = value["path"].as_str().expect("a path").to_owned();
        let stored = match line["key"].as_str() {
            Some("file") => {
                assert_eq!(value["encoding"], "base64");
                let content = STANDARD.decode(value["content"].as_str().expect("content")).expect("base64");
                let blob = [format!("blob {}\0", content.len()).as_bytes(), &content].concat();
                Stored { oid: hex::encode(sha1::Sha1::digest(blob)), content }
            }
            Some("lfsFile") => {
                assert_eq!(value["algo"], "sha256");
                let oid = value["oid"].as_str().expect("an oid").to_owned();
                let kept = content.large.get(&oid).ok_or_else(|| refused(400, "", "a large file that never came"))?;
                assert_eq!(value["size"], kept.len());
                Stored { oid, content: kept.clone() }
            }
            other => panic!("a line of {other:?}"),
        };
        files.insert(path, stored);
    }
    if files.is_empty() {
        return Err(refused(400, "", "an empty commit"));
    }
    let repository = repository(&mut content, &id)?;
    repository.branches.get_mut(&revision).expect("a branch").extend(files);
    repository.commits.push(summary);
    // It is done, and the answer is lost.
    hub.fail("after the commit")?;
    let oid = format!("{:040x}", repository.commits.len());
    let url = format!("{}/{id}/commit/{oid}", hub.base());
    Ok(Json(json!({ "commitUrl": url, "commitOid": oid, "pullRequestUrl": null })).into_response())
}
