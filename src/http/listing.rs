//! Lists: `?limit=&after=&state=&label=k=v` to `{data, has_more, next_after}`.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::domain::problem::{Fault, FaultCode, Problem};
use crate::store::listing::Listing;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;
const LONGEST_LABEL: usize = 256;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The entries of this page.
    pub data: Vec<T>,
    /// Whether more entries follow.
    pub has_more: bool,
    /// The value of `after` that selects the next page.
    pub next_after: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit` entries from one more, where there are more; `id` names an entry.
    pub fn of<R>(limit: usize, mut rows: Vec<R>, id: impl Fn(&R) -> String, view: impl Fn(R) -> T) -> Self {
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_after = rows.last().filter(|_| has_more).map(id);
        Self { data: rows.into_iter().map(view).collect(), has_more, next_after }
    }
}

/// The query of a list; for the API's description.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by hand, for the labels")]
pub struct ListParameters {
    /// The most entries of a page, 1 to 200.
    #[param(example = 50, default = 50, minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// The `next_after` of the previous page.
    after: Option<String>,
    /// Selects the entries in this state.
    state: Option<String>,
    /// Selects the entries with this label, as `NAME=VALUE`; given several times, those with all of them.
    #[param(style = Form, explode, example = json!(["team=vision"]))]
    label: Option<Vec<String>>,
}

/// The labels that an upload gives its file; for the API's description.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by hand, as those of lists are")]
pub struct UploadParameters {
    /// A label for the file, as `NAME=VALUE`, each of at most 256 bytes; may be given several times.
    #[param(style = Form, explode, example = json!(["team=vision"]))]
    label: Option<Vec<String>>,
}

/// Pairs of a query string, decoded.
#[must_use]
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    let split = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(split).collect()
}

/// Undoes percent-encoding; bytes that are not UTF-8 become replacement characters.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The parameter that holds a label.
const LABEL: &str = "label";

/// Adds the label that a parameter `label=NAME=VALUE` holds.
fn add_label(labels: &mut BTreeMap<String, String>, text: &str) -> Result<(), Fault> {
    let fault = |detail| Fault::new(format!("/query/{LABEL}"), FaultCode::InvalidValue, detail);
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(fault(format!("expected NAME=VALUE, as in ?label=team=vision, got `{text}`")));
    };
    match labels.insert(name.to_owned(), value.to_owned()) {
        Some(other) if other != value => {
            Err(fault(format!("expected one value of `{name}`, got `{other}` and `{value}`")))
        }
        _ => Ok(()),
    }
}

/// A parameter that is not known, where `known` are.
fn unknown(key: &str, known: &str) -> Fault {
    let meant = match key.strip_prefix("label.") {
        Some(name) => format!("; a label is asked for as label={name}=VALUE"),
        None => String::new(),
    };
    let detail = format!("the parameter is unknown; known are {known}{meant}");
    Fault::new(format!("/query/{key}"), FaultCode::UnknownParameter, detail)
}

/// Reads the query of a list whose entries can be in one of `states`.
///
/// # Errors
/// `invalid_request` with a fault for each parameter that is unknown or wrong.
pub fn parse(query: &str, states: &[&str]) -> Result<Listing, Problem> {
    let pairs = pairs(query);
    let mut listing = Listing { limit: DEFAULT_LIMIT, after: None, state: None, labels: BTreeMap::new() };
    let mut faults = Vec::new();
    for (key, value) in pairs {
        let mut wrong =
            |detail: String| faults.push(Fault::new(format!("/query/{key}"), FaultCode::InvalidValue, detail));
        match key.as_str() {
            "limit" => match value.parse() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => listing.limit = limit,
                _ => wrong(format!("expected a number from 1 to {MAX_LIMIT}, got `{value}`")),
            },
            "after" => listing.after = Some(value),
            "state" if states.contains(&value.as_str()) => listing.state = Some(value),
            "state" if !states.is_empty() => wrong(format!("expected one of {}, got `{value}`", states.join(", "))),
            LABEL => faults.extend(add_label(&mut listing.labels, &value).err()),
            _ => faults.push(unknown(&key, "limit, after, state and label")),
        }
    }
    if faults.is_empty() { Ok(listing) } else { Err(Problem::faults(faults)) }
}

/// Reads the query of a list whose entries have neither states nor labels to choose by.
///
/// # Errors
/// `invalid_request` with a fault for each parameter that is unknown or wrong.
pub fn parse_unlabelled(query: &str) -> Result<Listing, Problem> {
    let unknown = |(key, _): &(String, String)| !matches!(key.as_str(), "limit" | "after");
    let fault = |(key, _): &(String, String)| {
        Fault::new(
            format!("/query/{key}"),
            FaultCode::UnknownParameter,
            "the parameter is unknown; known are limit and after",
        )
    };
    let faults: Vec<Fault> = pairs(query).iter().filter(|pair| unknown(pair)).map(fault).collect();
    if faults.is_empty() { parse(query, &[]) } else { Err(Problem::faults(faults)) }
}

/// Reads a query of nothing but truth values; false where a name is absent, true where it stands alone.
///
/// # Errors
/// `invalid_request` with a fault for each parameter that is unknown or neither true nor false.
pub fn flags<const N: usize>(query: &str, names: [&str; N]) -> Result<[bool; N], Problem> {
    let mut flags = [false; N];
    let mut faults = Vec::new();
    for (key, value) in pairs(query) {
        let mut fault =
            |code: FaultCode, detail: String| faults.push(Fault::new(format!("/query/{key}"), code, detail));
        match (names.iter().position(|name| *name == key), value.as_str()) {
            (Some(index), "true" | "1" | "") => flags[index] = true,
            (Some(index), "false" | "0") => flags[index] = false,
            (Some(_), other) => fault(FaultCode::InvalidValue, format!("expected true or false, got `{other}`")),
            (None, _) => {
                fault(FaultCode::UnknownParameter, format!("the parameter is unknown; known are {}", names.join(", ")));
            }
        }
    }
    if faults.is_empty() { Ok(flags) } else { Err(Problem::faults(faults)) }
}

/// The labels that an upload's query gives the file: `?label=team=vision`.
///
/// # Errors
/// `invalid_request` for anything that is not a label, and for labels without a name or over 256 bytes.
pub fn upload_labels(query: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut labels = BTreeMap::new();
    let mut faults = Vec::new();
    for (key, value) in pairs(query) {
        if key == LABEL {
            faults.extend(add_label(&mut labels, &value).err());
        } else {
            faults.push(unknown(&key, LABEL));
        }
    }
    let too_long = |text: &String| text.len() > LONGEST_LABEL;
    if labels.iter().any(|(name, value)| too_long(name) || too_long(value)) {
        let detail = format!("expected names and values of at most {LONGEST_LABEL} bytes");
        faults.push(Fault::new(format!("/query/{LABEL}"), FaultCode::InvalidValue, detail));
    }
    if faults.is_empty() { Ok(labels) } else { Err(Problem::faults(faults)) }
}

/// The query string as it came; never fails.
#[derive(Debug)]
pub struct RawQuery(pub String);

impl<S: Sync> FromRequestParts<S> for RawQuery {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.uri.query().unwrap_or_default().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_each_fault_is_named() {
        let query = "limit=2&after=ckpt_1&label=team=a%20b+c&label=ratio%3D1=2";
        let listing = parse(query, &[]).expect("valid");
        assert_eq!((listing.limit, listing.after.as_deref()), (2, Some("ckpt_1")));
        assert_eq!((listing.labels["team"].as_str(), listing.labels["ratio"].as_str()), ("a b c", "1=2"));
        let problem = parse("limit=0&state=odd&colour=red", &["ready"]).expect_err("three faults");
        assert_eq!(problem.errors.len(), 3, "{problem}");
    }

    #[test]
    fn labels_have_a_name_and_one_value() {
        let refused = |query: &str| parse(query, &[]).expect_err("a fault").errors[0].detail.clone();
        assert!(refused("label=team").contains("expected NAME=VALUE"));
        assert!(refused("label==vision").contains("expected NAME=VALUE"));
        assert!(refused("label=team=a&label=team=b").contains("got `a` and `b`"));
        assert!(refused("label.team=vision").ends_with("a label is asked for as label=team=VALUE"));
        assert!(parse("label=team=a&label=team=a", &[]).is_ok());
        assert_eq!(upload_labels("label=team=a&label=run=7").expect("labels").len(), 2);
        let long = "x".repeat(257);
        for query in ["limit=2", "label.team=a", "label=team", &format!("label=a={long}"), &format!("label={long}=a")] {
            assert!(upload_labels(query).is_err(), "{query}");
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(
            pairs("a=%&b=%4&c=%zz&d=%C3%A4&é=%é"),
            [
                ("a".into(), "%".into()),
                ("b".into(), "%4".into()),
                ("c".into(), "%zz".into()),
                ("d".into(), "ä".into()),
                ("é".into(), "%é".into()),
            ] as [(String, String); 5]
        );
    }
}
