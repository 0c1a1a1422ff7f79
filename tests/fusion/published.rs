//! What is published after training: the transplanted network, or the best member after as much training, whichever does better on
//! examples that no member has seen.

use crate::identity::Lab;
use serde_json::{Value, json};

/// A job whose transplanted network is made of units that are drawn, and trained too little to recover.
fn job(lab: &Lab, publish: &str) -> Value {
    let data = lab.path("data.safetensors");
    json!({
        "dataset": {"name": data, "validation": data},
        "reference": "reference",
        "method": {"importance": "random", "compensate": "none", "ensemble": "mean_logits"},
        "target": {"width": "member"},
        "finetune": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-5}, "publish": publish},
        "evaluate": ["members", "best_member", "ensemble", "trained_on", "distilled", "fused"],
    })
}

fn row<'a>(report: &'a Value, kind: &str) -> Option<&'a Value> {
    report["candidates"].as_array().expect("rows").iter().find(|row| row["kind"] == kind)
}

#[test]
fn a_member_is_published_where_transplanting_brings_less() {
    let lab = Lab::new();
    let (report, ..) = lab.run(job(&lab, "auto")).expect("a job that ends well");
    let published = &report["published"];
    let control = row(&report, published["kind"].as_str().expect("a control")).expect("its row");
    assert_eq!([&published["member"], &published["validation"]], [&control["name"], &control["validation"]]);
    let of = |kind: &str| row(&report, kind).expect("a row")["validation"]["accuracy"].as_f64().expect("a share");
    assert!(of("fused") > 0.9 && of("transplanted") < 0.8, "{} and {}", of("fused"), of("transplanted"));
    for kind in ["trained_on", "distilled"] {
        assert!(of("fused") >= of(kind), "{kind}");
    }
    let against: Vec<&Value> =
        report["paired"].as_array().expect("tests").iter().map(|test| &test["against"]).collect();
    assert!(against.contains(&&json!("transplanted")) && !against.contains(&&published["kind"]), "{against:?}");
    assert!(report["best_epoch"].is_null());
    let hidden = report["layers"].as_array().expect("layers").iter().filter(|layer| !layer["group"].is_null());
    for layer in hidden {
        let kept = layer["kept_per_member"].as_array().expect("numbers");
        assert_eq!((&kept[0], &kept[1]), (&layer["width_after"], &json!(0)), "{layer}");
    }
    assert_eq!(report["member_weights"], json!([1.0, 0.0]));
}

#[test]
fn the_transplanted_network_is_published_where_the_job_says_so_or_nothing_is_held_out() {
    let lab = Lab::new();
    let mut known = job(&lab, "auto");
    known["dataset"] = json!("data.safetensors");
    for body in [job(&lab, "fused"), known] {
        let (report, ..) = lab.run(body).expect("a job that ends well");
        assert!(report["published"].is_null() && row(&report, "transplanted").is_none());
        assert!(row(&report, "fused").expect("a row")["validation"]["accuracy"].as_f64().expect("a share") < 0.8);
    }
}

#[test]
fn at_a_smaller_size_a_member_pruned_alone_is_tried_where_members_are_not_favoured() {
    let lab = Lab::new();
    let data = lab.path("data.safetensors");
    let body = |dataset: Value| {
        json!({"dataset": dataset, "reference": "reference", "target": {"width": 0.5},
            "method": {"ensemble": "mean_logits"}, "evaluate": ["members", "ensemble", "fused"]})
    };
    let alone = |report: &Value| -> Vec<Value> {
        let tried = report["choice"]["tried"].as_array().expect("what was tried");
        tried.iter().filter(|tried| tried["base"]["is_pruned"] == true).cloned().collect()
    };
    let (report, ..) = lab.run(body(json!({"name": data, "validation": data}))).expect("a job that ends well");
    let pruned = alone(&report);
    let rankings: Vec<&str> = pruned.iter().filter_map(|tried| tried["importance"].as_str()).collect();
    assert_eq!(rankings, ["magnitude", "css"], "{}", report["choice"]);
    assert!(pruned.iter().all(|tried| tried["compensated"] == true && tried["validation"]["accuracy"].is_number()));
    let kept = &report["choice"]["tried"][report["choice"]["kept"].as_u64().expect("a place") as usize];
    let units: Vec<u64> = report["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .filter_map(|layer| layer["kept_per_member"][1].as_u64().filter(|_| !layer["group"].is_null()))
        .collect();
    assert!(kept["base"]["is_pruned"] != true || units.iter().all(|kept| *kept == 0), "{kept} keeps {units:?}");
    // Validation examples that members may have been trained on would favour them.
    let (report, ..) = lab.run(body(json!("data.safetensors"))).expect("a job that ends well");
    assert!(alone(&report).is_empty(), "{}", report["choice"]);
}
