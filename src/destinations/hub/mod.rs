//! The Hugging Face Hub: a repository of models gets the files in one commit, as `huggingface_hub` makes it (its `_commit_api.py` and
//! `lfs.py` are the source of what is known here of the interface).

mod advice;
mod commit;
mod lfs;
mod repository;
mod token;

use std::path::PathBuf;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::error::DestinationError;
use super::service::{Credentials, Service};
use super::{Advance, PackedFile};
use crate::client::{Pauses, hashed};

pub use repository::Repository;
pub use token::token;

use self::advice::advice;
use self::commit::Changes;

/// Where the Hub is, unless `HF_ENDPOINT` says otherwise.
pub const ENDPOINT: &str = "https://huggingface.co";
/// The model card of a repository.
pub const CARD: &str = "README.md";
/// Bytes of a file by which the Hub sees what it is.
const SAMPLE: u64 = 512;

/// A push to the Hub.
#[derive(Debug)]
pub struct HubPush {
    /// Address of the Hub.
    pub endpoint: String,
    /// By which the Hub knows its user; none where nobody has signed in.
    pub token: Option<String>,
    /// Where the files go.
    pub repository: Repository,
    /// Whether the repository has to be private.
    pub private: bool,
    /// The first line of the commit.
    pub summary: String,
}

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Where a browser finds it: the commit, or the files where nothing has changed.
    pub url: String,
    /// Files whose bytes were sent.
    pub sent: Vec<String>,
    /// Files that are the same in the repository.
    pub unchanged: Vec<String>,
    /// Files whose bytes the Hub has from elsewhere.
    pub known: Vec<String>,
    /// Files that the repository ignores.
    pub ignored: Vec<String>,
    /// What the Hub has to say of the model card.
    pub warnings: Vec<String>,
}

/// A file with what the Hub asks of it.
#[derive(Debug)]
struct HubFile {
    name: String,
    path: PathBuf,
    bytes: u64,
    sha256: [u8; 32],
    /// Its beginning.
    sample: Vec<u8>,
}

/// The Hub and the repository that gets the files.
#[derive(Debug)]
struct Hub {
    service: Service,
    repository: Repository,
    endpoint: String,
}

impl HubPush {
    /// Brings the files into the repository, which is made where there is none; what is the same there is not sent.
    ///
    /// # Errors
    /// What the Hub refuses, with what to do; that it does not answer; files that cannot be read.
    pub async fn run(self, files: &[PackedFile], advance: Advance<'_>) -> Result<Pushed, DestinationError> {
        let endpoint = self.endpoint.trim_end_matches('/').to_owned();
        let Some(token) = self.token.clone() else {
            return Err(DestinationError::Unprepared(format!(
                "no token for {endpoint}: set HF_TOKEN, or sign in with `hf auth login`; {endpoint}/settings/tokens makes one that may write"
            )));
        };
        let service = Service::new("the Hub", &endpoint, Credentials::Token(token))?;
        let hub = Hub { service, repository: self.repository.clone(), endpoint };
        let pushed = self.push(&hub, files, advance).await;
        pushed.map_err(|error| error.advised(|refusal| advice(refusal, &hub.repository, &hub.endpoint)))
    }

    async fn push(&self, hub: &Hub, files: &[PackedFile], advance: Advance<'_>) -> Result<Pushed, DestinationError> {
        let mut described = Vec::new();
        for file in files {
            described.push(HubFile::read(file).await.map_err(DestinationError::file(&file.path))?);
        }
        let warnings = hub.judge_card(&described).await?;
        hub.prepare(self.private).await?;
        let mut pauses = Pauses::default();
        loop {
            // What a commit whose answer was lost has brought is unchanged at the next look.
            match self.commit(hub, &described, advance).await {
                Err(error) if error.is_passing() => pauses.wait(error, None).await?,
                pushed => return pushed.map(|pushed| Pushed { warnings, ..pushed }),
            }
        }
    }

    /// Looks at what differs, and commits that.
    async fn commit(&self, hub: &Hub, files: &[HubFile], advance: Advance<'_>) -> Result<Pushed, DestinationError> {
        let Changes { large, small, unchanged, ignored } = hub.changes(files).await?;
        let names = |files: &[&HubFile]| files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
        let known = lfs::upload(hub, &large, advance).await?;
        let is_known = |name: &String| known.contains(name);
        let sent = names(&large).into_iter().filter(|name| !is_known(name)).chain(names(&small)).collect();
        let url = if large.is_empty() && small.is_empty() {
            format!("{}/{}/tree/{}", hub.endpoint, hub.repository.id(), hub.repository.revision())
        } else {
            hub.commit(&self.summary, &large, &small).await?
        };
        Ok(Pushed { url, sent, unchanged: names(&unchanged), known, ignored: names(&ignored), warnings: Vec::new() })
    }
}

/// What the Hub says of a repository.
#[derive(Debug, Deserialize)]
struct RepositoryView {
    #[serde(default)]
    private: bool,
}

/// What the Hub says of a model card.
#[derive(Debug, Default, Deserialize)]
struct Verdict {
    #[serde(default)]
    warnings: Vec<Remark>,
    #[serde(default)]
    errors: Vec<Remark>,
}

#[derive(Debug, Deserialize)]
struct Remark {
    #[serde(default)]
    message: String,
}

impl Hub {
    /// The parts of a path below `/api/models/OWNER/NAME`.
    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        [&["api", "models", &self.repository.owner, &self.repository.name], rest].concat()
    }

    /// Has the Hub read the metadata of the card, before anything is sent; what it warns of.
    async fn judge_card(&self, files: &[HubFile]) -> Result<Vec<String>, DestinationError> {
        let Some(card) = files.iter().find(|file| file.name == CARD) else { return Ok(Vec::new()) };
        let content = tokio::fs::read_to_string(&card.path).await.map_err(DestinationError::file(&card.path))?;
        let url = self.service.url(["api", "validate-yaml"]);
        let body = json!({ "content": content, "repoType": "model" });
        let said = |remarks: Vec<Remark>| remarks.into_iter().map(|remark| remark.message).collect::<Vec<_>>();
        match self.service.send(|| self.service.request(Method::POST, url.clone()).json(&body)).await {
            Ok(answer) => {
                let verdict: Verdict = self.service.json(answer).await?;
                if verdict.errors.is_empty() {
                    Ok(said(verdict.warnings))
                } else {
                    Err(wrong_card(&said(verdict.errors)))
                }
            }
            // A Hub of one's own may not know how.
            Err(error) if error.refusal().is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND) => {
                Ok(Vec::new())
            }
            Err(error) => match error.refusal() {
                Some(refusal) if refusal.status == StatusCode::BAD_REQUEST => {
                    Err(wrong_card(std::slice::from_ref(&refusal.message)))
                }
                _ => Err(error),
            },
        }
    }

    /// Makes the repository where there is none. Nothing is sent before it is known to be as private as it has to be.
    async fn prepare(&self, private: bool) -> Result<(), DestinationError> {
        let mut found = self.look().await?;
        if found.is_none() {
            self.create(private).await?;
            found = self.look().await?;
        }
        let found = found.ok_or_else(|| {
            self.service.unexpected(format!("the repository {} was made, but cannot be seen", self.repository.id()))
        })?;
        if private && !found.private {
            return Err(DestinationError::Unprepared(format!(
                "{} is public, and --private asks for a private repository: nothing was sent; make it private at {}/{}/settings, or leave \
                 --private out",
                self.repository.id(),
                self.endpoint,
                self.repository.id()
            )));
        }
        Ok(())
    }

    /// The repository as it is; none where there is none, or none that the token may see.
    async fn look(&self) -> Result<Option<RepositoryView>, DestinationError> {
        let url = self.service.url(self.path(&[]));
        match self.service.send(|| self.service.request(Method::GET, url.clone())).await {
            Ok(answer) => self.service.json(answer).await.map(Some),
            Err(error) if error.refusal().is_some_and(advice::is_absent) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, private: bool) -> Result<(), DestinationError> {
        let Repository { owner, name, .. } = &self.repository;
        let visibility = if private { "private" } else { "public" };
        let body = json!({ "name": name, "organization": owner, "type": "model", "visibility": visibility });
        let url = self.service.url(["api", "repos", "create"]);
        match self.service.send(|| self.service.request(Method::POST, url.clone()).json(&body)).await {
            // Somebody was faster, or the answer to an earlier try was lost.
            Err(error) if error.refusal().is_some_and(|refusal| refusal.status == StatusCode::CONFLICT) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

fn wrong_card(errors: &[String]) -> DestinationError {
    DestinationError::Unprepared(format!(
        "the Hub cannot read the metadata of {CARD}: {}; --card names a card of your own",
        errors.join("; ")
    ))
}

impl HubFile {
    async fn read(file: &PackedFile) -> std::io::Result<Self> {
        let (bytes, sha256) = hashed(&file.path).await?;
        let mut sample = Vec::new();
        tokio::fs::File::open(&file.path).await?.take(SAMPLE).read_to_end(&mut sample).await?;
        Ok(Self { name: file.name.clone(), path: file.path.clone(), bytes, sha256, sample })
    }

    /// Its SHA-256 in hexadecimal, by which large files are known.
    fn oid(&self) -> String {
        hex::encode(self.sha256)
    }
}
