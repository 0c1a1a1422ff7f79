//! The statements of `forward`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::modules::{Modules, packed_module};
use super::names::sizes;
use crate::model::graph::{Approximate, Graph, Node, NodeId, Op, PoolKind, Pooling, Projections, Shape};

/// Longest line that grows by one more call.
const LONGEST: usize = 96;

const ATTENTION: &str = "\
def attention(query, key, value, heads):
    \"\"\"What tokens of shape [N, T, C] read of each other.\"\"\"
    parts = (tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (query, key, value))
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)";

const BLUR: &str = "\
def blur_pool(images, size, stride):
    \"\"\"Binomial filters of size x size, reflected at the rims.\"\"\"
    row = torch.ones(1, device=images.device, dtype=images.dtype)
    for _ in range(size - 1):
        row = (F.pad(row, (1, 0)) + F.pad(row, (0, 1))) / 2
    padding = ((stride - 1) + (size - 1)) // 2
    kernel = torch.outer(row, row).expand(images.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(images, [padding] * 4, \"reflect\"), kernel, stride=stride, groups=images.shape[1])";

const RESPONSE_NORM: &str = "\
def response_norm(x, weight, bias, eps):
    \"\"\"ConvNeXt V2's global response normalisation, channels behind the batch.\"\"\"
    norms = x.flatten(2).norm(dim=2)
    shares = norms / (norms.mean(1, keepdim=True) + eps)
    rest = (1,) * (x.dim() - 2)
    return x + x * (weight * shares).view(*shares.shape, *rest) + bias.view(-1, *rest)";

/// Where the channels of a value stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Behind the batch, as in images.
    First,
    /// Last, as in tokens. Vectors are both.
    Last,
}

/// A value that `forward` has computed.
#[derive(Debug, Clone)]
struct Value {
    expression: String,
    layout: Layout,
}

/// The body of `forward`.
#[derive(Debug)]
pub(super) struct Forward {
    text: String,
    helpers: BTreeSet<&'static str>,
}

/// What writes it.
struct Writer<'a> {
    graph: &'a Graph,
    modules: &'a Modules,
    values: Vec<Value>,
    /// Whether the value is used by the next node alone, and so needs no name of its own.
    passes: Vec<bool>,
    /// Values that have got a name of their own.
    named: usize,
    /// The node whose expression is not written yet, because the next may take it in.
    pending: Option<usize>,
    body: Forward,
}

impl Forward {
    pub(super) fn of(graph: &Graph, modules: &Modules) -> Self {
        let nodes = graph.nodes();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        for (id, node) in graph.iter() {
            node.inputs.iter().for_each(|input| readers[input.0].push(id.0));
        }
        let last = nodes.len() - 1;
        let passes = |(index, readers): (usize, &Vec<usize>)| index == last || *readers == [index + 1];
        let passes = readers.iter().enumerate().map(passes).collect();
        let body = Self { text: String::new(), helpers: BTreeSet::new() };
        let mut writer = Writer { graph, modules, values: Vec::new(), passes, named: 0, pending: None, body };
        nodes.iter().enumerate().for_each(|(index, node)| writer.node(index, node));
        let result = writer.in_layout(graph.output(), Layout::First);
        let _ = writeln!(writer.body.text, "        return {result}");
        writer.body
    }

    /// The functions that it calls.
    pub(super) fn helpers(&self) -> Vec<&'static str> {
        self.helpers.iter().copied().collect()
    }

    /// Its statements.
    pub(super) fn statements(&self) -> &str {
        &self.text
    }
}

impl Writer<'_> {
    fn node(&mut self, index: usize, node: &Node) {
        if matches!(node.op, Op::Input { .. }) {
            self.values.push(Value { expression: "x".to_owned(), layout: Layout::First });
            if !self.passes[index] {
                self.body.text += "        inputs = x\n";
                "inputs".clone_into(&mut self.values[index].expression);
            }
            return;
        }
        self.settle(&node.op);
        let (expression, layout) = self.computed(node, self.graph.shape(NodeId(index)));
        let layout = if self.graph.shape(NodeId(index)).len() == 1 { Layout::First } else { layout };
        self.values.push(Value { expression, layout });
        self.pending = Some(index);
        if !self.passes[index] {
            self.named += 1;
            self.write(&format!("x{}", self.named));
        }
    }

    /// Writes the expression that waits, unless `op` takes it in.
    fn settle(&mut self, op: &Op) {
        let Some(pending) = self.pending else { return };
        let wraps = matches!(op, Op::BatchNorm { .. } | Op::GroupNorm { .. }) || function(op).is_some();
        if !wraps || self.values[pending].expression.len() > LONGEST - 30 {
            self.write("x");
        }
    }

    /// Writes the expression that waits as the value of `name`.
    fn write(&mut self, name: &str) {
        if let Some(pending) = self.pending.take() {
            let value = &mut self.values[pending];
            if value.expression != name {
                let _ = writeln!(self.body.text, "        {name} = {}", value.expression);
            }
            name.clone_into(&mut value.expression);
        }
    }

    /// An operand with its channels where they are needed.
    fn in_layout(&self, id: NodeId, layout: Layout) -> String {
        let value = &self.values[id.0];
        if value.layout == layout || self.graph.shape(id).len() == 1 {
            return value.expression.clone();
        }
        let moved = if layout == Layout::Last { "movedim(1, -1)" } else { "movedim(-1, 1)" };
        let is_sum = [" + ", " * "].into_iter().any(|operator| value.expression.contains(operator));
        if is_sum { format!("({}).{moved}", value.expression) } else { format!("{}.{moved}", value.expression) }
    }

    /// The expression of a node's value, and where its channels stand.
    fn computed(&mut self, node: &Node, shape: &Shape) -> (String, Layout) {
        let id = node.inputs[0];
        let own = self.values[id.0].clone();
        let (x, before) = (own.expression.as_str(), self.graph.shape(id));
        let first = || self.in_layout(id, Layout::First);
        let last = || self.in_layout(id, Layout::Last);
        let module = || self.modules.module(&node.name);
        if let Some(call) = function(&node.op) {
            return (call.replace('$', x), own.layout);
        }
        if let Some(pool) = node.op.pool() {
            return (
                pooled(&pool, &first(), matches!(node.op, Op::MaxPool1d { .. } | Op::AvgPool1d { .. })),
                Layout::First,
            );
        }
        let others = |layout| node.inputs.iter().map(|id| self.in_layout(*id, layout)).collect::<Vec<_>>();
        let axis = if own.layout == Layout::Last { -1 } else { 1 };
        match &node.op {
            Op::Linear { .. } | Op::LayerNorm { .. } => (format!("{}({})", module(), last()), Layout::Last),
            Op::Conv1d { .. } | Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::GroupNorm { .. } => {
                (format!("{}({})", module(), first()), Layout::First)
            }
            Op::GlobalResponseNorm { .. } | Op::ZeroPad { .. } | Op::Zeros { .. } => {
                let x = first();
                (self.of_images(node, &x), Layout::First)
            }
            Op::Softmax => (format!("{x}.softmax({axis})"), own.layout),
            Op::AdaptiveAvgPool2d { output } => {
                (format!("F.adaptive_avg_pool2d({}, {})", first(), sizes(output)), Layout::First)
            }
            Op::AdaptiveMaxPool2d { output } => {
                (format!("F.adaptive_max_pool2d({}, {})", first(), sizes(output)), Layout::First)
            }
            Op::GlobalAvgPool2d => {
                let axes = if before.len() == 3 { "(2, 3)" } else { "2" };
                (format!("{}.mean({axes}, keepdim=True)", first()), Layout::First)
            }
            Op::BlurPool2d { kernel, stride } => {
                let call = format!("blur_pool({}, {kernel}, {stride})", first());
                self.body.helpers.insert(BLUR);
                (call, Layout::First)
            }
            Op::Flatten if before.len() == 1 => (x.to_owned(), Layout::First),
            Op::Flatten => (format!("{}.flatten(1)", first()), Layout::First),
            Op::Reshape { positions } if before.len() == 3 && positions.len() == 1 && shape[0] == before[0] => {
                (format!("{}.flatten(2)", first()), Layout::First)
            }
            Op::Reshape { .. } => {
                let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
                (format!("{}.reshape(-1, {})", first(), axes.join(", ")), Layout::First)
            }
            Op::Add => (others(own.layout).join(" + "), own.layout),
            Op::Multiply => (others(own.layout).join(" * "), own.layout),
            Op::Concat => (format!("torch.cat([{}], {axis})", others(own.layout).join(", ")), own.layout),
            Op::LayerScale { features, unit_axes } => {
                let scale = self.modules.tensor(&node.name);
                let positions = if own.layout == Layout::Last { 0 } else { before.len() - 1 };
                let axes = ", 1".repeat(positions);
                let scale = if positions == *unit_axes { scale } else { format!("{scale}.view({features}{axes})") };
                (format!("{x} * {scale}"), own.layout)
            }
            Op::ClassToken { .. } => {
                let token = self.modules.tensor(&node.name);
                let tokens = last();
                (format!("torch.cat([{token}.expand({x}.shape[0], -1, -1), {tokens}], 1)"), Layout::Last)
            }
            Op::PositionalEmbedding { .. } => {
                (format!("{} + {}", last(), self.modules.tensor(&node.name)), Layout::Last)
            }
            Op::Attention { heads, projections, bias, .. } => {
                let call = self.attention(node, projections, *heads, *bias, &last());
                self.body.helpers.insert(ATTENTION);
                (call, Layout::Last)
            }
            Op::TokenMean => (format!("{x}.mean({})", if own.layout == Layout::Last { 1 } else { 2 }), Layout::First),
            Op::TokenSelect { index } => {
                let all = if own.layout == Layout::Last { "" } else { ":, " };
                (format!("{x}[:, {all}{index}]"), Layout::First)
            }
            Op::Input { .. }
            | Op::Relu
            | Op::Relu6
            | Op::LeakyRelu { .. }
            | Op::Gelu { .. }
            | Op::Silu
            | Op::Hardswish
            | Op::Sigmoid
            | Op::Hardsigmoid
            | Op::Tanh
            | Op::Elu { .. }
            | Op::Selu
            | Op::Mish
            | Op::Softplus
            | Op::Scale { .. }
            | Op::MaxPool1d { .. }
            | Op::MaxPool2d { .. }
            | Op::AvgPool1d { .. }
            | Op::AvgPool2d { .. }
            | Op::Dropout { .. } => (x.to_owned(), own.layout),
        }
    }

    /// The expression of an operation that reads channels behind the batch, and is one call.
    fn of_images(&mut self, node: &Node, x: &str) -> String {
        match &node.op {
            Op::ZeroPad { begin, end } => {
                let sides = begin.iter().zip(end).rev().map(|(begin, end)| format!("{begin}, {end}"));
                format!("F.pad({x}, ({}))", sides.collect::<Vec<_>>().join(", "))
            }
            Op::Zeros { features } => {
                let rest = ", -1".repeat(self.graph.shape(node.inputs[0]).len() - 1);
                format!("torch.zeros_like({x}[:, :1]).expand(-1, {features}{rest})")
            }
            Op::GlobalResponseNorm { eps, .. } => {
                self.body.helpers.insert(RESPONSE_NORM);
                let [weight, bias] =
                    ["weight", "bias"].map(|name| self.modules.tensor(&format!("{}.{name}", node.name)));
                format!("response_norm({x}, {weight}, {bias}, {eps:?})")
            }
            _ => x.to_owned(),
        }
    }

    fn attention(&self, node: &Node, projections: &Projections, heads: usize, bias: bool, x: &str) -> String {
        let below = |name: &str| format!("{}.{name}", node.name);
        let module = |name: &str| self.modules.module(&below(name));
        let (inner, output) = match projections {
            Projections::Separate { query, key, value, output } => {
                let parts: Vec<String> = [query, key, value].map(|name| format!("{}({x})", module(name))).into();
                (parts.join(", "), output)
            }
            Projections::Packed { weight, bias: vector, output } => {
                let all = if let Some(name) = packed_module(projections, bias) {
                    format!("{}({x})", module(name))
                } else {
                    let vector = bias.then(|| format!(", {}", self.modules.tensor(&below(vector))));
                    format!("F.linear({x}, {}{})", self.modules.tensor(&below(weight)), vector.unwrap_or_default())
                };
                (format!("*{all}.chunk(3, -1)"), output)
            }
        };
        format!("{}(attention({inner}, heads={heads}))", module(output))
    }
}

/// The call of an operation on each value, with `$` for the value.
fn function(op: &Op) -> Option<String> {
    Some(match op {
        Op::Relu => "F.relu($)".to_owned(),
        Op::Relu6 => "F.relu6($)".to_owned(),
        Op::LeakyRelu { negative_slope } => format!("F.leaky_relu($, {negative_slope:?})"),
        Op::Gelu { approximate: Approximate::None } => "F.gelu($)".to_owned(),
        Op::Gelu { approximate: Approximate::Tanh } => "F.gelu($, approximate=\"tanh\")".to_owned(),
        Op::Silu => "F.silu($)".to_owned(),
        Op::Hardswish => "F.hardswish($)".to_owned(),
        Op::Sigmoid => "torch.sigmoid($)".to_owned(),
        Op::Hardsigmoid => "F.hardsigmoid($)".to_owned(),
        Op::Tanh => "torch.tanh($)".to_owned(),
        Op::Elu { alpha } => format!("F.elu($, {alpha:?})"),
        Op::Selu => "F.selu($)".to_owned(),
        Op::Mish => "F.mish($)".to_owned(),
        Op::Softplus => "F.softplus($)".to_owned(),
        Op::Scale { factor } => format!("torch.mul($, {factor:?})"),
        Op::Dropout { p } => format!("F.dropout($, {p:?}, self.training)"),
        _ => return None,
    })
}

/// The call of a pool.
fn pooled(pool: &Pooling, x: &str, line: bool) -> String {
    let axes = |pair: [usize; 2]| if line { pair[1].to_string() } else { sizes(&pair) };
    let (window, rank) = (&pool.window, if line { 1 } else { 2 });
    let name = if matches!(pool.kind, PoolKind::Max) { "max" } else { "avg" };
    let mut call = format!("F.{name}_pool{rank}d({x}, {}", axes(window.kernel));
    let given = [
        ("stride", window.stride, window.kernel),
        ("padding", window.padding, [0; 2]),
        ("dilation", window.dilation, [1; 2]),
    ];
    for (name, value, _) in given.into_iter().filter(|(_, value, usual)| value != usual) {
        let _ = write!(call, ", {name}={}", axes(value));
    }
    if pool.ceil_mode {
        call += ", ceil_mode=True";
    }
    if matches!(pool.kind, PoolKind::Mean { count_padding: false }) && window.padding != [0; 2] {
        call += ", count_include_pad=False";
    }
    call + ")"
}
