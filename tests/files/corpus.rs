//! Every reader of foreign bytes with every kept input of its fuzzing target, among them all that ever broke it.

#[expect(unreachable_pub, reason = "the fuzzing targets are a crate of their own, which exports them")]
#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use targets::TARGETS;

fn folder(of: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", of].iter().collect()
}

fn names(of: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(of)).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

#[test]
fn no_kept_input_breaks_its_reader() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let inputs = names(&format!("corpus/{name}"));
        assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
        let mut accepted = 0;
        for input in inputs {
            let input = format!("fuzz/corpus/{name}/{input}");
            let bytes = fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(&input)).expect("reads");
            match catch_unwind(|| target(&bytes)) {
                Ok(yes) => accepted += usize::from(yes),
                Err(_) => broken.push(input),
            }
        }
        // What is refused at the door tests the door alone.
        assert!(accepted > 0, "no input of fuzz/corpus/{name} is accepted");
    }
    assert!(broken.is_empty(), "these break their readers: {broken:#?}");
}

#[test]
fn every_target_is_built_and_has_a_corpus() {
    let mut listed = TARGETS.map(|(name, _)| name.to_owned());
    listed.sort();
    let mains: Vec<String> = names("fuzz_targets").iter().map(|name| name.replace(".rs", "")).collect();
    assert_eq!(mains, listed);
    assert_eq!(names("corpus"), listed);
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("reads");
    for name in listed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "fuzz/Cargo.toml lacks {name}");
    }
}
