//! `openapi.yaml` is what the code says.

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
