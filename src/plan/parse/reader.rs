//! Reads a JSON body while keeping count of everything that is wrong with it, so that a client learns of all faults at once.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::suggest;
use crate::domain::problem::{Fault, FaultCode};

/// Why one value cannot be taken: a fault that does not yet know where it stands.
#[derive(Debug)]
pub(crate) struct UnplacedFault {
    code: FaultCode,
    detail: String,
}

/// A refusal with code `invalid_value`.
pub(crate) fn refuse<T>(detail: impl Into<String>) -> Result<T, UnplacedFault> {
    Err(UnplacedFault { code: FaultCode::InvalidValue, detail: detail.into() })
}

fn wrong_type<T>(expected: &str, value: &Value) -> Result<T, UnplacedFault> {
    let got = match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => short(&scalar.to_string()),
    };
    Err(UnplacedFault { code: FaultCode::WrongType, detail: format!("expected {expected}, got {got}") })
}

/// At most 80 characters of `text`.
fn short(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(80).chain(['…']).collect() }
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub(crate) fn add(&self, pointer: &str, code: FaultCode, detail: impl Into<String>) {
        self.0.borrow_mut().push(Fault::new(pointer, code, detail));
    }

    /// What `result` holds; a refusal is noted at `pointer`.
    pub(crate) fn take<T>(&self, pointer: &str, result: Result<T, UnplacedFault>) -> Option<T> {
        result.map_err(|refusal| self.add(pointer, refusal.code, refusal.detail)).ok()
    }

    pub(crate) fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// One JSON object that is being read. Fields that nobody has read are faults, see [`Object::finish`].
pub(crate) struct Object<'a> {
    map: &'a Map<String, Value>,
    pointer: String,
    faults: &'a Faults,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Object<'a> {
    /// The object at `pointer`; a fault if it is none.
    pub(crate) fn at(pointer: String, value: &'a Value, faults: &'a Faults) -> Option<Self> {
        let map = faults.take(&pointer, value.as_object().map_or_else(|| wrong_type("an object", value), Ok))?;
        Some(Self { map, pointer, faults, known: RefCell::default() })
    }

    /// Where the object itself stands.
    pub(crate) fn base(&self) -> &str {
        &self.pointer
    }

    /// Where the field `name` stands.
    pub(crate) fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }

    /// The raw value of the field, unless it is absent or null.
    pub(crate) fn value(&self, name: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The field, read by `parse`; `None` where absent, null or refused.
    pub(crate) fn field<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, UnplacedFault>,
    ) -> Option<T> {
        let value = self.value(name)?;
        self.faults.take(&self.pointer(name), parse(value))
    }

    /// The field, read by `parse`; a fault that says what was `expected` where it is absent or null.
    pub(crate) fn required<T>(
        &self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&Value) -> Result<T, UnplacedFault>,
    ) -> Option<T> {
        if self.value(name).is_none() {
            self.fault(name, FaultCode::MissingField, format!("expected {expected}"));
        }
        self.field(name, parse)
    }

    /// The field as an object, read by `parse`; `None` where absent or null.
    pub(crate) fn object<T>(&self, name: &'static str, parse: impl FnOnce(&Object<'a>) -> T) -> Option<T> {
        let object = Object::at(self.pointer(name), self.value(name)?, self.faults)?;
        let parsed = parse(&object);
        object.finish();
        Some(parsed)
    }

    /// The field as a list of objects, each read by `parse`; empty where it is absent, null or of another length.
    pub(crate) fn objects<T>(
        &self,
        name: &'static str,
        lengths: std::ops::RangeInclusive<usize>,
        parse: impl Fn(&Object<'a>) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let items = value.as_array().map_or_else(|| wrong_type("an array", value), Ok);
        let Some(items) = self.faults.take(&self.pointer(name), items) else { return Vec::new() };
        if !lengths.contains(&items.len()) {
            let detail = format!("expected {} to {} items, got {}", lengths.start(), lengths.end(), items.len());
            self.fault(name, FaultCode::InvalidValue, detail);
            return Vec::new();
        }
        let item = |(index, value): (usize, &'a Value)| {
            let item = Object::at(format!("{}/{index}", self.pointer(name)), value, self.faults)?;
            let parsed = parse(&item);
            item.finish();
            parsed
        };
        items.iter().enumerate().filter_map(item).collect()
    }

    /// The field as an object of any fields; empty where it is absent or null.
    pub(crate) fn map(&self, name: &'static str) -> Map<String, Value> {
        let as_map = |value: &Value| value.as_object().cloned().map_or_else(|| wrong_type("an object", value), Ok);
        self.field(name, as_map).unwrap_or_default()
    }

    /// The field as an object whose fields the client names; each is an object that `parse` reads. At most `most` of them.
    pub(crate) fn entries<T>(
        &self,
        name: &'static str,
        most: usize,
        parse: impl Fn(&Object<'a>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let Some(value) = self.value(name) else { return BTreeMap::new() };
        let Some(object) = Object::at(self.pointer(name), value, self.faults) else { return BTreeMap::new() };
        if object.map.len() > most {
            self.fault(
                name,
                FaultCode::InvalidValue,
                format!("expected at most {most} entries, got {}", object.map.len()),
            );
            return BTreeMap::new();
        }
        let entry = |(key, value): (&String, &'a Value)| {
            let entry = Object::at(object.pointer(key), value, self.faults)?;
            let parsed = parse(&entry);
            entry.finish();
            Some((key.clone(), parsed?))
        };
        object.map.iter().filter_map(entry).collect()
    }

    /// Notes a fault at the field `name`.
    pub(crate) fn fault(&self, name: &str, code: FaultCode, detail: impl Into<String>) {
        self.faults.add(&self.pointer(name), code, detail);
    }

    /// The faults of the whole body.
    pub(crate) fn faults(&self) -> &'a Faults {
        self.faults
    }

    /// Adds a fault for every field that nobody has read.
    pub(crate) fn finish(self) {
        let mut known = self.known.borrow_mut();
        known.sort_unstable();
        known.dedup();
        for name in self.map.keys().filter(|name| !known.contains(&name.as_str())) {
            let meant = suggest::meant(name, &self.pointer, &known);
            let meant = meant.map_or_else(String::new, |field| format!(", `{field}` may be meant"));
            let detail = format!("there is no such field{meant}; known here: {}", known.join(", "));
            self.fault(&short(name), FaultCode::UnknownField, detail);
        }
    }
}

/// What `read` makes of the object `body`, unless there is any fault.
///
/// # Errors
/// Every fault, each with the pointer to its value; fields that nobody has read are some.
pub(crate) fn whole<T>(body: &Value, read: impl FnOnce(&Object<'_>) -> Option<T>) -> Result<T, Vec<Fault>> {
    let faults = Faults::default();
    let read = Object::at(String::new(), body, &faults).and_then(|body| {
        let value = read(&body);
        body.finish();
        value
    });
    let faults = faults.into_vec();
    match read {
        Some(value) if faults.is_empty() => Ok(value),
        _ => Err(faults),
    }
}

/// Most characters of a name, a path or a label.
const LONGEST_TEXT: usize = 1024;

/// Any text of 1 to [`LONGEST_TEXT`] characters.
pub(crate) fn text(value: &Value) -> Result<String, UnplacedFault> {
    match value.as_str() {
        Some(text) if (1..=LONGEST_TEXT).contains(&text.chars().count()) => Ok(text.to_owned()),
        Some(text) => refuse(format!("expected 1 to {LONGEST_TEXT} characters, got {}", text.chars().count())),
        None => wrong_type("a string", value),
    }
}

/// A truth value.
pub(crate) fn boolean(value: &Value) -> Result<bool, UnplacedFault> {
    value.as_bool().map_or_else(|| wrong_type("true or false", value), Ok)
}

/// A whole number in `range`.
pub(crate) fn integer(range: std::ops::RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, UnplacedFault> {
    move |value| match value.as_u64() {
        Some(number) if range.contains(&number) => Ok(number),
        _ => wrong_type(&format!("a whole number from {} to {}", range.start(), range.end()), value),
    }
}

/// A finite number for which `accept` holds; `expected` describes them.
pub(crate) fn number(expected: &'static str, accept: fn(f64) -> bool) -> impl Fn(&Value) -> Result<f64, UnplacedFault> {
    move |value| match value.as_f64() {
        Some(number) if number.is_finite() && accept(number) => Ok(number),
        _ => wrong_type(expected, value),
    }
}

/// A value that goes by a name, as its type reads it.
pub(crate) fn named<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, UnplacedFault> {
    let name = text(value)?;
    T::deserialize(value).or_else(|error| {
        let reason = error.to_string();
        refuse(if reason.contains("expected") { reason } else { format!("{reason}, got `{}`", short(&name)) })
    })
}

/// A list whose items are read by `item`; the first bad item is named by its position.
pub(crate) fn list<T>(
    lengths: std::ops::RangeInclusive<usize>,
    item: impl Fn(&Value) -> Result<T, UnplacedFault>,
) -> impl Fn(&Value) -> Result<Vec<T>, UnplacedFault> {
    move |value| {
        let Some(items) = value.as_array() else { return wrong_type("an array", value) };
        if !lengths.contains(&items.len()) {
            return refuse(format!("expected {} to {} items, got {}", lengths.start(), lengths.end(), items.len()));
        }
        let read = |(index, value)| {
            item(value)
                .map_err(|refusal| UnplacedFault { detail: format!("item {index}: {}", refusal.detail), ..refusal })
        };
        items.iter().enumerate().map(read).collect()
    }
}

/// One of `options` by name; an option without a value is part of the contract but not built yet.
pub(crate) fn choice<T: Clone>(options: &[(&'static str, Option<T>)]) -> impl Fn(&Value) -> Result<T, UnplacedFault> {
    move |value| {
        let names = || options.iter().filter(|(_, built)| built.is_some()).map(|(name, _)| format!("`{name}`"));
        let expected = || names().collect::<Vec<_>>().join(", ");
        let Some(text) = value.as_str() else { return wrong_type(&format!("one of {}", expected()), value) };
        match options.iter().find(|(name, _)| *name == text) {
            Some((_, Some(option))) => Ok(option.clone()),
            Some((_, None)) => {
                let detail = format!("`{text}` is not supported yet; supported: {}", expected());
                Err(UnplacedFault { code: FaultCode::NotSupportedYet, detail })
            }
            None => refuse(format!("expected one of {}, got `{}`", expected(), short(text))),
        }
    }
}
