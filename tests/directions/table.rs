//! What each module may know: everything below it on the map of ARCHITECTURE.md, and no more.

/// Crates that only some modules may know.
pub(crate) const FRAMEWORKS: &[&str] = &["axum", "candle_core", "candle_nn", "clap", "sqlx", "tokio"];

/// What one module may know.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) module: &'static str,
    /// Modules of this crate.
    pub(crate) imports: &'static [&'static str],
    /// More modules, for its tests alone.
    pub(crate) in_tests: &'static [&'static str],
    /// Of [`FRAMEWORKS`].
    pub(crate) frameworks: &'static [&'static str],
}

const fn row(module: &'static str, imports: &'static [&'static str], frameworks: &'static [&'static str]) -> Row {
    Row { module, imports, in_tests: &[], frameworks }
}

/// From the bottom up.
pub(crate) const ROWS: &[Row] = &[
    row("domain", &[], &[]),
    row("kernels", &[], &[]),
    row("memory", &[], &[]),
    row("model", &["domain"], &[]),
    row("job", &["domain", "model"], &[]),
    row("tensors", &["domain", "model"], &["candle_core"]),
    row("fusion", &["domain", "job", "kernels", "model", "tensors"], &[]),
    row("data", &["domain", "job", "model", "tensors"], &[]),
    row("train", &["data", "domain", "job", "kernels", "model", "tensors"], &[]),
    row("report", &["job", "model"], &[]),
    row(
        "pipeline",
        &["data", "domain", "fusion", "job", "kernels", "memory", "model", "report", "tensors", "train"],
        &[],
    ),
    row("config", &["domain", "job"], &["clap"]),
    row("lifecycle", &[], &["tokio"]),
    row("telemetry", &["config"], &[]),
    row("store", &["domain", "job", "model"], &["sqlx", "tokio"]),
    row("validation", &["config", "domain", "lifecycle", "store"], &["tokio"]),
    row("worker", &["domain", "job", "lifecycle", "store"], &["candle_core", "tokio"]),
    row("http", &["config", "domain", "job", "lifecycle", "model", "report", "store"], &["axum", "tokio"]),
    row("app", &["config", "domain", "http", "lifecycle", "store", "validation", "worker"], &["tokio"]),
    row(
        "cli",
        &[
            "app",
            "config",
            "data",
            "domain",
            "http",
            "job",
            "lifecycle",
            "memory",
            "model",
            "pipeline",
            "report",
            "store",
            "telemetry",
            "tensors",
        ],
        &["clap", "tokio"],
    ),
    row("main", &["cli", "memory"], &[]),
    row("lib", &[], &[]),
];

/// Files that need each other in a loop, and why they may.
pub(crate) const CIRCLES: &[(&[&str], &str)] = &[
    (
        &["fusion::calibration::forward", "fusion::calibration::layer"],
        "to be ended: the value that layers compute stands with the network",
    ),
    (&["fusion::score", "fusion::select"], "scores follow from what is selected so far, and a selection from scores"),
    (
        &["job::estimate", "job::estimate::fits", "job::plan", "job::resolve"],
        "to be ended: a network holds its own plan",
    ),
    (&["kernels::float", "kernels::tile"], "each type of numbers names its tile, and tiles are of such numbers"),
    (
        &["model::formats::safetensors", "model::formats::safetensors_json"],
        "one format in two files, with one type of errors",
    ),
    (
        &["model::graph", "model::parameters"],
        "a graph checks its parameters' sizes, and parameters are those of a graph",
    ),
    (&["tensors::convert", "tensors::elements", "tensors::number"], "one table of element types, from three sides"),
    (&["tensors::state_dict", "tensors::write"], "a state dict writes itself, with its own type of errors"),
    (&["train::network::compile", "train::network::operations"], "one compiler in two files"),
    (
        &["train::network::layer", "train::network::plain", "train::network::weighted"],
        "a layer is an operation of either kind, and both work in a layer's pass",
    ),
];
