//! From a plan's body to a [`Grid`], or to the list of everything that is wrong with it.

use serde_json::{Map, Value, json};

use super::MAX_MEMBERS;
use super::reader::{Object, integer, list, text, whole};
use crate::domain::problem::{Fault, FaultCode};
use crate::plan::comparison::{Grid, Patch, Variant};

/// Most entries of one axis of the grid.
const LONGEST_AXIS: usize = 1000;
/// What the only target is called where a plan names none.
const MEMBER_WIDTH: &str = "member width";

/// Reads a plan: `title`, `seeds`, `job`, `ensembles`, `methods`, `targets`, and `quick`, which is applied on request.
///
/// # Errors
/// Every fault of its form, each with the pointer to its value. The jobs are not looked at.
pub fn comparison(body: &Value, quick: bool) -> Result<Grid, Vec<Fault>> {
    whole(body, |body| {
        let title = body.required("title", "what the comparison is about", text);
        let mut plan = Grid {
            title: title.clone().unwrap_or_default(),
            quick,
            seeds: seeds(body).unwrap_or_else(|| vec![0]),
            ensembles: axis(body, "ensembles", ensemble),
            methods: axis(body, "methods", variant),
            targets: axis(body, "targets", variant),
            shared: patch(body),
            changes: Patch::default(),
        };
        for (name, empty) in [("ensembles", plan.ensembles.is_empty()), ("methods", plan.methods.is_empty())] {
            if empty && body.value(name).is_none() {
                body.fault(name, FaultCode::MissingField, "expected a list of objects with at least a `name`");
            }
        }
        if plan.targets.is_empty() {
            plan.targets.push(Variant { name: MEMBER_WIDTH.to_owned(), patches: Vec::new() });
        }
        body.object("quick", |object| shorten(object, &mut plan, quick));
        title.map(|_| plan)
    })
}

fn seeds(object: &Object<'_>) -> Option<Vec<u64>> {
    object.field("seeds", list(1..=LONGEST_AXIS, integer(0..=u64::MAX)))
}

/// The variants of one axis, whose names must differ.
fn axis(body: &Object<'_>, name: &'static str, read: impl Fn(&Object<'_>) -> Option<Variant>) -> Vec<Variant> {
    let variants = body.objects(name, 1..=LONGEST_AXIS, read);
    let twice = variants
        .iter()
        .enumerate()
        .find(|(index, variant)| variants[..*index].iter().any(|one| one.name == variant.name));
    if let Some((_, variant)) = twice {
        body.fault(name, FaultCode::InvalidValue, format!("`{}` is named twice", variant.name));
    }
    variants
}

fn variant(object: &Object<'_>) -> Option<Variant> {
    let name = object.required("name", "what the report calls it", text);
    let patches = vec![patch(object)];
    Some(Variant { name: name?, patches })
}

/// The part of a job's body that `object` holds. What the grid itself sets has no place in it.
fn patch(object: &Object<'_>) -> Patch {
    let patch = Patch { pointer: object.pointer("job"), fields: object.map("job") };
    for (field, owner) in [("members", "an entry of `ensembles`"), ("seed", "`seeds`")] {
        if patch.fields.contains_key(field) {
            object.fault("job", FaultCode::InvalidValue, format!("`{field}` stands in {owner}, not in `job`"));
        }
    }
    patch
}

/// The members stand beside the ensemble's `job`: a part of their own, so that a fault among them has its place there.
fn ensemble(object: &Object<'_>) -> Option<Variant> {
    let variant = variant(object);
    let members = object.required("members", "the names of the checkpoints to fuse", list(1..=MAX_MEMBERS, text));
    let Variant { name, mut patches } = variant?;
    let fields = Map::from_iter([("members".to_owned(), json!(members?))]);
    patches.push(Patch { pointer: object.base().to_owned(), fields });
    Some(Variant { name, patches })
}

/// Keeps what the quick form keeps. It is read in either case: a plan is valid as a whole.
fn shorten(object: &Object<'_>, plan: &mut Grid, apply: bool) {
    let changes = patch(object);
    let seeds = seeds(object);
    let kept = [("ensembles", &plan.ensembles), ("methods", &plan.methods), ("targets", &plan.targets)];
    let [ensembles, methods, targets] = kept.map(|(axis, variants)| named(object, axis, variants));
    if apply {
        plan.changes = changes;
        plan.seeds = seeds.unwrap_or_else(|| std::mem::take(&mut plan.seeds));
        (plan.ensembles, plan.methods, plan.targets) = (ensembles, methods, targets);
    }
}

/// The variants that the quick form names; all where it names none.
fn named(object: &Object<'_>, axis: &'static str, variants: &[Variant]) -> Vec<Variant> {
    let Some(names) = object.field(axis, list(1..=LONGEST_AXIS, text)) else { return variants.to_vec() };
    for unknown in names.iter().filter(|name| variants.iter().all(|variant| variant.name != **name)) {
        object.fault(axis, FaultCode::InvalidValue, format!("`{unknown}` is not among the plan's {axis}"));
    }
    variants.iter().filter(|variant| names.contains(&variant.name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Value {
        json!({
            "title": "Rankings", "seeds": [1, 2], "job": {"dataset": "d.npz", "finetune": {"epochs": 2}},
            "ensembles": [{"name": "two", "members": ["a", "b"]}],
            "methods": [{"name": "paper", "job": {"method": {"compensate": "none"}}}, {"name": "ours"}],
            "targets": [{"name": "half", "job": {"target": {"width": 0.5}}}, {"name": "whole"}],
            "quick": {"seeds": [9], "methods": ["ours"], "job": {"finetune": {"epochs": 1}}},
        })
    }

    fn pointers(body: &Value) -> Vec<String> {
        comparison(body, false).expect_err("faults").into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_grid_is_every_combination_and_its_quick_form_fewer() {
        let whole = comparison(&plan(), false).expect("a plan");
        assert_eq!((whole.runs(), whole.cells().count()), (8, 8));
        let body = whole.body(&whole.cells().next().expect("a cell"));
        let expected = json!({"members": ["a", "b"], "seed": 1, "dataset": "d.npz", "name": "Rankings: two / paper / half / seed 1",
            "finetune": {"epochs": 2, "publish": "fused"},
            "method": {"compensate": "none"}, "target": {"width": 0.5}, "evaluate": ["members", "ensemble", "fused"]});
        assert_eq!(body, expected);
        let quick = comparison(&plan(), true).expect("a plan");
        let cells: Vec<String> = quick.cells().map(|cell| cell.to_string()).collect();
        assert_eq!(cells, ["two / ours / half / seed 9", "two / ours / whole / seed 9"]);
        assert_eq!(quick.body(&quick.cells().next().expect("a cell"))["finetune"]["epochs"], 1);
        let short = json!({"title": "t", "ensembles": [{"name": "e", "members": ["a"]}], "methods": [{"name": "m"}]});
        assert_eq!(comparison(&short, false).expect("a plan").runs(), 1);
    }

    #[test]
    fn a_fault_of_the_form_has_its_place() {
        assert_eq!(pointers(&json!({})), ["/title", "/ensembles", "/methods"]);
        let mut body = plan();
        body["seeds"] = json!([]);
        body["ensembles"] = json!([{"name": "two", "members": []}, {"name": "two", "members": ["c"]}, 5]);
        body["methods"][1] = json!({"name": "paper", "job": {"members": ["z"]}, "jobs": {}});
        body["targets"] = json!({});
        body["quick"]["methods"] = json!(["theirs"]);
        let expected = [
            "/seeds",
            "/ensembles/0/members",
            "/ensembles/2",
            "/methods/1/job",
            "/methods/1/jobs",
            "/methods",
            "/targets",
            "/quick/methods",
        ];
        assert_eq!(pointers(&body), expected);
    }

    #[test]
    fn a_fault_of_a_job_is_led_back_to_where_it_comes_from() {
        let mut body = plan();
        body["job"]["finetune"]["epochs"] = json!(0);
        body["methods"][1]["job"] = json!({"method": {"order": "backwards", "nam": "x"}});
        body["targets"][0]["job"]["target"] = json!({"width": -1});
        let plan = comparison(&body, false).expect("its form is right");
        let cell = plan.cells().find(|cell| cell.method.name == "ours").expect("a cell");
        let mut found: Vec<String> =
            plan.job(&cell).expect_err("faults").into_iter().map(|fault| fault.pointer).collect();
        found.sort();
        let expected = [
            "/job/finetune/epochs",
            "/methods/1/job/method/nam",
            "/methods/1/job/method/order",
            "/targets/0/job/target/width",
        ];
        assert_eq!(found, expected);
        let unknown = plan.locate(&cell, &Fault::new("/members/1", FaultCode::UnknownCheckpoint, "there is none"));
        assert_eq!(unknown.pointer, "/ensembles/0/members/1");
        let missing =
            plan.locate(&cell, &Fault::new("/method/alignment/cost", FaultCode::MissingField, "expected one"));
        assert_eq!(missing.pointer, "/methods/1/job/method/alignment/cost");
        assert_eq!(plan.locate(&cell, &Fault::new("/device", FaultCode::NoSuchDevice, "none")).pointer, "/job/device");
    }
}
