//! Which of several ways to compute the same is the fastest here. What is chosen by a clock may be another way next time, with
//! other bits: only jobs that do not have to be deterministic choose so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUdeviceptr;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::convolutions::PreparedConvolution;
use crate::exec::gpu::cuda::memory::Allocation;
use crate::exec::gpu::cuda::products::PreparedProduct;
use crate::exec::gpu::cuda::session::Session;

/// Ways that are compared.
pub(super) const CANDIDATES: usize = 8;

/// Runs of each, after one that does not count.
const RUNS: u32 = 20;

/// Something that can be run on a session's stream.
pub(super) trait Way {
    /// Bytes that it needs besides.
    fn workspace(&self) -> usize;

    /// Gets ready to use this workspace.
    fn bind(&mut self, workspace: CUdeviceptr) -> Result<(), DeviceFault>;

    /// Runs on the session's stream.
    fn run(&self, session: &Session, workspace: CUdeviceptr) -> Result<(), DeviceFault>;
}

impl Way for PreparedConvolution {
    fn workspace(&self) -> usize {
        self.workspace
    }

    fn bind(&mut self, workspace: CUdeviceptr) -> Result<(), DeviceFault> {
        self.bind(workspace)
    }

    fn run(&self, session: &Session, _: CUdeviceptr) -> Result<(), DeviceFault> {
        self.run(session)
    }
}

impl Way for PreparedProduct {
    fn workspace(&self) -> usize {
        self.workspace
    }

    fn bind(&mut self, _: CUdeviceptr) -> Result<(), DeviceFault> {
        Ok(())
    }

    fn run(&self, session: &Session, workspace: CUdeviceptr) -> Result<(), DeviceFault> {
        self.run(session, workspace)
    }
}

/// The fastest of some ways; the first where there is only one. Their results are written and mean nothing.
pub(super) fn fastest<W: Way>(session: &Arc<Session>, mut ways: Vec<W>) -> Result<W, DeviceFault> {
    let mut best: Option<(Duration, usize)> = None;
    if ways.len() > 1 {
        for (index, way) in ways.iter_mut().enumerate() {
            // One that has no room, or does not run, is not the fastest.
            if let Ok(time) = time(session, way) {
                best = Some(best.map_or((time, index), |best| best.min((time, index))));
            }
        }
    }
    let index = best.map_or(0, |(_, index)| index);
    if ways.is_empty() {
        return Err(DeviceFault::Refused("there is no way to compute this".to_owned()));
    }
    Ok(ways.swap_remove(index))
}

/// How long some runs take.
fn time<W: Way>(session: &Arc<Session>, way: &mut W) -> Result<Duration, DeviceFault> {
    let workspace = Allocation::zeros(session, way.workspace())?;
    way.bind(workspace.address(0))?;
    way.run(session, workspace.address(0))?;
    session.wait()?;
    let start = Instant::now();
    (0..RUNS).try_for_each(|_| way.run(session, workspace.address(0)))?;
    session.wait()?;
    Ok(start.elapsed())
}
