//! NVIDIA's GPUs: their libraries, which are looked for when the program runs, and what the machine has.

mod command;
mod convolutions;
mod descriptors;
mod faults;
mod folders;
mod held;
pub mod libraries;
mod memory;
pub mod modules;
mod player;
pub mod probe;
mod products;
mod session;
mod staging;
mod tuning;

pub use player::{Gpu, GpuOptions};
pub use session::Session;
