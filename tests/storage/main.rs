//! The storage fails, one call after another, and heals: nothing that was acknowledged is lost, and the service goes on without
//! a restart. A file system in this process (see [`layer`]) plays the faults.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod durable;
mod jobs;
mod layer;
mod mounted;
mod power;
mod room;
mod switch;
mod workload;

use std::io::Write;
use std::sync::Arc;

use common::app::{TestApp, client_builder};
use common::samples;
use engraft::app::Application;
use engraft::domain::clock::SystemClock;
use engraft::runtime::lifecycle::Shutdown;
use mounted::Mounted;
use switch::{Fault, Script};
use tempfile::TempDir;

/// Every how many calls one fails: `usual`, or every single one with `ENGRAFT_TEST_EVERY_FAULT=1`.
fn stride(usual: u64) -> u64 {
    if std::env::var_os("ENGRAFT_TEST_EVERY_FAULT").is_some() { 1 } else { usual }
}

/// A mounted layer. Where none can be mounted, says aloud that `test` is skipped.
fn mounted(test: &str) -> Option<Mounted> {
    // What the server says is shown beside a test that fails. Another test may have begun this already.
    let _begun = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_test_writer().try_init();
    match Mounted::new() {
        Ok(mounted) => Some(mounted),
        Err(error) => {
            skipped(test, &error);
            None
        }
    }
}

fn skipped(test: &str, why: &dyn std::fmt::Display) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "SKIPPED {test}: no file system can be mounted here ({why})").expect("a place to say so");
}

fn folder(mounted: &Mounted) -> TempDir {
    TempDir::new_in(mounted.path()).expect("a folder")
}

/// A server whose client opens a connection for each request: a server that refuses one closes its connection.
async fn start(folder: TempDir) -> TestApp {
    let mut app = TestApp::builder().folder(folder).start().await;
    app.client = client_builder().pool_max_idle_per_host(0).build().expect("a client");
    app
}

/// Every fault, once and for good, at every call that it can meet of those which `play` counts.
async fn each_fault(test: &str, usual_stride: u64, play: impl AsyncFn(&Mounted, Script) -> u64) {
    let Some(mounted) = mounted(test) else { return };
    let (mut injected, stride) = (0, stride(usual_stride));
    for (number, (fault, count)) in
        [(Fault::Broken, 1), (Fault::Broken, u64::MAX), (Fault::Full, 1), (Fault::Full, u64::MAX), (Fault::Short, 1)]
            .into_iter()
            .enumerate()
    {
        let (mut first, begun) = (number as u64 % stride, injected);
        while play(&mounted, Script { fault, first, count, only: None }).await > 0 {
            injected += 1;
            first += stride;
        }
        let kind = if count == 1 { "once" } else { "for good" };
        println!("{test}: {} times {fault:?} {kind}, of {first} calls", injected - begun);
    }
    assert!(injected > 10, "only {injected} faults were injected");
}

#[test]
#[ignore = "it is a process that the other tests start"]
fn the_process_of_the_file_system() {
    mounted::serve();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_storage_costs_a_client_anything() {
    each_fault("requests", 29, async |mounted, script| {
        let app = start(folder(mounted)).await;
        mounted.arm(script);
        let promised = workload::run(&app).await;
        let struck = mounted.heal();
        workload::check(&app, &promised).await;
        workload::finish(&app, &promised).await;
        let app = start(app.stop().await).await;
        workload::check_end(&app).await;
        app.stop().await;
        struck
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_a_folder_that_starts() {
    each_fault("start", 13, async |mounted, script| {
        let folder = folder(mounted);
        let settings = TestApp::settings(folder.path());
        mounted.arm(script);
        let started = Application::build(settings.clone(), Arc::new(SystemClock), Shutdown::new()).await;
        let struck = mounted.heal();
        if let Ok(application) = started {
            application.state().database.close().await;
        }
        let app = start(folder).await;
        let uploaded = app.put("/v1/checkpoints/m0", samples::member()).send().await.expect("an answer");
        assert!(uploaded.status().is_success(), "{}", uploaded.status());
        app.stop().await;
        struck
    })
    .await;
}

/// One fsync fails, once. A connection that does not know whether its transaction still runs would refuse every later write.
#[tokio::test(flavor = "multi_thread")]
async fn after_one_fsync_that_failed_everything_is_written_again() {
    let Some(mounted) = mounted("after_one_fsync_that_failed_everything_is_written_again") else { return };
    let app = start(folder(&mounted)).await;
    let mut struck = 0;
    for number in 0..12 {
        mounted.arm(Script { fault: Fault::Broken, first: number, count: 1, only: Some("sync") });
        let name = format!("/v1/checkpoints/m{number}");
        let first = app.put(&name, samples::member()).send().await.expect("an answer").status();
        struck += mounted.heal();
        assert!(first.is_success() || first.is_server_error(), "{first}");
        let second = app.put(&name, samples::member()).send().await.expect("an answer").status();
        assert!(second.is_success(), "{second} after {first}");
        let ready = app.get("/readyz").send().await.expect("an answer").status();
        assert!(ready.is_success(), "{ready}");
    }
    assert!(struck >= 5, "only {struck} syncs were struck");
    app.stop().await;
}
