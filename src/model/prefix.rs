//! What wrappers put before every name of a network's tensors: `DataParallel` its `module.`, `torch.compile` its `_orig_mod.`,
//! training code the attribute that holds the network. Members that differ in nothing else are the same network.

use std::borrow::Cow;

use crate::model::header::CheckpointHeader;

/// What wrappers call the network in them.
const WRAPPERS: [&str; 5] = ["module.", "_orig_mod.", "model.", "net.", "backbone."];

/// The longest prefix of wrappers that all tensors have; what is behind it still names a module and its tensor.
#[must_use]
pub fn of(header: &CheckpointHeader) -> &str {
    let Some(first) = header.tensors.first() else { return "" };
    let mut end = 0;
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| first.name[end..].starts_with(**wrapper)) {
        let longer = end + wrapper.len();
        let has = |name: &str| name.get(..longer) == Some(&first.name[..longer]) && name[longer..].contains('.');
        if !header.tensors.iter().all(|info| has(&info.name)) {
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

#[cfg(test)]
mod tests {
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
}
