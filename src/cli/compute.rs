//! Where and how exactly to compute: what `engraft fuse`, `plan` and `train` share.

use serde_json::{Map, Value, json};

/// Where, and how exactly. Flags win over the file.
#[derive(Debug, clap::Args)]
pub(super) struct ComputeArgs {
    /// Where to compute: `auto`, `cpu`, `cuda` (the first NVIDIA GPU that can be used) or `cuda:N`; `engraft devices` shows them.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// How exactly a GPU multiplies: `f32`, `tf32` or `bf16`. The processor computes in f32.
    #[arg(long, value_name = "PRECISION")]
    precision: Option<String>,
    /// Let a GPU take faster ways that may compute other last bits each time.
    #[arg(long)]
    nondeterministic: bool,
}

impl ComputeArgs {
    /// Lays the flags over a job or a recipe.
    pub(super) fn lay_over(&self, body: &mut Map<String, Value>) {
        for (field, value) in [("device", &self.device), ("precision", &self.precision)] {
            if let Some(value) = value {
                body.insert(field.to_owned(), json!(value));
            }
        }
        if self.nondeterministic {
            body.insert("deterministic".to_owned(), json!(false));
        }
    }
}
