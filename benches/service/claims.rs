//! Fifty workers claim jobs while 100,000 wait.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engraft::domain::clock::{Clock as _, SystemClock};
use engraft::domain::id::{JobId, WorkerId};
use engraft::domain::problem::{Code, Problem};
use engraft::settings::Device;
use engraft::store::jobs::{Claimant, Jobs};
use engraft::store::workers::{Registration, Workers};
use tokio::task::JoinSet;

use crate::Result;
use crate::percentiles::percentiles;
use crate::place::Place;

const QUEUED: usize = 100_000;
const TENANTS: usize = 10;
const WORKERS: u32 = 50;
/// Each has a turn once in this time, if not as fast as it can.
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
        let database = place.open().await?;
        let jobs = Jobs::new(database.clone(), Arc::new(SystemClock));
        workers.push((jobs, Workers::new(database, Arc::new(SystemClock))));
    }
    let rate = |times: &[Duration], elapsed: Duration| times.len() as f64 / elapsed.as_secs_f64();
    // Connections are made and statements prepared: workers live for days.
    turns(&workers, Turn::Claim, None).await?;
    turns(&workers, Turn::Look, None).await?;
    println!("{QUEUED} jobs of {TENANTS} tenants wait, {WORKERS} workers:");
    let (mut times, elapsed) = turns(&workers[..1], Turn::Claim, None).await?;
    let alone = rate(&times, elapsed);
    println!("  one of them alone: {alone:.0} claims and ends of jobs per second; {}", percentiles(&mut times));
    let (mut times, elapsed) = turns(&workers, Turn::Claim, None).await?;
    let all = rate(&times, elapsed);
    println!("  as fast as they can: {all:.0} claims and ends of jobs per second; {}", percentiles(&mut times));
    for pace in PACES {
        println!("  each every {pace:?}:");
        for (turn, what) in [
            (Turn::Claim, "claims"),
            (Turn::Look, "looks for a device that no job wants"),
            (Turn::Beat, "writes that it is alive, for comparison"),
        ] {
            let (mut times, _) = turns(&workers, turn, Some(pace)).await?;
            println!("    {what}: {}", percentiles(&mut times));
        }
    }
    Ok(())
}

/// What a worker does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Claims a job, and ends it, which is not timed.
    Claim,
    /// Tries to claim one for a device that no job wants.
    Look,
    /// Writes a row of its own: the least that a transaction can do. Twice, of which the first time counts.
    Beat,
}

/// What each turn took, and all of them together.
async fn turns(workers: &[(Jobs, Workers)], turn: Turn, pace: Option<Duration>) -> Result<(Vec<Duration>, Duration)> {
    let mut running = JoinSet::new();
    let (began, count) = (Instant::now(), u32::try_from(workers.len())?);
    for (number, (jobs, table)) in (0..).zip(workers.iter().cloned()) {
        let (now, host) = (SystemClock.now(), format!("host{number}"));
        let devices = vec![if turn == Turn::Look { Device::Cuda(0) } else { Device::Cpu }];
        let worker = Registration {
            id: WorkerId::new(),
            host: host.clone(),
            pid: number,
            version: String::new(),
            slots: 1,
            devices: devices.clone(),
            speeds: Vec::new(),
            started: now,
            heartbeat: now,
        };
        let claimant = Claimant { worker: worker.id, host, devices, lease: Duration::from_mins(1), room: u64::MAX };
        running.spawn(async move {
            let mut times = Vec::new();
            let mut due = Instant::now() + pace.unwrap_or_default() * number / count;
            while began.elapsed() < FOR {
                if let Some(pace) = pace {
                    tokio::time::sleep_until(due.into()).await;
                    due += pace;
                }
                let asked = Instant::now();
                let claimed = match turn {
                    Turn::Claim | Turn::Look => jobs.claim(&claimant).await?,
                    Turn::Beat => table.heartbeat(&worker).await.map(|()| None)?,
                };
                times.push(asked.elapsed());
                // The second transaction of a turn is not timed, and is in the way of others all the same.
                if let Some(claim) = claimed {
                    jobs.fail(claim.fence, Problem::new(Code::Internal, "It was a benchmark.")).await?;
                } else if turn == Turn::Beat {
                    table.heartbeat(&worker).await?;
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(worker) = running.join_next().await {
        times.extend(worker??);
    }
    Ok((times, began.elapsed()))
}
