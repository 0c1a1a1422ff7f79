//! The demo's ensemble: small networks trained from different seeds.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cli::train::{table, task};
use crate::pipeline::ensemble::train_ensemble;

/// Mean of the glyphs' pixels.
pub(super) const MEAN: f64 = 0.222;
/// Their standard deviation.
pub(super) const STD: f64 = 0.286;

/// Trains one network for each of `seeds` on the dataset `data`, as `engraft train` does, into `folder`.
pub(super) fn train(data: &Path, seeds: &[u64], epochs: u32, folder: &Path) -> Result<()> {
    let recipe = json!({
        "network": "mlp:96,96",
        "dataset": { "name": data, "normalize": { "mean": [MEAN], "std": [STD] }, "validation_fraction": 0 },
        "train": { "epochs": epochs, "batch_size": 128, "optimizer": { "name": "sgd", "lr": 0.1 } },
        "seeds": seeds,
    });
    let trained = train_ensemble(&task(&recipe, folder, None, None)?, &mut |_| {}, &AtomicBool::new(false))?;
    print!("{}", table(&trained.context("the training was stopped")?));
    Ok(())
}
