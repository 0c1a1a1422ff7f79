//! What clients write about a file that is to be fetched.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::name::{FileName, NameError};
use crate::domain::problem::{FaultCode, Problem};
use crate::domain::remote_file::RemoteFile;
use crate::plan::parse::reader::{UnplacedFault, choice, refuse, whole};
use crate::store::files::Kind;
use crate::store::imports::WantedFile;

/// Most bytes of a label's name or value, and of a token.
const LONGEST_LABEL: usize = 256;
const LONGEST_TOKEN: usize = 4096;

/// A file that is to be fetched.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "for the description of the API; bodies are read by hand, so that every fault is named at once"
)]
pub(super) struct ImportRequest {
    /// What it becomes.
    kind: FileKind,
    /// Where it is: `https://HOST/FILE`, `hf://ORG/NAME@REVISION/FILE`, `hf://datasets/ORG/NAME@REVISION/FILE` or `s3://BUCKET/KEY`.
    #[schema(max_length = 4096, example = "hf://timm/resnet18.a1_in1k@main/model.safetensors")]
    from: String,
    /// What it will be called; the last part of its address by default.
    #[schema(max_length = 128, example = "m0.safetensors")]
    name: Option<String>,
    /// The SHA-256 that it must have, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$", example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    sha256: Option<String>,
    /// The client's own labels.
    #[schema(example = json!({"team": "vision"}))]
    labels: Option<BTreeMap<String, String>>,
    /// Sent to the host of the file as `Authorization: Bearer …`, and to no other; forgotten once the import has ended.
    #[schema(max_length = 4096, example = "hf_…")]
    token: Option<String>,
}

/// What a file is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum FileKind {
    /// Weights of a network.
    Checkpoint,
    /// Data to train and to measure with.
    Dataset,
}

/// Reads a body.
///
/// # Errors
/// `invalid_request` with every fault.
pub(super) fn read(body: &Value) -> Result<WantedFile, Problem> {
    let kinds = [("checkpoint", Some(Kind::Checkpoint)), ("dataset", Some(Kind::Dataset))];
    let import = whole(body, |body| {
        let kind = body.required("kind", "`checkpoint` or `dataset`", choice(&kinds));
        let source = body
            .required("from", "the address of the file", |value| text_of(value)?.parse().or_else(refuse::<RemoteFile>));
        let name = match body.value("name") {
            Some(_) => body.field("name", |value| named(text_of(value)?)),
            None => source.as_ref().and_then(|source| named(source.file_name()).ok()),
        };
        if name.is_none() && source.is_some() && body.value("name").is_none() {
            body.fault("name", FaultCode::MissingField, "expected a name, since the address ends with none");
        }
        let sha256 = body.field("sha256", digest);
        let labels = body.field("labels", labels).unwrap_or_default();
        let token = body.field("token", token);
        Some(WantedFile { kind: kind?, name: name?, source: source?, sha256, labels, token })
    });
    import.map_err(Problem::faults)
}

fn text_of(value: &Value) -> Result<&str, UnplacedFault> {
    value.as_str().map_or_else(|| refuse(format!("expected a text, got {value}")), Ok)
}

fn named(text: &str) -> Result<FileName, UnplacedFault> {
    text.parse().or_else(|error: NameError| refuse(error.to_string()))
}

fn digest(value: &Value) -> Result<[u8; 32], UnplacedFault> {
    let mut bytes = [0; 32];
    let read = hex::decode_to_slice(text_of(value)?, &mut bytes);
    read.map(|()| bytes).or_else(|_| refuse(format!("expected 64 hexadecimal digits, got {value}")))
}

fn labels(value: &Value) -> Result<BTreeMap<String, String>, UnplacedFault> {
    let label = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| value.len() <= LONGEST_LABEL && name.len() <= LONGEST_LABEL)?;
        (!name.is_empty()).then(|| (name.clone(), value.to_owned()))
    };
    let read = value.as_object().and_then(|fields| fields.iter().map(label).collect());
    let expected = "expected texts by name, each of at most";
    read.map_or_else(|| refuse(format!("{expected} {LONGEST_LABEL} bytes, as in {{\"team\": \"vision\"}}")), Ok)
}

fn token(value: &Value) -> Result<String, UnplacedFault> {
    // The value itself is never shown.
    let token = value.as_str().filter(|token| (1..=LONGEST_TOKEN).contains(&token.len()));
    let token = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    token.map_or_else(
        || refuse(format!("expected 1 to {LONGEST_TOKEN} visible characters")),
        |token| Ok(token.to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_is_named_and_no_token_is() {
        let digest = "ab".repeat(32);
        let body = json!({"kind": "dataset", "from": "s3://bucket/a/train.zip", "sha256": digest, "labels": {"team": "vision"}, "token": "t"});
        let import = read(&body).expect("an import");
        assert_eq!((import.kind, import.name.as_str(), import.sha256), (Kind::Dataset, "train.zip", Some([0xab; 32])));
        assert_eq!(
            read(&json!({"kind": "checkpoint", "from": "s3://bucket/m", "name": "x.pt"}))
                .expect("an import")
                .name
                .as_str(),
            "x.pt"
        );
        let pointers = |body: Value| -> Vec<String> {
            let faults = read(&body).expect_err("faults").errors;
            assert!(faults.iter().all(|fault| !fault.detail.contains("hunter2")));
            faults.into_iter().map(|fault| fault.pointer).collect()
        };
        assert_eq!(pointers(json!({})), ["/kind", "/from"]);
        let wrong = json!({"kind": "model", "from": "m.pt", "name": "a/b", "sha256": "x", "labels": {"": "a"}, "token": "hunter2 x", "size": 1});
        assert_eq!(pointers(wrong), ["/kind", "/from", "/name", "/sha256", "/labels", "/token", "/size"]);
        assert_eq!(pointers(json!({"kind": "dataset", "from": "https://a.example/"})), ["/name"]);
        assert_eq!(pointers(json!([])), [""]);
    }
}
