//! What a client says about the file that it is about to send: `Upload-Metadata`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::UPLOAD_METADATA;
use crate::domain::name::FileName;
use crate::domain::problem::{Code, Problem};
use crate::store::files::Kind;

/// Most bytes of it.
const LONGEST: usize = 8 << 10;
const LONGEST_LABEL: usize = 256;
/// What stands before the name of a label.
const LABEL: &str = "label.";

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    /// What it becomes: `kind`.
    pub(super) kind: Kind,
    /// What it will be called: `name`, or `filename`.
    pub(super) name: FileName,
    /// Its owner's labels: `label.NAME`.
    pub(super) labels: BTreeMap<String, String>,
    /// As the client said it.
    pub(super) text: String,
}

impl Metadata {
    /// Reads the header.
    ///
    /// # Errors
    /// `bad_request` that says what is missing or wrong.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = headers.get(UPLOAD_METADATA).map(|value| value.to_str().unwrap_or_default()).unwrap_or_default();
        Self::parse(text)
    }

    /// Reads its value.
    ///
    /// # Errors
    /// `bad_request` that says what is missing or wrong.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Code::BadRequest, detail);
        if text.len() > LONGEST {
            return Err(bad(format!("Upload-Metadata has {} bytes; expected at most {LONGEST}.", text.len())));
        }
        let mut values = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            let value = STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let value =
                value.ok_or_else(|| bad(format!("Upload-Metadata: the value of `{key}` is no text in Base64.")))?;
            if values.insert(key, value).is_some() {
                return Err(bad(format!("Upload-Metadata has `{key}` twice.")));
            }
        }
        let kind = match values.get("kind").map(String::as_str) {
            Some("checkpoint") => Kind::Checkpoint,
            Some("dataset") => Kind::Dataset,
            _ => return Err(bad("Upload-Metadata: expected `kind`, either `checkpoint` or `dataset`.".to_owned())),
        };
        let name = values.get("name").or_else(|| values.get("filename"));
        let name = name.ok_or_else(|| bad("Upload-Metadata: expected `name` or `filename`.".to_owned()))?;
        let name = name.parse().map_err(|error| bad(format!("Upload-Metadata: {error}.")))?;
        let mut labels = BTreeMap::new();
        for (key, value) in &values {
            let Some(label) = key.strip_prefix(LABEL) else { continue };
            if label.is_empty() || label.len() > LONGEST_LABEL || value.len() > LONGEST_LABEL {
                return Err(bad(format!("Upload-Metadata: a label has a name and at most {LONGEST_LABEL} bytes.")));
            }
            labels.insert(label.to_owned(), value.clone());
        }
        Ok(Self { kind, name, labels, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> String {
        format!("{key} {}", STANDARD.encode(value))
    }

    #[test]
    fn names_kinds_and_labels_are_read_and_what_others_say_is_kept() {
        let text = [
            pair("filename", "m0.pt"),
            pair("kind", "checkpoint"),
            pair("label.team", "vision"),
            "relativePath".to_owned(),
        ]
        .join(",");
        let read = Metadata::parse(&text).expect("metadata");
        assert_eq!(
            (read.kind, read.name.as_str(), read.labels["team"].as_str()),
            (Kind::Checkpoint, "m0.pt", "vision")
        );
        assert_eq!(read.text, text);
        let both = [pair("filename", "C:\\m0"), pair("name", "m0"), pair("kind", "dataset")].join(",");
        assert_eq!(Metadata::parse(&both).expect("metadata").name.as_str(), "m0");
    }

    #[test]
    fn what_is_missing_is_named() {
        let (kind, name) = (pair("kind", "dataset"), pair("name", "d.zip"));
        for (text, said) in [
            (name.clone(), "`kind`"),
            (kind.clone(), "`name` or `filename`"),
            (format!("{kind},{}", pair("name", "a/b")), "characters"),
            (format!("{kind},{name},{kind}"), "twice"),
            (format!("{kind},name !!"), "Base64"),
            (format!("{kind},{name},{}", pair("label.", "x")), "label"),
            ("x".repeat(9000), "at most"),
        ] {
            let refused = Metadata::parse(&text).expect_err(said);
            assert!(refused.detail.contains(said), "{refused}");
        }
    }
}
