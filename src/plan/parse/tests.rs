use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::settings::{
    AlignmentOptions, Allocation, Augment, Budget, Calibration, Convolutions, Finetune, GroundCost, Grouping,
    LayerSize, Objective, Optimizer, OutputAlignment, OutputTargets, PublishRule, Resource, Schedule, Size, Start,
    Target, Teacher, Undecided, WeightRule,
};

fn pointers(body: &Value) -> Vec<(String, String)> {
    let faults = parse(body).expect_err("the body is faulty");
    faults.into_iter().map(|fault| (fault.pointer, fault.code.as_str().to_owned())).collect()
}

#[test]
fn five_lines_are_a_job_with_the_documented_defaults() {
    let body = json!({"members": ["m0", "m1"], "dataset": "mnist.npz", "finetune": {"epochs": 3}});
    let job = parse(&body).expect("a plain job");
    assert_eq!(job.method, Method::default());
    assert_eq!(job.target, Target::default());
    assert_eq!(job.max_runtime_s, 86_400);
    let optimizer =
        Optimizer::Sgd { lr: 0.01, momentum: 0.9, nesterov: false, weight_decay: 0.0, decay_norms_and_biases: true };
    let teacher = Teacher::Ensemble;
    let expected = Finetune {
        epochs: 3,
        objective: Objective::Distill { temperature: 2.0, soft_weight: 0.9, teacher },
        label_smoothing: 0.0,
        optimizer,
        schedule: Schedule::Cosine,
        warmup_epochs: 0.0,
        clip_norm: None,
        patience: None,
        batch_size: 256,
        augment: None,
        batch_norm_reestimate: false,
        publish: PublishRule::Auto,
        undecided: Undecided { objective: true, rate: true },
    };
    assert_eq!(job.finetune, Some(expected));
    assert_eq!(job.dataset.map(|dataset| dataset.validation_fraction), Some(None));
}

#[test]
fn every_fault_is_named_at_once() {
    let body = json!({
        "members": "m0", "finetune": {"epochs": 0, "objective": "distil", "optimizer": {"lr": -1}},
        "method": {"order": "backwards", "calibration": {"ridge": 0}}, "target": {"width": {"member": "m0"}, "params": 10},
        "device": "gpu", "lables": {"a/b": 1}, "labels": {"a/b": 1}, "dataset": {"normalize": {"mean": [1], "std": [0]}},
    });
    let mut found = pointers(&body);
    found.sort();
    let expected = [
        ("/dataset/name", "missing_field"),
        ("/dataset/normalize/std", "wrong_type"),
        ("/device", "invalid_value"),
        ("/finetune/epochs", "wrong_type"),
        ("/finetune/objective", "invalid_value"),
        ("/finetune/optimizer/lr", "wrong_type"),
        ("/labels/a~1b", "wrong_type"),
        ("/lables", "unknown_field"),
        ("/members", "wrong_type"),
        ("/method/calibration/ridge", "wrong_type"),
        ("/method/order", "invalid_value"),
        ("/target/params", "invalid_value"),
        ("/target/width/member", "wrong_type"),
    ];
    assert_eq!(found, expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
}

#[test]
fn training_can_be_spelled_out() {
    let body = json!({"members": ["a"], "dataset": "d", "finetune": {
        "epochs": 20, "objective": "cross_entropy", "label_smoothing": 0.1, "warmup_epochs": 1.5, "clip_norm": 1, "patience": 4,
        "batch_norm_reestimate": true, "publish": "fused",
        "optimizer": {"name": "adamw", "lr": 3e-4, "betas": [0.9, 0.95], "decay_norms_and_biases": false}}});
    let job = parse(&body).expect("a valid job");
    let finetune = job.finetune.clone().expect("training");
    let optimizer =
        Optimizer::AdamW { lr: 3e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.01, decay_norms_and_biases: false };
    assert_eq!((finetune.optimizer, finetune.objective), (optimizer, Objective::CrossEntropy));
    assert_eq!((finetune.clip_norm, finetune.patience), (Some(1.0), Some(4)));
    assert!(finetune.batch_norm_reestimate);
    assert_eq!(finetune.publish, PublishRule::Fused);
    assert_eq!((finetune.label_smoothing, finetune.warmup_epochs), (0.1, 1.5));
    assert_eq!(parse(&Value::from(job.clone())), Ok(job));
}

#[test]
fn images_may_vary() {
    let augment = |augment: Value| {
        let body = json!({"members": ["a"], "dataset": "d", "finetune": {"augment": augment}});
        let job = parse(&body).map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>())?;
        assert_eq!(parse(&Value::from(job.clone())), Ok(job.clone()));
        Ok::<_, Vec<String>>(job.finetune.expect("training").augment)
    };
    let both = Augment { crop_padding: 4, flip: true };
    assert_eq!(augment(json!({"crop_padding": 4, "flip": true})), Ok(Some(both)));
    assert_eq!(augment(json!({"crop_padding": 64})), Ok(Some(Augment { crop_padding: 64, flip: false })));
    for nothing in [json!(null), json!({}), json!({"crop_padding": 0, "flip": false})] {
        assert_eq!(augment(nothing), Ok(None));
    }
    let faults = augment(json!({"crop_padding": 65, "flip": 1, "rotate": 5}));
    assert_eq!(
        faults,
        Err(["crop_padding", "flip", "rotate"].map(|name| format!("/finetune/augment/{name}")).to_vec())
    );
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    let body = json!({"members": ["a"], "dataset": "d", "finetune": {
        "epochs": 2, "objective": "cross_entropy", "teacher": "mean_logits", "label_smoothing": 1, "warmup_epochs": 2, "clip_norm": 0,
        "patience": 0, "optimizer": {"name": "adamw", "momentum": 0.9, "betas": [0.9]}}});
    let mut found = pointers(&body);
    found.sort();
    let expected = [
        ("/finetune/clip_norm", "wrong_type"),
        ("/finetune/label_smoothing", "wrong_type"),
        ("/finetune/optimizer/betas", "invalid_value"),
        ("/finetune/optimizer/momentum", "invalid_value"),
        ("/finetune/patience", "wrong_type"),
        ("/finetune/teacher", "invalid_value"),
        ("/finetune/warmup_epochs", "invalid_value"),
    ];
    assert_eq!(found, expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
}

#[test]
fn what_is_not_an_object_is_one_fault() {
    for body in [json!(null), json!([1]), json!("x"), json!(3)] {
        assert_eq!(pointers(&body), [(String::new(), "wrong_type".to_owned())]);
    }
}

#[test]
fn training_without_data_is_refused() {
    assert_eq!(pointers(&json!({"members": ["a"], "finetune": {}})), [("/dataset".into(), "missing_field".into())]);
    assert!(parse(&json!({"members": ["a"], "finetune": null})).is_ok());
}

#[test]
fn a_target_is_one_size_with_exceptions() {
    let target = |target: Value| parse(&json!({"members": ["a"], "target": target})).map(|job| job.target);
    let body = json!({"macs": 1_000_000, "allocation": "sensitivity", "round_to": 8, "keep": ["conv1"],
        "layers": {"layer1.0.conv1": {"width": 24}, "a/b": {"factor": 0.5}}});
    let expected = Target {
        size: Size::Budget(Budget { resource: Resource::Macs, limit: 1_000_000, allocation: Allocation::Sensitivity }),
        round_to: 8,
        keep: vec!["conv1".to_owned()],
        layers: BTreeMap::from([
            ("layer1.0.conv1".to_owned(), LayerSize::Width(24)),
            ("a/b".to_owned(), LayerSize::Factor(0.5)),
        ]),
    };
    assert_eq!(target(body), Ok(expected));
    let faulty = json!({"params": 0, "bytes": 5, "allocation": "even", "round_to": 0, "keep": "conv1",
        "layers": {"a/b": {"width": 1, "factor": 1}, "c": 3, "d": {}}});
    let faults = target(faulty).expect_err("faults");
    let mut found: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    found.sort_unstable();
    let layers = ["/target/layers/a~1b/width", "/target/layers/c", "/target/layers/d/width"];
    let expected = [
        &["/target/allocation", "/target/bytes", "/target/keep"][..],
        &layers,
        &["/target/params", "/target/round_to"],
    ];
    assert_eq!(found, expected.concat());
    let lonely = target(json!({"allocation": "uniform"})).expect_err("no budget");
    assert_eq!(lonely[0].pointer, "/target/allocation");
}

#[test]
fn a_normalisation_is_given_or_measured() {
    let body = |normalize: Value| json!({"members": ["a"], "dataset": {"name": "d", "normalize": normalize}});
    let normalization = |normalize| parse(&body(normalize)).map(|job| job.dataset.expect("a dataset").normalize);
    assert_eq!(normalization(json!(null)), Ok(Normalization::None));
    assert_eq!(normalization(json!("train")), Ok(Normalization::Train));
    let given = Normalize { mean: vec![0.5], std: vec![0.25] };
    assert_eq!(normalization(json!({"mean": [0.5], "std": [0.25]})), Ok(Normalization::Given(given)));
    let job = parse(&body(json!("train"))).expect("a job");
    assert_eq!(parse(&Value::from(job.clone())), Ok(job));
    for wrong in [json!("test"), json!([0.5]), json!(1)] {
        assert_eq!(pointers(&body(wrong)), [("/dataset/normalize".to_owned(), "invalid_value".to_owned())]);
    }
}

#[test]
fn an_average_has_no_order() {
    let method = |method: Value| parse(&json!({"members": ["a"], "method": method})).map(|job| job.method);
    assert_eq!(method(json!({"order": "hierarchical"})).map(|method| method.order), Ok(Order::Hierarchical));
    assert_eq!(method(json!({"name": "average"})).map(|method| method.name), Ok(MethodName::Average));
    assert_eq!(
        pointers(&json!({"members": ["a"], "method": {"name": "average", "order": "iterative"}}))[0].0,
        "/method/order"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9.:]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let keys =
            "members|target|width|params|round_to|keep|layers|member|dataset|name|finetune|optimizer|schedule|labels|architecture|[a-z]{1,3}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_body_is_a_job_or_a_list_of_faults(body in any_json()) {
        match parse(&body) {
            Ok(job) => prop_assert_eq!(parse(&Value::from(job.clone())), Ok(job)),
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }

    #[test]
    fn a_job_survives_its_json_form(
        seed in any::<u64>(), heads in 1usize..65, lr in 1e-6f32..10.0, factor in 0.01f64..8.0, temperature in 0.1f32..9.0,
        milestones in prop::collection::btree_set(1usize..90, 1..4), mean in prop::collection::vec(-2f32..2.0, 1..4),
        limit in 1u64.., even in any::<bool>(), order in prop::sample::select(vec!["joint", "iterative", "hierarchical"]),
    ) {
        let target = if even {
            json!({"params": limit, "round_to": 8, "keep": ["fc1"], "layers": {"fc2": {"width": 3}, "fc3": {"factor": factor}}})
        } else {
            json!({"width": factor})
        };
        let std: Vec<f32> = mean.iter().map(|mean| mean.abs() + 0.1).collect();
        let body = json!({
            "members": ["m0", "m1"], "seed": seed, "target": target, "architecture": {"family": "vit", "heads": heads},
            "method": {"order": order},
            "dataset": {"name": "d", "test": "t", "normalize": {"mean": mean, "std": std}},
            "finetune": {"temperature": temperature, "optimizer": {"lr": lr},
                         "schedule": {"name": "multistep", "milestones": milestones}},
            "evaluate": ["fused", "members"], "labels": {"team": "vision"}, "device": "cuda:1", "precision": "bf16", "deterministic": false, "input_shape": [1, 28, 28],
        });
        let job = parse(&body).expect("a valid job");
        prop_assert_eq!(parse(&Value::from(job.clone())), Ok(job));
    }
}

#[test]
fn the_method_survives_its_json_form_and_the_training_may_leave_things_open() {
    let body = json!({
        "members": ["a"], "dataset": "d", "finetune": {"epochs": 1},
        "method": {"importance": "css", "compensate": "none", "calibration": {"samples": 7, "convolutions": "full", "ridge": 0.01, "output_layer": "logits"}},
    });
    let job = parse(&body).expect("a job");
    let calibration = Calibration {
        samples: Some(7),
        positions: 16,
        convolutions: Convolutions::Full,
        ridge: Some(0.01),
        output_layer: OutputTargets::Logits,
    };
    assert_eq!(job.method.calibration, calibration);
    let left = |finetune: Value| {
        let job = parse(&json!({"members": ["a"], "dataset": "d", "finetune": finetune})).expect("a job");
        assert_eq!(parse(&Value::from(job.clone())).as_ref(), Ok(&job));
        job.finetune.map(|finetune| finetune.undecided)
    };
    let undecided = |objective, rate| Some(Undecided { objective, rate });
    assert_eq!(left(json!({"epochs": 1})), undecided(true, true));
    assert_eq!(left(json!({"objective": "auto", "optimizer": {"lr": 0.1}})), undecided(true, false));
    assert_eq!(left(json!({"objective": "cross_entropy", "optimizer": {"lr": null}})), undecided(false, true));
    assert_eq!(left(json!({"soft_weight": 0.5, "optimizer": {"name": "adamw"}})), undecided(false, false));
    assert_eq!(parse(&Value::from(job.clone())), Ok(job));
}

#[test]
fn matching_is_spelled_out_where_units_are_matched() {
    let method = |method: Value| parse(&json!({"members": ["a"], "method": method})).map(|job| job.method);
    let body = json!({"name": "optimal_transport", "alignment": {"outputs": "transported"}, "batch_norm": "reset"});
    let expected = AlignmentOptions { cost: GroundCost::Weights, outputs: OutputAlignment::Transported };
    let parsed = method(body).expect("a valid method");
    assert_eq!((parsed.name, parsed.alignment), (MethodName::OptimalTransport, expected));
    let transported = json!({"cost": "activations", "outputs": "transported"});
    for name in ["average", "permutation_alignment", "optimal_transport"] {
        let faults = pointers(&json!({"members": ["a"], "method": {"name": name, "alignment": transported}}));
        assert!(faults.iter().all(|(pointer, _)| pointer == "/method/alignment"), "{name}: {faults:?}");
    }
}

#[test]
fn groups_are_made_by_k_means_or_by_assignment_where_units_are_interpolated() {
    let grouping = |method: Value| {
        parse(&json!({"members": ["a"], "dataset": "d", "method": method})).map(|job| job.method.matching)
    };
    let name = "neuron_interpolation";
    assert_eq!(grouping(json!({"name": name})), Ok(Grouping::KMeans));
    assert_eq!(grouping(json!({"name": name, "matching": "hungarian"})), Ok(Grouping::Hungarian));
    for method in [json!({"name": "average", "matching": "hungarian"}), json!({"name": name, "matching": "best"})] {
        let faults = pointers(&json!({"members": ["a"], "method": method}));
        assert!(faults.iter().any(|(pointer, _)| pointer == "/method/matching"), "{method}: {faults:?}");
    }
}

#[test]
fn variants_of_the_paper_are_spelled_out_and_read_back() {
    let job = |method: Value, finetune: Value| {
        parse(&json!({"members": ["a", "b"], "dataset": "d", "method": method, "finetune": finetune}))
    };
    for method in [
        json!({"order": "prune_then_merge", "rates": [0.75, 0.25], "member_weights": [1, 3]}),
        json!({"order": "merge_finetune_prune", "merge_epochs": 2, "member_weights": "uniform"}),
        json!({"name": "distill_only", "start": "scratch"}),
    ] {
        let job = job(method, json!({"epochs": 1})).expect("a valid job");
        assert_eq!(parse(&Value::from(job.clone())), Ok(job));
    }
    let fitted = job(json!({"member_weights": "fitted"}), json!(null)).expect("a valid job").method;
    assert_eq!(fitted.member_weights, MemberWeights::Rule(WeightRule::Fitted));
    assert_eq!(job(json!({"name": "distill_only"}), json!({})).expect("a valid job").method.start, Start::Member);
    let body = json!({"members": ["a", "b"], "method": {
        "order": "merge_finetune_prune", "rates": [1], "member_weights": [0, 0], "start": "scratch"}});
    let expected = [
        ("/method/member_weights", "invalid_value"),
        ("/method/rates", "invalid_value"),
        ("/method/start", "invalid_value"),
        ("/method/rates", "invalid_value"),
        ("/finetune", "missing_field"),
    ];
    assert_eq!(pointers(&body), expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
}
