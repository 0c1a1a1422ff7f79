//! `engraft push … --to mlflow`; a real tracking server is asked in `check`.

use std::path::Path;

use crate::made::{Ran, engraft, fused};
use crate::mlflow_stand_in::MlflowStandIn;

async fn push(server: &MlflowStandIn, folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let variables = [&[("MLFLOW_TRACKING_URI", server.url.as_str())], variables].concat();
    engraft(folder, &variables, &[&["push", "fused", "--to", "mlflow"], arguments].concat()).await
}

#[tokio::test]
async fn a_job_becomes_one_run_with_all_that_belongs_to_it() {
    let (server, folder) = (MlflowStandIn::start().await, fused().await);
    for (step, status) in
        [("experiment", 503), ("runs/log-batch", 500), ("file", 502), ("runs/update", 429), ("after runs/create", 500)]
    {
        server.faults().plan(step, status);
    }
    let arguments = ["--experiment", "letters & more", "--register", "letters"];
    let ran = push(&server, folder.path(), &[], &arguments).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    assert_eq!(server.faults().left(), [""; 0]);
    assert_eq!(ran.printed.trim(), format!("{}/#/experiments/0/runs/0", server.url));
    assert!(ran.said.contains("version 1 of the registered model letters"), "{}", ran.said);
    let ran = push(&server, folder.path(), &[], &arguments).await;
    assert!(ran.said.contains("version 2 of"), "{}", ran.said);

    let content = server.content();
    assert_eq!(content.experiments, ["letters & more"]);
    assert_eq!(
        content.registered["letters"].join(" "),
        "mlflow-artifacts:/0/0/artifacts/model mlflow-artifacts:/0/1/artifacts/model"
    );
    let [first, second] = content.runs.as_slice() else { panic!("{} runs", content.runs.len()) };
    assert_eq!((first.status.as_str(), second.status.as_str()), ("FINISHED", "FINISHED"));
    let files: Vec<&str> = first.files.keys().map(String::as_str).collect();
    let names = ["README.md", "architecture.json", "model.py", "model.safetensors", "report.html", "report.json"];
    assert_eq!(files, names.map(|name| format!("model/{name}")));
    let model = std::fs::read(folder.path().join("fused/fused.safetensors")).expect("the model");
    assert_eq!(first.files["model/model.safetensors"], model);

    let report = std::fs::read_to_string(folder.path().join("fused/report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let epochs = report["epochs"].as_array().expect("epochs");
    assert_eq!(epochs.len(), 3, "two, and what was before");
    for (step, epoch) in (0..).zip(epochs) {
        let measured = first.metrics[&("validation/accuracy".to_owned(), step)];
        assert_eq!(Some(measured), epoch["validation"]["accuracy"].as_f64());
    }
    let candidates = report["candidates"].as_array().expect("candidates");
    let of_kind =
        |kind: &str| candidates.iter().find(|row| row["kind"] == kind).expect("a row")["test"]["accuracy"].as_f64();
    for kind in ["ensemble", "fused"] {
        assert_eq!(Some(first.metrics[&(format!("{kind}/test/accuracy"), 0)]), of_kind(kind));
    }
    assert_eq!(first.params["method.name"], "neuron_transplantation");
    assert_eq!(Some(first.tags["engraft.model.sha256"].as_str()), report["identity"]["model"]["sha256"].as_str());
    assert!(first.name.starts_with("fused "), "{}", first.name);
}

#[tokio::test]
async fn who_it_is_comes_from_mlflows_own_variables() {
    let (server, folder) = (MlflowStandIn::start().await, fused().await);
    server.content().authorization = Some("Basic dXNlcjpzZWNyZXQ=".to_owned());
    let ran = push(&server, folder.path(), &[], &[]).await;
    assert!(ran.code == Some(1) && ran.said.contains("MLFLOW_TRACKING_USERNAME"), "{}", ran.said);
    let user = [("MLFLOW_TRACKING_USERNAME", "user"), ("MLFLOW_TRACKING_PASSWORD", "secret")];
    let ran = push(&server, folder.path(), &user, &[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    // The same in the address, which is then shown without.
    let address = server.url.replace("http://", "http://user:secret@");
    let ran = push(&server, folder.path(), &[], &["--tracking-uri", &address]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    assert!(!ran.printed.contains("secret") && !ran.said.contains("secret"), "{ran:?}");
    server.content().authorization = Some("Bearer token".to_owned());
    let ran = push(&server, folder.path(), &[&user[..], &[("MLFLOW_TRACKING_TOKEN", "token")]].concat(), &[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
}

#[tokio::test]
async fn what_cannot_be_tracked_is_refused_by_its_reason() {
    let (server, folder) = (MlflowStandIn::start().await, fused().await);
    let ran = engraft(folder.path(), &[], &["push", "fused", "--to", "mlflow"]).await;
    assert!(ran.code == Some(1) && ran.said.contains("MLFLOW_TRACKING_URI"), "{}", ran.said);
    let ran = push(&server, folder.path(), &[], &["--tracking-uri", "sqlite:///mlflow.db"]).await;
    assert!(ran.code == Some(1) && ran.said.contains("mlflow server"), "{}", ran.said);
    let ran = push(&server, folder.path(), &[], &["--tracking-uri", &format!("{}/elsewhere", server.url)]).await;
    assert!(ran.code == Some(1) && ran.said.contains("a tracking server of MLflow?"), "{}", ran.said);
    // A run that did not become whole says so.
    server.content().apart = true;
    let ran = push(&server, folder.path(), &[], &[]).await;
    assert!(ran.code == Some(1) && ran.said.contains("--serve-artifacts"), "{}", ran.said);
    assert_eq!(server.content().runs[0].status, "FAILED");
}
