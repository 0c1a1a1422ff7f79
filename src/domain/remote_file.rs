//! Files elsewhere, by the addresses that people write for them.

use url::Url;

/// A file that is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteFile {
    /// `https://host/path`, or `http`.
    Web(Url),
    /// `hf://org/name@revision/file`, and `hf://datasets/org/name@revision/file`: a file in a repository of the Hugging Face Hub.
    Hub(HubFile),
    /// `s3://bucket/key`: an object in a bucket.
    Object {
        /// The bucket.
        bucket: String,
        /// The object's name.
        key: String,
    },
}

/// A file in a repository of the Hugging Face Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// `org/name`, after `datasets/` or `spaces/` where it is no model.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// Its path in the repository.
    pub path: String,
}

impl HubFile {
    /// Where the Hub at `endpoint` serves it.
    ///
    /// # Errors
    /// Where `endpoint` can have no path.
    pub fn url(&self, endpoint: &Url) -> Result<Url, String> {
        let mut url = endpoint.clone();
        let error = |()| format!("`{endpoint}` is no address of a Hub");
        let mut segments = url.path_segments_mut().map_err(error)?;
        segments.pop_if_empty().extend(self.repository.split('/')).push("resolve").push(&self.revision);
        segments.extend(self.path.split('/'));
        drop(segments);
        Ok(url)
    }
}

/// Most bytes of an address.
const LONGEST: usize = 4096;

impl RemoteFile {
    /// The last part of its path, which is its name where nothing else is said.
    #[must_use]
    pub fn file_name(&self) -> &str {
        let path = match self {
            Self::Web(url) => url.path(),
            Self::Hub(file) => &file.path,
            Self::Object { key, .. } => key,
        };
        path.rsplit('/').next().unwrap_or_default()
    }
}

impl std::fmt::Display for RemoteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Web(url) => write!(f, "{url}"),
            Self::Hub(HubFile { repository, revision, path }) => write!(f, "hf://{repository}@{revision}/{path}"),
            Self::Object { bucket, key } => write!(f, "s3://{bucket}/{key}"),
        }
    }
}

impl std::str::FromStr for RemoteFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected `https://HOST/FILE`, `hf://ORG/NAME@REVISION/FILE`, `hf://datasets/ORG/NAME@REVISION/FILE` or `s3://BUCKET/KEY`";
        let refused = |why: &str| format!("{EXPECTED}: {why}");
        if text.len() > LONGEST {
            return Err(refused(&format!("this one has more than {LONGEST} bytes")));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(refused("this is no address"));
        };
        match scheme {
            "https" | "http" => web(text).map_err(|why| refused(&why)),
            "hf" => hub(rest).map_err(refused),
            "s3" => object(rest).map_err(refused),
            _ => Err(refused(&format!("`{scheme}` is another kind of address"))),
        }
    }
}

fn web(text: &str) -> Result<RemoteFile, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it may hold no name and no password; `token` is for those".to_owned());
    }
    if url.fragment().is_some() {
        return Err("what follows `#` is never sent".to_owned());
    }
    Ok(RemoteFile::Web(url))
}

fn hub(rest: &str) -> Result<RemoteFile, &'static str> {
    let (kind, rest) = match rest.split_once('/') {
        Some((kind @ ("datasets" | "spaces"), rest)) => (Some(kind), rest),
        _ => (None, rest),
    };
    let mut parts = rest.splitn(3, '/');
    let (Some(org), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("a repository and a file in it are needed");
    };
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    // As the Hub's own addresses have it, a branch `refs/pr/1` is written `refs%2Fpr%2F1`.
    let revision = revision.replace("%2F", "/").replace("%2f", "/");
    let is_name = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !is_name(org) || !is_name(name) {
        return Err("names of organisations and repositories consist of letters, digits, `-`, `_` and `.`");
    }
    if revision.is_empty() || !is_path(&revision) || !is_path(path) {
        return Err("a revision and a path have no empty parts, and none that is `.` or `..`");
    }
    let kind = kind.map(|kind| format!("{kind}/")).unwrap_or_default();
    Ok(RemoteFile::Hub(HubFile { repository: format!("{kind}{org}/{name}"), revision, path: path.to_owned() }))
}

fn object(rest: &str) -> Result<RemoteFile, &'static str> {
    let Some((bucket, key)) = rest.split_once('/') else { return Err("a key is needed") };
    let is_bucket = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    if !is_bucket {
        return Err("a bucket has 3 to 63 lower-case letters, digits, `-` and `.`");
    }
    if !is_path(key) {
        return Err("a key has no empty parts, and none that is `.` or `..`");
    }
    Ok(RemoteFile::Object { bucket: bucket.to_owned(), key: key.to_owned() })
}

/// Whether a path has parts only that lead to what they say.
fn is_path(text: &str) -> bool {
    text.split('/').all(|part| !matches!(part, "" | "." | "..")) && !text.contains(['?', '#', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RemoteFile {
        text.parse().expect(text)
    }

    #[test]
    fn addresses_are_read_as_their_owners_write_them() {
        for (text, name) in [
            ("https://models.example/a/m0.safetensors?sig=1", "m0.safetensors"),
            ("hf://timm/resnet18.a1_in1k@main/model.safetensors", "model.safetensors"),
            ("hf://datasets/ylecun/mnist@refs/convert/mnist/train.parquet", "train.parquet"),
            ("s3://bucket-1/runs/7/m0.pt", "m0.pt"),
        ] {
            assert_eq!(read(text).file_name(), name);
            assert_eq!(read(&read(text).to_string()), read(text), "{text} is read as it is shown");
        }
        assert_eq!(read("hf://timm/resnet18/model.safetensors"), read("hf://timm/resnet18@main/model.safetensors"));
    }

    #[test]
    fn the_hub_serves_files_at_its_addresses() {
        let endpoint = Url::parse("https://huggingface.co").expect("an address");
        let url = |text: &str| match read(text) {
            RemoteFile::Hub(file) => file.url(&endpoint).expect("an address").to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(url("hf://timm/r18/a/m.pt"), "https://huggingface.co/timm/r18/resolve/main/a/m.pt");
        assert_eq!(
            url("hf://datasets/o/d@refs%2Fpr%2F1/x y.parquet"),
            "https://huggingface.co/datasets/o/d/resolve/refs%2Fpr%2F1/x%20y.parquet"
        );
    }

    #[test]
    fn what_is_no_address_of_a_file_is_refused() {
        for wrong in [
            "m0.safetensors",
            "ftp://a/b",
            "https://u:p@a/b",
            "https://a/b#c",
            "https://",
            "hf://org/name",
            "hf://name/f@x",
            "hf://org/na me/f",
            "hf://org/../f",
            "hf://org/name/../../f",
            "hf://org/name@/f",
            "hf://org/name@a//b/f",
            "s3://bucket",
            "s3://B/k",
            "s3://bucket/",
            "s3://bucket/a/../b",
            "s3://bucket/a?b",
        ] {
            let refused = wrong.parse::<RemoteFile>().expect_err(wrong);
            assert!(refused.starts_with("expected `https://HOST/FILE`"), "{refused}");
        }
    }
}
