//! What plays tapes: a GPU, or in tests something that computes the same on the processor.

use std::fmt::Debug;

use crate::exec::engine::DeviceFault;
use crate::exec::gpu::tape::{Place, Tape};

/// A device with memory of its own.
pub trait Device: Debug + Send {
    /// A tape that is ready to be played again and again.
    type Program: Debug + Send;

    /// Takes memory for an arena of `bytes`. The first `kept` ones are those of the arena before, all others 0. Programs that were made
    /// before must not be played any more.
    ///
    /// # Errors
    /// When there is not enough memory, or the device fails.
    fn reserve(&mut self, bytes: usize, kept: usize) -> Result<(), DeviceFault>;

    /// Makes `tape` ready.
    ///
    /// # Errors
    /// When the device has no kernel for a command, not enough memory, or fails.
    fn prepare(&mut self, tape: &Tape) -> Result<Self::Program, DeviceFault>;

    /// Plays a program after all that was asked for before; need not wait for its end.
    ///
    /// # Errors
    /// When the device fails.
    fn play(&mut self, program: &Self::Program) -> Result<(), DeviceFault>;

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
