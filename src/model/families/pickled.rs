//! What a pickled model says of its network beyond names and shapes: a `Sequential` of known modules is one network, and the
//! modules of other models leave fewer of those that fit.

use crate::model::families::modular::{Part, Reads, part};
use crate::model::families::{Candidate, UNNAMED};
use crate::model::graph::{Graph, Node, NodeId, Op, Shape};
use crate::model::header::{CheckpointHeader, ModuleInfo};
use crate::model::parameters;
use crate::settings::Settings;

/// The class whose modules run one behind the other.
const SEQUENTIAL: &str = "torch.nn.modules.container.Sequential";
/// Classes that call the one module in them, and nothing else.
const WRAPPERS: [&str; 4] = [
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch.nn.parallel.distributed.DistributedDataParallel",
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch.optim.swa_utils.AveragedModel",
];
/// Heights and widths of images that are tried where nothing says them.
const COMMON_SIZES: [usize; 6] = [28, 32, 64, 96, 128, 224];

/// The network of a pickled `Sequential`; none where the model is another one, has parts that are not known, or fits images of
/// several sizes and `input` is none.
pub(super) fn candidate(header: &CheckpointHeader, input: Option<&Shape>) -> Option<Candidate> {
    let (graph, assumed) = match input {
        Some(shape) => (graph(header, shape)?, None),
        None => usual_input(header)?,
    };
    let mut assumptions = Vec::from_iter(assumed);
    if header.modules.iter().any(|module| module.class.starts_with("torch.nn.modules.dropout.")) {
        assumptions.push("dropout is left out, as in evaluation".to_owned());
    }
    Some(Candidate { family: UNNAMED, graph, settings: Settings::default(), assumptions })
}

/// The network for the only usual input that fits, and what is assumed of it.
fn usual_input(header: &CheckpointHeader) -> Option<(Graph, Option<String>)> {
    let parts = header.modules.iter().filter_map(|module| part(module, header));
    let mut weighted = parts.filter_map(|(part, _)| if let Part::Op(op) = part { Some(op) } else { None });
    match weighted.find(|op| matches!(op, Op::Linear { .. } | Op::Conv2d { .. }))? {
        Op::Linear { in_features, .. } => Some((graph(header, &vec![in_features])?, None)),
        Op::Conv2d { in_channels, .. } => {
            let shapes = COMMON_SIZES.map(|size| vec![in_channels, size, size]);
            let mut fitting = shapes.iter().filter_map(|shape| Some((graph(header, shape)?, shape)));
            let (graph, shape) = fitting.next()?;
            fitting.next().is_none().then(|| (graph, Some(format!("inputs of shape {shape:?}"))))
        }
        _ => None,
    }
}

/// The network of a pickled `Sequential` for examples of the shape `input`.
pub(super) fn graph(header: &CheckpointHeader, input: &Shape) -> Option<Graph> {
    let mut modules = header.modules.iter().skip_while(|module| WRAPPERS.contains(&module.class.as_str()));
    modules.next().filter(|root| root.class == SEQUENTIAL)?;
    let modules = modules.filter(|module| module.class != SEQUENTIAL);
    let parts = modules.map(|module| Some((&module.name, part(module, header)?))).collect::<Option<Vec<_>>>()?;
    let mut nodes = vec![Node { name: "input".to_owned(), op: Op::Input { shape: input.clone() }, inputs: Vec::new() }];
    let mut add = |name: &str, op| {
        let inputs = vec![NodeId(nodes.len() - 1)];
        nodes.push(Node { name: name.to_owned(), op, inputs });
    };
    // Some modules read another axis of images than of vectors.
    let mut vectors = input.len() == 1;
    let first = parts.iter().find(|(_, (part, _))| *part != Part::Identity);
    if let (false, Some((_, (Part::Op(Op::Linear { .. }), _)))) = (vectors, first) {
        // Whoever calls the model makes vectors of examples.
        add("flatten", Op::Flatten);
        vectors = true;
    }
    for (name, (part, reads)) in parts {
        match part {
            Part::Identity => {}
            Part::Flatten if vectors => {}
            Part::Flatten => {
                add(name, Op::Flatten);
                vectors = true;
            }
            Part::Op(_) if reads == if vectors { Reads::Images } else { Reads::Vectors } => return None,
            Part::Op(op) => add(name, op),
        }
    }
    // Parts without the tensors that they have here, such as a LayerNorm without bias, are others.
    Graph::new(nodes).ok().filter(|graph| parameters::compare(graph, header, "").is_empty())
}

/// What in `graph`, a network that fits the names and shapes of `header`, its modules contradict, in words: a module with
/// weights computes by its own settings, and modules of one `Sequential` run one behind the other.
pub(super) fn contradiction(header: &CheckpointHeader, graph: &Graph) -> Option<String> {
    let of_modules = header.modules.iter().find_map(|module| {
        let node = graph.nodes().iter().find(|node| node.name == module.name && node.op.has_parameters())?;
        match part(module, header) {
            _ if heads(module)
                .is_some_and(|own| matches!(node.op, Op::Attention { heads, .. } if own != heads as u64)) =>
            {
                Some(format!("the heads of `{}`", module.name))
            }
            Some((Part::Op(op), _)) if op == node.op => None,
            Some((Part::Op(_), _)) => Some(format!("the settings of the module `{}`", module.name)),
            // Not every module is known, but what is known of a convolution is all that there may be.
            None if module.class == "torch.nn.modules.conv.Conv2d" => Some(format!("the padding of `{}`", module.name)),
            _ => None,
        }
    });
    of_modules.or_else(|| {
        let parents = header.modules.iter().filter(|module| module.class == SEQUENTIAL);
        let mut pairs = parents.flat_map(|parent| pairs_in(header, parent));
        pairs
            .find(|(a, b)| !runs(header, graph, a, b))
            .map(|(a, b)| format!("that `{}` runs behind `{}`", b.name, a.name))
    })
}

/// The number of heads that an attention names.
fn heads(module: &ModuleInfo) -> Option<u64> {
    ["num_heads", "num_attention_heads"].iter().find_map(|name| module.settings.get(*name)?.as_u64())
}

/// Each two modules of a `Sequential` that run one behind the other, but for those that change nothing.
fn pairs_in<'a>(header: &'a CheckpointHeader, parent: &ModuleInfo) -> Vec<(&'a ModuleInfo, &'a ModuleInfo)> {
    let prefix = if parent.name.is_empty() { String::new() } else { format!("{}.", parent.name) };
    let child = |module: &&ModuleInfo| {
        module.name.strip_prefix(&prefix).is_some_and(|name| !name.is_empty() && !name.contains('.'))
    };
    let children = header.modules.iter().filter(child);
    let children: Vec<&ModuleInfo> =
        children.filter(|module| !matches!(part(module, header), Some((Part::Identity | Part::Flatten, _)))).collect();
    children.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Whether `b` may run right behind `a` in `graph`; only what is known of both can say no.
fn runs(header: &CheckpointHeader, graph: &Graph, a: &ModuleInfo, b: &ModuleInfo) -> bool {
    let known = |module: &ModuleInfo| match part(module, header) {
        Some((Part::Op(op), _)) => Some(op),
        _ => None,
    };
    let (Some(a_op), Some(b_op)) = (known(a), known(b)) else { return true };
    let node = |module: &ModuleInfo| graph.iter().find(|(_, node)| node.name == module.name).map(|(id, _)| id);
    let is = |id: NodeId, module: &ModuleInfo, op: &Op| {
        if op.has_parameters() { graph.node(id).name == module.name } else { same_function(&graph.node(id).op, op) }
    };
    let transparent = |id: NodeId| matches!(graph.node(id).op, Op::Flatten | Op::Dropout { .. });
    if let Some(id) = node(a).filter(|_| a_op.has_parameters()) {
        let readers = |id: NodeId| -> Vec<NodeId> {
            graph.iter().filter(|(_, node)| node.inputs.contains(&id)).map(|(id, _)| id).collect()
        };
        let mut behind = readers(id);
        while let [one] = behind[..]
            && transparent(one)
        {
            behind = readers(one);
        }
        return match behind[..] {
            [one] => is(one, b, &b_op),
            _ => true,
        };
    }
    if let Some(id) = node(b).filter(|_| b_op.has_parameters()) {
        let mut source = graph.node(id).inputs.first().copied();
        while let Some(id) = source.filter(|id| transparent(*id)) {
            source = graph.node(id).inputs.first().copied();
        }
        return source.is_none_or(|id| is(id, a, &a_op));
    }
    true
}

/// Whether two operations without weights are one function.
fn same_function(a: &Op, b: &Op) -> bool {
    let mean = |op: &Op| matches!(op, Op::GlobalAvgPool2d | Op::AdaptiveAvgPool2d { output: [1, 1] });
    a == b || mean(a) && mean(b)
}
