//! The storage fails, one call after another, and heals: nothing that was acknowledged is lost, and the service goes on without
//! a restart. A file system in this process (see [`layer`]) plays the faults.

#![cfg(target_os = "linux")]

mod layer;
mod mounted;
#[path = "../support/mod.rs"]
mod support;
mod switch;
mod workload;

use std::io::Write;

use mounted::Mounted;
use support::TestApp;
use switch::{Fault, Script};
use tempfile::TempDir;

/// Every how many calls one fails. All of them with `ENGRAFT_TEST_EVERY_FAULT=1`.
fn stride() -> u64 {
    if std::env::var_os("ENGRAFT_TEST_EVERY_FAULT").is_some() { 1 } else { 13 }
}

/// A mounted layer. Where none can be mounted, says aloud that `test` is skipped.
fn mounted(test: &str) -> Option<Mounted> {
    match Mounted::new() {
        Ok(mounted) => Some(mounted),
        Err(error) => {
            writeln!(std::io::stderr(), "SKIPPED {test}: no file system can be mounted here ({error})").expect("a place to say so");
            None
        }
    }
}

fn folder(mounted: &Mounted) -> TempDir {
    TempDir::new_in(mounted.path()).expect("a folder")
}

/// A server whose client opens a connection for each request: a server that refuses one closes its connection.
async fn start(folder: TempDir) -> TestApp {
    let mut app = TestApp::builder().folder(folder).start().await;
    app.client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
    app
}

/// Every fault, once and for good, at every call that it can meet of those which `play` counts.
async fn each_fault(test: &str, play: impl AsyncFn(&Mounted, Script) -> u64) {
    let Some(mounted) = mounted(test) else { return };
    // What the server says is shown beside a test that fails. Another test may have begun this already.
    let _begun = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_test_writer().try_init();
    let (mut injected, stride) = (0, stride());
    for (number, (fault, count)) in [
        (Fault::Broken, 1),
        (Fault::Broken, u64::MAX),
        (Fault::Full, 1),
        (Fault::Full, u64::MAX),
        (Fault::Short, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut first, begun) = (number as u64 % stride, injected);
        while play(&mounted, Script { fault, first, count }).await > 0 {
            injected += 1;
            first += stride;
        }
        let kind = if count == 1 { "once" } else { "for good" };
        println!("{test}: {} times {fault:?} {kind}, of {first} calls", injected - begun);
    }
    assert!(injected > 20, "only {injected} faults were injected");
}

#[test]
#[ignore = "it is a process that the other tests start"]
fn the_process_of_the_file_system() {
    mounted::serve();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_storage_costs_a_client_anything() {
    each_fault("requests", async |mounted, script| {
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
