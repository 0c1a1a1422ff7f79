//! How the fused model of a report is had and used: commands, and lines of Python.

use std::fmt::Write as _;

use serde_json::Value;

use super::Report;
use crate::settings::{Normalize, PredictionTask};

/// Name of the source of the model's PyTorch module.
const SOURCE: &str = "model.py";

/// How the fused model is had and used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Usage {
    /// Commands that bring the files that the lines read.
    pub(super) commands: Vec<String>,
    /// Lines of Python from the file to outputs.
    pub(super) python: String,
}

impl Usage {
    /// Of the model of `report`; none where its file is not known.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let identity = &report.identity;
        let file = identity.model.as_ref()?.name.as_str();
        let pull = |job: &str, out: &str| format!("engraft pull {job} --out {out}");
        if let Some(source) = &identity.source {
            return Some(Self { commands: Vec::new(), python: with_source(report, file, source) });
        }
        Some(match (&identity.job, identity.has_source) {
            (Some(job), true) => {
                Self { commands: vec![pull(job, file), pull(job, SOURCE)], python: with_source(report, file, SOURCE) }
            }
            (Some(job), false) => Self { commands: vec![pull(job, file)], python: with_own_module(report, file) },
            (None, true) => Self { commands: vec![convert(report, file)], python: with_source(report, file, SOURCE) },
            (None, false) => Self { commands: Vec::new(), python: with_own_module(report, file) },
        })
    }
}

/// The command that makes the source of the module of `file`.
fn convert(report: &Report, file: &str) -> String {
    let normalization = report.normalize.as_ref().map_or_else(String::new, |Normalize { mean, std }| {
        format!(" --mean {} --std {}", numbers(mean, ","), numbers(std, ","))
    });
    format!("engraft convert {} {SOURCE}{normalization}", shell_quoted(file))
}

/// With the module that is published beside the model, or made of it.
fn with_source(report: &Report, file: &str, source: &str) -> String {
    let (imported, call) = match report.normalize {
        Some(_) => ("load, normalize", "normalize(inputs)"),
        None => ("load", "inputs"),
    };
    let module = source.strip_suffix(".py").unwrap_or(source);
    let import = if is_name(module) {
        format!("from {module} import {imported}")
    } else {
        // No statement imports a file of such a name.
        let names = imported.split(", ").map(|name| format!("module[{}]", quoted(name))).collect::<Vec<_>>().join(", ");
        format!("import runpy\n\nmodule = runpy.run_path({})\n{imported} = {names}", quoted(source))
    };
    let mut python = format!("{import}\n\nnetwork = load({})\n", quoted(file));
    let _infallible = write!(python, "outputs = network({call}){}", shapes(report));
    python.push_str(&meaning(report));
    python
}

/// Whether Python reads this as a name.
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// With the user's own module, whose widths must be those of the file.
fn with_own_module(report: &Report, file: &str) -> String {
    let torch = if report.normalize.is_some() { "import torch\n" } else { "" };
    let mut python = format!(
        "{torch}from safetensors.torch import load_file\n\nnetwork.load_state_dict(load_file({}))  # your module, of these widths\nnetwork.eval()\n",
        quoted(file)
    );
    python.push_str(&normalized(report));
    let _infallible = write!(python, "outputs = network(inputs){}", shapes(report));
    python.push_str(&meaning(report));
    python
}

/// Lines that normalise the inputs by channel.
fn normalized(report: &Report) -> String {
    let Some(Normalize { mean, std }) = &report.normalize else { return String::new() };
    let axes = report.input_shape.as_ref().map_or(1, Vec::len);
    let ones = ", 1".repeat(axes.saturating_sub(1));
    format!(
        "mean, std = (torch.tensor(values).view(-1{ones}) for values in ([{}], [{}]))\ninputs = (inputs - mean) / std\n",
        numbers(mean, ", "),
        numbers(std, ", ")
    )
}

/// What goes in, as a comment.
fn shapes(report: &Report) -> String {
    let Some(shape) = &report.input_shape else { return String::new() };
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let pixels = if report.normalize.is_some() && shape.len() == 3 { ", pixels from 0 to 1" } else { "" };
    format!("  # inputs of shape [N, {}]{pixels}", sizes.join(", "))
}

/// What outputs are, where they are not the logits of classes.
fn meaning(report: &Report) -> String {
    match report.task {
        PredictionTask::Classification => "\nclasses = outputs.argmax(1)".to_owned(),
        PredictionTask::Binary | PredictionTask::MultiLabel => "\nprobabilities = outputs.sigmoid()".to_owned(),
        PredictionTask::Regression => String::new(),
    }
}

fn numbers(values: &[f32], between: &str) -> String {
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(between)
}

/// A text of Python; a JSON string is one.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name as a shell reads it.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html::tests::report;
    use crate::report::{ReportFile, ReportIdentity};

    fn normalized_report(identity: ReportIdentity) -> Report {
        let normalize = Some(Normalize { mean: vec![0.1307], std: vec![0.3081] });
        Report { identity, normalize, input_shape: Some(vec![1, 28, 28]), ..report() }
    }

    #[test]
    fn a_job_is_loaded_by_its_own_files_with_its_normalisation() {
        let usage = Usage::of(&normalized_report(report().identity)).expect("files");
        let job = "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c";
        assert_eq!(
            usage.commands,
            [format!("engraft pull {job} --out fused.safetensors"), format!("engraft pull {job} --out model.py")]
        );
        assert_eq!(
            usage.python,
            "from model import load, normalize\n\nnetwork = load(\"fused.safetensors\")\noutputs = network(normalize(inputs))  # inputs of \
             shape [N, 1, 28, 28], pixels from 0 to 1\nclasses = outputs.argmax(1)"
        );
    }

    #[test]
    fn a_file_without_a_server_is_converted_or_loaded_into_a_module_of_ones_own() {
        let named = |name: &str, has_source: bool| {
            let model = Some(ReportFile { name: name.to_owned(), sha256: "a".repeat(64) });
            Usage::of(&normalized_report(ReportIdentity { model, has_source, ..ReportIdentity::default() }))
        };
        let converted = named("my model.safetensors", true).expect("a way");
        assert_eq!(converted.commands, ["engraft convert 'my model.safetensors' model.py --mean 0.1307 --std 0.3081"]);
        assert_eq!(Usage::of(&normalized_report(ReportIdentity::default())), None);
        let own = named("fused.safetensors", false).expect("a way");
        let beside = |source: &str| {
            let model = Some(ReportFile { name: "smaller.safetensors".to_owned(), sha256: "a".repeat(64) });
            let identity = ReportIdentity {
                model,
                has_source: true,
                source: Some(source.to_owned()),
                ..ReportIdentity::default()
            };
            Usage::of(&normalized_report(identity)).expect("a way")
        };
        let there = beside("smaller.py");
        assert!(there.commands.is_empty(), "{:?}", there.commands);
        assert!(
            there.python.starts_with("from smaller import load, normalize\n\nnetwork = load(\"smaller.safetensors\")")
        );
        let odd = beside("my-model.v2.py").python;
        let lines =
            "module = runpy.run_path(\"my-model.v2.py\")\nload, normalize = module[\"load\"], module[\"normalize\"]\n";
        assert!(odd.contains(lines), "{odd}");
        for line in [
            "network.load_state_dict(load_file(\"fused.safetensors\"))",
            "torch.tensor(values).view(-1, 1, 1) for values in ([0.1307], [0.3081])",
        ] {
            assert!(own.commands.is_empty() && own.python.contains(line), "{line}\n{}", own.python);
        }
    }
}
