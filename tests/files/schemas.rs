//! The published schemas of jobs, plans, recipes and assemblies say what the parser reads: the same fields in every object, and for each
//! the same values. What a schema's range or enumeration allows at its ends is read, and what lies just outside is a fault at that place.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use engraft::domain::problem::Fault;
use engraft::plan::parse;
use engraft::plan::schemas::{ALL, RequestSchema, page, parts};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// What is wrong with a file of results by what the API's description says of it.
fn answer_fault(schema: &str, answer: &Value) -> Option<String> {
    static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(engraft::http::document()).unwrap());
    let whole = json!({"$ref": format!("#/components/schemas/{schema}"), "components": DESCRIPTION["components"]});
    let error = jsonschema::validator_for(&whole).unwrap().validate(answer).err()?.to_string();
    Some(format!("{schema}: {error}"))
}

/// Checks a file of results.
pub(crate) fn check_answer(schema: &str, answer: &Value) {
    assert_eq!(answer_fault(schema, answer), None);
}

#[test]
fn an_answer_that_is_not_as_described_is_seen() {
    let network = json!({"nodes": [{"name": "input", "op": "input", "shape": [4]}]});
    assert_eq!(answer_fault("NetworkView", &network), None);
    for (schema, wrong) in [
        ("NetworkView", json!({"nodes": [{"op": "input"}]})),
        ("Report", json!({})),
        ("ProvenanceView", json!({"engraft_version": 1})),
        ("Score", json!({"accuracy": 0.5})),
    ] {
        assert!(answer_fault(schema, &wrong).is_some(), "{schema}");
    }
}

/// What a field needs around it: by the part and the field, the body of the part's root.
const NEEDED: &[(&str, &str, &str)] = &[
    ("JobMethod", "rates", r#"{"method": {"order": "prune_then_merge"}}"#),
    ("JobMethod", "merge_epochs", r#"{"method": {"order": "merge_finetune_prune"}}"#),
    ("JobMethod", "start", r#"{"method": {"name": "distill_only"}}"#),
    ("JobMethod", "matching", r#"{"method": {"name": "neuron_interpolation"}}"#),
    ("JobAlignment", "cost", r#"{"method": {"name": "optimal_transport"}}"#),
    ("JobAlignment", "outputs", r#"{"method": {"name": "optimal_transport"}}"#),
    ("JobTarget", "allocation", r#"{"target": {"params": 100}}"#),
    (
        "JobOptimizer",
        "betas",
        r#"{"finetune": {"optimizer": {"name": "adamw"}}, "train": {"optimizer": {"name": "adamw"}}}"#,
    ),
    (
        "JobOptimizer",
        "eps",
        r#"{"finetune": {"optimizer": {"name": "adamw"}}, "train": {"optimizer": {"name": "adamw"}}}"#,
    ),
    ("MultistepSchedule", "gamma", "{}"),
];

/// Reads a body of each kind; the faults.
fn faults(kind: &str, body: &Value) -> Vec<Fault> {
    let outcome = match kind {
        "job" => parse::parse(body).map(drop),
        "plan" => parse::comparison(body, false).map(drop),
        "recipe" => parse::recipe(body).map(drop),
        _ => parse::assembly(body).map(drop),
    };
    outcome.err().unwrap_or_default()
}

/// A body of each kind that has no fault, with all that other fields may need.
fn base(kind: &str) -> Value {
    let members: Vec<String> = (0..64).map(|index| format!("m{index}")).collect();
    match kind {
        "job" => json!({"members": members, "dataset": "d", "finetune": {}}),
        "plan" => json!({"title": "t", "ensembles": [{"name": "e", "members": members}], "methods": [{"name": "m"}]}),
        "recipe" => json!({"network": "mlp:8", "dataset": "d"}),
        _ => json!({"index": "i", "name": "n"}),
    }
}

/// The schemas with the name of each part as its reference.
fn part(name: &str) -> Value {
    let found = parts(&ALL, str::to_owned).into_iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("no part {name}")).1
}

/// The schema itself, or the part that it refers to.
fn resolved(schema: &Value) -> (Option<String>, Value) {
    match schema["$ref"].as_str() {
        Some(name) => (Some(name.to_owned()), part(name)),
        None => (None, schema.clone()),
    }
}

/// Puts `value` at `pointer`, with all objects on the way; `0` and `key` on the way stand in a list and in a map.
fn put(body: &mut Value, pointer: &str, value: Value) {
    let mut place = body;
    for step in pointer.split('/').skip(1) {
        if step == "0" {
            if !place.is_array() {
                *place = json!([null]);
            }
            place = &mut place[0];
        } else {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[step];
        }
    }
    match (place, value) {
        (Value::Object(old), Value::Object(new)) => old.extend(new),
        (place, value) => *place = value,
    }
}

/// The fields that an object must have, with a value of each.
fn minimal(schema: &Value) -> Value {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let value = |field: &Value| {
        let field = field.as_str().unwrap();
        let (_, schema) = resolved(&schema["properties"][field]);
        (field.to_owned(), sample(&schema))
    };
    Value::Object(required.iter().map(value).collect())
}

/// A value that a schema allows.
fn sample(schema: &Value) -> Value {
    let first = |list: &str| schema[list].as_array().and_then(|list| list.first().cloned());
    let simple = first("examples").or_else(|| first("enum")).or_else(|| schema.get("default").cloned());
    simple.unwrap_or_else(|| match schema["type"].as_str() {
        Some("array") => json!([match resolved(&schema["items"]).1 {
            items if items["type"] == "object" => minimal(&items),
            items => sample(&items),
        }]),
        Some("object") => minimal(schema),
        Some("boolean") => json!(true),
        Some("integer") => schema["minimum"].clone(),
        _ => json!("text"),
    })
}

/// Values at the ends of what a schema allows, and values just outside of it.
fn probes(schema: &Value) -> (Vec<Value>, Vec<Value>) {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let list = |name: &str| schema[name].as_array().cloned().unwrap_or_default();
    inside.extend(list("examples"));
    inside.extend(list("enum"));
    inside.extend(schema.get("default").cloned());
    let around = |bound: f64, up: f64| bound + up * (bound.abs() * 1e-3).max(1e-3);
    match schema["type"].as_str() {
        Some("integer") => {
            let (least, most) = (schema["minimum"].clone(), schema["maximum"].clone());
            outside.extend([json!(least.as_i64().unwrap() - 1), json!(0.5), json!("1")]);
            if most.as_u64() != Some(u64::MAX) {
                outside.push(json!(most.as_i64().unwrap() + 1));
            }
            inside.extend([least, most]);
        }
        Some("number") => {
            for (bound, up, exclusive) in [
                ("minimum", -1.0, false),
                ("maximum", 1.0, false),
                ("exclusiveMinimum", -1.0, true),
                ("exclusiveMaximum", 1.0, true),
            ] {
                let Some(bound) = schema[bound].as_f64() else { continue };
                inside.push(if exclusive { json!(around(bound, -up * 0.1)) } else { json!(bound) });
                outside.push(if exclusive { json!(bound) } else { json!(around(bound, up)) });
            }
            outside.push(json!("1"));
        }
        Some("boolean") => {
            inside.extend([json!(true), json!(false)]);
            outside.extend([json!(1), json!("true")]);
        }
        Some("string") => outside.extend([json!(""), json!(7), json!("~")]),
        Some("array") => {
            let (least, most) = (schema["minItems"].as_u64().unwrap(), schema["maxItems"].as_u64().unwrap());
            let (_, items) = resolved(&schema["items"]);
            let item = match items["type"].as_str() {
                Some("object") => minimal(&items),
                _ => sample(&items),
            };
            if least > 0 {
                outside.push(json!(vec![item.clone(); least as usize - 1]));
            }
            outside.extend([json!(vec![item; most as usize + 1]), json!(7)]);
            let of_items = probes(&items).1.into_iter().filter(|_| items["type"] != "object");
            outside.extend(of_items.map(|wrong| json!(vec![wrong; least.max(1) as usize])));
        }
        _ => {}
    }
    // A text that is only a text takes anything that is not empty.
    if schema["type"] == "string" && schema["enum"].is_null() && schema["pattern"].is_null() {
        outside.pop();
    }
    (inside, outside)
}

/// What was seen of a schema.
#[derive(Debug, Default)]
struct Seen {
    objects: BTreeSet<String>,
    fields: usize,
    values: usize,
}

/// The fields of the object `schema` at `pointer`, and all objects within.
fn check_object(kind: &str, name: &str, schema: &Value, pointer: &str, seen: &mut Seen) {
    seen.objects.insert(name.to_owned());
    if name == "PartOfJob" {
        return;
    }
    let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{name} has no fields: {schema}"));
    let mut body = base(kind);
    if !pointer.is_empty() {
        put(&mut body, pointer, minimal(schema));
    }
    put(&mut body, &format!("{pointer}/zzz"), json!(1));
    let found = faults(kind, &body);
    let unknown = found.iter().find(|fault| fault.pointer == format!("{pointer}/zzz"));
    let unknown = unknown.unwrap_or_else(|| panic!("{name}: an unknown field is none in {body}: {found:?}"));
    let mut known: BTreeSet<&str> = unknown.detail.rsplit("known here: ").next().unwrap().split(", ").collect();
    if name == "RecipeTraining" {
        // Known only to be refused with a better reason.
        known.retain(|field| !["soft_weight", "teacher", "temperature"].contains(field));
    }
    let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    assert_eq!(described, known, "{name}: the schema's fields and those that are read");
    for (field, schema) in properties {
        seen.fields += 1;
        assert!(
            ["description", "$ref"].iter().any(|word| schema[word].as_str().is_some_and(|text| !text.is_empty())),
            "{name}.{field} has no description"
        );
        let needed = NEEDED.iter().find(|(part, needing, _)| (*part, *needing) == (name, field));
        let needed: Value = needed.map_or_else(|| json!({}), |(_, _, body)| serde_json::from_str(body).unwrap());
        check_field(&Place { kind, name, object: pointer, field, needed: &needed }, schema, seen);
    }
}

/// A field in an object of a body.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    kind: &'a str,
    name: &'a str,
    object: &'a str,
    field: &'a str,
    needed: &'a Value,
}

impl Place<'_> {
    fn pointer(&self) -> String {
        format!("{}/{}", self.object, self.field)
    }

    /// The faults at or below the field when it has this value.
    fn faults(&self, value: &Value) -> Vec<Fault> {
        let mut body = base(self.kind);
        let parts = ["finetune", "train", "method", "target"]
            .into_iter()
            .filter(|part| self.object.starts_with(&format!("/{part}")));
        for part in parts.chain(["method", "target"].into_iter().filter(|_| self.kind == "job")) {
            if let Some(needed) = self.needed.get(part) {
                put(&mut body, &format!("/{part}"), needed.clone());
            }
        }
        if !self.object.is_empty() {
            let schema = part(self.name);
            put(&mut body, self.object, minimal(&schema));
            if self.name == "LayerSize" {
                put(&mut body, self.object, json!({}));
            }
        }
        put(&mut body, &self.pointer(), Value::Null);
        put(&mut body, &self.pointer(), value.clone());
        let at = |fault: &Fault| {
            fault.pointer == self.pointer() || fault.pointer.starts_with(&format!("{}/", self.pointer()))
        };
        faults(self.kind, &body).into_iter().filter(at).collect()
    }
}

fn check_field(place: &Place<'_>, schema: &Value, seen: &mut Seen) {
    check_form(place, schema, false, seen);
}

/// One of several forms of a field, where another may take what this one does not, or the only one.
fn check_form(place: &Place<'_>, schema: &Value, one_of_several: bool, seen: &mut Seen) {
    let (reference, schema) = resolved(schema);
    if let Some(forms) = schema["oneOf"].as_array() {
        for form in forms {
            check_form(place, form, true, seen);
        }
        let examples = schema["examples"].as_array().cloned().unwrap_or_default();
        for example in examples.iter().chain(schema.get("default")) {
            check_inside(place, example, seen);
        }
        return;
    }
    if schema["type"] == "object" {
        if schema["properties"].is_object() {
            let name = reference.expect("objects are parts of their own");
            check_object(place.kind, &name, &schema, &place.pointer(), seen);
        } else if schema["additionalProperties"]["$ref"].is_string() {
            let (name, entry) = resolved(&schema["additionalProperties"]);
            check_object(place.kind, &name.unwrap(), &entry, &format!("{}/key", place.pointer()), seen);
        }
        // What a network says is read when the members are known.
        if schema["additionalProperties"] != true && !one_of_several {
            assert!(!place.faults(&json!(7)).is_empty(), "{place:?} takes a number for an object");
        }
        return;
    }
    if schema["type"] == "array"
        && schema["items"]["$ref"].is_string()
        && part(schema["items"]["$ref"].as_str().unwrap())["type"] == "object"
    {
        let (name, item) = resolved(&schema["items"]);
        check_object(place.kind, &name.unwrap(), &item, &format!("{}/0", place.pointer()), seen);
    }
    let (inside, outside) = probes(&schema);
    for value in &inside {
        check_inside(place, value, seen);
    }
    let like_it = |value: &&Value| match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        _ => value.is_number(),
    };
    for value in outside.iter().filter(|value| !one_of_several || like_it(value)) {
        seen.values += 1;
        assert!(!place.faults(value).is_empty(), "{place:?} takes {value}, which the schema forbids");
    }
}

fn check_inside(place: &Place<'_>, value: &Value, seen: &mut Seen) {
    seen.values += 1;
    // What other fields have to do with it is not a schema's business.
    let depends =
        |fault: &Fault| fault.detail.contains("for each of the") || fault.detail.contains("is not among the plan's");
    let found: Vec<Fault> = place.faults(value).into_iter().filter(|fault| !depends(fault)).collect();
    assert!(found.is_empty(), "{place:?} refuses {value}, which the schema allows: {found:?}");
}

#[test]
fn the_schemas_say_what_the_parser_reads() {
    for (kind, objects, fields) in [("job", 15, 100), ("plan", 5, 16), ("recipe", 8, 38), ("assembly", 1, 4)] {
        let document = RequestSchema::named(kind).unwrap().document();
        let root = document["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        assert_eq!(faults(kind, &base(kind)), Vec::new());
        let mut seen = Seen::default();
        check_object(kind, &root, &part(&root), "", &mut seen);
        eprintln!("{kind}: {} objects, {} fields, {} values", seen.objects.len(), seen.fields, seen.values);
        assert!(seen.objects.len() >= objects && seen.fields >= fields, "{kind}: {seen:?}");
    }
}

/// Parts of jobs are read when they are put together.
#[test]
fn a_part_of_a_job_has_the_fields_of_a_job() {
    let mut job = part("JobRequest")["properties"].take();
    for field in ["members", "seed"] {
        job.as_object_mut().unwrap().remove(field).expect("what the grid sets");
    }
    assert_eq!(part("PartOfJob")["properties"], job);
}

#[test]
fn every_part_has_a_name_of_its_own_and_every_reference_a_part() {
    let names: Vec<String> = parts(&ALL, str::to_owned).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    parts(&ALL, |reference| {
        assert!(names.iter().any(|name| name == reference), "{reference}");
        reference.to_owned()
    });
}

#[test]
fn the_page_of_fields_is_that_of_the_schemas() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/job.md");
    let written = std::fs::read_to_string(path).unwrap();
    assert!(written == page().unwrap(), "docs/job.md: `engraft schema --page > docs/job.md`");
}

/// The schemas in one document, for one part.
fn validator(part: &str) -> Validator {
    let parts: Map<String, Value> = parts(&ALL, |name| format!("#/$defs/{name}")).into_iter().collect();
    jsonschema::validator_for(&json!({"$defs": parts, "$ref": format!("#/$defs/{part}")})).unwrap()
}

#[test]
fn the_plans_of_the_experiments_follow_the_schema() {
    let plan = validator("ComparisonRequest");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let body: Value = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            plan.validate(&body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            read += 1;
        }
    }
    assert!(read > 10);
}

/// Generated clients send every default, and read what has been resolved.
#[test]
fn sending_every_default_changes_nothing() {
    let mut bodies = vec![base("job"), json!({"members": ["a"]})];
    for objective in ["auto", "cross_entropy", "distill"] {
        for optimizer in ["sgd", "adamw"] {
            let finetune = json!({"objective": objective, "optimizer": {"name": optimizer}});
            bodies.push(json!({"members": ["a"], "dataset": {"name": "d"}, "finetune": finetune}));
        }
    }
    for method in ["average", "optimal_transport", "neuron_interpolation"] {
        bodies.push(json!({"members": ["a"], "method": {"name": method, "alignment": {}, "calibration": {}}}));
    }
    for target in [json!({"params": 9}), json!({"width": 0.5, "layers": {"fc1": {"width": 3}}})] {
        bodies.push(json!({"members": ["a"], "target": target, "architecture": {}, "reference": {"name": "r"}}));
    }
    let request = validator("JobRequest");
    for body in bodies {
        let resolved = Value::from(parse::parse(&body).unwrap());
        request.validate(&resolved).unwrap_or_else(|error| panic!("{resolved}: {error}"));
        let mut filled = body.clone();
        let sent = fill(&mut filled, &part("JobRequest"));
        assert!(sent > 4, "{filled}");
        assert_eq!(parse::parse(&filled), parse::parse(&body), "{filled}");
    }
}

/// Enters every default that is missing in `body` and the objects within it; how many.
fn fill(body: &mut Value, schema: &Value) -> usize {
    let (_, schema) = resolved(schema);
    if let Some(forms) = schema["oneOf"].as_array() {
        let object = forms.iter().find(|form| form["$ref"].is_string());
        return object.filter(|_| body.is_object()).map_or(0, |form| fill(body, form));
    }
    let (Some(fields), Some(properties)) = (body.as_object_mut(), schema["properties"].as_object()) else { return 0 };
    let mut entered = 0;
    for (field, schema) in properties {
        if let Some(value) = fields.get_mut(field) {
            entered += fill(value, schema);
        } else if let Some(default) = resolved(schema).1.get("default") {
            fields.insert(field.clone(), default.clone());
            entered += 1;
        }
    }
    entered
}
