//! The page is whole, safe and says what the report does.

use super::*;
use crate::domain::epoch_choice::EpochChoice;
use crate::domain::gpu::GpuVersions;
use crate::domain::progress::{EpochMetrics, Phase};
use crate::domain::score::Score;
use crate::model::plan::LayerPlan;
use crate::report::identity::tests::identity;
use crate::report::{
    CandidateReport, Computation, LayerReport, Outcomes, PairedTest, PublishedControl, ReportIdentity, SplitSizes,
    Verification, card,
};
use crate::settings::{Method, Precision};

fn candidate(name: &str, kind: CandidateKind, accuracy: f64) -> CandidateReport {
    CandidateReport {
        name: name.to_owned(),
        kind,
        validation: Some(Score::of_classes(accuracy, 0.5)),
        test: Some(Score::of_classes(accuracy, 0.5)),
        interval: None,
        loss_standard_error: None,
        per_output: None,
        calibration_error: Some(0.02),
        agreement: Some(0.9),
        parameters: 1000,
        macs: 1000,
        bytes: 4000,
        top5_accuracy: None,
        per_class_accuracy: None,
        latency_ms: Some(0.1),
        latency: None,
    }
}

/// A report of two members.
pub(crate) fn report() -> Report {
    let epoch = |epoch: usize| EpochMetrics {
        epoch,
        train_loss: (epoch > 0).then_some(1.0),
        train_accuracy: (epoch > 0).then_some(0.5),
        validation: Some(Score::of_classes(0.5 + epoch as f64 / 100.0, 1.0)),
        test: None,
        lr: None,
        images_per_s: None,
    };
    let plan = LayerPlan { name: "fc1".into(), group: Some("fc1".into()), width_before: 16, width_after: 8 };
    Report {
        identity: identity(),
        engraft_version: "1".into(),
        architecture: "mlp".into(),
        task: PredictionTask::Classification,
        evidence: None,
        assumptions: vec!["ReLU".into()],
        checks: None,
        candidates: vec![
            candidate("<script>alert(1)</script>", CandidateKind::Member, 0.52),
            candidate("m1", CandidateKind::Member, 0.53),
            candidate("ensemble", CandidateKind::Ensemble, 0.55),
            candidate("fused", CandidateKind::Fused, 0.545),
        ],
        compensation: None,
        choice: None,
        ensemble: None,
        recovery: None,
        published: None,
        paired: Vec::new(),
        ensemble_gain_kept: Some(0.8),
        members: vec!["<script>alert(1)</script>".into(), "m1".into()],
        member_weights: vec![0.5, 0.5],
        best_epoch: Some(1),
        epoch_choice: Some(EpochChoice::Best),
        epochs: vec![epoch(0), epoch(1)],
        layers: vec![LayerReport { plan, kept_per_member: vec![5, 3] }],
        method: Method::default(),
        verification: Verification { examples: 32, max_difference: 1e-6, tolerance: 1e-4, up_to: None },
        input_shape: Some(vec![16]),
        warnings: vec!["look & see".into()],
        examples: SplitSizes { train: 900, validation: 100, test: 10_000 },
        computation: Some(Computation {
            device: "NVIDIA H200".into(),
            precision: Precision::Tf32,
            deterministic: true,
            versions: Some(GpuVersions::default()),
        }),
        seed: 7,
        seconds: vec![(Phase::Score, 0.5)],
        normalize: None,
        memory_peak_bytes: vec![(Phase::Score, 3_000_000)],
    }
}

#[test]
fn the_page_needs_nothing_else_and_shows_names_as_text() {
    let page = page(&report());
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    assert!(page.contains("default-src 'none'"));
    for outside in ["http://", "https://", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for tag in ["section", "svg", "table", "figure", "main", "g", "ol", "ul", "p"] {
        let count = |what: String| page.matches(&what).count();
        let opened = count(format!("<{tag}>")) + count(format!("<{tag} "));
        assert_eq!(opened, count(format!("</{tag}>")), "{tag}");
    }
}

#[test]
fn the_page_tells_what_the_report_does() {
    let page = page(&report());
    for expected in [
        "keeps 80 % of what the ensemble gains",
        "fc1: 8 of 16",
        "look &amp; see",
        "epoch 1 are published",
        "seed 7",
        "computed on the NVIDIA H200 in tf32",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    assert_eq!(page.matches("<polyline").count(), 4, "training and validation, accuracy and loss");
}

#[test]
fn the_best_member_comes_first_and_the_mean_member_behind_it() {
    let outcomes = |right: usize| Outcomes::Right((0..1000).map(|index| index < right).collect());
    let test = |kind, name: &str, right| PairedTest::of(kind, name.to_owned(), &outcomes(545), &outcomes(right));
    let paired = vec![
        test(CandidateKind::BestMember, "the best member m1", 545),
        test(CandidateKind::TrainedOn, "that member trained on", 600),
    ];
    let report = Report { paired, ..report() };
    let headline = "The fused model is level with the best member m1 (+0.00 ± 0.00 points, p = 1.000).";
    let page = page(&report);
    let places = [headline, "It is below that member trained on", "keeps 80 % of what the ensemble gains"];
    let places = places.map(|text| page.find(text).unwrap_or_else(|| panic!("{text}")));
    assert!(places.is_sorted(), "{places:?}");
    assert!(page.contains(&format!("<p class=lead>{headline}</p>")), "alone in the first line");
    let text = report.to_string();
    assert!(text.contains(&format!("{headline} It is below that member trained on (-5.50")), "{text}");
}

#[test]
fn a_member_that_is_published_is_named_first() {
    let score = |accuracy| Score::of_classes(accuracy, 1.0);
    let published = PublishedControl {
        kind: CandidateKind::Distilled,
        member: "m1".to_owned(),
        epoch: 2,
        validation: score(0.55),
        transplanted: score(0.54),
    };
    let outcomes = Outcomes::Right(vec![true]);
    let paired = vec![PairedTest::of(CandidateKind::BestMember, "the best member m1".to_owned(), &outcomes, &outcomes)];
    let report = Report { paired, published: Some(published), ..report() };
    let lead = "<p class=lead>The fused model is m1, distilled from the ensemble: transplanting brought less";
    for (text, expected) in
        [(page(&report), lead), (report.to_string(), "\npublished is m1, "), (card(&report), "- published is m1, ")]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn the_page_says_whose_it_is_and_how_the_model_is_used() {
    let page = page(&report());
    for expected in [
        "<title>Fusion report: letters &amp; digits</title>",
        "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c &middot; 2026-01-31T12:00:01Z",
        "$ engraft pull job_019324a5b7c07f3e8d1c2b3a4f5e6d7c --out model.py",
        "network = load(&quot;fused.safetensors&quot;)",
        "<a href=\"model?format=onnx\">",
        &"d".repeat(64),
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    let unnamed = ReportIdentity { job: None, has_source: false, ..report().identity };
    let page = super::page(&Report { identity: unnamed, ..report() });
    assert!(!page.contains("<a href") && page.contains("load_state_dict"), "no server shows it");
}

#[test]
fn a_report_without_data_is_a_page_too() {
    let bare =
        Report { candidates: Vec::new(), epochs: Vec::new(), layers: Vec::new(), warnings: Vec::new(), ..report() };
    let page = page(&bare);
    assert!(page.contains("Nothing was measured") && !page.contains("<svg"));
}

#[test]
fn the_text_names_origin_and_gain() {
    let text = report().to_string();
    assert!(
        text.contains("keeps 80 %") && text.contains("kept units  m0  m1") && text.contains("warning: look & see"),
        "{text}"
    );
}
