//! NVIDIA's GPUs: their libraries, which are looked for when the program runs, and what the machine has.

mod folders;
pub mod libraries;
pub mod probe;
