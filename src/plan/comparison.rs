//! A grid of jobs: every ensemble with every method, target and seed. `engraft compare` and `POST /v1/comparisons` run it.

use serde_json::{Map, Value, json};

use super::parse::{MAX_NAME, parse};
use super::request::JobRequest;
use crate::domain::problem::Fault;

/// Fields of a dataset that name files.
const FILES: [&str; 3] = ["name", "validation", "test"];

/// A plan of jobs, checked in its form; the jobs themselves are checked by [`Grid::job`].
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// What the comparison is about.
    pub title: String,
    /// Whether it was shortened to its quick form.
    pub quick: bool,
    /// One run of every combination for each.
    pub seeds: Vec<u64>,
    /// Which members; their patches name them.
    pub ensembles: Vec<Variant>,
    /// What is varied.
    pub methods: Vec<Variant>,
    /// To which size; at least one.
    pub targets: Vec<Variant>,
    /// What all jobs share.
    pub(super) shared: Patch,
    /// What the quick form changes in every job.
    pub(super) changes: Patch,
}

/// A part of a job's body, and where it stands in the plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Patch {
    /// JSON pointer to the object that holds its fields.
    pub(super) pointer: String,
    /// The fields that it sets.
    pub(super) fields: Map<String, Value>,
}

/// A name, and what it changes in the jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// What the report calls it.
    pub name: String,
    /// What it changes: its `job`, and an ensemble's members beside it.
    pub(super) patches: Vec<Patch>,
}

/// One job of the grid, by its place.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// Which members.
    pub ensemble: &'a Variant,
    /// Which method.
    pub method: &'a Variant,
    /// Which target.
    pub target: &'a Variant,
    /// Seed of every random choice.
    pub seed: u64,
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} / {} / {} / seed {}", self.ensemble.name, self.method.name, self.target.name, self.seed)
    }
}

impl Grid {
    /// How many jobs it has.
    #[must_use]
    pub fn runs(&self) -> usize {
        let axes = [self.ensembles.len(), self.methods.len(), self.targets.len(), self.seeds.len()];
        axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(*axis)).unwrap_or(usize::MAX)
    }

    /// The jobs' places, seeds innermost.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let methods =
            self.ensembles.iter().flat_map(|ensemble| self.methods.iter().map(move |method| (ensemble, method)));
        let targets =
            methods.flat_map(|(ensemble, method)| self.targets.iter().map(move |target| (ensemble, method, target)));
        targets.flat_map(|(ensemble, method, target)| {
            self.seeds.iter().map(move |&seed| Cell { ensemble, method, target, seed })
        })
    }

    /// Changes every name of a file: of members, and of datasets.
    pub fn rename_files(&mut self, rename: impl Fn(&str) -> String) {
        let variants = [&mut self.ensembles, &mut self.methods, &mut self.targets].into_iter().flatten();
        let patches = variants.flat_map(|variant| &mut variant.patches).chain([&mut self.shared, &mut self.changes]);
        for patch in patches {
            let named = |value: &mut Value| {
                if let Value::String(name) = value {
                    *name = rename(name);
                }
            };
            match patch.fields.get_mut("dataset") {
                Some(Value::Object(dataset)) => {
                    let fields = dataset.iter_mut().filter(|(field, _)| FILES.contains(&field.as_str()));
                    fields.for_each(|(_, value)| named(value));
                }
                Some(name) => named(name),
                None => {}
            }
            patch.fields.get_mut("members").and_then(Value::as_array_mut).into_iter().flatten().for_each(named);
        }
    }

    /// The body of a job: the plan's fields, over them the ensemble's, the method's, the target's, and the quick form's.
    #[must_use]
    pub fn body(&self, cell: &Cell<'_>) -> Value {
        let mut body = Map::new();
        for patch in self.layers(cell) {
            lay_over(&mut body, &patch.fields);
        }
        body.insert("seed".to_owned(), json!(cell.seed));
        // Controls are trained for those who name them: most jobs of a grid would train the same ones.
        body.entry("evaluate").or_insert_with(|| json!(["members", "ensemble", "fused"]));
        // What is compared is what each method makes.
        if let Some(finetune) = body.get_mut("finetune").and_then(Value::as_object_mut) {
            finetune.entry("publish").or_insert_with(|| json!("fused"));
        }
        body.entry("name").or_insert_with(|| self.name(cell).into());
        Value::Object(body)
    }

    /// What a job is called that the plan gives no name: the plan's title and its place.
    fn name(&self, cell: &Cell<'_>) -> String {
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        format!("{}: {cell}", self.title).chars().map(visible).take(MAX_NAME).collect()
    }

    /// The job.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the pointer to its place in the plan.
    pub fn job(&self, cell: &Cell<'_>) -> Result<JobRequest, Vec<Fault>> {
        parse(&self.body(cell)).map_err(|faults| faults.iter().map(|fault| self.locate(cell, fault)).collect())
    }

    /// A fault of the job, with the pointer to the part of the plan that it comes from.
    #[must_use]
    pub fn locate(&self, cell: &Cell<'_>, fault: &Fault) -> Fault {
        let path = fault.path();
        // What is missing has no place of its own: it comes from the strongest part that holds most of the way to it, and
        // from the common one where none holds any of it.
        let mut source = (&self.shared, 0);
        for patch in self.layers(cell) {
            let depth = path.depth_in(&patch.fields);
            if depth > 0 && depth >= source.1 {
                source = (patch, depth);
            }
        }
        let pointer = format!("{}{}", source.0.pointer, fault.pointer);
        Fault::new(pointer, fault.code, format!("{cell}: {}", fault.detail))
    }

    /// From the weakest to the strongest.
    fn layers<'a>(&'a self, cell: &Cell<'a>) -> impl Iterator<Item = &'a Patch> {
        let variants = [cell.ensemble, cell.method, cell.target].into_iter().flat_map(|variant| &variant.patches);
        [&self.shared].into_iter().chain(variants).chain([&self.changes])
    }
}

/// Lays `patch` over a body: objects field by field, everything else as a whole.
fn lay_over(body: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (body.get_mut(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => lay_over(old, new),
            _ => {
                body.insert(name.clone(), value.clone());
            }
        }
    }
}
