//! Everything that training needs to go on, in one file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::progress::EpochMetrics;
use crate::exec::Engine;
use crate::tensors::{Checkpoint, StateDict, StateDictError, Written};
use crate::train::TrainError;

/// Key of the file's metadata that holds [`Notes`].
const KEY: &str = "engraft.training";
/// Version of the file's layout.
const VERSION: u32 = 2;
/// Prefixes of the tensors: the weights, the weights of the best epoch; before both the optimizer's buffers' names.
const MODEL: &str = "model.";
const BEST: &str = "best.";

/// What is no tensor. The generators need no state: each epoch's order follows from the seed and the epoch's number.
#[derive(Debug, Serialize, Deserialize)]
struct Notes {
    version: u32,
    /// Digest of the settings that training must go on with.
    settings: String,
    best_epoch: usize,
    /// Steps of the optimizer.
    steps: u64,
    history: Vec<EpochMetrics>,
}

/// Where training stands between two epochs, besides the network and the optimizer.
#[derive(Debug, Clone)]
pub(super) struct TrainingState {
    /// The best weights so far.
    pub(super) best: StateDict,
    pub(super) best_epoch: usize,
    /// Epoch 0 and all finished ones.
    pub(super) history: Vec<EpochMetrics>,
}

impl TrainingState {
    /// Finished epochs.
    pub(super) fn epoch(&self) -> usize {
        self.history.len().saturating_sub(1)
    }
}

/// Writes the checkpoint of the last finished epoch into `folder`: to a temporary name, synced, then renamed. The last
/// two epochs' files stay, older ones go.
pub(super) fn save(
    folder: &Path,
    settings: &str,
    network: &mut dyn Engine,
    progress: &TrainingState,
) -> Result<(PathBuf, Written), TrainError> {
    let mut tensors = StateDict::default();
    let mut put = |prefix: &str, weights: &StateDict| {
        tensors.extend(weights.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())));
    };
    put(MODEL, &network.state_dict()?);
    put(BEST, &progress.best);
    let (steps, buffers) = network.save_optimizer()?;
    put("", &buffers);
    let notes = Notes {
        version: VERSION,
        settings: settings.to_owned(),
        best_epoch: progress.best_epoch,
        steps,
        history: progress.history.clone(),
    };
    let path = folder.join(file_name(progress.epoch()));
    let fault = |error: io::Error| StateDictError::Write { path: path.clone(), source: error };
    let notes = serde_json::to_string(&notes).map_err(|error| fault(error.into()))?;
    let unfinished = path.with_extension("unfinished");
    let written = tensors.save(&unfinished, &BTreeMap::from([(KEY.to_owned(), notes)]))?;
    fs::rename(&unfinished, &path).and_then(|()| File::open(folder)?.sync_all()).map_err(fault)?;
    if let Some(old) = progress.epoch().checked_sub(2) {
        remove_if_there(&folder.join(file_name(old))).map_err(fault)?;
    }
    Ok((path, written))
}

/// Puts the network, which has begun its training, where the checkpoint `path` left it.
pub(super) fn resume(path: &Path, settings: &str, network: &mut dyn Engine) -> Result<TrainingState, TrainError> {
    let fault = |detail: String| TrainError::Checkpoint { path: path.to_owned(), detail };
    let file = Checkpoint::open(path).map_err(|error| fault(error.to_string()))?;
    let notes = file.metadata().get(KEY).ok_or_else(|| fault("holds no notes on training".to_owned()))?;
    let notes: Notes = serde_json::from_str(notes).map_err(|error| fault(error.to_string()))?;
    if notes.version != VERSION || notes.settings != settings || notes.history.is_empty() {
        return Err(fault("is of a training with other settings, data or network".to_owned()));
    }
    let tensors = StateDict::from_checkpoint(&file)?;
    let below = |prefix: &str| -> StateDict {
        tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())))
            .collect()
    };
    network.load(&below(MODEL))?;
    network.load_optimizer(notes.steps, &tensors)?;
    Ok(TrainingState { best: below(BEST), best_epoch: notes.best_epoch, history: notes.history })
}

fn file_name(epoch: usize) -> String {
    format!("epoch-{epoch:05}.safetensors")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
