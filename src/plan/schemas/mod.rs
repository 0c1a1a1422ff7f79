//! The JSON Schemas of what clients write: jobs, plans of comparisons, recipes and assemblies. They are the one place where fields are
//! described: the API's description, `docs/job.md` and editors take them from here, and a test holds the parser to them.

mod page;

use serde_json::{Map, Value};

pub use page::page;

/// One schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestSchema {
    /// What it describes, as `engraft schema` calls it.
    pub name: &'static str,
    /// Its file, by which others refer to it.
    pub file: &'static str,
    text: &'static str,
}

/// All of them.
pub const ALL: [RequestSchema; 4] = [
    RequestSchema { name: "job", file: "job.schema.json", text: include_str!("../../../docs/schemas/job.schema.json") },
    RequestSchema {
        name: "plan",
        file: "plan.schema.json",
        text: include_str!("../../../docs/schemas/plan.schema.json"),
    },
    RequestSchema {
        name: "recipe",
        file: "recipe.schema.json",
        text: include_str!("../../../docs/schemas/recipe.schema.json"),
    },
    RequestSchema {
        name: "assembly",
        file: "assembly.schema.json",
        text: include_str!("../../../docs/schemas/assembly.schema.json"),
    },
];

impl RequestSchema {
    /// The schema of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|schema| schema.name == name)
    }

    /// Whether requests have this form; the others are files of the command line.
    #[must_use]
    pub fn is_of_the_api(&self) -> bool {
        self.name != "recipe"
    }

    /// What its file holds.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.text
    }

    /// The schema.
    #[must_use]
    pub fn document(self) -> Value {
        serde_json::from_str(self.text).unwrap_or_default()
    }

    /// Its parts by their names.
    fn parts(self) -> Map<String, Value> {
        match self.document().get_mut("$defs").map(Value::take) {
            Some(Value::Object(parts)) => parts,
            _ => Map::new(),
        }
    }
}

/// The parts of some schemas by their names, which are unique, each reference as `refer` writes the name of what it means.
pub fn parts(schemas: &[RequestSchema], refer: impl Fn(&str) -> String) -> Vec<(String, Value)> {
    let parts = schemas.iter().flat_map(|schema| schema.parts());
    let referring = parts.map(|(name, mut part)| {
        rewrite(&mut part, &refer);
        (name, part)
    });
    referring.collect()
}

fn rewrite(value: &mut Value, refer: &impl Fn(&str) -> String) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(target) if name == "$ref" => *target = refer(part_name(target)),
                    _ => rewrite(field, refer),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, refer)),
        _ => {}
    }
}

/// What a reference within these schemas means.
fn part_name(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}
