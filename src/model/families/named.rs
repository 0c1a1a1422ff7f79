//! Networks whose modules go by known names: looks their tensors up, adds the nodes whose weights they are, and finds
//! those that have no place.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::families::builder::{Builder, function};
use crate::model::families::{Candidate, Unfit};
use crate::model::graph::{NodeId, Op, Shape, Window};
use crate::model::header::CheckpointHeader;
use crate::settings::{Activation, Settings, Summary};

/// The tensors of a checkpoint whose names begin with `prefix`, by the rest of their names.
#[derive(Debug, Clone)]
pub(super) struct Tensors<'a> {
    prefix: &'a str,
    shapes: BTreeMap<&'a str, &'a [usize]>,
}

impl<'a> Tensors<'a> {
    /// The tensors of a checkpoint that has one called `anchor`, or one whose name ends so after a dot: what stands before
    /// is the prefix of all.
    pub(super) fn anchored(header: &'a CheckpointHeader, anchor: &str) -> Option<Self> {
        let prefixes = header.tensors.iter().filter_map(|info| info.name.strip_suffix(anchor));
        let prefix = prefixes.into_iter().find(|prefix| prefix.is_empty() || prefix.ends_with('.'))?;
        let shapes = header.tensors.iter().map(|info| (info.name.as_str(), &info.shape[..])).collect();
        Some(Self { prefix, shapes })
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Shape of the tensor `name`.
    pub(super) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.shapes.get(self.full(name).as_str()).copied()
    }

    /// Whether there is a module `name` with a weight.
    pub(super) fn has(&self, name: &str) -> bool {
        self.shape(&format!("{name}.weight")).is_some()
    }

    /// The first of `names` that is a module.
    pub(super) fn first_of(&self, names: &[&str]) -> Result<String, Unfit> {
        let found = names.iter().find(|name| self.has(name));
        found.map(|name| (*name).to_owned()).ok_or_else(|| {
            let names: Vec<String> = names.iter().map(|name| format!("`{}.weight`", self.full(name))).collect();
            Unfit::Unknown(format!("there is no tensor {}", names.join(" or ")))
        })
    }

    /// Numbers that follow `path` in the names of tensors: the places of a sequence.
    pub(super) fn places(&self, path: &str) -> BTreeSet<usize> {
        let path = self.full(path);
        let after = self.shapes.range(path.as_str()..).map_while(|(name, _)| name.strip_prefix(path.as_str()));
        after.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect()
    }

    /// Shape of the kernels of the convolution `name`: (out, in of one group, height, width).
    pub(super) fn kernels(&self, name: &str) -> Result<[usize; 4], Unfit> {
        let shape = self.shape(&format!("{name}.weight"));
        let kernels = shape.and_then(|shape| <[usize; 4]>::try_from(shape).ok()).filter(|shape| !shape.contains(&0));
        kernels.ok_or_else(|| self.expected(&format!("{name}.weight"), "(out x in x height x width)", shape))
    }

    fn expected(&self, name: &str, expected: &str, got: Option<&[usize]>) -> Unfit {
        let got = got.map_or("none".to_owned(), |shape| format!("{shape:?}"));
        Unfit::Unknown(format!("tensor `{}`: expected shape {expected}, got {got}", self.full(name)))
    }
}

/// A network in the making.
#[derive(Debug)]
pub(super) struct Net<'a> {
    pub(super) tensors: &'a Tensors<'a>,
    builder: Builder,
    channels: Vec<usize>,
    used: BTreeSet<String>,
}

impl<'a> Net<'a> {
    /// A network that so far only reads examples of `shape`.
    pub(super) fn new(tensors: &'a Tensors<'a>, shape: &Shape) -> Self {
        let modules = tensors.shapes.keys().map(|name| name.rsplit_once('.').map_or(*name, |(module, _)| module));
        Self {
            tensors,
            builder: Builder::new(shape, modules.map(str::to_owned).collect()),
            channels: vec![shape[0]],
            used: BTreeSet::new(),
        }
    }

    /// The last node.
    pub(super) fn last(&self) -> NodeId {
        self.builder.last()
    }

    /// Number of channels behind `node`.
    pub(super) fn channels(&self, node: NodeId) -> usize {
        self.channels[node.0]
    }

    /// Adds an operation without weights.
    pub(super) fn op(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        let widths = inputs.iter().map(|input| self.channels(*input));
        let channels = if op == Op::Concat { widths.fold(0, usize::saturating_add) } else { self.channels(inputs[0]) };
        self.channels.push(channels);
        self.builder.add(&self.tensors.full(name), op, inputs)
    }

    /// Adds an operation without weights behind the last node.
    pub(super) fn then(&mut self, name: &str, op: Op) -> NodeId {
        self.op(name, op, &[self.last()])
    }

    /// Adds an operation that is named after its tensors, behind `input`.
    pub(super) fn weighted(&mut self, name: &str, op: Op, input: NodeId, channels: usize) -> NodeId {
        self.channels.push(channels);
        self.builder.weighted(&self.tensors.full(name), op, input)
    }

    /// Uses the tensor `name`, which must have this shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<(), Unfit> {
        match self.tensors.shape(name) {
            Some(got) if got == shape && !shape.contains(&0) => {
                self.used.insert(self.tensors.full(name));
                Ok(())
            }
            got => Err(self.tensors.expected(name, &format!("{shape:?}"), got)),
        }
    }

    /// Uses the tensor `name` if there is one.
    pub(super) fn take_if_any(&mut self, name: &str, shape: &[usize]) -> Result<bool, Unfit> {
        let any = self.tensors.shape(name).is_some();
        if any {
            self.take(name, shape)?;
        }
        Ok(any)
    }

    /// Adds a convolution that is padded by half its kernel.
    pub(super) fn conv(&mut self, name: &str, input: NodeId, stride: usize) -> Result<NodeId, Unfit> {
        self.dilated(name, input, stride, 1)
    }

    /// Adds a convolution that is padded by half of what its kernel spans.
    pub(super) fn dilated(
        &mut self,
        name: &str,
        input: NodeId,
        stride: usize,
        dilation: usize,
    ) -> Result<NodeId, Unfit> {
        let [_, _, height, width] = self.tensors.kernels(name)?;
        let dilation = if [height, width] == [1, 1] { 1 } else { dilation };
        let padding = [height / 2 * dilation, width / 2 * dilation];
        let window = Window { padding, dilation: [dilation; 2], ..window([height, width], [stride; 2]) };
        self.convolution(name, input, window, false)
    }

    /// A convolution with one kernel per channel.
    pub(super) fn depthwise(&mut self, name: &str, input: NodeId, stride: usize) -> Result<NodeId, Unfit> {
        let [_, _, height, width] = self.tensors.kernels(name)?;
        let window = Window { padding: [height / 2, width / 2], ..window([height, width], [stride; 2]) };
        self.convolution(name, input, window, true)
    }

    /// Adds a convolution that cuts the image into patches of its kernel's size.
    pub(super) fn patches(&mut self, name: &str, input: NodeId) -> Result<NodeId, Unfit> {
        let [_, _, height, width] = self.tensors.kernels(name)?;
        self.convolution(name, input, window([height, width], [height, width]), false)
    }

    fn convolution(&mut self, name: &str, input: NodeId, window: Window, depthwise: bool) -> Result<NodeId, Unfit> {
        let kernels = self.tensors.kernels(name)?;
        let [out_channels, of_one, height, width] = kernels;
        let in_channels = self.channels(input);
        let fits = if depthwise { of_one == 1 } else { in_channels.is_multiple_of(of_one) };
        if !fits {
            let of_one = if depthwise { 1 } else { in_channels };
            let expected = format!("[{out_channels}, {of_one}, {height}, {width}]");
            return Err(self.tensors.expected(&format!("{name}.weight"), &expected, Some(&kernels)));
        }
        self.take(&format!("{name}.weight"), &kernels)?;
        let bias = self.take_if_any(&format!("{name}.bias"), &[out_channels])?;
        let group_width = (depthwise || of_one < in_channels).then_some(of_one);
        let op = Op::Conv2d { in_channels, out_channels, group_width, window, bias };
        Ok(self.weighted(name, op, input, out_channels))
    }

    /// Adds a matrix that reads the channels of `input`.
    pub(super) fn linear(&mut self, name: &str, input: NodeId) -> Result<NodeId, Unfit> {
        let weight = format!("{name}.weight");
        let in_features = self.channels(input);
        let out_features = match self.tensors.shape(&weight) {
            Some(&[rows, _]) => rows,
            got => return Err(self.tensors.expected(&weight, &format!("[out, {in_features}]"), got)),
        };
        self.take(&weight, &[out_features, in_features])?;
        let bias = self.take_if_any(&format!("{name}.bias"), &[out_features])?;
        Ok(self.weighted(name, Op::Linear { in_features, out_features, bias }, input, out_features))
    }

    /// Adds a normalisation with running statistics.
    pub(super) fn batch_norm(&mut self, name: &str, input: NodeId, eps: f64) -> Result<NodeId, Unfit> {
        let features = self.channels(input);
        let affine = self.take_if_any(&format!("{name}.weight"), &[features])?;
        let learned = if affine { &["bias"][..] } else { &[] };
        for role in learned.iter().chain(&["running_mean", "running_var"]) {
            self.take(&format!("{name}.{role}"), &[features])?;
        }
        self.used.insert(self.tensors.full(&format!("{name}.num_batches_tracked")));
        Ok(self.weighted(name, Op::BatchNorm { affine, features, eps }, input, features))
    }

    /// Adds a normalisation over the channels of each position.
    pub(super) fn layer_norm(&mut self, name: &str, input: NodeId, eps: f64) -> Result<NodeId, Unfit> {
        let features = self.channels(input);
        self.take(&format!("{name}.weight"), &[features])?;
        self.take(&format!("{name}.bias"), &[features])?;
        Ok(self.weighted(name, Op::LayerNorm { features, eps }, input, features))
    }

    /// Adds the activation of `settings` behind the last node, if there is one.
    pub(super) fn activation(&mut self, name: &str, settings: &Settings) -> NodeId {
        match function(settings.activation.unwrap_or(Activation::Relu)) {
            Some(op) => self.then(name, op),
            None => self.last(),
        }
    }

    /// Adds the summary of all positions and makes it a list of features.
    pub(super) fn summary(&mut self, settings: &Settings) -> NodeId {
        match settings.summary {
            Some(Summary::Max) => self.then("max", Op::AdaptiveMaxPool2d { output: [1, 1] }),
            Some(Summary::Mean) | None => self.then("mean", Op::GlobalAvgPool2d),
        };
        self.then("flatten", Op::Flatten)
    }

    /// The finished network, if no tensor is left over.
    pub(super) fn finish(
        self,
        family: &'static str,
        settings: &Settings,
        assumptions: Vec<String>,
    ) -> Result<Candidate, Unfit> {
        let mut left = self.tensors.shapes.keys().filter(|name| !self.used.contains(**name));
        if let Some(name) = left.next() {
            let more = match left.count() {
                0 => String::new(),
                more => format!(", nor have {more} others"),
            };
            return Err(Unfit::Unknown(format!(
                "tensor `{name}` has no place in a network of the family `{family}`{more}"
            )));
        }
        let graph = self.builder.build().map_err(|error| Unfit::Unknown(error.to_string()))?;
        Ok(Candidate { family, graph, settings: settings.clone(), assumptions })
    }
}

/// A window without padding.
fn window(kernel: [usize; 2], stride: [usize; 2]) -> Window {
    Window { kernel, stride, ..Window::square(1, 1, 0) }
}
