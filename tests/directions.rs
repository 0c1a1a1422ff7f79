//! Holds the import directions of ARCHITECTURE.md: reads every path in `src` and fails on a breach.

use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import of its siblings; everything below it on the map, and no more.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("kernels", &[]),
    ("memory", &[]),
    ("model", &["domain"]),
    ("job", &["domain", "model"]),
    ("tensors", &["domain", "model"]),
    ("fusion", &["domain", "job", "kernels", "model", "tensors"]),
    ("data", &["domain", "job", "kernels", "model", "tensors"]),
    ("train", &["data", "domain", "job", "kernels", "model", "tensors"]),
    ("report", &["domain", "job", "model"]),
    ("pipeline", &["data", "domain", "fusion", "job", "kernels", "memory", "model", "report", "tensors", "train"]),
    ("store", &["domain", "job", "model"]),
    ("validation", &["config", "domain", "lifecycle", "store"]),
    ("worker", &["config", "domain", "job", "lifecycle", "model", "store"]),
    ("http", &["config", "domain", "job", "lifecycle", "model", "report", "store"]),
];

/// Crates that a module must not know.
const FOREIGN: &[(&str, &[&str])] = &[
    ("domain", &["axum", "sqlx", "tokio", "candle_core", "candle_nn"]),
    ("model", &["axum", "sqlx", "tokio", "candle_core", "candle_nn"]),
    ("job", &["axum", "sqlx", "tokio", "candle_core", "candle_nn"]),
    ("kernels", &["axum", "sqlx", "tokio", "candle_core", "candle_nn"]),
    ("tensors", &["axum", "sqlx", "tokio"]),
    ("fusion", &["axum", "sqlx", "tokio"]),
    ("data", &["axum", "sqlx", "tokio"]),
    ("train", &["axum", "sqlx", "tokio"]),
    ("report", &["axum", "sqlx", "tokio", "candle_core", "candle_nn"]),
    ("pipeline", &["axum", "sqlx", "tokio"]),
    ("http", &["candle_core", "candle_nn", "sqlx"]),
    ("worker", &["axum", "sqlx"]),
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("a readable entry")) {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module that follows each `crate::` and, for `crate::{a, b}`, each one inside the braces.
fn siblings(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let after = line.match_indices("crate::").map(|(at, found)| &line[at + found.len()..]);
    after
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.trim_end_matches(['}', ';']).split(", ").map(word).collect(),
            None => vec![word(rest)],
        })
        .collect()
}

fn row<'a>(table: &'a [(&str, &'a [&'a str])], module: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(name, _)| *name == module).map(|(_, list)| *list)
}

/// What a line of `module` imports although it must not.
fn breaches(module: &str, line: &str, modules: &[String]) -> Vec<String> {
    let sideways = siblings(line).into_iter().filter(|sibling| {
        let allowed = row(MAY_IMPORT, module).is_none_or(|allowed| allowed.contains(&sibling.as_str()));
        sibling != module && modules.contains(sibling) && !allowed
    });
    let foreign = row(FOREIGN, module).unwrap_or_default().iter().filter(|name| line.contains(&format!("{name}::")));
    sideways.chain(foreign.map(ToString::to_string)).collect()
}

/// `src/http/problem.rs` belongs to `http`, `src/app.rs` to `app`.
fn module_of(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).expect("below src").components().next().expect("a name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_run_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let modules: Vec<String> = files.iter().map(|file| module_of(&src, file)).collect();
    let mut found = Vec::new();
    for (file, module) in files.iter().zip(&modules) {
        let text = fs::read_to_string(file).expect("a readable file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for breach in breaches(module, line, &modules) {
                found.push(format!("{}:{}: `{module}` must not know `{breach}`", file.display(), number + 1));
            }
        }
    }
    assert!(files.len() > 20, "only {} files were read", files.len());
    assert!(found.is_empty(), "imports that point upwards or sideways:\n{}", found.join("\n"));
}

#[test]
fn a_breach_is_seen() {
    let modules = ["http", "worker", "domain", "store"].map(str::to_owned);
    assert_eq!(breaches("http", "use crate::worker::Claim;", &modules), ["worker"]);
    assert_eq!(breaches("domain", "use crate::{http, store};", &modules), ["http", "store"]);
    assert_eq!(breaches("worker", "    let row = sqlx::query(\"\");", &modules), ["sqlx"]);
    assert!(breaches("http", "use crate::store::jobs;", &modules).is_empty());
}
