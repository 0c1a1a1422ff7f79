//! The model card: a README in Markdown for the fused model's repository, with the metadata block that hubs read.

use std::fmt::Write as _;

use super::figure::Figure;
use super::identity::FileRole;
use super::table::{cells, title};
use super::usage::Usage;
use super::{CandidateKind, CandidateReport, Gain, Report, ReportIdentity};
use crate::domain::score::Measures;
use crate::settings::{Compensate, PredictionTask};

/// The card of a job's model.
#[must_use]
pub fn card(report: &Report) -> String {
    let mut text = metadata(report);
    let _ = writeln!(text, "\n# {}\n", heading(report.identity.name.as_deref().unwrap_or("Fused model")));
    let _ = writeln!(
        text,
        "One network of the family `{}`, made of {} by engraft {} ({}), for the same inputs and outputs.",
        report.architecture,
        counted(report.members.len(), "trained network"),
        report.engraft_version,
        report.method.name.as_str().replace('_', " "),
    );
    if let Some(evidence) = report.evidence.as_ref().filter(|evidence| evidence.degree.is_doubtful()) {
        let _ = writeln!(
            text,
            "\n**What network the members are is {}, not certain**: {}.",
            evidence.degree.name(),
            evidence.why
        );
    }
    let _ = write!(text, "\n## {}\n\n", Figure::of(report.task).title());
    text += &figures(report);
    text += "\n## Files\n\n| file | SHA-256 |\n| --- | --- |\n";
    for FileRole { role, file } in report.identity.files() {
        let _ = writeln!(text, "| {role}: {} | `{}` |", code(&file.name), file.sha256);
    }
    text += "\n## How it was made\n\n";
    text += &making(report);
    text += "\n## How to use it\n\n";
    text += &usage(report);
    if !report.warnings.is_empty() {
        text += "\n## Warnings\n\n";
        for warning in &report.warnings {
            let _ = writeln!(text, "- {}", warning.replace('\n', " "));
        }
    }
    text += "\n## Licence, data, limits\n\nTo be filled in: the licences of the members and of the data decide under which terms this model may be \
             used; what it was trained to do, and where it should not be used.\n";
    text
}

/// The block that hubs read; texts are JSON strings, which YAML reads too.
fn metadata(report: &Report) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut block = "---\nlicense: unknown  # to be filled in\nlibrary_name: engraft\ntags:\n- model-fusion\n- neuron-transplantation\n".to_owned();
    let fused = report.candidates.iter().find(|candidate| candidate.kind == CandidateKind::Fused);
    let ReportIdentity { model: Some(model), dataset: Some(dataset), .. } = &report.identity else {
        return block + "---\n";
    };
    let Some(score) = fused.and_then(|fused| fused.test) else {
        return block + "---\n";
    };
    // The names of tasks and metrics that hubs know.
    let (task, metrics) = match (report.task, score.measures) {
        (PredictionTask::Classification, Measures::Classes { accuracy }) => {
            ("image-classification", vec![("accuracy", accuracy)])
        }
        (_, Measures::Classes { accuracy }) => ("other", vec![("accuracy", accuracy)]),
        (_, Measures::Labels { macro_f1, .. }) => ("other", vec![("f1", macro_f1)]),
        (_, Measures::Numbers { rmse, r2 }) => {
            ("other", [("rmse", Some(rmse)), ("r_squared", r2)].into_iter().filter_map(known).collect())
        }
    };
    let (mut names, mut values) = (String::new(), String::new());
    for (name, value) in metrics {
        let _ = writeln!(names, "- {name}");
        let _ = writeln!(values, "    - type: {name}\n      value: {value}");
    }
    let _ = write!(
        block,
        "metrics:\n{names}model-index:\n- name: {}\n  results:\n  - task:\n      type: {task}\n    dataset:\n      name: {name}\n      type: \
         {name}\n      split: test\n    metrics:\n{values}---\n",
        text(&model.name),
        name = text(&dataset.name),
    );
    block
}

/// A metric that was measured.
fn known((name, value): (&'static str, Option<f64>)) -> Option<(&'static str, f64)> {
    Some((name, value?))
}

/// The comparison, each figure with how far it may be off.
fn figures(report: &Report) -> String {
    let measured = report.measured();
    if let Some(reason) = report.unmeasured() {
        return format!("{reason}\n");
    }
    let split = if report.examples.test > 0 { "test" } else { "validation" };
    let figure = Figure::of(report.task);
    let behind = match figure {
        Figure::Accuracy => "behind ± the standard error",
        Figure::LabelAccuracy => "in brackets the 95 % interval, by the spread over examples",
        Figure::Rmse => "in brackets the 95 % interval, by the normal approximation of squared errors",
    };
    let mut text = format!(
        "On the {measured} examples of the {split} split; {behind}.\n\n| | {split} | parameters | MACs |\n| --- | --- | --- | --- |\n"
    );
    for candidate in &report.candidates {
        let score = if report.examples.test > 0 { candidate.test } else { candidate.validation };
        let [.., parameters, macs, _, _] = cells(candidate, report);
        let estimate = score.map_or_else(|| "-".to_owned(), |score| figure.estimate(&score, measured));
        let interval = candidate.interval.map_or_else(String::new, |ends| {
            let [low, high] = ends.map(|end| figure.shown(end));
            format!(" [{low}, {high}]")
        });
        let _ = writeln!(text, "| {} | {estimate}{interval} | {parameters} | {macs} |", escaped(&row(candidate)));
    }
    if let Some(headline) = report.headline() {
        let _ = writeln!(text, "\n{headline}");
    }
    if let Some(gain) = Gain::of(&report.candidates, measured) {
        let _ = writeln!(text, "\n{gain}");
    }
    text
}

fn row(candidate: &CandidateReport) -> String {
    if candidate.kind == CandidateKind::Fused { "**fused (this model)**".to_owned() } else { title(candidate) }
}

/// Ranking, compensation and training in words.
fn making(report: &Report) -> String {
    let mut text = format!("- seed {}\n", report.seed);
    if let Some(computation) = report.on_gpu() {
        let _ = writeln!(text, "- {computation}");
    }
    if let Some(published) = &report.published {
        let _ = writeln!(text, "- {published}");
    }
    if let Some(choice) = &report.choice {
        let _ = writeln!(text, "- {choice}");
    } else if report.method.name.selects() {
        let _ = writeln!(text, "- units ranked by `{}`", report.method.importance.as_str());
    }
    if report.compensation.is_some() {
        text += match report.method.compensate {
            Compensate::DataFree => "- layers behind the selection refitted without data\n",
            _ => "- layers behind the selection refitted on unlabelled examples\n",
        };
    }
    // The first is the network before its first step.
    let _ = match (report.epochs.len().saturating_sub(1), report.best_epoch) {
        (0, _) => writeln!(text, "- not trained"),
        (epochs, Some(best)) => {
            let (epochs, reason) = (counted(epochs, "epoch"), report.epoch_reason());
            writeln!(text, "- trained for {epochs}, of which epoch {best} is published{reason}")
        }
        (epochs, None) => writeln!(text, "- trained for {}", counted(epochs, "epoch")),
    };
    for (group, kept) in report.origins() {
        let parts: Vec<String> =
            kept.iter().enumerate().map(|(member, units)| format!("{units} of member {member}")).collect();
        let _ = writeln!(text, "- units of {}: {}", code(group), parts.join(", "));
    }
    text
}

/// Inputs and code.
fn usage(report: &Report) -> String {
    let mut text = match &report.normalize {
        Some(normalize) => format!(
            "Inputs are normalised by channel, bytes of images after division by 255: mean {:?}, standard deviation {:?}.\n\n",
            normalize.mean, normalize.std
        ),
        None => "Inputs are normalised as those of the members.\n\n".to_owned(),
    };
    text += match report.task {
        PredictionTask::Classification => "",
        PredictionTask::Binary | PredictionTask::MultiLabel => {
            "Outputs are logits: their sigmoids are the probabilities of the labels.\n\n"
        }
        PredictionTask::Regression => "Outputs are the predicted numbers.\n\n",
    };
    text += "The file loads wherever the members' modules have its widths, with the members' names. ";
    text += if report.identity.has_source {
        "For any widths, `model.py` is its PyTorch module:\n"
    } else {
        "Which network it is was not decided, so it has no module of its own.\n"
    };
    if let Some(usage) = Usage::of(report) {
        let _ = write!(text, "\n```python\n{}\n```\n", usage.python);
    }
    text
}

/// A text as a heading of one line.
fn heading(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A name as code, whatever it holds.
fn code(name: &str) -> String {
    format!("`{}`", name.replace(['`', '|', '\n', '\r'], "_"))
}

/// A text for a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html::tests::report;

    #[test]
    fn a_card_names_what_the_model_is_made_of_and_how_sure_its_figures_are() {
        let card = card(&report());
        let block = card.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).expect("metadata").0;
        for line in ["license: unknown  # to be filled in", "      name: \"a: [b]\"", "      value: 0.545"] {
            assert!(block.lines().any(|other| other == line), "{line}\n{block}");
        }
        let digest = "b".repeat(64);
        for part in [
            "# letters & digits\n",
            "| **fused (this model)** | 54.50 ± 0.50 % | 1 k | 1 k |",
            &format!("| member: `m0__x_` | `{digest}` |"),
            "- trained for 1 epoch, of which epoch 1 is published",
            "- units of `fc1`: 5 of member 0, 3 of member 1",
            "network = load(\"fused.safetensors\")",
            "- look & see",
        ] {
            assert!(card.contains(part), "{part}\n{card}");
        }
        let identity = ReportIdentity { dataset: None, has_source: false, ..report().identity };
        let examples = crate::report::SplitSizes::default();
        let card = super::card(&Report { identity, candidates: Vec::new(), examples, ..report() });
        assert!(card.contains("Not measured") && !card.contains("model-index") && !card.contains("model.py"), "{card}");
    }
}
