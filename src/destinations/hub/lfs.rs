//! Large files: uploaded to where the Hub says, whole or in parts, by the batch interface of git-lfs.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, Response, StatusCode, Url, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ENDPOINT, Hub, HubFile};
use crate::destinations::{Advance, DestinationError, Refusal};

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

#[derive(Debug, Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<ObjectError>,
}

#[derive(Debug, Deserialize)]
struct ObjectError {
    code: u16,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Debug, Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Option<BTreeMap<String, Value>>,
}

/// How a file is uploaded.
#[derive(Debug, PartialEq, Eq)]
enum Transfer {
    /// At once.
    Whole(Url),
    /// In parts of so many bytes, each to a place of its own; then the last place gets to know their tags.
    Parts { size: u64, places: Vec<Url>, completion: Url },
}

/// Uploads what the Hub has not; the names of those that it has.
pub(super) async fn upload(
    hub: &Hub,
    files: &[&HubFile],
    advance: Advance<'_>,
) -> Result<Vec<String>, DestinationError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let mut open: BTreeSet<String> = files.iter().map(|file| file.oid()).collect();
    let mut known = Vec::new();
    for Object { oid, actions, error } in batch(hub, files).await? {
        let named = || files.iter().filter(|file| file.oid() == oid);
        let Some(file) = named().next().filter(|_| open.remove(&oid)) else { continue };
        if let Some(ObjectError { code, message }) = error {
            return Err(hub.service.unexpected(format!("it does not take {}: {message} ({code})", file.name)));
        }
        let Some(Actions { upload: Some(action), verify }) = actions else {
            known.extend(named().map(|file| file.name.clone()));
            continue;
        };
        put(hub, file, transfer(hub, file, &action)?, advance).await.map_err(|error| error.advised(expired))?;
        if let Some(verify) = verify {
            let url = hub.place(&verify.href)?;
            let body = json!({ "oid": oid, "size": file.bytes });
            hub.service.send(|| hub.service.request_elsewhere(Method::POST, url.clone()).json(&body)).await?;
        }
    }
    match open.first() {
        Some(oid) => Err(hub.service.unexpected(format!("it did not say where the file of the SHA-256 {oid} goes"))),
        None => Ok(known),
    }
}

/// What to do where a place for a file takes nothing: it is good for hours alone.
fn expired(refusal: &Refusal) -> Option<String> {
    let advice = "the place that the Hub gave for it may be good no longer: push again";
    (refusal.status == StatusCode::FORBIDDEN).then(|| advice.to_owned())
}

/// Asks where the files go.
async fn batch(hub: &Hub, files: &[&HubFile]) -> Result<Vec<Object>, DestinationError> {
    let object = |file: &&HubFile| json!({ "oid": file.oid(), "size": file.bytes });
    let body = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": files.iter().map(object).collect::<Vec<_>>(),
        "hash_algo": "sha256",
        "ref": { "name": hub.repository.revision() },
    });
    let repository = format!("{}.git", hub.repository.name);
    let url = hub.service.url([hub.repository.owner.as_str(), &repository, "info", "lfs", "objects", "batch"]);
    let request = || {
        let request = hub.service.request(Method::POST, url.clone());
        request.header(header::ACCEPT, MEDIA_TYPE).header(header::CONTENT_TYPE, MEDIA_TYPE).json(&body)
    };
    let answer = hub.service.send(request).await?;
    Ok(hub.service.json::<Batch>(answer).await?.objects)
}

/// Reads how the Hub wants a file: its parts' addresses are headers whose names are their numbers.
fn transfer(hub: &Hub, file: &HubFile, action: &Action) -> Result<Transfer, DestinationError> {
    let url = hub.place(&action.href)?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let header = action.header.iter().flatten().map(|(name, value)| (name.as_str(), text(value)));
    let header: BTreeMap<&str, String> = header.collect();
    let Some(size) = header.get("chunk_size") else { return Ok(Transfer::Whole(url)) };
    let size: Option<u64> = size.parse().ok().filter(|size| *size > 0);
    let mut places: Vec<(u64, &String)> =
        header.iter().filter_map(|(name, place)| Some((name.parse().ok()?, place))).collect();
    places.sort_unstable();
    match size {
        Some(size) if file.bytes.div_ceil(size) == places.len() as u64 => {
            let places = places.into_iter().map(|(_, place)| hub.service.parsed(place)).collect::<Result<_, _>>()?;
            Ok(Transfer::Parts { size, places, completion: url })
        }
        _ => Err(hub.service.unexpected(format!("its parts of {} make up no file of {} bytes", file.name, file.bytes))),
    }
}

async fn put(hub: &Hub, file: &HubFile, transfer: Transfer, advance: Advance<'_>) -> Result<(), DestinationError> {
    let advance = |bytes| advance(&file.name, bytes, file.bytes);
    match transfer {
        Transfer::Whole(url) => {
            let request = || hub.service.signed(Method::PUT, url.clone());
            hub.service.send_file(request, &file.path, 0..file.bytes, &advance).await.map(drop)
        }
        Transfer::Parts { size, places, completion } => {
            let mut parts = Vec::new();
            for (number, place) in (1..).zip(places) {
                let (begin, end) = ((number - 1) * size, (number * size).min(file.bytes));
                let request = || hub.service.signed(Method::PUT, place.clone());
                let answer = hub.service.send_file(request, &file.path, begin..end, &advance).await?;
                let tag = tag(&answer).ok_or_else(|| {
                    hub.service.unexpected(format!("part {number} of {} was taken without an ETag", file.name))
                })?;
                parts.push(json!({ "partNumber": number, "etag": tag }));
            }
            let body = json!({ "oid": file.oid(), "parts": parts });
            let request = || {
                let request = hub.service.signed(Method::POST, completion.clone());
                request.header(header::ACCEPT, MEDIA_TYPE).header(header::CONTENT_TYPE, MEDIA_TYPE).json(&body)
            };
            hub.service.send(request).await.map(drop)
        }
    }
}

fn tag(answer: &Response) -> Option<String> {
    let tag = answer.headers().get(header::ETAG)?.to_str().ok()?;
    (!tag.is_empty()).then(|| tag.to_owned())
}

impl Hub {
    /// A place that the Hub has named; where it is used through another address, so are the places on it.
    fn place(&self, href: &str) -> Result<Url, DestinationError> {
        match href.strip_prefix(ENDPOINT) {
            Some(rest) if rest.starts_with('/') => self.service.parsed(&format!("{}{rest}", self.endpoint)),
            _ => self.service.parsed(href),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::service::{Credentials, Service};

    fn hub() -> Hub {
        let endpoint = "http://hub.example".to_owned();
        let service = Service::new("the Hub", &endpoint, Credentials::Nobody).expect("an address");
        Hub { service, repository: "org/letters".parse().expect("a name"), endpoint }
    }

    fn read(bytes: u64, action: Value) -> Result<Transfer, DestinationError> {
        let file = HubFile { name: "m".to_owned(), path: "m".into(), bytes, sha256: [0; 32], sample: Vec::new() };
        transfer(&hub(), &file, &serde_json::from_value(action).expect("an action"))
    }

    #[test]
    fn parts_come_in_the_order_of_their_numbers_and_make_up_the_file() {
        let url = |text: &str| Url::parse(text).expect("an address");
        let names = (1..=10).map(|part| (format!("{part:05}"), Value::from(format!("http://store.example/{part}"))));
        let mut header: serde_json::Map<String, Value> = names.collect();
        header.insert("chunk_size".to_owned(), "10".into());
        let action = json!({ "href": "https://huggingface.co/complete?x=1", "header": header });
        let Ok(Transfer::Parts { size: 10, places, completion }) = read(91, action.clone()) else { panic!("parts") };
        assert_eq!(
            (places[1].clone(), places[9].clone()),
            (url("http://store.example/2"), url("http://store.example/10"))
        );
        assert_eq!(completion, url("http://hub.example/complete?x=1"), "through the address that is used");
        for bytes in [90, 101] {
            assert!(read(bytes, action.clone()).is_err(), "{bytes} bytes are not ten parts of 10");
        }
        let whole = read(91, json!({ "href": "http://store.example/m?signature=1" }));
        assert_eq!(whole.expect("whole"), Transfer::Whole(url("http://store.example/m?signature=1")));
        assert!(read(91, json!({ "href": "/m" })).is_err());
        assert!(read(91, json!({ "href": "http://a/", "header": { "chunk_size": "0" } })).is_err());
    }
}
