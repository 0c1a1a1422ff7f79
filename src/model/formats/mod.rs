//! Checkpoint files: what their headers say, checked before anything relies on it.

pub mod digest;
pub mod protobuf;
pub mod safetensors;
mod safetensors_json;
