//! The report as one page that needs nothing else: no network, no script.

pub(super) mod charts;
pub(super) mod parts;

use std::fmt::Write;

use self::charts::{Dot, Series};
use self::parts::{escape, table};
use super::figure::Figure;
use super::identity::FileRole;
use super::table::{HEADS, Headline, cells, filled, title};
use super::usage::Usage;
use super::{CandidateKind, Gain, Report, Yardstick};
use crate::domain::score::{OutputScore, Score, significant};
use crate::settings::PredictionTask;

/// The page for a report.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut body = String::new();
    let examples = report.measured();
    let gain = Gain::of(&report.candidates, examples).map(|gain| gain.to_string());
    let nothing = || "Nothing was measured that says how well the fused model does.".to_owned();
    // What the ensemble gains is about its mean member: it stands behind the comparison with the best one.
    let (lead, behind) = match report.headline() {
        Some(Headline { first, controls }) => (first, controls.into_iter().chain(gain).collect()),
        None => (gain.unwrap_or_else(nothing), Vec::new()),
    };
    let members = report.members.len();
    let identity = &report.identity;
    let known = [identity.job.as_ref(), identity.date.as_ref()].into_iter().flatten();
    let known: Vec<String> = known.map(|text| format!("{} &middot; ", escape(text))).collect();
    let behind: Vec<String> = behind.iter().map(|text| format!("<p class=behind>{}</p>", escape(text))).collect();
    let _ = write!(
        body,
        "<p class=lead>{}</p>{}<p class=facts>{}{members} member{} &middot; {} &middot; seed {} &middot; {}engraft {}</p>",
        escape(&lead),
        behind.concat(),
        known.concat(),
        if members == 1 { "" } else { "s" },
        escape(&report.architecture),
        report.seed,
        report.on_gpu().map(|on_gpu| format!("{} &middot; ", escape(&on_gpu.to_string()))).unwrap_or_default(),
        escape(&report.engraft_version)
    );
    if !report.warnings.is_empty() {
        let lines = parts::items(&report.warnings);
        let _ = write!(body, "<section class=warnings><h2>Please note</h2><ul>{lines}</ul></section>");
    }
    comparison(&mut body, report, examples);
    next(&mut body, report);
    curves(&mut body, report);
    origins(&mut body, report);
    choice(&mut body, report);
    compensation(&mut body, report);
    settings(&mut body, report);
    let title = identity.title().map_or_else(|| "Fusion report".to_owned(), |title| format!("Fusion report: {title}"));
    parts::document(&title, &body)
}

/// What else a job on a server has, by its address beside the page.
const SIBLINGS: [(&str, &str); 8] = [
    ("model?format=safetensors", "fused.safetensors"),
    ("model?format=py", "model.py"),
    ("model?format=pt", "for torch.load"),
    ("model?format=onnx", "ONNX"),
    ("card", "model card"),
    ("report", "this report as JSON"),
    ("provenance", "origin of every unit"),
    ("logs", "log"),
];

/// How the model is had and used.
fn next(body: &mut String, report: &Report) {
    let Some(usage) = Usage::of(report) else { return };
    let commands: Vec<String> = usage.commands.iter().map(|command| format!("$ {command}\n")).collect();
    let commands = if commands.is_empty() {
        String::new()
    } else {
        format!("<pre>{}</pre>", escape(commands.concat().trim_end()))
    };
    let needs_source = |address: &str| matches!(address, "model?format=py" | "model?format=onnx");
    let links = SIBLINGS.into_iter().filter(|(address, _)| report.identity.has_source || !needs_source(address));
    let links: Vec<String> = links.map(|(address, name)| format!("<a href=\"{address}\">{name}</a>")).collect();
    let links = match report.identity.job {
        Some(_) => format!("<p class=note>Where the server shows this page: {}.</p>", links.join(", ")),
        None => String::new(),
    };
    let _ = write!(
        body,
        "<section><h2>Use the fused model</h2>{commands}<pre>{}</pre>{links}</section>",
        escape(&usage.python)
    );
}

/// Every file with its digest.
fn files(report: &Report) -> String {
    let rows = report.identity.files().map(|FileRole { role, file }| {
        format!("<li>{role}: {} <code class=digest>{}</code></li>", escape(&file.name), escape(&file.sha256))
    });
    let rows: Vec<String> = rows.collect();
    if rows.is_empty() { String::new() } else { format!("<h3>Files, by SHA-256</h3><ul>{}</ul>", rows.concat()) }
}

fn comparison(body: &mut String, report: &Report, examples: usize) {
    if report.candidates.is_empty() {
        return;
    }
    if let Some(reason) = report.unmeasured() {
        let rows = filled(&report.candidates.iter().map(|candidate| cells(candidate, report)).collect::<Vec<_>>());
        let (heads, rows) = rows.split_at(1);
        let bold = |index: usize| report.candidates[index].kind == CandidateKind::Fused;
        let table = table(&heads.concat(), rows, bold);
        let _ = write!(body, "<section><h2>Networks</h2><p>{}</p>{table}</section>", escape(reason));
        return;
    }
    let split = if report.examples.test > 0 { "test" } else { "validation" };
    let figure = Figure::of(report.task);
    let dots: Vec<Dot> = report
        .candidates
        .iter()
        .filter_map(|candidate| {
            let value = figure.value(&candidate.test.or(candidate.validation)?)?;
            let range = figure.range(candidate, value, examples);
            Some(Dot { name: title(candidate), value, range, class: class(candidate.kind) })
        })
        .collect();
    let heads: Vec<String> = HEADS.iter().map(|head| (*head).to_owned()).collect();
    let rows: Vec<Vec<String>> = report.candidates.iter().map(|candidate| cells(candidate, report).to_vec()).collect();
    let paired = if report.paired.iter().any(|test| !test.by_loss) {
        "; ± in the first lines is one standard error of the difference on the same examples"
    } else {
        ""
    };
    let bold = |index: usize| report.candidates[index].kind == CandidateKind::Fused;
    let _ = write!(
        body,
        "<section><h2>{} on the {split} split</h2>{}<p class=note>{examples} examples; bars show {}{paired}.</p>{}</section>",
        figure.title(),
        charts::dots(&dots, figure),
        figure.range_name(),
        table(&heads, &rows, bold)
    );
    outputs(body, report);
}

/// How well the published network predicts each label or number, beside the ensemble.
fn outputs(body: &mut String, report: &Report) {
    let of = |kind: CandidateKind| {
        let candidate = report.candidates.iter().find(|candidate| candidate.kind == kind);
        candidate.and_then(|candidate| candidate.per_output.as_ref())
    };
    let Some(fused) = of(CandidateKind::Fused) else { return };
    let ensemble = of(CandidateKind::Ensemble);
    let cells = |score: Option<&OutputScore>| match score {
        Some(OutputScore::Label { accuracy, f1 }) => [super::table::percent(*accuracy), format!("{f1:.3}")],
        Some(OutputScore::Number { rmse, r2 }) => {
            [significant(*rmse), r2.map_or_else(|| "-".to_owned(), |r2| format!("{r2:.3}"))]
        }
        None => ["-".to_owned(), "-".to_owned()],
    };
    let names = if report.task == PredictionTask::MultiLabel { ["accuracy", "F1"] } else { ["RMSE", "R²"] };
    let heads: Vec<String> = std::iter::once("output".to_owned())
        .chain(["fused", "ensemble"].iter().flat_map(|who| names.map(|name| format!("{who}: {name}"))))
        .collect();
    let row = |(index, score): (usize, &OutputScore)| {
        let beside = ensemble.and_then(|scores| scores.get(index));
        std::iter::once(index.to_string()).chain(cells(Some(score))).chain(cells(beside)).collect()
    };
    let rows: Vec<Vec<String>> = fused.iter().enumerate().map(row).collect();
    let _ = write!(body, "<section><h2>Output by output</h2>{}</section>", table(&heads, &rows, |_| false));
}

/// How a kind of candidate is coloured.
fn class(kind: CandidateKind) -> &'static str {
    match kind {
        CandidateKind::Member | CandidateKind::BestMember => "member",
        CandidateKind::Ensemble | CandidateKind::Vote => "ensemble",
        CandidateKind::Fused
        | CandidateKind::FusedUncompensated
        | CandidateKind::FusedZeroShot
        | CandidateKind::Transplanted => "fused",
        _ => "baseline",
    }
}

fn curves(body: &mut String, report: &Report) {
    if report.epochs.len() < 2 {
        return;
    }
    let points = |value: &dyn Fn(&crate::domain::progress::EpochMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        report.epochs.iter().filter_map(|epoch| Some((epoch.epoch as f64, value(epoch)?))).collect()
    };
    let figure = Figure::of(report.task);
    let of = |score: Option<Score>| figure.value(&score?);
    let shown = [
        Series { name: "training".to_owned(), class: "member", points: points(&|epoch| epoch.train_accuracy) },
        Series { name: "validation".to_owned(), class: "fused", points: points(&|epoch| of(epoch.validation)) },
        Series { name: "test".to_owned(), class: "ensemble", points: points(&|epoch| of(epoch.test)) },
    ];
    let loss = [
        Series { name: "objective in training".to_owned(), class: "member", points: points(&|epoch| epoch.train_loss) },
        Series { name: "validation".to_owned(), class: "fused", points: points(&|epoch| Some(epoch.validation?.loss)) },
    ];
    let best = report.best_epoch.map_or_else(String::new, |best| {
        format!(" The weights of epoch {best} are published{}.", report.epoch_reason())
    });
    let plot = |title: &str, series: &[Series], is_share: bool| {
        let is_empty = series.iter().all(|one| one.points.is_empty());
        let lines = || format!("<figure><figcaption>{title}</figcaption>{}</figure>", charts::lines(series, is_share));
        if is_empty { String::new() } else { lines() }
    };
    let _ = write!(
        body,
        "<section><h2>Recovery</h2><div class=pair>{}{}</div><p class=note>By epoch; 0 is before the first step.{best}</p></section>",
        plot(figure.title(), &shown, figure.is_share()),
        plot("Loss", &loss, false)
    );
}

fn origins(body: &mut String, report: &Report) {
    let origins = report.origins();
    if report.members.len() < 2 || origins.is_empty() {
        return;
    }
    let widths = |name: &str| {
        report
            .layers
            .iter()
            .find(|layer| layer.plan.group.as_deref() == Some(name))
            .map(|layer| layer.plan.width_before)
    };
    let bars: Vec<(String, Vec<usize>)> = origins
        .iter()
        .map(|(name, kept)| {
            let before = widths(name).map_or_else(String::new, |before| format!(" of {before}"));
            (format!("{name}: {}{before}", kept.iter().sum::<usize>()), kept.to_vec())
        })
        .collect();
    let _ = write!(
        body,
        "<section><h2>Where the kept units come from</h2>{}</section>",
        charts::shares(&bars, &report.members)
    );
}

/// The rule of the ensemble, how the network was trained, and what the ranking `auto` tried.
fn choice(body: &mut String, report: &Report) {
    let others = [
        report.ensemble.as_ref().map(ToString::to_string),
        report.recovery.as_ref().map(ToString::to_string),
        report.published.as_ref().map(ToString::to_string),
    ];
    for other in others.into_iter().flatten() {
        let _ = write!(body, "<p class=note>{}.</p>", escape(&other));
    }
    let Some(choice) = &report.choice else { return };
    let figure = match choice.by {
        Yardstick::Validation if choice.judges_loss() => "validation figures",
        Yardstick::Validation => "validation accuracy",
        Yardstick::Divergence => "divergence from the ensemble",
        Yardstick::Distance => "distance from the ensemble",
    };
    let heads = ["ranking", figure].map(str::to_owned);
    let rows: Vec<Vec<String>> = choice.tried.iter().map(|tried| vec![tried.name(), choice.figure(tried)]).collect();
    let _ = write!(
        body,
        "<section><h2>Choice</h2><p>{}.</p>{}</section>",
        escape(&choice.to_string()),
        table(&heads, &rows, |row| row == choice.kept)
    );
}

fn compensation(body: &mut String, report: &Report) {
    let Some(done) = &report.compensation else { return };
    let heads = ["layer", "unknowns", "rows", "ridge", "unexplained"].map(str::to_owned);
    let rows: Vec<Vec<String>> = done
        .layers
        .iter()
        .map(|layer| {
            vec![
                layer.layer.clone(),
                layer.unknowns.to_string(),
                layer.rows.to_string(),
                format!("{:e}", layer.ridge),
                super::table::percent(layer.relative_residual),
            ]
        })
        .collect();
    let source = if done.samples == 0 {
        "for Gaussian inputs, without data".to_owned()
    } else {
        format!("on {} unlabelled inputs of the train split", done.samples)
    };
    let kept = if done.kept { "" } else { " The result was worse on the validation split and was dropped." };
    let _ = write!(
        body,
        "<section><h2>Compensation</h2><p>Layers behind the selection were refitted in closed form, {source}.{kept}</p>{}</section>",
        table(&heads, &rows, |_| false)
    );
}

fn settings(body: &mut String, report: &Report) {
    let method = serde_json::to_string_pretty(&report.method).unwrap_or_default();
    let peak = report.memory_peak_bytes.iter().map(|(_, bytes)| *bytes).max();
    let memory = peak.map_or(String::new(), |bytes| {
        format!(" Memory: {} at most.", super::scaled(bytes as f64, 1024.0, [" B", " KiB", " MiB", " GiB"]))
    });
    let seconds: Vec<String> =
        report.seconds.iter().map(|(phase, seconds)| format!("{} {seconds:.1} s", phase.as_str())).collect();
    let weights: Vec<String> = report
        .members
        .iter()
        .zip(&report.member_weights)
        .map(|(name, weight)| format!("<li>{} <span class=dim>weight {weight:.3}</span></li>", escape(name)))
        .collect();
    let assumptions = parts::items(&report.assumptions);
    let evidence = report.evidence.as_ref().map_or(String::new(), |evidence| {
        format!("<p>How sure the network is: <b>{}</b>, {}.</p>", evidence.degree.name(), escape(&evidence.why))
    });
    let assumed =
        if assumptions.is_empty() { String::new() } else { format!("<h3>Assumed</h3><ul>{assumptions}</ul>") };
    let verification = &report.verification;
    let compared = match &verification.up_to {
        Some(node) => format!("values at `{}`", escape(node)),
        None => "logits".to_owned(),
    };
    let _ = write!(
        body,
        "<section><h2>How it was made</h2><h3>Members</h3><ol start=0>{}</ol>{}{evidence}{assumed}<p>The concatenated network's {compared} differ from the \
         ensemble's by at most {:.2e} on {} examples; rounding explains {:.2e}.</p><p>{} examples to train on, {} to validate, {} to \
         test. Time: {}.{memory}</p><details><summary>Method</summary><pre>{}</pre></details></section>",
        weights.concat(),
        files(report),
        verification.max_difference,
        verification.examples,
        verification.tolerance,
        report.examples.train,
        report.examples.validation,
        report.examples.test,
        seconds.join(", "),
        escape(&method)
    );
}

#[cfg(test)]
pub(super) mod tests;
