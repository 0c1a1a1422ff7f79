//! The modules of a network as a tree by their names, and the statements that build it.

use std::fmt::Write as _;

use super::names::{is_attribute, quoted, sizes};
use crate::model::graph::{Graph, Node, Op, Projections, Shape};
use crate::model::parameters;

/// What an `nn.ModuleDict` calls its own methods.
const TAKEN: [&str; 6] = ["clear", "items", "keys", "pop", "update", "values"];

/// A container that leaves those names free.
const PARTS: &str = "\
class Parts(nn.Module):
    \"\"\"Modules by their names, whatever these are.\"\"\"

    def __init__(self, modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def __getitem__(self, name):
        return self.get_submodule(name)";

/// One name of the tree.
#[derive(Debug, Default)]
struct Entry {
    name: String,
    /// How the module is made; none for what only holds others.
    made: Option<String>,
    /// Shapes of tensors that belong to no module of PyTorch's.
    tensors: Vec<(String, Shape)>,
    children: Vec<Entry>,
}

impl Entry {
    /// The entry below `path`, made where there is none.
    fn at(&mut self, path: &[&str]) -> &mut Self {
        let Some((first, rest)) = path.split_first() else { return self };
        let place = self.children.iter().position(|child| child.name == *first).unwrap_or_else(|| {
            self.children.push(Self { name: (*first).to_owned(), ..Self::default() });
            self.children.len() - 1
        });
        self.children[place].at(rest)
    }

    fn holds(&self, name: &str) -> bool {
        self.children.iter().any(|child| child.name == name || child.holds(name))
    }
}

/// All modules of a network.
#[derive(Debug)]
pub(super) struct Modules {
    root: Entry,
    container: &'static str,
}

impl Modules {
    pub(super) fn of(graph: &Graph) -> Self {
        let mut root = Entry::default();
        for (id, node) in graph.iter().filter(|(_, node)| node.op.has_parameters()) {
            add(&mut root, node, graph.shape(id));
        }
        let taken = root.children.iter().any(|child| TAKEN.iter().any(|name| child.holds(name)));
        Self { root, container: if taken { "Parts" } else { "nn.ModuleDict" } }
    }

    /// The class of containers, where PyTorch's does not serve.
    pub(super) fn helper(&self) -> Option<&'static str> {
        (self.container == "Parts").then_some(PARTS)
    }

    /// The body of `__init__` behind the call of the base.
    pub(super) fn statements(&self) -> String {
        let mut text = String::new();
        for child in &self.root.children {
            let made = self.made(child, 2);
            let _ = if is_attribute(&child.name) {
                writeln!(text, "        self.{} = {made}", child.name)
            } else {
                writeln!(text, "        self.add_module({}, {made})", quoted(&child.name))
            };
        }
        self.rest(&self.root, "self", true, &mut text);
        text
    }

    /// How a module is made, with all below it that its literal can hold.
    fn made(&self, entry: &Entry, depth: usize) -> String {
        if let Some(made) = &entry.made {
            return made.clone();
        }
        let (outer, inner) = ("    ".repeat(depth), "    ".repeat(depth + 1));
        let children = entry.children.iter();
        let lines = children.map(|child| format!("{inner}{}: {},\n", quoted(&child.name), self.made(child, depth + 1)));
        let lines: String = lines.collect();
        if lines.is_empty() {
            format!("{}({{}})", self.container)
        } else {
            format!("{}({{\n{lines}{outer}}})", self.container)
        }
    }

    /// Tensors of their own, and modules below modules.
    fn rest(&self, entry: &Entry, own: &str, is_root: bool, text: &mut String) {
        for (name, shape) in &entry.tensors {
            let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
            let tensor = format!("nn.Parameter(torch.zeros({}))", shape.join(", "));
            let _ = if is_attribute(name) {
                writeln!(text, "        {own}.{name} = {tensor}")
            } else {
                writeln!(text, "        {own}.register_parameter({}, {tensor})", quoted(name))
            };
        }
        for child in &entry.children {
            if entry.made.is_some() {
                let made = self.made(child, 2);
                let _ = writeln!(text, "        {own}.add_module({}, {made})", quoted(&child.name));
            }
            self.rest(child, &step(entry, own, &child.name, is_root), false, text);
        }
    }

    /// The expression of the module `name`.
    pub(super) fn module(&self, name: &str) -> String {
        let (mut entry, mut expression) = (&self.root, "self".to_owned());
        for (place, part) in name.split('.').enumerate() {
            expression = step(entry, &expression, part, place == 0);
            match entry.children.iter().find(|child| child.name == part) {
                Some(child) => entry = child,
                None => break,
            }
        }
        expression
    }

    /// The expression of a tensor that belongs to no module of PyTorch's.
    pub(super) fn tensor(&self, name: &str) -> String {
        let (owner, last) = name.rsplit_once('.').map_or((None, name), |(owner, last)| (Some(owner), last));
        let owner = owner.map_or_else(|| "self".to_owned(), |owner| self.module(owner));
        if is_attribute(last) { format!("{owner}.{last}") } else { format!("{owner}.get_parameter({})", quoted(last)) }
    }
}

/// The expression of the module `name` below `entry`, whose own is `expression`.
fn step(entry: &Entry, expression: &str, name: &str, is_root: bool) -> String {
    if is_root && is_attribute(name) {
        format!("{expression}.{name}")
    } else if is_root || entry.made.is_some() {
        format!("{expression}.get_submodule({})", quoted(name))
    } else {
        format!("{expression}[{}]", quoted(name))
    }
}

/// Adds the modules of one node; its output has the shape `shape`.
fn add(root: &mut Entry, node: &Node, shape: &Shape) {
    if let Some(made) = made(&node.op, shape) {
        root.at(&node.name.split('.').collect::<Vec<_>>()).made = Some(made);
        return;
    }
    if let Op::Attention { features, projections, bias, output_bias, .. } = &node.op {
        let mut project = |module: &str, outputs: usize, bias: bool| {
            let path = format!("{}.{module}", node.name);
            root.at(&path.split('.').collect::<Vec<_>>()).made = Some(linear(*features, outputs, bias));
        };
        let output = match projections {
            Projections::Separate { query, key, value, output } => {
                for module in [query, key, value] {
                    project(module, *features, *bias);
                }
                output
            }
            Projections::Packed { output, .. } => {
                if let Some(module) = packed_module(projections, *bias) {
                    project(module, 3 * features, *bias);
                }
                output
            }
        };
        project(output, *features, *output_bias);
        if packed_module(projections, *bias).is_some() || matches!(projections, Projections::Separate { .. }) {
            return;
        }
    }
    let own = |role: parameters::Role| !matches!(role, parameters::Role::OutputWeight | parameters::Role::OutputBias);
    for tensor in parameters::of_node(node).into_iter().filter(|tensor| own(tensor.role)) {
        let (owner, last) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
        let path: Vec<&str> = owner.split('.').filter(|part| !part.is_empty()).collect();
        root.at(&path).tensors.push((last.to_owned(), tensor.shape.clone()));
    }
}

/// The module that holds queries, keys and values in one, if one does.
pub(super) fn packed_module(projections: &Projections, has_bias: bool) -> Option<&str> {
    let Projections::Packed { weight, bias, .. } = projections else { return None };
    let module = weight.strip_suffix(".weight")?;
    (!has_bias || bias.strip_suffix(".bias") == Some(module)).then_some(module)
}

fn linear(inputs: usize, outputs: usize, bias: bool) -> String {
    format!("nn.Linear({inputs}, {outputs}{})", if bias { "" } else { ", bias=False" })
}

/// How PyTorch makes the module of an operation; none for those that it has none for.
fn made(op: &Op, shape: &Shape) -> Option<String> {
    let eps = |eps: f64| if (eps - 1e-5).abs() < 1e-15 { String::new() } else { format!(", eps={eps:?}") };
    if let Some(conv) = op.convolution() {
        let one = matches!(op, Op::Conv1d { .. });
        let axes = |pair: [usize; 2]| if one { pair[1].to_string() } else { sizes(&pair) };
        let window = conv.window;
        let mut text = format!(
            "nn.Conv{}d({}, {}, {}",
            if one { 1 } else { 2 },
            conv.in_channels,
            conv.out_channels,
            axes(window.kernel)
        );
        let usual = [[1; 2], [0; 2], [1; 2]];
        let given = [("stride", window.stride), ("padding", window.padding), ("dilation", window.dilation)];
        for ((name, value), usual) in given.into_iter().zip(usual) {
            if value != usual {
                let _ = write!(text, ", {name}={}", axes(value));
            }
        }
        if conv.groups() != 1 {
            let _ = write!(text, ", groups={}", conv.groups());
        }
        return Some(text + if conv.bias { ")" } else { ", bias=False)" });
    }
    Some(match op {
        Op::Linear { in_features, out_features, bias } => linear(*in_features, *out_features, *bias),
        Op::BatchNorm { affine, features, eps: own } => {
            let learned = if *affine { "" } else { ", affine=False" };
            format!("nn.BatchNorm{}d({features}{}{learned})", if shape.len() == 3 { 2 } else { 1 }, eps(*own))
        }
        Op::LayerNorm { features, eps: own } => format!("nn.LayerNorm({features}{})", eps(*own)),
        Op::GroupNorm { group_width, features, eps: own } => {
            format!("nn.GroupNorm({}, {features}{})", features / group_width.unwrap_or(*features).max(1), eps(*own))
        }
        _ => return None,
    })
}
