//! `engraft push … --to hf://`.

use std::path::Path;

use serde_json::Value;

use crate::common::app::TestApp;
use crate::hub_stand_in::{HubStandIn, Repository, TOKEN};
use crate::made::{Ran, engraft, fused, inputs};

const FILES: [&str; 6] =
    ["README.md", "architecture.json", "model.py", "model.safetensors", "report.html", "report.json"];

async fn push(hub: &HubStandIn, folder: &Path, arguments: &[&str]) -> Ran {
    engraft(folder, &[("HF_ENDPOINT", &hub.url), ("HF_TOKEN", TOKEN)], &[&["push"], arguments].concat()).await
}

fn names(repository: &Repository, branch: &str) -> Vec<String> {
    repository.branches[branch].keys().cloned().collect()
}

#[tokio::test]
async fn a_folder_becomes_a_repository_and_what_is_the_same_is_not_sent_again() {
    let (hub, folder) = (HubStandIn::start().await, fused().await);
    let to = ["fused", "--to", "hf://org/letters"];
    let ran = push(&hub, folder.path(), &[&to[..], &["--message", "Three letters"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    assert_eq!(ran.printed.trim(), format!("{}/org/letters/commit/{:040x}", hub.url, 1));
    assert!(ran.said.contains("sent: model.safetensors, README.md"), "{}", ran.said);
    {
        let content = hub.content();
        let repository = &content.repositories["org/letters"];
        assert!(!repository.private && repository.commits == ["Three letters"]);
        assert_eq!(names(repository, "main"), FILES);
        let files = &repository.branches["main"];
        let of_disk = std::fs::read(folder.path().join("fused/fused.safetensors")).expect("the model");
        assert_eq!(files["model.safetensors"].content, of_disk);
        let text = |name: &str| String::from_utf8(files[name].content.clone()).expect("text");
        // What is published calls the model as it is called there.
        let card = text("README.md");
        assert!(card.starts_with("---\nlicense: unknown") && card.contains(r#"load("model.safetensors")"#), "{card}");
        assert!(!card.contains("fused.safetensors") && text("model.py").contains(r#"load("model.safetensors")"#));
        assert!(serde_json::from_str::<Value>(&text("architecture.json")).expect("JSON")["nodes"].is_array());
        assert_eq!(files["report.json"].content, std::fs::read(folder.path().join("fused/report.json")).expect("it"));
    }

    let ran = push(&hub, folder.path(), &to).await;
    assert_eq!(ran.printed.trim(), format!("{}/org/letters/tree/main", hub.url));
    assert!(
        ran.said.contains("the same there: README.md, model.safetensors") && !ran.said.contains("sent"),
        "{}",
        ran.said
    );
    assert_eq!((hub.count("whole"), hub.count("commit")), (1, 1));

    // Only the card differs; and what the Hub has is not sent to another repository either.
    std::fs::write(folder.path().join("card.md"), "---\nlicense: mit\n---\n# Letters\n").expect("writes");
    let ran = push(&hub, folder.path(), &[&to[..], &["--card", "card.md"]].concat()).await;
    assert!(ran.said.contains("sent: README.md\n"), "{}", ran.said);
    let ran = push(&hub, folder.path(), &["fused", "--to", "hf://org/others@v2", "--private"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    assert!(ran.said.contains("the Hub had them already: model.safetensors"), "{}", ran.said);
    assert_eq!((hub.count("whole"), hub.count("branch v2"), hub.count("commit")), (1, 1, 3));
    let content = hub.content();
    let others = &content.repositories["org/others"];
    assert!(others.private && names(others, "v2") == FILES && names(others, "main").is_empty());
}

#[tokio::test]
async fn large_files_come_in_parts_and_failures_pass() {
    let (hub, folder) = (HubStandIn::start().await, fused().await);
    hub.content().in_parts = true;
    hub.content().ignored.push("report.html".to_owned());
    for (step, status) in [
        ("look", 503),
        ("create", 500),
        ("preupload", 500),
        ("batch", 502),
        ("part", 500),
        ("complete", 504),
        ("verify", 429),
    ] {
        hub.faults().plan(step, status);
    }
    // The commit is made, but nobody learns of it: it must not be made twice.
    hub.faults().plan("after the commit", 500);
    let ran = push(&hub, folder.path(), &["fused", "--to", "hf://org/letters"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    assert!(ran.said.contains("as the repository's .gitignore says: report.html"), "{}", ran.said);
    assert_eq!(hub.faults().left(), [""; 0]);
    let bytes = std::fs::read(folder.path().join("fused/fused.safetensors")).expect("the model");
    let parts = bytes.len().div_ceil(300);
    assert!(parts > 2 && hub.count("part") == parts + 1, "{parts} parts, the first of them twice");
    let content = hub.content();
    let repository = &content.repositories["org/letters"];
    assert_eq!(repository.commits, ["Fused model"]);
    assert_eq!(repository.branches["main"]["model.safetensors"].content, bytes);
    assert!(!repository.branches["main"].contains_key("report.html"));
}

#[tokio::test]
async fn refusals_say_what_to_do_and_nothing_is_sent() {
    let (hub, folder) = (HubStandIn::start().await, fused().await);
    let to = ["push", "fused", "--to", "hf://org/letters"];
    let with = async |variables: &[(&str, &str)], arguments: &[&str]| {
        let all = [&[("HF_ENDPOINT", hub.url.as_str())], variables].concat();
        let ran = engraft(folder.path(), &all, arguments).await;
        assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.said);
        ran.said
    };
    let said = with(&[], &to).await;
    assert!(said.contains("HF_TOKEN") && said.contains("settings/tokens"), "{said}");
    let said = with(&[("HF_TOKEN", "hf_wrong")], &to).await;
    assert!(said.contains("Invalid credentials") && said.contains("make one that may write"), "{said}");
    assert!(!said.contains("hf_wrong"), "{said}");

    let right = [("HF_TOKEN", TOKEN)];
    hub.content().foreign.push("theirs".to_owned());
    let said = with(&right, &["push", "fused", "--to", "hf://theirs/letters"]).await;
    assert!(said.contains("don't have the rights") && said.contains("right to write to theirs/letters"), "{said}");

    hub.content().repositories.insert("org/open".to_owned(), Repository::default());
    let said = with(&right, &["push", "fused", "--to", "hf://org/open", "--private"]).await;
    assert!(said.contains("org/open is public") && said.contains("nothing was sent"), "{said}");
    let said = with(&right, &["push", "fused", "--to", "hf://org/open@refs/pr/3"]).await;
    assert!(said.contains("no revision `refs/pr/3`"), "{said}");
    std::fs::write(folder.path().join("card.md"), "---\nlicense: [\n---\n").expect("writes");
    let said = with(&right, &[&to[..], &["--card", "card.md"]].concat()).await;
    assert!(said.contains("metadata of README.md"), "{said}");
    assert_eq!((hub.count("whole"), hub.count("commit")), (0, 0));
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_named() {
    let folder = fused().await;
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    std::fs::create_dir(folder.path().join("other")).expect("a folder");
    for (from, to) in [("fused/report.json", "other/report.json"), ("m0.safetensors", "other/m0.safetensors")] {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).expect("copies");
    }
    for (arguments, code, part) in [
        (&["fused", "--to", "hf://letters"][..], 2, "an owner and a name"),
        (&["fused", "--to", "s3://bucket"], 2, "hf://OWNER/NAME"),
        (&["fused", "--private"], 2, "--to"),
        (&["fused", "--to", "mlflow", "--private"], 1, "--private"),
        (&["fused", "--to", "hf://a/b", "--register", "x"], 1, "--register"),
        (&["fused", "--to", "tensorboard:runs", "--card", "x"], 1, "--card"),
        (&["fused", "empty", "--to", "hf://a/b"], 1, "one job"),
        (&["fused", "--to", "hf://a/b", "--dataset", "x"], 2, "--dataset"),
        (&["absent", "--to", "hf://a/b"], 1, "neither a folder nor the id of a job"),
        (&["empty", "--to", "hf://a/b"], 1, "empty holds no report.json"),
        (&["other", "--to", "hf://a/b"], 1, "is not the model that other/report.json is about"),
        (&["fused", "--to", "hf://a/b", "--card", "absent.md"], 1, "absent.md"),
    ] {
        let ran = engraft(folder.path(), &[("HF_TOKEN", TOKEN)], &[&["push"], arguments].concat()).await;
        assert!(ran.code == Some(code) && ran.said.contains(part), "{arguments:?}: {:?} {}", ran.code, ran.said);
    }
}

#[tokio::test]
async fn a_job_of_a_server_goes_to_the_hub() {
    let folder = inputs();
    let app = TestApp::builder().settings(|settings| settings.workers.workers = 1).start().await;
    let server = format!("http://{}", app.address);
    let hub = HubStandIn::start().await;
    let variables = [("ENGRAFT_URL", server.as_str()), ("HF_ENDPOINT", &hub.url), ("HF_TOKEN", TOKEN)];
    let run = async |arguments: &[&str]| {
        let ran = engraft(folder.path(), &variables, arguments).await;
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.said);
        ran
    };
    run(&["push", "m0.safetensors", "m1.safetensors", "--dataset", "data.safetensors"]).await;
    let job = r#"{"name": "letters", "members": ["m0.safetensors", "m1.safetensors"], "dataset": "data.safetensors",
                  "architecture": {"activation": "relu"}, "finetune": {"epochs": 1}}"#;
    std::fs::write(folder.path().join("job.json"), job).expect("writes");
    let id = run(&["submit", "job.json", "--wait"]).await.printed.trim().to_owned();
    run(&["push", &id, "--to", "hf://org/letters"]).await;
    let digest = app.get(&format!("/v1/jobs/{id}/model.sha256")).send().await.expect("it").text().await.expect("text");
    {
        let content = hub.content();
        let repository = &content.repositories["org/letters"];
        assert_eq!(repository.commits, ["Fused model: letters"]);
        let files = &repository.branches["main"];
        assert!(FILES.iter().all(|name| files.contains_key(*name)) && files.contains_key("provenance.json"));
        assert!(digest.starts_with(&files["model.safetensors"].oid), "{digest}");
    }
    let ran =
        engraft(folder.path(), &variables, &["push", "job_019324a5b7c07f3e8d1c2b3a4f5e6d7c", "--to", "hf://a/b"]).await;
    assert!(ran.code == Some(1) && ran.said.contains("job_019324a5b7c07f3e8d1c2b3a4f5e6d7c"), "{}", ran.said);
    app.stop().await;
}

/// What stands in for the Hub is one to the Hub's own client too, and both programs make the same repository.
#[tokio::test]
async fn huggingface_hub_itself_makes_the_same_repository() {
    let Ok(python) = std::env::var("ENGRAFT_TEST_HUGGINGFACE_HUB") else {
        println!("SKIPPED: huggingface_hub itself; ENGRAFT_TEST_HUGGINGFACE_HUB names a Python that has it");
        return;
    };
    for in_parts in [false, true] {
        let (hub, folder) = (HubStandIn::start().await, fused().await);
        hub.content().in_parts = in_parts;
        let ran = push(&hub, folder.path(), &["fused", "--to", "hf://org/ours"]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.said);
        let copy = folder.path().join("copy");
        std::fs::create_dir(&copy).expect("a folder");
        for (name, stored) in &hub.content().repositories["org/ours"].branches["main"] {
            std::fs::write(copy.join(name), &stored.content).expect("writes");
        }
        hub.content().large.clear();
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/destinations/huggingface_hub_client.py");
        let mut command = tokio::process::Command::new(&python);
        command.args(["-B", client, &hub.url, TOKEN]).arg(&copy).arg("org/theirs").env("HF_HOME", folder.path());
        let output = command.kill_on_drop(true).output().await.expect("Python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        {
            let content = hub.content();
            let [ours, theirs] = ["org/ours", "org/theirs"].map(|id| &content.repositories[id]);
            assert!(theirs.private && theirs.commits.len() == 1);
            assert_eq!(ours.branches["main"], theirs.branches["main"]);
        }
        let ran = push(&hub, folder.path(), &["fused", "--to", "hf://org/theirs", "--private"]).await;
        assert!(
            ran.code == Some(0) && ran.said.contains("the same there: README.md, model.safetensors"),
            "{}",
            ran.said
        );
    }
}
