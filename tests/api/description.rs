//! `openapi.yaml` is what the code says.

use engraft::domain::problem::Code;

#[test]
fn the_committed_description_is_the_code_s() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let current = engraft::http::document().to_yaml().expect("the description can be written");
    let differs = committed.lines().zip(current.lines()).position(|(old, new)| old != new);
    assert!(
        committed == current,
        "openapi.yaml differs from the code (first in line {}); refresh it: cargo run -- openapi > openapi.yaml",
        differs.unwrap_or_else(|| committed.lines().count().min(current.lines().count())) + 1
    );
}

#[test]
fn the_page_for_the_person_on_call_names_every_problem() {
    let page = include_str!("../../docs/operations.md");
    for code in Code::ALL {
        assert!(
            page.contains(&format!("| `{}` | ", code.as_str())),
            "docs/operations.md has no row for `{}`",
            code.as_str()
        );
    }
}
