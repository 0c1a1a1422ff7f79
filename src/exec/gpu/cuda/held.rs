//! Images that the networks of a GPU read, each of them there once.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::cuda::memory::Allocation;
use crate::exec::gpu::cuda::session::Session;

/// Bytes of the host with their copy. What the bytes belong to stays as long, so that no others come to their address.
#[derive(Debug)]
struct Copied {
    session: Arc<Session>,
    address: usize,
    len: usize,
    _owner: Arc<dyn Any + Send + Sync>,
    copy: Arc<Allocation>,
}

static HELD: Mutex<Vec<Copied>> = Mutex::new(Vec::new());

/// The copy of `bytes` on the GPU of `session`, made where there is none yet; `None` where it would take more than half of the room.
pub(super) fn hold(
    session: &Arc<Session>,
    bytes: &[u8],
    owner: &Arc<dyn Any + Send + Sync>,
) -> Result<Option<Arc<Allocation>>, DeviceFault> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let (address, len) = (bytes.as_ptr().addr(), bytes.len());
    let is_it = |known: &&Copied| Arc::ptr_eq(&known.session, session) && known.address == address && known.len == len;
    if let Some(known) = held.iter().find(is_it) {
        return Ok(Some(Arc::clone(&known.copy)));
    }
    if len as u64 > session.room()? / 2 {
        return Ok(None);
    }
    let copy = Arc::new(Allocation::of(session, bytes)?);
    let (session, owner) = (Arc::clone(session), Arc::clone(owner));
    held.push(Copied { session, address, len, _owner: owner, copy: Arc::clone(&copy) });
    Ok(Some(copy))
}
