//! Where the bytes of checkpoints, datasets and results are kept.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// Where blobs are, as `--blobs` names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum BlobLocation {
    /// The folder `blobs` of the data directory.
    #[default]
    DataDir,
    /// `file:DIR`: another folder.
    Folder(PathBuf),
    /// `s3://BUCKET/PREFIX`: objects of a bucket, all below the prefix.
    Bucket {
        /// The bucket.
        name: String,
        /// What all keys begin with; empty for none.
        prefix: String,
    },
}

impl FromStr for BlobLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::DataDir);
        }
        let wrong = |why: &str| format!("expected `file:DIR` or `s3://BUCKET/PREFIX`, got `{text}`: {why}");
        if let Some(folder) = text.strip_prefix("file:") {
            let folder = folder.strip_prefix("//").unwrap_or(folder);
            return if folder.is_empty() { Err(wrong("there is no folder")) } else { Ok(Self::Folder(folder.into())) };
        }
        let Some(rest) = text.strip_prefix("s3://") else { return Err(wrong("it is neither of them")) };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_of_name) {
            return Err(wrong("the name of a bucket has letters, digits, `-`, `.` and `_`"));
        }
        let prefix = prefix.trim_matches('/');
        let is_segment = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
        if !prefix.is_empty() && !prefix.split('/').all(is_segment) {
            return Err(wrong("the prefix has an empty part, `.` or `..`"));
        }
        Ok(Self::Bucket { name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

impl TryFrom<String> for BlobLocation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for BlobLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir => f.write_str("below the data directory"),
            Self::Folder(folder) => write!(f, "file:{}", folder.display()),
            Self::Bucket { name, prefix } if prefix.is_empty() => write!(f, "s3://{name}"),
            Self::Bucket { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_read_as_they_are_written() {
        let bucket = |name: &str, prefix: &str| BlobLocation::Bucket { name: name.into(), prefix: prefix.into() };
        for (text, expected, written) in [
            ("file:/srv/blobs", BlobLocation::Folder("/srv/blobs".into()), "file:/srv/blobs"),
            ("file:///srv/blobs", BlobLocation::Folder("/srv/blobs".into()), "file:/srv/blobs"),
            ("file:blobs", BlobLocation::Folder("blobs".into()), "file:blobs"),
            ("s3://models", bucket("models", ""), "s3://models"),
            ("s3://models/a/b/", bucket("models", "a/b"), "s3://models/a/b"),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()));
            assert_eq!(expected.to_string(), written);
        }
        assert_eq!("".parse(), Ok(BlobLocation::DataDir));
        for wrong in ["/srv/blobs", "file:", "s3://", "s3:///a", "s3://a b", "s3://models/a/../b", "gs://models"] {
            assert!(wrong.parse::<BlobLocation>().is_err(), "{wrong}");
        }
    }
}
