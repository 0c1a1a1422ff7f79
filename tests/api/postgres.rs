//! What only a database server brings: several servers on one state, and the way there from a file. Without `ENGRAFT_TEST_POSTGRES` there is none.

use std::process::Command;

use crate::common::app::{TestApp, database};
use crate::common::samples::sha256;
use crate::journey::{ended, fuse_two};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

fn is_there() -> bool {
    let there = std::env::var_os("ENGRAFT_TEST_POSTGRES").is_some();
    if !there {
        eprintln!("skipped: ENGRAFT_TEST_POSTGRES names no server");
    }
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_state_are_one_service() {
    if !is_there() {
        return;
    }
    let one = TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await;
    let (place, data_dir) = (database(one.folder.path()), one.folder.path().to_owned());
    let other = TestApp::builder()
        .settings(|settings| {
            settings.storage.database = place.parse().expect("a place");
            settings.storage.data_dir = data_dir;
        })
        .start()
        .await;
    let id = fuse_two(&other).await;
    let job = ended(&other, &id).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let bytes = async |app: &TestApp| {
        let model = app.get(&format!("/v1/jobs/{id}/model")).send().await.expect("an answer");
        assert_eq!(model.status(), StatusCode::OK);
        sha256(&model.bytes().await.expect("a body"))
    };
    assert_eq!(bytes(&one).await, bytes(&other).await);
    let workers: Value = other.get("/v1/workers").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(workers["data"].as_array().map(Vec::len), Some(1), "{workers:#}");
    other.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moves_to_a_server_with_everything_and_may_be_cut_on_the_way() {
    if !is_there() {
        return;
    }
    let app = TestApp::builder().in_data_dir().settings(|settings| settings.workers.workers = 1).start().await;
    let id = fuse_two(&app).await;
    let job = ended(&app, &id).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    let model =
        app.get(&format!("/v1/jobs/{id}/model")).send().await.expect("an answer").bytes().await.expect("a body");
    let waiting = json!({"members": ["m0", "m1"], "architecture": {"assume": true}, "priority": 3});
    let folder = app.stop().await;
    let place = database(folder.path());
    let data_dir = folder.path().to_owned();
    let elsewhere = format!("file:{}", data_dir.join("elsewhere").display());
    let migrate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_engraft"));
        command.args(["migrate", "--to", &place, "--blobs-to", &elsewhere, "--data-dir"]).arg(&data_dir);
        let output = command.output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    };
    let checkpoints = [data_dir.join("blobs/checkpoints"), data_dir.join("away")];
    std::fs::rename(&checkpoints[0], &checkpoints[1]).expect("loses the files");
    let (done, said) = migrate();
    assert!(!done && said.contains("missing   checkpoint m0") && !said.contains("rows"), "{said}");
    std::fs::rename(&checkpoints[1], &checkpoints[0]).expect("brings them back");
    for _ in ["the first", "one that finds everything there"] {
        let (done, said) = migrate();
        assert!(done && said.contains("each the same as before"), "{said}");
    }
    let app = TestApp::builder().folder(folder).settings(|settings| {
        settings.workers.workers = 1;
        settings.storage.blobs = elsewhere.parse().expect("a location");
    });
    let app = app.start().await;
    let again =
        app.get(&format!("/v1/jobs/{id}/model")).send().await.expect("an answer").bytes().await.expect("a body");
    assert_eq!(sha256(&again), sha256(&model));
    let same: Value = app.get(&format!("/v1/jobs/{id}")).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(same, job);
    let queued = app.request(Method::POST, "/v1/jobs").json(&waiting).send().await.expect("an answer");
    let queued: Value = queued.json().await.expect("JSON");
    let next = ended(&app, queued["id"].as_str().expect("an id")).await;
    assert_eq!(next["state"], "succeeded", "{next:#}");
    let folder = app.stop().await;
    let (done, said) = migrate();
    assert!(!done && said.contains("not the same"), "what has changed there since is not called the same: {said}");
    drop(folder);
}
