//! Whole models that were pickled: their modules as plain data. Nothing of a model's code is there, or needed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::Found;
use super::error::PyTorchError;
use super::value::{Pickle, PickleValue};
use crate::model::formats::limits::{MAX_MODULE_DEPTH, MAX_MODULES, MAX_NAME_BYTES, MAX_TENSORS};
use crate::model::header::ModuleInfo;

/// Modules that are listed at most; of larger models only the weights are.
const MAX_LISTED: usize = 4096;
/// Settings of one module that are kept, and numbers of one of them.
const MAX_SETTINGS: usize = 32;
const MAX_NUMBERS: usize = 8;
/// Longest text of a setting, and of a class's name, in bytes.
const MAX_TEXT: usize = 256;

/// Attributes that hold functions which run before or behind a module.
const HOOKS: [&str; 2] = ["_forward_hooks", "_forward_pre_hooks"];

/// Whether the object `id` is a `torch.nn.Module`.
pub(super) fn is_module(pickle: &Pickle<'_>, id: u32) -> bool {
    let is_dict = |name| pickle.attribute(id, name).is_some_and(|value| pickle.entries(value).is_some());
    is_dict("_modules") && is_dict("_parameters")
}

/// Parameters, buffers and modules of the model `id`.
pub(super) fn read(pickle: &Pickle<'_>, id: u32) -> Result<Found, PyTorchError> {
    let mut walk = Walk { pickle, found: Found::default(), visited: 0 };
    walk.module(id, "", 0)?;
    if walk.found.modules.len() > MAX_LISTED {
        walk.found.modules.clear();
    }
    if walk.found.tensors.is_empty() {
        return Err(PyTorchError::NoWeights { found: "a model without parameters".to_owned() });
    }
    Ok(walk.found)
}

struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    found: Found,
    /// Modules that were visited; one that is part of several is visited for each.
    visited: usize,
}

impl Walk<'_, '_> {
    /// Adds the module `id`, called `name`, and all its parts, in the order of `state_dict()`.
    fn module(&mut self, id: u32, name: &str, depth: usize) -> Result<(), PyTorchError> {
        self.visited += 1;
        // Names that no checkpoint may have are not made ever longer.
        if self.visited > MAX_MODULES || self.found.tensors.len() > MAX_TENSORS {
            return Err(PyTorchError::TooManyModules);
        }
        if depth > MAX_MODULE_DEPTH || name.len() > MAX_NAME_BYTES {
            return Err(PyTorchError::ModulesTooDeep);
        }
        if self.found.modules.len() <= MAX_LISTED {
            self.found.modules.push(described(self.pickle, id, name));
        }
        let pickle = self.pickle;
        let entries = |attribute| pickle.attribute(id, attribute).and_then(|value| pickle.entries(value));
        let transient = pickle.attribute(id, "_non_persistent_buffers_set");
        let transient = transient.and_then(|set| pickle.items(set)).unwrap_or_default();
        let transient: BTreeSet<&str> = transient.iter().filter_map(|name| pickle.text(*name)).collect();
        let parameters = entries("_parameters").unwrap_or_default().iter();
        let buffers = entries("_buffers").unwrap_or_default().iter();
        let buffers = buffers.filter(|(name, _)| pickle.text(*name).is_none_or(|name| !transient.contains(name)));
        for (own, value) in parameters.chain(buffers) {
            if let (Some(own), PickleValue::StorageView(_) | PickleValue::OddTensor(_)) = (pickle.text(*own), *value) {
                self.found.tensors.push((joined(name, own), *value));
            }
        }
        for (own, value) in entries("_modules").unwrap_or_default() {
            if let (Some(own), PickleValue::PickledObject(part)) = (pickle.text(*own), *value) {
                self.module(part, &joined(name, own), depth + 1)?;
            }
        }
        Ok(())
    }
}

fn joined(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}.{name}") }
}

/// Class and settings of a module.
fn described(pickle: &Pickle<'_>, id: u32, name: &str) -> ModuleInfo {
    let object = pickle.heap.objects[id as usize];
    let class = pickle.global(object.class);
    // What hooks do is not known, nor what a `forward` of the object's own does.
    let hooked = HOOKS.iter().any(|hooks| {
        let hooks = pickle.attribute(id, hooks).and_then(|hooks| pickle.entries(hooks));
        hooks.is_some_and(|hooks| !hooks.is_empty())
    });
    let own = hooked || pickle.attribute(id, "forward").is_some();
    let class = class.map(|(module, name)| format!("{module}.{name}"));
    let class = class.filter(|class| class.len() <= MAX_TEXT && !own);
    let attributes = pickle.entries(object.state).unwrap_or_default();
    let settings = attributes.iter().filter_map(|(name, value)| {
        let name = pickle.text(*name).filter(|name| !name.starts_with('_') && name.len() <= MAX_TEXT)?;
        Some((name.to_owned(), setting(pickle, *value)?))
    });
    let settings: BTreeMap<String, Json> = settings.take(MAX_SETTINGS).collect();
    ModuleInfo { name: name.to_owned(), class: class.unwrap_or_default(), settings }
}

/// A setting as JSON; none for what is no setting.
fn setting(pickle: &Pickle<'_>, value: PickleValue) -> Option<Json> {
    match value {
        PickleValue::None => Some(Json::Null),
        PickleValue::Bool(value) => Some(json!(value)),
        PickleValue::Int(value) => Some(json!(value)),
        PickleValue::Float(value) if value.is_finite() => Some(json!(value)),
        PickleValue::Text(_) => pickle.text(value).filter(|text| text.len() <= MAX_TEXT).map(|text| json!(text)),
        PickleValue::Tuple(_) | PickleValue::List(_) => {
            let items = pickle.items(value).filter(|items| items.len() <= MAX_NUMBERS)?;
            let number =
                |item: &PickleValue| if let PickleValue::Int(number) = item { Some(json!(number)) } else { None };
            items.iter().map(number).collect::<Option<Vec<_>>>().map(Json::Array)
        }
        _ => None,
    }
}
