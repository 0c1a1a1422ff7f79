//! What modules are called, from the names that exporters leave: of tensors, or of the modules around a node.

use super::constant::Constant;
use super::file::FileNode;

/// Longest name that a node of a graph may get, in bytes.
const MAX_NAME: usize = 200;

/// Whether a name was made by an exporter, and says nothing.
fn is_anonymous(name: &str) -> bool {
    name.is_empty()
        || name.len() > MAX_NAME
        || name.contains(['/', ':'])
        || name.contains("__")
        || name.starts_with("val_")
        || name.starts_with('_')
        || name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The tensor's own name, where it has one.
pub(super) fn of_tensor<'a>(tensor: &Constant<'a>) -> Option<&'a str> {
    Some(tensor.name).filter(|name| !is_anonymous(name))
}

/// The module that a tensor of the name `MODULE.weight` or `MODULE.bias` belongs to.
pub(super) fn of_module<'a>(tensor: &Constant<'a>) -> Option<&'a str> {
    let name = of_tensor(tensor)?;
    let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
    (!module.is_empty()).then_some(module)
}

/// The module around a node: noted by PyTorch's newer exporter, in the node's name by the older one.
pub(super) fn of_scope(node: &FileNode<'_>) -> Option<String> {
    let scope = match node.scopes {
        Some(list) => {
            // A list of Python's: `['', 'layer1', 'layer1.0', 'conv2d']`, whose last is the call.
            let names: Vec<&str> = list.split('\'').skip(1).step_by(2).collect();
            names.iter().rev().nth(1).map(|name| (*name).to_owned())?
        }
        None => of_path(node.name)?,
    };
    (!scope.is_empty() && scope.len() <= MAX_NAME && !scope.contains(['/', ':'])).then_some(scope)
}

/// The name of the graph's node that an operator was written for here: `relu1/Relu` is a part of `relu1`.
pub(super) fn of_graph<'a>(node: &FileNode<'a>) -> Option<&'a str> {
    let (name, operator) = node.name.rsplit_once('/').filter(|_| node.scopes.is_none())?;
    let own = !name.is_empty() && name.len() <= MAX_NAME && !name.contains(['/', ':']) && operator.starts_with(node.op);
    own.then_some(name)
}

/// `/layer1/layer1.0/conv/Conv` as `layer1.0.conv`: each part is a module, the last the operator. Our own names have the module
/// alone before the operator.
fn of_path(name: &str) -> Option<String> {
    let (modules, _) = name.rsplit_once('/')?;
    let Some(modules) = modules.strip_prefix('/') else {
        return (!modules.is_empty()).then(|| modules.to_owned());
    };
    let mut path = String::new();
    let mut before = "";
    for part in modules.split('/') {
        // A child of a list repeats the list's name.
        let rest = part.strip_prefix(before).filter(|rest| !before.is_empty() && rest.starts_with('.'));
        if rest.is_none() && !path.is_empty() {
            path.push('.');
        }
        path.push_str(rest.unwrap_or(part));
        before = part;
    }
    Some(path)
}

/// What several modules have before their last parts, and those parts.
pub(super) fn common(modules: &[String]) -> Option<(String, Vec<String>)> {
    let parts: Vec<Vec<&str>> = modules.iter().map(|module| module.split('.').collect()).collect();
    let shortest = parts.iter().map(Vec::len).min()?.checked_sub(1)?;
    let shared = (0..shortest).take_while(|at| parts.iter().all(|own| own[*at] == parts[0][*at])).count();
    let prefix = parts[0][..shared].join(".");
    let rests: Vec<String> = parts.iter().map(|own| own[shared..].join(".")).collect();
    let distinct = rests.iter().enumerate().all(|(at, rest)| !rests[..at].contains(rest));
    (!prefix.is_empty() && distinct).then_some((prefix, rests))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_the_names_of_nodes() {
        let scope = |name, scopes| of_scope(&FileNode { name, scopes, ..FileNode::default() });
        assert_eq!(scope("/layer1/layer1.0/conv1/Conv", None).unwrap(), "layer1.0.conv1");
        assert_eq!(
            scope("/features/features.1/features.1.0/block/block.2/fc/Conv_1", None).unwrap(),
            "features.1.0.block.2.fc"
        );
        assert_eq!(scope("/encoder/layers.0/Add", None).unwrap(), "encoder.layers.0");
        assert_eq!(scope("layer1.0.conv1/Conv", None).unwrap(), "layer1.0.conv1");
        assert_eq!(scope("node_conv", Some("['', 'layer1', 'layer1.0', 'conv2d']")).unwrap(), "layer1.0");
        assert_eq!(scope("/Add", None), None);
        assert_eq!(scope("Conv_3", None), None);
    }

    #[test]
    fn names_of_nodes_are_told_from_those_of_modules() {
        let name = |name, op| of_graph(&FileNode { name, op, ..FileNode::default() });
        assert_eq!(name("relu1/Relu", "Relu"), Some("relu1"));
        assert_eq!(name("layer1.0.add/Add_2", "Add"), Some("layer1.0.add"));
        assert_eq!((name("/layer1/Relu", "Relu"), name("Relu_3", "Relu"), name("relu1/x", "Relu")), (None, None, None));
    }

    #[test]
    fn projections_share_what_is_before_them() {
        let all = |names: &[&str]| common(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(all(&["b.0.attn.qkv", "b.0.attn.proj"]).unwrap().0, "b.0.attn");
        let (prefix, rests) = all(&["l.attention.attention.query", "l.attention.output.dense"]).unwrap();
        assert_eq!(
            (prefix.as_str(), &rests[..]),
            ("l.attention", &["attention.query".to_owned(), "output.dense".to_owned()][..])
        );
        assert!(all(&["attn", "attn"]).is_none() && all(&["a.qkv", "b.proj"]).is_none());
    }
}
