//! Many clients that follow one job.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::common::app::TestApp;
use crate::common::samples::{member, script};

/// Writes far more lines at once than a reader keeps for its followers, waits for a word, and ends with more lines.
const CHILD: &str = r#"
test "$1" = run-job || exit 9
lines() { for number in $(seq 1 "$1"); do printf '{"type":"log","level":"info","message":"line %s"}\n' "$number"; done; }
read -r task
lines 500
read -r command
lines 300
printf '{"type":"stopped"}\n'
"#;

const SOON: Duration = Duration::from_secs(20);

async fn job(app: &TestApp) -> String {
    for name in ["m0", "m1"] {
        app.put(&format!("/v1/checkpoints/{name}"), member()).send().await.expect("an answer");
    }
    let body = json!({"members": ["m0", "m1"]});
    let queued = app.request(Method::POST, "/v1/jobs").json(&body).send().await.expect("an answer");
    queued.headers()["location"].to_str().expect("an address").to_owned()
}

async fn follow(app: &TestApp, job: &str, after: i64) -> Response {
    let request = app.get(&format!("{job}/events?after={after}")).header(ACCEPT, "text/event-stream");
    request.send().await.expect("an answer")
}

fn positions(text: &str) -> Vec<i64> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_followers_get_every_event_in_order_whenever_they_begin() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = script(folder.path(), CHILD);
    let change = |settings: &mut engraft::config::Configuration| {
        settings.program = Some(program);
        settings.workers.workers = 1;
    };
    let app = TestApp::builder().settings(change).start().await;
    let job = job(&app).await;
    let early = join_all((0..8).map(|_| follow(&app, &job, 0))).await;
    let last = async || {
        let page = app.get(&format!("{job}/events?after=500")).send().await.expect("an answer");
        page.json::<Value>().await.expect("JSON")["data"].as_array().map_or(0, Vec::len)
    };
    let begun = Instant::now();
    while last().await == 0 {
        assert!(begun.elapsed() < SOON, "the lines do not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let late = join_all((0..4).map(|_| follow(&app, &job, 0))).await;
    let resumed = follow(&app, &job, 400).await;
    app.request(Method::POST, &format!("{job}/cancel")).send().await.expect("an answer");

    let texts = join_all(early.into_iter().chain(late).map(Response::text));
    let texts = tokio::time::timeout(SOON, texts).await.expect("the streams end with the job");
    let first = positions(texts[0].as_ref().expect("a body"));
    let all: Vec<i64> = (1..=first.len() as i64).collect();
    assert!(all.len() > 800, "{}", all.len());
    for text in &texts {
        assert_eq!(positions(text.as_ref().expect("a body")), all);
    }
    let rest = tokio::time::timeout(SOON, resumed.text()).await.expect("ends").expect("a body");
    assert_eq!(positions(&rest), all[400..]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_read_once_for_all_followers_and_not_at_all_without_any() {
    let app = TestApp::start().await;
    let job = job(&app).await;
    let before = app.state.tasks.len();
    let mut streams: Vec<_> = join_all((0..20).map(|_| follow(&app, &job, 0))).await;
    for stream in &mut streams {
        stream.chunk().await.expect("a stream").expect("the first event");
    }
    let waiting = app.get(&job).header("prefer", "wait=60").send();
    let waiting = tokio::spawn(waiting);
    assert_eq!(app.state.tasks.len() - before, 2, "the reader of the job, and the look for changes");
    app.request(Method::POST, &format!("{job}/cancel")).send().await.expect("an answer");
    let waited = tokio::time::timeout(SOON, waiting).await.expect("in time").expect("a task").expect("an answer");
    assert_eq!(waited.json::<Value>().await.expect("JSON")["state"], "cancelled");
    for stream in streams {
        let rest: Vec<_> = tokio::time::timeout(SOON, stream.bytes_stream().collect()).await.expect("ends");
        assert!(rest.iter().all(Result::is_ok));
    }
    let gone = follow(&app, &job, 0).await.text().await.expect("a body");
    assert_eq!(positions(&gone), [1, 2], "a job that has ended is told to its end");
    let begun = Instant::now();
    while app.state.tasks.len() > before {
        assert!(begun.elapsed() < SOON, "{} tasks", app.state.tasks.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.stop().await;
}
