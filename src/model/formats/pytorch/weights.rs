//! Where in a pickle the weights are: a `state_dict`, a whole model, or an entry of a dict that training code saved.

use super::error::PyTorchError;
use super::value::{Pickle, PickleValue};
use super::{Found, model};

/// Names under which training code saves weights.
const USUAL: [&str; 9] =
    ["state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params"];
/// In the names of averages of weights, which are saved beside them.
const AVERAGES: [&str; 3] = ["ema", "swa", "averaged"];
/// How deep weights may lie in dicts.
const MAX_DEPTH: usize = 8;
/// Names that a message lists at most.
const SHOWN: usize = 8;

/// The weights of a pickle.
///
/// # Errors
/// When there are none, or several that may be meant.
pub(super) fn find(pickle: &Pickle<'_>) -> Result<Found, PyTorchError> {
    let (mut value, mut found, mut path) = (pickle.root, Found::default(), String::new());
    for _ in 0..MAX_DEPTH {
        if let PickleValue::PickledObject(id) = value
            && model::is_module(pickle, id)
        {
            let model = model::read(pickle, id)?;
            return Ok(Found { notes: found.notes, ..model });
        }
        let Some(chosen) = choose(pickle, value, &path)? else {
            break;
        };
        found.notes.extend(left_out(pickle, value, chosen, &path));
        path = below(&path, chosen);
        value = pickle.get(value, chosen).unwrap_or(PickleValue::None);
    }
    let entries = pickle.entries(value).unwrap_or_default();
    let tensors = entries.iter().filter(|(_, value)| is_tensor(*value));
    found.tensors = tensors.filter_map(|(name, value)| Some((pickle.text(*name)?.to_owned(), *value))).collect();
    if found.tensors.is_empty() {
        return Err(PyTorchError::NoWeights { found: described(pickle, value) });
    }
    Ok(found)
}

/// The entry of the dict `value` that holds the weights; none where it holds them itself, or none at all.
fn choose<'a>(pickle: &Pickle<'a>, value: PickleValue, path: &str) -> Result<Option<&'a str>, PyTorchError> {
    let entries = pickle.entries(value).unwrap_or_default();
    let holds = entries.iter().filter(|(_, value)| holds_weights(pickle, *value));
    let names: Vec<&str> = holds.filter_map(|(name, _)| pickle.text(*name)).collect();
    let usual: Vec<&str> = names.iter().copied().filter(|name| USUAL.contains(name)).collect();
    let itself = entries.iter().any(|(_, value)| is_tensor(*value));
    let plain: Vec<&str> = names.iter().copied().filter(|name| !is_average(name)).collect();
    match (&usual[..], &plain[..], &names[..]) {
        ([], _, _) if itself => Ok(None),
        ([one], _, _) | ([], [one], _) | ([], [], [one]) => Ok(Some(one)),
        ([], [], []) => Ok(None),
        _ => {
            let several = if usual.is_empty() { &names } else { &usual };
            let several = several.iter().take(SHOWN).map(|name| format!("`{}`", shown(&below(path, name)))).collect();
            Err(PyTorchError::SeveralWeights(several))
        }
    }
}

/// What stands beside the chosen entry, in words.
fn left_out(pickle: &Pickle<'_>, value: PickleValue, chosen: &str, path: &str) -> Option<String> {
    let entries = pickle.entries(value).unwrap_or_default();
    let others: Vec<_> = entries.iter().filter(|(name, _)| pickle.text(*name) != Some(chosen)).collect();
    if others.is_empty() {
        return None;
    }
    let quoted = |weights: bool| {
        let names = others.iter().filter(|(_, value)| holds_weights(pickle, *value) == weights);
        let names =
            names.filter_map(|(name, _)| pickle.text(*name)).take(SHOWN).map(|name| format!("`{}`", shown(name)));
        names.collect::<Vec<_>>().join(", ")
    };
    let (weights, rest) = (quoted(true), quoted(false));
    let chosen = format!("the weights are the entry `{}` of the file", shown(&below(path, chosen)));
    let said = [("; not those beside it: ", weights), ("; not read: ", rest)];
    let said = said.into_iter().filter(|(_, names)| !names.is_empty()).map(|(said, names)| said.to_owned() + &names);
    Some(chosen + &said.collect::<String>())
}

/// Whether it is a model, or a dict with a tensor under a text.
fn holds_weights(pickle: &Pickle<'_>, value: PickleValue) -> bool {
    if let PickleValue::PickledObject(id) = value
        && model::is_module(pickle, id)
    {
        return true;
    }
    let entries = pickle.entries(value).unwrap_or_default();
    entries.iter().any(|(name, value)| {
        pickle.text(*name).is_some_and(|name| is_tensor(*value) || USUAL.contains(&name) && nested(pickle, *value))
    })
}

/// Whether it is a model, or a dict with a tensor.
fn nested(pickle: &Pickle<'_>, value: PickleValue) -> bool {
    match value {
        PickleValue::PickledObject(id) if model::is_module(pickle, id) => true,
        _ => pickle.entries(value).unwrap_or_default().iter().any(|(_, value)| is_tensor(*value)),
    }
}

fn is_tensor(value: PickleValue) -> bool {
    matches!(value, PickleValue::StorageView(_) | PickleValue::OddTensor(_))
}

fn is_average(name: &str) -> bool {
    let name = name.to_lowercase();
    name.split(['_', '.']).any(|part| AVERAGES.contains(&part))
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What a value is, for messages.
fn described(pickle: &Pickle<'_>, value: PickleValue) -> String {
    match value {
        PickleValue::PickledObject(id) => match pickle.global(pickle.heap.objects[id as usize].class) {
            Some((module, name)) => format!("an object of the class `{}`", shown(&format!("{module}.{name}"))),
            None => "an object".to_owned(),
        },
        PickleValue::Dict(_) => {
            let entries = pickle.entries(value).unwrap_or_default();
            let names = entries.iter().filter_map(|(name, _)| pickle.text(*name)).take(SHOWN);
            let names: Vec<String> = names.map(|name| format!("`{}`", shown(name))).collect();
            if names.is_empty() { "a dict without names".to_owned() } else { format!("a dict of {}", names.join(", ")) }
        }
        PickleValue::List(_) | PickleValue::Tuple(_) => "a list".to_owned(),
        PickleValue::StorageView(_) | PickleValue::OddTensor(_) => "a single tensor".to_owned(),
        _ => "a single value".to_owned(),
    }
}

/// A name as it stands in messages.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}
