//! Holds the import directions of ARCHITECTURE.md: reads every import in `src`, those of tests too, and fails on a breach.

mod circles;
mod reader;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use circles::circles;
use reader::{Import, Target, Tree};
use table::{CIRCLES, FRAMEWORKS, ROWS, Row};

fn house() -> Tree {
    Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// The module on the map: `http::problem` belongs to `http`; the root is `lib`.
fn on_map(module: &[String]) -> &str {
    module.first().map_or("lib", String::as_str)
}

/// What is wrong with an import by `rows`, if anything is.
fn breach(import: &Import, rows: &[Row]) -> Option<String> {
    let module = on_map(&import.from);
    let Some(row) = rows.iter().find(|row| row.module == module) else {
        return Some(format!("`{module}` has no row"));
    };
    let (to, allowed) = match &import.to {
        Target::Module(to) => {
            let to = on_map(to);
            let in_tests = import.in_test && row.in_tests.contains(&to);
            (to, to == module || row.imports.contains(&to) || in_tests)
        }
        Target::Crate(to) => (to.as_str(), row.frameworks.contains(&to.as_str())),
    };
    let who = if import.in_test { "a test of " } else { "" };
    (!allowed).then(|| format!("{who}`{}` must not know `{to}`", import.from.join("::")))
}

#[test]
fn imports_run_downwards() {
    let house = house();
    let found: BTreeSet<String> = house.imports.iter().filter_map(|import| breach(import, ROWS)).collect();
    assert!(
        found.is_empty(),
        "imports that point upwards or sideways:\n{}",
        found.into_iter().collect::<Vec<_>>().join("\n")
    );
    let in_tests = house.imports.iter().filter(|import| import.in_test).count();
    println!("{} imports of {} files, {in_tests} of them in tests", house.imports.len(), house.files.len());
    assert!(house.imports.len() > 2_000 && in_tests > 200, "a guard that sees nothing");
}

#[test]
fn every_module_has_a_row_and_every_row_a_use() {
    let house = house();
    let modules: BTreeSet<&str> = house.files.keys().map(|module| on_map(module)).collect();
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.module).collect();
    assert_eq!(modules, rows);
    let mut used: BTreeMap<&str, BTreeSet<(&str, bool)>> = BTreeMap::new();
    for import in &house.imports {
        let to = match &import.to {
            Target::Module(to) => on_map(to),
            Target::Crate(to) => to,
        };
        used.entry(on_map(&import.from)).or_default().insert((to, import.in_test));
    }
    for Row { module, imports, in_tests, frameworks } in ROWS {
        let empty = BTreeSet::new();
        let used = used.get(module).unwrap_or(&empty);
        for to in imports.iter().chain(*frameworks) {
            assert!(used.contains(&(to, false)), "`{module}` may know `{to}` and does not: its row is too wide");
        }
        for to in *in_tests {
            assert!(used.contains(&(to, true)), "tests of `{module}` may know `{to}` and do not");
            assert!(!imports.contains(to), "`{module}` may know `{to}`, not only its tests");
        }
    }
}

#[test]
fn circles_are_known_by_name() {
    let found = circles(&house());
    let known: Vec<Vec<String>> =
        CIRCLES.iter().map(|(circle, _)| circle.iter().map(|module| (*module).to_owned()).collect()).collect();
    let new: Vec<_> = found.iter().filter(|circle| !known.contains(circle)).collect();
    assert!(new.is_empty(), "files that need each other in a loop: {new:#?}");
    let gone: Vec<_> = known.iter().filter(|circle| !found.contains(circle)).collect();
    assert!(gone.is_empty(), "circles that are no more: {gone:#?}");
    assert!(CIRCLES.iter().all(|(_, why)| !why.is_empty()), "a circle has a reason");
}

/// A tree of these files.
fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::of(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())))
}

#[test]
fn every_way_to_import_is_seen() {
    let house = tree(&[
        ("a/mod.rs", "mod inner;\npub use inner::Thing;\npub struct Own;"),
        ("a/inner.rs", "use super::Own;\npub struct Thing;"),
        ("b.rs", "use crate::{a::Thing, c};\nfn f() { tokio::spawn(crate::c::g(vec![crate::d::h()])); }"),
        ("c.rs", "fn g() {}\n#[cfg(test)]\nmod tests { use super::super::b; use crate::a::Own as Other; }"),
        (
            "d.rs",
            "#[cfg(test)] mod tests;\npub(in crate::a) fn h() {}\n#[derive(Debug)] struct S { own: super::a::Own }",
        ),
        ("d/tests.rs", "use crate::b;"),
    ]);
    let told: Vec<String> = house
        .imports
        .iter()
        .map(|import| {
            let to = match &import.to {
                Target::Module(to) => to.join("::"),
                Target::Crate(to) => format!("crate {to}"),
            };
            let (test, on) = (if import.in_test { " in tests" } else { "" }, if import.hands_on { " on" } else { "" });
            format!("{} -> {to}{test}{on}", import.from.join("::"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "a -> a::inner on",
            "a::inner -> a",
            "b -> a::inner",
            "b -> c",
            "b -> crate tokio",
            "b -> c",
            "b -> d",
            "c -> b in tests",
            "c -> a in tests",
            "d -> a",
            "d::tests -> b in tests",
        ]
    );
    assert!(circles(&house).is_empty(), "tests and names that are handed on close no circle");
}

#[test]
fn a_breach_is_seen() {
    const ROWS: &[Row] = &[
        Row { module: "a", imports: &[], in_tests: &["b"], frameworks: &[] },
        Row { module: "b", imports: &["a"], in_tests: &[], frameworks: &["tokio"] },
    ];
    let told = |path: &str, text: &str| {
        let house = tree(&[("a.rs", ""), ("b.rs", ""), ("c.rs", ""), (path, text)]);
        house.imports.iter().filter_map(|import| breach(import, ROWS)).collect::<Vec<_>>()
    };
    assert_eq!(told("a.rs", "use crate::b;"), ["`a` must not know `b`"]);
    assert_eq!(told("a.rs", "fn f() { let row = sqlx::query(\"\"); }"), ["`a` must not know `sqlx`"]);
    assert_eq!(told("c.rs", "use crate::a;"), ["`c` has no row"]);
    assert_eq!(told("b.rs", "#[cfg(test)] mod tests { use crate::c; }"), ["a test of `b` must not know `c`"]);
    assert!(told("a.rs", "#[cfg(test)] mod tests { use crate::b; }").is_empty());
    assert!(told("b.rs", "use crate::a; use tokio::time;").is_empty());
    assert!(FRAMEWORKS.contains(&"sqlx"));
}

#[test]
fn a_circle_is_seen() {
    let house = tree(&[
        ("a.rs", "use crate::b;"),
        ("b.rs", "use crate::c;"),
        ("c.rs", "use crate::a; use crate::d;"),
        ("d.rs", ""),
    ]);
    assert_eq!(circles(&house), [["a", "b", "c"]]);
}
