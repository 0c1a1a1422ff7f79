//! Random input over HTTP: never a panic, never a 5xx.

use crate::common::app::{TestApp, problem};
use crate::common::samples::member;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reqwest::Method;
use tokio::runtime::Runtime;

const CASES: u32 = 96;

/// The same cases in every run.
fn runner() -> TestRunner {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn with_app(test: impl FnOnce(&Runtime, &TestApp)) {
    let runtime = Runtime::new().expect("a runtime");
    let app = runtime.block_on(TestApp::start());
    test(&runtime, &app);
    runtime.block_on(app.stop());
}

/// A checkpoint with some bytes changed, some cut off, some added.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (changes, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..20), 0..4).prop_map(
        |(changes, cut, tail, how)| {
            let mut file = member();
            for (at, byte) in changes {
                let at = at.index(file.len().min(200));
                file[at] = byte;
            }
            match how {
                0 => file.truncate(cut.index(file.len())),
                1 => file.extend(tail),
                _ => {}
            }
            file
        },
    )
}

#[test]
fn mutated_checkpoints_are_taken_or_refused() {
    with_app(|runtime, app| {
        let number = std::cell::Cell::new(0);
        let outcome = runner().run(&mutated(), |file| {
            number.set(number.get() + 1);
            runtime.block_on(async {
                let path = format!("/v1/checkpoints/m{}", number.get());
                let response = app.put(&path, file).send().await.expect("an answer");
                if response.status().as_u16() == 201 {
                    let view = app.get(&path).send().await.expect("an answer");
                    prop_assert_eq!(view.status().as_u16(), 200);
                } else {
                    prop_assert_eq!(problem(response).await.1, "invalid_checkpoint");
                }
                Ok(())
            })
        });
        outcome.expect("no 5xx");
    });
}

/// JSON of any shape, with the names of real fields among its keys.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(|number| serde_json::json!(number)),
        prop_oneof!["m0", "auto", "cuda:7", "mlp", ".{0,12}"].prop_map(Into::into),
    ];
    let key = prop_oneof![
        "members|architecture|input_shape|method|target|dataset|finetune|evaluate|device|seed|labels|name|width|graph|nodes",
        "[a-z/~]{0,6}"
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| serde_json::json!(map)),
        ]
    })
}

#[test]
fn random_json_is_answered_with_a_problem() {
    with_app(|runtime, app| {
        let put = runtime.block_on(app.put("/v1/checkpoints/m0", member()).send()).expect("an answer");
        assert_eq!(put.status().as_u16(), 201);
        let outcome = runner().run(&(json(), any::<bool>()), |(mut body, named)| {
            if let (true, Some(map)) = (named, body.as_object_mut()) {
                map.insert("members".to_owned(), serde_json::json!(["m0", "m0"]));
            }
            let request = app.request(Method::POST, "/v1/jobs?validate_only=true").json(&body);
            let status = runtime.block_on(request.send()).expect("an answer").status().as_u16();
            prop_assert!(status < 500, "{} for {}", status, body);
            Ok(())
        });
        outcome.expect("no 5xx");
    });
}

#[test]
fn random_paths_queries_and_headers_are_answered() {
    with_app(|runtime, app| {
        let part = "[a-zA-Z0-9%._~=&?+-]{0,24}";
        let strategy =
            (prop::sample::select(vec!["checkpoints", "datasets", "jobs", "workers"]), part, part, "[ -~]{0,30}");
        let outcome = runner().run(&strategy, |(resource, name, query, header)| {
            for (method, field) in [
                (Method::GET, "range"),
                (Method::HEAD, "authorization"),
                (Method::PUT, "content-range"),
                (Method::PUT, "repr-digest"),
                (Method::DELETE, "if-none-match"),
            ] {
                let path = format!("/v1/{resource}/{name}?{query}");
                let Ok(request) = app.request(method, &path).header(field, &header).build() else { continue };
                let status = runtime.block_on(app.client.execute(request)).expect("an answer").status().as_u16();
                prop_assert!(status < 500, "{} for {} {}: {}", status, path, field, header);
            }
            Ok(())
        });
        outcome.expect("no 5xx");
    });
}
