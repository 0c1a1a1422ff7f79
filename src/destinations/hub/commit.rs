//! What differs between the files and the repository, and the commit that brings it there.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::advice::NO_REVISION;
use super::{Hub, HubFile};
use crate::destinations::DestinationError;

/// Most bytes of a file that goes into a commit itself; the Hub asks for larger ones to be uploaded before.
const MOST_SMALL: u64 = 32 << 20;

/// What becomes of each file.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    /// Uploaded before the commit, which names them.
    pub(super) large: Vec<&'a HubFile>,
    /// A part of the commit.
    pub(super) small: Vec<&'a HubFile>,
    /// The same in the repository.
    pub(super) unchanged: Vec<&'a HubFile>,
    /// The repository's `.gitignore` names them.
    pub(super) ignored: Vec<&'a HubFile>,
}

#[derive(Debug, Deserialize)]
struct Preupload {
    files: Vec<Ruling>,
}

/// How the Hub wants a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ruling {
    path: String,
    upload_mode: UploadMode,
    #[serde(default)]
    should_ignore: bool,
    /// What the repository has under this name: SHA-256 of a large file, git's SHA-1 of a small one.
    oid: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UploadMode {
    Lfs,
    Regular,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_url: String,
}

impl Hub {
    /// Asks the Hub what it has, and how it wants what it has not. A branch that is not there is made.
    pub(super) async fn changes<'a>(&self, files: &'a [HubFile]) -> Result<Changes<'a>, DestinationError> {
        let rulings = match self.preupload(files).await {
            Err(error) if error.refusal().is_some_and(|refusal| refusal.is(NO_REVISION)) => {
                self.branch(error).await?;
                self.preupload(files).await?
            }
            rulings => rulings?,
        };
        let rulings: BTreeMap<String, Ruling> =
            rulings.into_iter().map(|ruling| (ruling.path.clone(), ruling)).collect();
        let mut changes = Changes::default();
        for file in files {
            let Some(ruling) = rulings.get(&file.name) else {
                return Err(self.service.unexpected(format!("it did not say how it wants {}", file.name)));
            };
            // What is empty cannot be uploaded.
            let is_large = ruling.upload_mode == UploadMode::Lfs && file.bytes > 0;
            if !is_large && file.bytes > MOST_SMALL {
                let what = format!(
                    "it wants the {} bytes of {} within a commit, which takes {MOST_SMALL}",
                    file.bytes, file.name
                );
                return Err(self.service.unexpected(what));
            }
            let is_same = match &ruling.oid {
                None => false,
                Some(oid) if is_large => *oid == file.oid(),
                Some(oid) => *oid == git_oid(&content(&file.path).await?),
            };
            let place = match (ruling.should_ignore, is_same, is_large) {
                (true, ..) => &mut changes.ignored,
                (_, true, _) => &mut changes.unchanged,
                (_, _, true) => &mut changes.large,
                _ => &mut changes.small,
            };
            place.push(file);
        }
        Ok(changes)
    }

    async fn preupload(&self, files: &[HubFile]) -> Result<Vec<Ruling>, DestinationError> {
        let file =
            |file: &HubFile| json!({ "path": file.name, "sample": STANDARD.encode(&file.sample), "size": file.bytes });
        let body = json!({ "files": files.iter().map(file).collect::<Vec<_>>() });
        let url = self.service.url(self.path(&["preupload", self.repository.revision()]));
        let answer = self.service.send(|| self.service.request(Method::POST, url.clone()).json(&body)).await?;
        Ok(self.service.json::<Preupload>(answer).await?.files)
    }

    /// Makes the branch; `missing` is what the Hub said of it.
    async fn branch(&self, missing: DestinationError) -> Result<(), DestinationError> {
        let revision = self.repository.revision();
        // Requests to pull are opened by people.
        if revision.starts_with("refs/") {
            return Err(missing);
        }
        let url = self.service.url(self.path(&["branch", revision]));
        self.service.send(|| self.service.request(Method::POST, url.clone()).json(&json!({}))).await.map(drop)
    }

    /// Makes the commit; its address.
    pub(super) async fn commit(
        &self,
        summary: &str,
        large: &[&HubFile],
        small: &[&HubFile],
    ) -> Result<String, DestinationError> {
        let mut body = Vec::new();
        let mut line = |key: &str, value: Value| {
            body.extend_from_slice(json!({ "key": key, "value": value }).to_string().as_bytes());
            body.push(b'\n');
        };
        line("header", json!({ "summary": summary, "description": "" }));
        for file in small {
            let content = STANDARD.encode(content(&file.path).await?);
            line("file", json!({ "content": content, "path": file.name, "encoding": "base64" }));
        }
        for file in large {
            line("lfsFile", json!({ "path": file.name, "algo": "sha256", "oid": file.oid(), "size": file.bytes }));
        }
        let url = self.service.url(self.path(&["commit", self.repository.revision()]));
        let request = self.service.request(Method::POST, url).header(header::CONTENT_TYPE, "application/x-ndjson");
        let answer = self.service.send_once(request.body(body)).await?;
        Ok(self.service.json::<Committed>(answer).await?.commit_url)
    }
}

async fn content(path: &Path) -> Result<Vec<u8>, DestinationError> {
    tokio::fs::read(path).await.map_err(DestinationError::file(path))
}

/// By what git knows a file.
fn git_oid(content: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(format!("blob {}\0", content.len()));
    digest.update(content);
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_names_that_git_gives_them() {
        // `printf 'hello\n' | git hash-object --stdin`, and of nothing.
        assert_eq!(git_oid(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(git_oid(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }
}
