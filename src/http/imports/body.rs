//! What clients write about a file that is to be fetched.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::name::FileName;
use crate::domain::problem::{Fault, FaultCode, Problem};
use crate::domain::remote_file::RemoteFile;
use crate::store::files::Kind;
use crate::store::imports::NewImport;

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

/// Fields as they are read, and what is wrong with them.
struct Reader<'a> {
    body: &'a Value,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    /// The field `name` as `read` has it; none where it is absent or wrong.
    fn field<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.body.get(name).filter(|value| !value.is_null())?;
        read(value)
            .map_err(|detail| self.faults.push(Fault::new(format!("/{name}"), FaultCode::InvalidValue, detail)))
            .ok()
    }

    fn required<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        if self.body.get(name).is_none_or(Value::is_null) {
            self.faults.push(Fault::new(format!("/{name}"), FaultCode::MissingField, format!("expected {what}")));
        }
        self.field(name, read)
    }
}

/// Reads a body.
///
/// # Errors
/// `invalid_request` with every fault.
pub(super) fn read(body: &Value) -> Result<NewImport, Problem> {
    const KNOWN: [&str; 6] = ["kind", "from", "name", "sha256", "labels", "token"];
    let Some(fields) = body.as_object() else {
        return Err(Problem::faults(vec![Fault::new("", FaultCode::InvalidType, "expected a JSON object")]));
    };
    let mut reader = Reader { body, faults: Vec::new() };
    let kind = reader.required("kind", "`checkpoint` or `dataset`", kind);
    let source: Option<RemoteFile> = reader.required("from", "the address of the file", |value| text(value)?.parse());
    let name = reader.field("name", |value| text(value)?.parse::<FileName>().map_err(|error| error.to_string()));
    let sha256 = reader.field("sha256", digest);
    let labels = reader.field("labels", labels).unwrap_or_default();
    let token = reader.field("token", token);
    let mut faults = reader.faults;
    for name in fields.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
        let detail = format!("the field is unknown; known are {}", KNOWN.join(", "));
        faults.push(Fault::new(format!("/{name}"), FaultCode::UnknownField, detail));
    }
    let own_name = source
        .as_ref()
        .map(RemoteFile::file_name)
        .filter(|_| name.is_none() && fields.get("name").is_none_or(Value::is_null));
    let name = match own_name.map(str::parse::<FileName>) {
        Some(Ok(own)) => Some(own),
        Some(Err(error)) => {
            let detail = format!("expected a name, since the address ends with none: {error}");
            faults.push(Fault::new("/name", FaultCode::MissingField, detail));
            None
        }
        None => name,
    };
    match (kind, source, name) {
        (Some(kind), Some(source), Some(name)) if faults.is_empty() => {
            Ok(NewImport { kind, name, source, sha256, labels, token })
        }
        _ => Err(Problem::faults(faults)),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a text, got {value}"))
}

fn kind(value: &Value) -> Result<Kind, String> {
    match value.as_str() {
        Some("checkpoint") => Ok(Kind::Checkpoint),
        Some("dataset") => Ok(Kind::Dataset),
        _ => Err(format!("expected `checkpoint` or `dataset`, got {value}")),
    }
}

fn digest(value: &Value) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    let read = hex::decode_to_slice(text(value)?, &mut bytes);
    read.map(|()| bytes).map_err(|_| format!("expected 64 hexadecimal digits, got {value}"))
}

fn labels(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let wrong =
        || format!("expected texts by name, each of at most {LONGEST_LABEL} bytes, as in {{\"team\": \"vision\"}}");
    let fields = value.as_object().ok_or_else(wrong)?;
    let label = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| value.len() <= LONGEST_LABEL && name.len() <= LONGEST_LABEL)?;
        (!name.is_empty()).then(|| (name.clone(), value.to_owned()))
    };
    fields.iter().map(|field| label(field).ok_or_else(wrong)).collect()
}

fn token(value: &Value) -> Result<String, String> {
    // The value itself is never shown.
    let token = value.as_str().filter(|token| (1..=LONGEST_TOKEN).contains(&token.len()));
    let token = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    token.map(str::to_owned).ok_or_else(|| format!("expected 1 to {LONGEST_TOKEN} visible characters"))
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
