//! What wrappers put before every name of a network's tensors: `DataParallel` its `module.`, `torch.compile` its `_orig_mod.`,
//! training code the attribute that holds the network. Members that differ in nothing else are the same network.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::header::{CheckpointHeader, TensorInfo};

/// What wrappers call the network in them.
const WRAPPERS: [&str; 5] = ["module.", "_orig_mod.", "model.", "net.", "backbone."];

/// The longest prefix of wrappers that all tensors have; behind it some still lie in a module, so that a layer is no wrapper.
#[must_use]
pub fn of(header: &CheckpointHeader) -> &str {
    let Some(first) = header.tensors.first() else { return "" };
    let mut end = 0;
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| first.name[end..].starts_with(**wrapper)) {
        let longer = end + wrapper.len();
        let has = |info: &TensorInfo| info.name.starts_with(&first.name[..longer]);
        let in_module = |info: &TensorInfo| info.name[longer..].contains('.');
        if !header.tensors.iter().all(has) || !header.tensors.iter().any(in_module) {
            break;
        }
        end = longer;
    }
    &first.name[..end]
}

/// `name` with the prefix `to` in place of `from`, if it has that.
#[must_use]
pub fn replaced(name: &str, from: &str, to: &str) -> Option<String> {
    name.strip_prefix(from).map(|rest| format!("{to}{rest}"))
}

/// The headers of members, all with the prefix of the first one.
#[must_use]
pub fn aligned<'a>(headers: &[&'a CheckpointHeader]) -> Vec<Cow<'a, CheckpointHeader>> {
    let first = headers.first().map(|first| of(first)).unwrap_or_default();
    headers.iter().map(|header| renamed(header, first)).collect()
}

/// The header with the prefix `to`.
#[must_use]
pub fn renamed<'a>(header: &'a CheckpointHeader, to: &str) -> Cow<'a, CheckpointHeader> {
    let from = of(header);
    if from == to {
        return Cow::Borrowed(header);
    }
    let mut renamed = header.clone();
    if let Some(stated) = &mut renamed.stated {
        restate(stated, header, from, to);
    }
    let names = renamed.tensors.iter_mut().map(|info| &mut info.name);
    for name in names.chain(renamed.modules.iter_mut().map(|module| &mut module.name)) {
        if let Some(new) = replaced(name, from, to) {
            *name = new;
        }
    }
    let without = |prefix: &str| if prefix.is_empty() { "no prefix".to_owned() } else { format!("`{prefix}`") };
    renamed.notes.push(format!(
        "its names begin with {}, those of the first member with {}: both are taken for names of one network",
        without(from),
        without(to)
    ));
    Cow::Owned(renamed)
}

/// Renames the nodes of the network `stated` that have tensors in `header`, as these are; the others keep their names.
fn restate(stated: &mut Value, header: &CheckpointHeader, from: &str, to: &str) {
    let ends = |name: &str| -> Vec<usize> { name.match_indices('.').map(|(end, _)| end).chain([name.len()]).collect() };
    let owners: BTreeSet<&str> =
        header.tensors.iter().flat_map(|info| ends(&info.name).into_iter().map(|end| &info.name[..end])).collect();
    let rename = |name: &mut Value| {
        let new = name.as_str().filter(|name| owners.contains(name)).and_then(|name| replaced(name, from, to));
        if let Some(new) = new {
            *name = Value::String(new);
        }
    };
    let nodes = stated.get_mut("nodes").and_then(Value::as_array_mut).into_iter().flatten();
    for node in nodes {
        node.get_mut("name").into_iter().for_each(rename);
        node.get_mut("inputs").and_then(Value::as_array_mut).into_iter().flatten().for_each(rename);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(names: &[&str]) -> CheckpointHeader {
        CheckpointHeader::of_floats(&names.iter().map(|name| (*name, &[2][..])).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_all_names_have_is_a_prefix() {
        for (names, expected) in [
            (&["fc1.weight", "fc2.weight"][..], ""),
            (&["module.fc1.weight", "module.fc2.weight"], "module."),
            (&["module._orig_mod.0.weight", "module._orig_mod.2.weight"], "module._orig_mod."),
            (&["model.fc1.weight", "head.weight"], ""),
            (&["net.weight", "net.bias"], ""),
            (&["model.net.weight", "model.net.bias"], "model."),
            (&["module.é.weight", "module.fc.weight"], "module."),
            (&["module.cls_token", "module.fc.weight"], "module."),
            (&["model.cls_token", "models.fc.weight"], ""),
        ] {
            assert_eq!(of(&header(names)), expected, "{names:?}");
        }
    }

    #[test]
    fn members_take_the_prefix_of_the_first() {
        let (first, second) =
            (header(&["net.0.weight", "net.2.weight"]), header(&["module.0.weight", "module.2.weight"]));
        let [same, other] = &aligned(&[&first, &second])[..] else { panic!("two headers") };
        assert_eq!(same.as_ref(), &first);
        assert_eq!(other.tensors, first.tensors);
        assert!(other.notes[0].contains("`module.`") && other.notes[0].contains("`net.`"), "{:?}", other.notes);
    }

    #[test]
    fn a_stated_network_takes_it_too() {
        let stated = |scale: &str, first: &str, second: &str| {
            json!({"nodes": [
                {"name": "input", "op": "input", "shape": [2]},
                {"name": scale, "op": "layer_scale", "inputs": ["input"], "features": 2},
                {"name": first, "op": "linear", "inputs": [scale], "in_features": 2, "out_features": 2},
                {"name": "sum", "op": "add", "inputs": [first, scale]},
                {"name": second, "op": "linear", "in_features": 2, "out_features": 2},
            ]})
        };
        let first = header(&["module.fc.1.weight", "module.fc.2.weight", "module.scale"]);
        let mut second = header(&["fc.1.weight", "fc.2.weight", "scale"]);
        second.stated = Some(stated("scale", "fc.1", "fc.2"));
        let [same, other] = &aligned(&[&first, &second])[..] else { panic!("two headers") };
        assert_eq!(same.as_ref(), &first);
        assert_eq!(other.stated, Some(stated("module.scale", "module.fc.1", "module.fc.2")));
        assert_eq!(renamed(other, "").stated, second.stated);
    }
}
