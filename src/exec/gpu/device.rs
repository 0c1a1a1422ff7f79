//! What plays tapes: a GPU, or in tests something that computes the same on the processor.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::tape::{Place, Tape};

/// A device with memory of its own.
pub trait Device: Debug + Send + 'static {
    /// A tape that is ready to be played again and again.
    type Program: Debug + Send;

    /// Memory with images that several networks may read.
    type Held: Debug + Send + Sync + 'static;

    /// What the bits depend on besides tapes and memory.
    fn arithmetic(&self) -> String;

    /// What a user should know of how it computes.
    fn remark(&self) -> Option<String>;

    /// Takes memory for an arena of `bytes`. The first `kept` ones are those of the arena before, all others 0. Programs that were made
    /// before must not be played any more.
    ///
    /// # Errors
    /// When there is not enough memory, or the device fails.
    fn reserve(&mut self, bytes: usize, kept: usize) -> Result<(), DeviceFault>;

    /// Keeps `bytes` that belong to `owner`, the same ones once; `None` where there is no room.
    ///
    /// # Errors
    /// When the device fails.
    fn hold(
        &mut self,
        bytes: &[u8],
        owner: &Arc<dyn Any + Send + Sync>,
    ) -> Result<Option<Arc<Self::Held>>, DeviceFault>;

    /// Makes `tape` ready, which reads `held` as [`Region::Held`](crate::exec::gpu::tape::Region::Held).
    ///
    /// # Errors
    /// When the device has no kernel for a command, not enough memory, or fails.
    fn prepare(&mut self, tape: &Tape, held: Option<&Arc<Self::Held>>) -> Result<Self::Program, DeviceFault>;

    /// Plays a program after all that was asked for before; need not wait for its end.
    ///
    /// # Errors
    /// When the device fails.
    fn play(&mut self, program: &mut Self::Program) -> Result<(), DeviceFault>;

    /// Writes `bytes` to a place after all that was asked for before; `bytes` may change when this returns.
    ///
    /// # Errors
    /// When the device fails.
    fn write(&mut self, place: Place, bytes: &[u8]) -> Result<(), DeviceFault>;

    /// Reads a place when all that was asked for before is done.
    ///
    /// # Errors
    /// When the device fails.
    fn read(&mut self, place: Place, bytes: &mut [u8]) -> Result<(), DeviceFault>;
}
