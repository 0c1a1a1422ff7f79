//! Real `engraft` processes are killed a hundred times at seeded random moments while they work on several jobs. No job may
//! be lost, none may be published twice, and each result must be the undisturbed one, bit for bit.

#![cfg(target_os = "linux")]

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod lab;
mod processes;
mod strikes;

use std::time::Duration;

use common::app::TestApp;
use common::samples::script;
use engraft::domain::progress::Phase;
use engraft::store::jobs::Event;
use lab::{Lab, ONE_SECOND};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use strikes::Strike;
use tokio::time::sleep;

/// Strikes in all, unless `ENGRAFT_TEST_STRIKES` has another number.
const STRIKES: usize = 100;

#[tokio::test]
async fn a_hundred_kills_lose_nothing_publish_nothing_twice_and_change_no_bit() {
    let strikes = std::env::var("ENGRAFT_TEST_STRIKES").map_or(STRIKES, |strikes| strikes.parse().expect("a number"));
    let mut lab = Lab::new(TestApp::start().await).await;
    lab.compute_undisturbed().await;
    let mut workers = [lab.worker(ONE_SECOND), lab.worker(ONE_SECOND)];
    let mut rng = ChaCha8Rng::seed_from_u64(100);
    while lab.strikes.values().sum::<usize>() < strikes {
        let strike = Strike::random(&mut rng);
        lab.strike(&mut workers, &strike).await;
    }
    lab.wait_for_all().await;
    for worker in workers {
        lab.stop(worker).await;
    }
    let interruptions = lab.check().await;
    println!(
        "{} jobs, {interruptions} attempts cut short, {:?}; {:?}",
        lab.jobs.len(),
        lab.begun.elapsed(),
        lab.strikes
    );
    // Fewer strikes need not hit the short phases.
    for phase in [Phase::Finetune, Phase::Evaluate, Phase::Publish].into_iter().filter(|_| strikes >= STRIKES) {
        assert!(lab.hits(phase) > 0, "no strike hit the phase {}", phase.as_str());
    }
    assert!(interruptions >= strikes / 2, "most strikes must cut an attempt short, {interruptions} did");
    lab.app.stop().await;
}

#[tokio::test]
async fn a_worker_that_freezes_and_wakes_up_late_changes_nothing() {
    let mut lab = Lab::new(TestApp::start().await).await;
    lab.compute_undisturbed().await;
    let sleeper = lab.worker(ONE_SECOND);
    let mut helper = None;
    loop {
        lab.post(0).await;
        let (job, _) = lab.jobs[lab.jobs.len() - 1];
        lab.wait(job, |job| job.checkpoint.is_some() || job.state.is_terminal()).await;
        sleeper.freeze();
        if helper.is_none() {
            helper = Some(lab.worker(ONE_SECOND));
        }
        // One that froze while it wrote to the database holds up everybody: try again then.
        let patience = sleep(Duration::from_secs(5));
        let taken_over = tokio::select! {
            job = lab.wait(job, |job| job.state.effort().attempts == 2) => !job.state.is_terminal(),
            () = patience => false,
        };
        sleeper.thaw();
        lab.wait_for_all().await;
        if taken_over {
            break;
        }
    }
    lab.stop(sleeper).await;
    lab.stop(helper.expect("it was started")).await;
    lab.check().await;
    lab.app.stop().await;
}

#[tokio::test]
async fn a_job_that_meets_a_full_disk_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let full_at_first = format!(
        r#"case "$1$PWD" in run-job*-1) ln -s /dev/full epoch-00000.unfinished ;; esac; exec {} "$@""#,
        env!("CARGO_BIN_EXE_engraft")
    );
    let program = script(folder.path(), &full_at_first);
    let app = TestApp::builder()
        .settings(|settings| {
            settings.program = Some(program);
            settings.workers.workers = 1;
        })
        .start()
        .await;
    let mut lab = Lab::new(app).await;
    lab.post(0).await;
    lab.wait_for_all().await;
    let (job, _) = lab.jobs[0];
    assert_eq!(lab.check_history(job).await, 1, "one attempt has failed for now");
    let events = lab.events(job).await;
    assert!(events.iter().any(|event| event.data["reason"] == "transient_failure"), "{events:#?}");
    let told =
        |event: &Event| event.data["message"].as_str().is_some_and(|text| text.contains("No space left on device"));
    assert!(events.iter().any(told), "{events:#?}");
    lab.app.stop().await;
}
