//! Fifty workers claim jobs while 100,000 wait.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engraft::domain::clock::SystemClock;
use engraft::domain::id::{JobId, WorkerId};
use engraft::domain::problem::{Code, Problem};
use engraft::settings::Device;
use engraft::store::jobs::{Claimant, Jobs};
use tokio::task::JoinSet;

use crate::Result;
use crate::percentiles::percentiles;
use crate::place::Place;

const QUEUED: usize = 100_000;
const TENANTS: usize = 10;
const WORKERS: u32 = 50;
/// A worker claims once in this time, if it does not claim as fast as it can.
const PACES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];
const FOR: Duration = Duration::from_secs(10);
/// Rows of one statement.
const AT_ONCE: usize = 1000;

pub(crate) async fn measure(place: &Place) -> Result<()> {
    // It makes the tables.
    drop(place.open().await?);
    let mut rows = String::new();
    for row in 0..QUEUED {
        let (id, tenant) = (JobId::new(), row % TENANTS);
        write!(rows, "('{id}', 't{tenant}', '{{}}', '{{}}', '{{}}', 'cpu', 3600000, 0, FALSE, 0, 'queued'),")?;
        if row % AT_ONCE == AT_ONCE - 1 {
            rows.pop();
            let columns =
                "id, tenant, resolved, plan, labels, device, max_runtime_ms, priority, compared, created_at, state";
            place.sql(format!("INSERT INTO jobs ({columns}) VALUES {}", std::mem::take(&mut rows))).await?;
        }
    }
    if place.is_server() {
        // As it does by itself after a while.
        place.sql("VACUUM ANALYZE".to_owned()).await?;
    }
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(Jobs::new(place.open().await?, Arc::new(SystemClock)));
    }
    // Connections are made and statements prepared: workers live for days.
    claim(&workers, Device::Cpu, None).await?;
    claim(&workers, Device::Cuda(0), None).await?;
    println!("{QUEUED} jobs of {TENANTS} tenants wait, {WORKERS} workers:");
    let (mut times, elapsed) = claim(&workers[..1], Device::Cpu, None).await?;
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    println!("  one of them alone: {rate:.0} claims and ends of jobs per second; {}", percentiles(&mut times));
    let (mut times, elapsed) = claim(&workers, Device::Cpu, None).await?;
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    println!("  as fast as they can: {rate:.0} claims and ends of jobs per second; {}", percentiles(&mut times));
    for pace in PACES {
        let (mut times, _) = claim(&workers, Device::Cpu, Some(pace)).await?;
        println!("  each claims every {pace:?}: {}", percentiles(&mut times));
    }
    for pace in PACES {
        let (mut times, _) = claim(&workers, Device::Cuda(0), Some(pace)).await?;
        println!("  each looks every {pace:?} for a device that no job wants: {}", percentiles(&mut times));
    }
    Ok(())
}

/// What each claim took, and all of them together.
async fn claim(workers: &[Jobs], device: Device, pace: Option<Duration>) -> Result<(Vec<Duration>, Duration)> {
    let mut claiming = JoinSet::new();
    let (began, count) = (Instant::now(), workers.len() as u32);
    for (number, jobs) in (0..).zip(workers.iter().cloned()) {
        let claimant = Claimant {
            worker: WorkerId::new(),
            host: format!("host{number}"),
            devices: vec![device],
            lease: Duration::from_mins(1),
            room: u64::MAX,
        };
        claiming.spawn(async move {
            let mut times = Vec::new();
            let mut due = Instant::now() + pace.unwrap_or_default() * number / count;
            while began.elapsed() < FOR {
                if let Some(pace) = pace {
                    tokio::time::sleep_until(due.into()).await;
                    due += pace;
                }
                let asked = Instant::now();
                let claimed = jobs.claim(&claimant).await?;
                times.push(asked.elapsed());
                if let Some(claim) = claimed {
                    jobs.fail(claim.fence, Problem::new(Code::Internal, "It was a benchmark.")).await?;
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(worker) = claiming.join_next().await {
        times.extend(worker??);
    }
    Ok((times, began.elapsed()))
}
