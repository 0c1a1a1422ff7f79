//! A plan of comparisons: what is varied, and the jobs that come of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::domain::problem::Problem;
use crate::job::parse::parse;
use crate::job::request::JobRequest;

/// Most runs of one plan.
const MOST_RUNS: usize = 10_000;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    /// What all jobs share.
    #[serde(default)]
    job: Map<String, Value>,
    ensembles: Vec<Ensemble>,
    methods: Vec<Variant>,
    #[serde(default)]
    targets: Vec<Variant>,
    #[serde(default)]
    quick: Quick,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

/// Members to fuse; paths are relative to the plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ensemble {
    name: String,
    members: Vec<String>,
    #[serde(default)]
    job: Map<String, Value>,
}

/// A name and what it changes in the jobs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    #[serde(default)]
    job: Map<String, Value>,
}

/// What `--quick` leaves and changes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quick {
    seeds: Option<Vec<u64>>,
    #[serde(default)]
    job: Map<String, Value>,
    ensembles: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    targets: Option<Vec<String>>,
}

/// A job of a plan, and where it stands in the grid.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) ensemble: String,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) seed: u64,
    pub(super) job: JobRequest,
}

/// A plan, read and checked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) title: String,
    pub(super) cells: Vec<Cell>,
}

impl Plan {
    /// Reads the file `path`; every job of the grid must be a valid one.
    pub(super) fn read(path: &Path, quick: bool) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the plan {}", path.display()))?;
        let mut file: File = toml::from_str(&text).with_context(|| format!("{} is not a plan", path.display()))?;
        let changes = if quick { file.shorten()? } else { Map::new() };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let cells = file.cells(&folder, &changes)?;
        Ok(Self { title: file.title, cells })
    }
}

impl File {
    /// Keeps what the quick form keeps; returns what it changes in every job.
    fn shorten(&mut self) -> Result<Map<String, Value>> {
        let quick = std::mem::take(&mut self.quick);
        if let Some(seeds) = quick.seeds {
            self.seeds = seeds;
        }
        retain("ensembles", &mut self.ensembles, quick.ensembles.as_deref(), |ensemble| &ensemble.name)?;
        retain("methods", &mut self.methods, quick.methods.as_deref(), |variant| &variant.name)?;
        retain("targets", &mut self.targets, quick.targets.as_deref(), |variant| &variant.name)?;
        Ok(quick.job)
    }

    fn cells(&self, folder: &Path, changes: &Map<String, Value>) -> Result<Vec<Cell>> {
        let as_they_are = [Variant { name: "member width".to_owned(), job: Map::new() }];
        let targets = if self.targets.is_empty() { &as_they_are[..] } else { &self.targets };
        let runs = [self.ensembles.len(), self.methods.len(), targets.len(), self.seeds.len()];
        let count = runs.iter().try_fold(1_usize, |count, factor| count.checked_mul(*factor)).unwrap_or(usize::MAX);
        ensure!((1..=MOST_RUNS).contains(&count), "a plan has 1 to {MOST_RUNS} runs, this one {count}");
        let mut cells = Vec::with_capacity(count);
        for ensemble in &self.ensembles {
            for method in &self.methods {
                for target in targets {
                    for &seed in &self.seeds {
                        let mut body = Value::Object(self.job.clone());
                        for patch in [&ensemble.job, &method.job, &target.job, changes] {
                            lay_over(&mut body, patch);
                        }
                        let names: Vec<String> = ensemble.members.iter().map(|name| beside(folder, name)).collect();
                        body["members"] = json!(names);
                        body["seed"] = json!(seed);
                        locate(&mut body, folder);
                        let place = || format!("{} / {} / {} / seed {seed}", ensemble.name, method.name, target.name);
                        let job = parse(&body).map_err(Problem::faults).with_context(place)?;
                        cells.push(Cell {
                            ensemble: ensemble.name.clone(),
                            method: method.name.clone(),
                            target: target.name.clone(),
                            seed,
                            job,
                        });
                    }
                }
            }
        }
        Ok(cells)
    }
}

/// Keeps the entries that are named; all where none are.
fn retain<T>(what: &str, entries: &mut Vec<T>, names: Option<&[String]>, name: impl Fn(&T) -> &String) -> Result<()> {
    let Some(names) = names else { return Ok(()) };
    if let Some(unknown) = names.iter().find(|kept| entries.iter().all(|entry| name(entry) != *kept)) {
        bail!("quick.{what} names `{unknown}`, which is not among the plan's {what}");
    }
    entries.retain(|entry| names.contains(name(entry)));
    Ok(())
}

/// Lays `patch` over a body: objects field by field, everything else as a whole.
fn lay_over(body: &mut Value, patch: &Map<String, Value>) {
    let Value::Object(fields) = body else { return };
    for (name, value) in patch {
        match (fields.get_mut(name), value) {
            (Some(old @ Value::Object(_)), Value::Object(new)) => lay_over(old, new),
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Makes the datasets' names paths from here.
fn locate(body: &mut Value, folder: &Path) {
    match body.get_mut("dataset") {
        Some(Value::String(name)) => *name = beside(folder, name),
        Some(Value::Object(dataset)) => {
            for field in ["name", "validation", "test"] {
                if let Some(Value::String(name)) = dataset.get_mut(field) {
                    *name = beside(folder, name);
                }
            }
        }
        _ => {}
    }
}

/// The path of a file that the plan names.
fn beside(folder: &Path, name: &str) -> String {
    let path: PathBuf = folder.join(name);
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::request::{Importance, Size};

    const PLAN: &str = r#"
title = "Rankings"
seeds = [0, 1, 2]
[job]
dataset = "data/x.npz"
finetune = { epochs = 5, batch_size = 64 }
[[ensembles]]
name = "two"
members = ["a.safetensors", "/b.safetensors"]
[[methods]]
name = "paper"
job.method = { compensate = "none" }
[[methods]]
name = "css"
job.method = { importance = "css" }
job.finetune.epochs = 3
[[targets]]
name = "half"
job.target = { width = 0.5 }
[quick]
seeds = [7]
methods = ["css"]
job.finetune.epochs = 1
"#;

    fn read(text: &str, quick: bool) -> Result<Plan> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text).unwrap();
        Plan::read(&path, quick)
    }

    #[test]
    fn a_grid_becomes_jobs_whose_files_lie_beside_the_plan() {
        let plan = read(PLAN, false).unwrap();
        assert_eq!(plan.cells.len(), 6);
        let css = &plan.cells[3];
        assert_eq!((css.method.as_str(), css.target.as_str(), css.seed), ("css", "half", 0));
        assert_eq!(css.job.method.importance, Importance::Css);
        assert_eq!(css.job.target.size, Size::Factor(0.5));
        let finetune = css.job.finetune.as_ref().unwrap();
        assert_eq!((finetune.epochs, finetune.batch_size), (3, 64));
        assert!(css.job.members[0].ends_with("/a.safetensors") && css.job.members[0].len() > 15);
        assert_eq!(css.job.members[1], "/b.safetensors");
        assert!(css.job.dataset.as_ref().unwrap().name.ends_with("/data/x.npz"));
    }

    #[test]
    fn the_quick_form_keeps_less_and_wins_over_all() {
        let plan = read(PLAN, true).unwrap();
        assert_eq!(plan.cells.len(), 1);
        assert_eq!(plan.cells[0].seed, 7);
        assert_eq!(plan.cells[0].job.finetune.as_ref().unwrap().epochs, 1);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let wrong = PLAN.replace("compensate = \"none\"", "compensate = \"nothing\"");
        let error = format!("{:#}", read(&wrong, false).unwrap_err());
        assert!(error.contains("two / paper / half / seed 0") && error.contains("nothing"), "{error}");
        let error =
            format!("{:#}", read(&PLAN.replace("methods = [\"css\"]", "methods = [\"cs\"]"), true).unwrap_err());
        assert!(error.contains("`cs`"), "{error}");
        let error = format!("{:#}", read(&PLAN.replace("title", "titel"), false).unwrap_err());
        assert!(error.contains("titel"), "{error}");
        assert!(read(&PLAN.replace("seeds = [0, 1, 2]", "seeds = []"), false).is_err());
    }

    #[test]
    fn every_plan_of_the_experiments_is_valid_in_both_forms() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let plans: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        assert!(plans.len() >= 9, "{plans:?}");
        for plan in plans {
            let [whole, quick] = [false, true].map(|quick| Plan::read(&plan, quick).unwrap().cells.len());
            assert!(quick < whole, "{}: {quick} of {whole} runs", plan.display());
        }
    }
}
