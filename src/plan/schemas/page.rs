//! `docs/job.md`: every field of the schemas, as a page to read.

use std::fmt::Write;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::{ALL, RequestSchema, part_name};

/// A schema, as far as the page shows it; what it keeps in order stands in the order of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Part {
    title: Option<String>,
    description: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "$defs")]
    parts: IndexMap<String, Part>,
    properties: IndexMap<String, Part>,
    additional_properties: Option<Additional>,
    required: Vec<String>,
    items: Option<Box<Part>>,
    one_of: Vec<Part>,
    #[serde(rename = "enum")]
    options: Vec<String>,
    pattern: Option<String>,
    minimum: Option<Value>,
    exclusive_minimum: Option<Value>,
    maximum: Option<Value>,
    exclusive_maximum: Option<Value>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    default: Option<Value>,
    examples: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Additional {
    Each(Box<Part>),
    Any(serde::de::IgnoredAny),
}

/// The whole page, as Markdown.
///
/// # Errors
/// Where a schema says what the page cannot show.
pub fn page() -> Result<String, serde_json::Error> {
    let mut page = String::from(
        "# Jobs, plans and recipes, field by field\n\n\
         Made by `engraft schema --page` from the schemas in [schemas/](schemas); a server has them at `/schemas/FILE`. In an editor that knows\n\
         JSON Schema, `\"$schema\"` is not part of a body: name the schema in the editor's settings, or above a plan in TOML with\n\
         `#:schema ./docs/schemas/plan.schema.json`. Fields that do not exist are refused; a field that is null is as one that is absent. The same schemas are in\n\
         `openapi.yaml`: `openapi-python-client` makes a typed client of it, `openapi-typescript --default-non-nullable false` types in which what has a\n\
         default may be left out.\n",
    );
    let schemas: Vec<(RequestSchema, Part)> = ALL
        .into_iter()
        .map(|schema| Ok((schema, serde_json::from_str(schema.text())?)))
        .collect::<Result<_, serde_json::Error>>()?;
    // Schemas refer to each other's parts, whose names are unique.
    let parts: IndexMap<&str, &Part> =
        schemas.iter().flat_map(|(_, whole)| &whole.parts).map(|(name, part)| (name.as_str(), part)).collect();
    for (schema, whole) in &schemas {
        let title = whole.title.as_deref().unwrap_or(schema.name);
        let _ = write!(page, "\n## {title}\n\n[{0}](schemas/{0})\n", schema.file);
        for (name, part) in &whole.parts {
            if !part.properties.is_empty() {
                object(&mut page, name, part, &parts);
            }
        }
    }
    Ok(page)
}

fn object(page: &mut String, name: &str, part: &Part, parts: &IndexMap<&str, &Part>) {
    let heads = "| field | value | default | |\n| --- | --- | --- | --- |";
    let _ = write!(page, "\n### {name}\n\n{}\n\n{heads}\n", part.description);
    for (field, schema) in &part.properties {
        let meant = schema.reference.as_deref().and_then(|reference| parts.get(part_name(reference)).copied());
        // What is no object of its own is shown where it is used.
        let shown = meant.filter(|meant| meant.properties.is_empty()).unwrap_or(schema);
        let description = if shown.description.is_empty() {
            meant.map_or("", |meant| meant.description.as_str())
        } else {
            &shown.description
        };
        let required = part.required.contains(field);
        let default = match &shown.default {
            _ if required => "**required**".to_owned(),
            Some(default) => format!("`{default}`"),
            None => String::new(),
        };
        let example = shown.examples.first().map_or_else(String::new, |example| format!(" Such as `{example}`."));
        let meaning = cell(&format!("{description}{example}"));
        let _ = writeln!(page, "| `{field}` | {} | {default} | {meaning} |", value(shown));
    }
}

/// A text within a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What a schema takes, in a few words.
fn value(part: &Part) -> String {
    if let Some(reference) = &part.reference {
        let name = part_name(reference);
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if !part.one_of.is_empty() {
        return part.one_of.iter().map(value).collect::<Vec<_>>().join(" or ");
    }
    if !part.options.is_empty() {
        return part.options.iter().map(|option| format!("`{option}`")).collect::<Vec<_>>().join(", ");
    }
    match part.kind.as_deref() {
        Some("array") => {
            let items = part.items.as_deref().map_or_else(String::new, value);
            match (part.min_items, part.max_items) {
                (Some(least), Some(most)) if least == most => format!("{most} times: {items}"),
                (least, Some(most)) => format!("list of {} to {most}: {items}", least.unwrap_or(0)),
                _ => format!("list: {items}"),
            }
        }
        Some("object") => match &part.additional_properties {
            Some(Additional::Each(each)) => format!("by name: {}", value(each)),
            _ => "object".to_owned(),
        },
        Some("integer") => format!("whole number{}", range(part)),
        Some("number") => format!("number{}", range(part)),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("string") => {
            part.pattern.as_ref().map_or_else(|| "text".to_owned(), |pattern| cell(&format!("`{pattern}`")))
        }
        _ => "any".to_owned(),
    }
}

fn range(part: &Part) -> String {
    let mut range = String::new();
    for (word, bound) in [
        ("from", &part.minimum),
        ("above", &part.exclusive_minimum),
        ("to", &part.maximum),
        ("below", &part.exclusive_maximum),
    ] {
        if let Some(bound) = bound {
            let bound = if bound.as_u64() == Some(u64::MAX) { "2^64 - 1".to_owned() } else { bound.to_string() };
            let _ = write!(range, " {word} {bound}");
        }
    }
    range
}
