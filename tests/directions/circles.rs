//! Circles: files that need each other in a loop.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Module, Target, Tree};

/// The circles of a tree, each as the sorted names of its modules. What a module takes from the one that it is a part of
/// does not count, for the whole declares what its parts share; nor do names that are only handed on, and what tests
/// alone need.
pub(crate) fn circles(tree: &Tree) -> Vec<Vec<String>> {
    let mut edges: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for import in tree.imports.iter().filter(|import| !import.in_test && !import.hands_on) {
        if let Target::Module(to) = &import.to
            && !import.from.starts_with(to)
        {
            edges.entry(&import.from).or_default().insert(to);
        }
    }
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        edges.keys().map(|module| (*module, reachable(module, &edges))).collect();
    let loops = |module: &&Module| reached[module].contains(module);
    let together = edges.keys().copied().filter(loops).map(|module| {
        let back = |other: &&&Module| reached.get(**other).is_some_and(|reached| reached.contains(module));
        reached[module].iter().filter(back).map(|module| module.join("::")).collect::<Vec<_>>()
    });
    together.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Everything that `from` needs, at once or through others.
fn reachable<'a>(from: &'a Module, edges: &BTreeMap<&'a Module, BTreeSet<&'a Module>>) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in edges.get(module).into_iter().flatten() {
            if found.insert(*next) {
                open.push(next);
            }
        }
    }
    found
}
