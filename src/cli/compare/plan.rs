//! A plan of comparisons in a file, and the jobs that come of it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cli::plan::{Inspected, planned};
use crate::domain::problem::Problem;
use crate::plan::comparison::{Cell, Grid};
use crate::plan::network::KnownSpeed;
use crate::plan::parse::comparison;
use crate::plan::request::JobRequest;

/// Most runs of one plan.
const MOST_RUNS: usize = 10_000;

/// Refused combinations that a message names.
const SHOWN: usize = 10;

/// Reads the file `path`, whose files lie beside it; every job of the grid must be a valid one.
pub(super) fn read(path: &Path, quick: bool) -> Result<Grid> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the plan {}", path.display()))?;
    let body: Value = toml::from_str(&text).with_context(|| format!("{} is not TOML", path.display()))?;
    let mut plan = comparison(&body, quick)
        .map_err(Problem::faults)
        .with_context(|| format!("{} is not a plan", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    plan.rename_files(|name| folder.join(name).to_string_lossy().into_owned());
    ensure!(plan.runs() <= MOST_RUNS, "a plan has at most {MOST_RUNS} runs, this one {}", plan.runs());
    for cell in plan.cells() {
        job(&plan, &cell)?;
    }
    Ok(plan)
}

/// Checks every run against its files before the first one computes: whether the members can be fused that way, to that size. Seeds change
/// nothing of that.
///
/// # Errors
/// All runs that cannot be, with the reasons.
pub(super) fn check(plan: &Grid) -> Result<()> {
    let mut inspected = Inspected::default();
    let (mut checked, mut refused) = (BTreeSet::new(), Vec::new());
    for cell in plan.cells() {
        let name = format!("{} / {} / {}", cell.ensemble.name, cell.method.name, cell.target.name);
        if !checked.insert(name.clone()) {
            continue;
        }
        if let Err(error) = planned(job(plan, &cell)?, KnownSpeed::default(), &mut inspected) {
            refused.push(format!("\n  {name}: {error:#}"));
        }
    }
    let (all, first) = (checked.len(), refused.len().min(SHOWN));
    ensure!(
        refused.is_empty(),
        "{} of {all} combinations cannot be run; nothing was computed:{}{}",
        refused.len(),
        refused[..first].concat(),
        if refused.len() > first { "\n  …" } else { "" }
    );
    Ok(())
}

/// A job of the plan.
pub(super) fn job(plan: &Grid, cell: &Cell<'_>) -> Result<JobRequest> {
    Ok(plan.job(cell).map_err(Problem::faults)?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::settings::{Importance, Size};

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

    fn read_text(text: &str, quick: bool) -> Result<Grid> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text).unwrap();
        read(&path, quick)
    }

    #[test]
    fn a_grid_becomes_jobs_whose_files_lie_beside_the_plan() {
        let plan = read_text(PLAN, false).unwrap();
        assert_eq!((plan.runs(), plan.cells().count()), (6, 6));
        let cell = plan.cells().nth(3).unwrap();
        assert_eq!(cell.to_string(), "two / css / half / seed 0");
        let css = job(&plan, &cell).unwrap();
        assert_eq!(css.method.importance, Importance::Css);
        assert_eq!(css.target.size, Size::Factor(0.5));
        let finetune = css.finetune.as_ref().unwrap();
        assert_eq!((finetune.epochs, finetune.batch_size), (3, 64));
        assert!(css.members[0].ends_with("/a.safetensors") && css.members[0].len() > 15);
        assert_eq!(css.members[1], "/b.safetensors");
        assert!(css.dataset.as_ref().unwrap().name.ends_with("/data/x.npz"));
    }

    #[test]
    fn the_quick_form_keeps_less_and_wins_over_all() {
        let plan = read_text(PLAN, true).unwrap();
        let cells: Vec<Cell<'_>> = plan.cells().collect();
        assert_eq!((cells.len(), cells[0].seed), (1, 7));
        assert_eq!(job(&plan, &cells[0]).unwrap().finetune.unwrap().epochs, 1);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let wrong = PLAN.replace("compensate = \"none\"", "compensate = \"nothing\"");
        let error = format!("{:#}", read_text(&wrong, false).unwrap_err());
        assert!(error.contains("two / paper / half / seed 0") && error.contains("nothing"), "{error}");
        let error =
            format!("{:#}", read_text(&PLAN.replace("methods = [\"css\"]", "methods = [\"cs\"]"), true).unwrap_err());
        assert!(error.contains("`cs`"), "{error}");
        let error = format!("{:#}", read_text(&PLAN.replace("title", "titel"), false).unwrap_err());
        assert!(error.contains("titel"), "{error}");
        assert!(read_text(&PLAN.replace("seeds = [0, 1, 2]", "seeds = []"), false).is_err());
    }

    #[test]
    fn every_plan_of_the_experiments_is_valid_in_both_forms() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let plans: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        assert!(plans.len() >= 9, "{plans:?}");
        for plan in plans {
            let [whole, quick] = [false, true].map(|quick| read(&plan, quick).unwrap().runs());
            assert!(quick < whole, "{}: {quick} of {whole} runs", plan.display());
        }
    }
}
