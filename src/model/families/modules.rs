//! From tensor names to modules: what a checkpoint's layers are, each by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::header::{CheckpointHeader, TensorInfo};
use crate::model::natural;

/// What a module is, by its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModuleKind {
    /// A matrix.
    Linear { input: usize, output: usize },
    /// A stack of kernels.
    Conv { input: usize, output: usize, kernel: [usize; 2] },
    /// Per-channel normalisation with running statistics; with a factor for each channel where it has a bias.
    Norm { features: usize },
    /// Normalisation of every example by itself, over its features.
    LayerNorm { features: usize },
}

/// A module with weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) kind: ModuleKind,
    pub(super) bias: bool,
}

impl Module {
    /// Whether it is a normalisation.
    pub(super) fn is_norm(&self) -> bool {
        matches!(self.kind, ModuleKind::Norm { .. } | ModuleKind::LayerNorm { .. })
    }

    /// The name without its last part, and that part as a number: a place in a sequence of modules.
    pub(super) fn sequence(&self) -> Option<(&str, usize)> {
        let (parent, index) = self.name.rsplit_once('.').unwrap_or(("", &self.name));
        Some((parent, index.parse().ok()?))
    }
}

/// Names of the modules.
pub(super) fn names(modules: &[Module]) -> BTreeSet<String> {
    modules.iter().map(|module| module.name.clone()).collect()
}

/// The modules of a checkpoint, in natural order of their names, or why a tensor belongs to none.
pub(super) fn modules(header: &CheckpointHeader) -> Result<Vec<Module>, Vec<String>> {
    let mut by_name: BTreeMap<&str, BTreeMap<&str, &TensorInfo>> = BTreeMap::new();
    for info in &header.tensors {
        let (module, role) = info.name.rsplit_once('.').unwrap_or(("", &info.name));
        by_name.entry(module).or_default().insert(role, info);
    }
    let (known, unknown): (Vec<_>, Vec<_>) =
        by_name.into_iter().map(|(name, tensors)| module(name, &tensors)).partition(Result::is_ok);
    if !unknown.is_empty() {
        return Err(unknown.into_iter().filter_map(Result::err).collect());
    }
    let mut modules: Vec<Module> = known.into_iter().filter_map(Result::ok).collect();
    modules.sort_by(|a, b| natural::compare(&a.name, &b.name));
    Ok(modules)
}

/// One module from its tensors by role.
fn module(name: &str, tensors: &BTreeMap<&str, &TensorInfo>) -> Result<Module, String> {
    let shape = |role: &str| tensors.get(role).map(|info| &info.shape[..]);
    let roles: Vec<&str> = tensors.keys().copied().filter(|role| *role != "num_batches_tracked").collect();
    let kind = match (shape("weight"), &roles[..]) {
        (Some(&[output, input]), ["bias", "weight"] | ["weight"]) => ModuleKind::Linear { input, output },
        (Some(&[output, input, height, width]), ["bias", "weight"] | ["weight"]) => {
            ModuleKind::Conv { input, output, kernel: [height, width] }
        }
        (Some(&[features]), ["bias", "running_mean", "running_var", "weight"]) => ModuleKind::Norm { features },
        (None, ["running_mean", "running_var"]) => match shape("running_mean") {
            Some(&[features]) => ModuleKind::Norm { features },
            _ => return Err(describe(name, tensors)),
        },
        (Some(&[features]), ["bias", "weight"]) => ModuleKind::LayerNorm { features },
        _ => return Err(describe(name, tensors)),
    };
    let zero = match kind {
        ModuleKind::Linear { input, output } => input == 0 || output == 0,
        ModuleKind::Conv { input, output, kernel } => input == 0 || output == 0 || kernel.contains(&0),
        ModuleKind::Norm { features } | ModuleKind::LayerNorm { features } => features == 0,
    };
    if zero || name.is_empty() {
        return Err(describe(name, tensors));
    }
    Ok(Module { name: name.to_owned(), kind, bias: tensors.contains_key("bias") })
}

/// Tensors that make no known module.
fn describe(name: &str, tensors: &BTreeMap<&str, &TensorInfo>) -> String {
    let list: Vec<String> = tensors.iter().take(8).map(|(role, info)| format!("{role} {:?}", info.shape)).collect();
    if name.is_empty() {
        let names: Vec<String> = tensors.keys().take(8).map(|name| format!("`{name}`")).collect();
        return format!("tensors without a module ({}): save the whole model's `state_dict()`", names.join(", "));
    }
    format!("module `{name}` ({}) is no Linear, Conv2d, BatchNorm or LayerNorm", list.join(", "))
}
