//! What each module may know: everything below it on the map of ARCHITECTURE.md, and no more.

/// Crates that only some modules may know.
pub(crate) const FRAMEWORKS: &[&str] =
    &["axum", "candle_core", "candle_nn", "clap", "hyper", "hyper_util", "sqlx", "tokio"];

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
    row("settings", &[], &[]),
    row("kernels", &[], &[]),
    row("model", &["domain", "settings"], &[]),
    row("cost", &["domain", "model", "settings"], &[]),
    row("tensors", &["domain", "model"], &["candle_core"]),
    Row {
        module: "export",
        imports: &["domain", "model", "settings", "tensors"],
        in_tests: &["fusion"],
        frameworks: &[],
    },
    row("plan", &["cost", "domain", "model", "settings"], &[]),
    row("process", &["domain", "plan", "settings"], &[]),
    Row {
        module: "exec",
        imports: &["domain", "kernels", "model", "settings", "tensors"],
        // Fresh weights.
        in_tests: &["train"],
        frameworks: &[],
    },
    row("fusion", &["cost", "domain", "exec", "kernels", "model", "settings", "tensors"], &[]),
    row("data", &["domain", "model", "settings", "tensors"], &[]),
    row("train", &["data", "domain", "exec", "kernels", "model", "settings", "tensors"], &["candle_core", "candle_nn"]),
    row("report", &["domain", "model", "settings"], &[]),
    row(
        "pipeline",
        &[
            "cost", "data", "domain", "exec", "export", "fusion", "kernels", "model", "plan", "process", "report",
            "settings", "tensors", "train",
        ],
        &[],
    ),
    row("config", &["domain", "settings"], &["clap"]),
    row("runtime", &["config"], &["tokio"]),
    row("store", &["domain", "model", "settings", "tensors"], &["sqlx", "tokio"]),
    Row {
        module: "worker",
        imports: &["config", "domain", "plan", "process", "runtime", "settings", "store"],
        in_tests: &[],
        frameworks: &["tokio"],
    },
    row("outbound", &["domain", "runtime", "store"], &["tokio"]),
    row(
        "http",
        &["config", "domain", "export", "model", "outbound", "plan", "report", "runtime", "settings", "store"],
        &["axum", "hyper", "hyper_util", "tokio"],
    ),
    row("client", &["domain"], &["tokio"]),
    row("destinations", &["client", "domain", "model", "report"], &["tokio"]),
    row("app", &["config", "domain", "exec", "http", "outbound", "runtime", "store", "worker"], &[]),
    row(
        "cli",
        &[
            "app",
            "client",
            "config",
            "data",
            "destinations",
            "domain",
            "exec",
            "export",
            "http",
            "model",
            "pipeline",
            "plan",
            "process",
            "report",
            "runtime",
            "settings",
            "store",
            "tensors",
        ],
        &["clap", "tokio"],
    ),
    row("main", &["cli", "process"], &[]),
    row("lib", &[], &[]),
];

/// Files that need each other in a loop, and why they may.
pub(crate) const CIRCLES: &[(&[&str], &str)] = &[
    (&["kernels::float", "kernels::tile"], "each type of numbers names its tile, and tiles are of such numbers"),
    (
        &["model::graph", "model::parameters"],
        "a graph checks its parameters' sizes, and parameters are those of a graph",
    ),
    (&["tensors::convert", "tensors::elements", "tensors::number"], "one table of element types, from three sides"),
    (&["tensors::state_dict", "tensors::write"], "a state dict writes itself, with its own type of errors"),
];
