//! What goes on between a process that computes and the one that watches it: the messages, and a meter of its memory.

pub mod memory;
pub mod protocol;
