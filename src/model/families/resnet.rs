//! Residual networks by their usual names: `conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.shortcut.0` or
//! `layer2.0.downsample.0`, and `linear` or `fc` (He et al., CVPR 2016).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::families::builder::Builder;
use crate::model::families::modules::{Kind, Module};
use crate::model::families::{Candidate, Unfit};
use crate::model::graph::{NodeId, Op, Shape, Window};

/// Height and width that stand for all where the input is not known: after a small or a large stem.
const DEFAULT_SIZES: (usize, usize) = (32, 224);

/// Whether the names are those of a residual network.
pub(super) fn applies(modules: &[Module]) -> bool {
    modules.iter().any(|module| module.name.ends_with("layer1.0.conv1"))
}

/// The one network that fits.
pub(super) fn candidates(modules: &[Module], input: Option<&Shape>) -> Result<Vec<Candidate>, Unfit> {
    let names = Names::of(modules);
    let stem = names.find("conv1")?;
    let Kind::Conv { input: channels, kernel: [kernel, _], .. } = stem.kind else {
        return Err(Unfit::Unknown(format!("`{}` is no convolution", stem.name)));
    };
    let large = kernel >= 7;
    let size = if large { DEFAULT_SIZES.1 } else { DEFAULT_SIZES.0 };
    let shape = input.cloned().unwrap_or_else(|| vec![channels, size, size]);
    if !matches!(shape[..], [got, _, _] if got == channels) {
        let detail = format!(
            "the first layer `{}` reads images of {channels} channels, an example has shape {shape:?}",
            stem.name
        );
        return Err(Unfit::Input(detail));
    }
    let mut net = Net { builder: Builder::new(&shape, modules), names, used: BTreeSet::new() };
    net.stem(large)?;
    for (stage, blocks) in net.names.stages() {
        for block in blocks {
            net.block(stage, block)?;
        }
    }
    net.head()?;
    let Net { builder, names, used } = net;
    if let Some(rest) = names.by_name.values().find(|module| !used.contains(&module.name)) {
        return Err(Unfit::Unknown(format!("module `{}` has no place in a residual network", rest.name)));
    }
    let graph = builder.build().map_err(|error| Unfit::Unknown(error.to_string()))?;
    let stem = if large { "a stem of stride 2 with a 3x3 maximum pool" } else { "a stem of stride 1 without a pool" };
    let mut assumptions = vec![
        stem.to_owned(),
        "stride 2 in the first block of every stage but the first (in its 3x3 convolution)".to_owned(),
        "ReLU after every BatchNorm and sum, eps 1e-5, mean over all positions before the output".to_owned(),
    ];
    if input.is_none() {
        assumptions.insert(0, format!("inputs of shape {shape:?}"));
    }
    Ok(vec![Candidate { family: "resnet", graph, assumptions }])
}

/// Modules by their names below a common prefix.
struct Names<'a> {
    prefix: String,
    by_name: BTreeMap<&'a str, &'a Module>,
}

impl<'a> Names<'a> {
    /// The prefix is what stands before `layer1.0.conv1`.
    fn of(modules: &'a [Module]) -> Self {
        let prefix = modules.iter().find_map(|module| module.name.strip_suffix("layer1.0.conv1")).unwrap_or_default();
        Self {
            prefix: prefix.to_owned(),
            by_name: modules.iter().map(|module| (module.name.as_str(), module)).collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Module> {
        self.by_name.get(format!("{}{name}", self.prefix).as_str()).copied()
    }

    fn find(&self, name: &str) -> Result<&'a Module, Unfit> {
        self.get(name)
            .ok_or_else(|| Unfit::Unknown(format!("a residual network needs a module `{}{name}`", self.prefix)))
    }

    /// Stages with their blocks, ascending.
    fn stages(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut stages: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for name in self.by_name.keys() {
            let place = name.strip_prefix(self.prefix.as_str()).and_then(|name| name.strip_prefix("layer"));
            let mut parts = place.unwrap_or_default().split('.').map(str::parse);
            if let (Some(Ok(stage)), Some(Ok(block))) = (parts.next(), parts.next()) {
                stages.entry(stage).or_default().insert(block);
            }
        }
        stages
    }
}

/// A residual network in the making.
struct Net<'a> {
    builder: Builder,
    names: Names<'a>,
    used: BTreeSet<String>,
}

impl<'a> Net<'a> {
    /// Adds a module that must not be used twice.
    fn module(&mut self, module: &'a Module, input: NodeId, stride: usize, padding: usize) -> NodeId {
        self.used.insert(module.name.clone());
        self.builder.module(module, input, stride, padding)
    }

    /// Adds a convolution and the normalisation behind it, if there is one.
    fn conv(
        &mut self,
        conv: &'a Module,
        norm: Option<&'a Module>,
        input: NodeId,
        stride: usize,
    ) -> Result<NodeId, Unfit> {
        let Kind::Conv { kernel: [kernel, _], .. } = conv.kind else {
            return Err(Unfit::Unknown(format!("`{}` is no convolution", conv.name)));
        };
        let out = self.module(conv, input, stride, kernel / 2);
        Ok(norm.map_or(out, |norm| self.module(norm, out, 1, 0)))
    }

    fn stem(&mut self, large: bool) -> Result<(), Unfit> {
        let stride = if large { 2 } else { 1 };
        let (conv, norm) = (self.names.find("conv1")?, self.names.get("bn1"));
        self.conv(conv, norm, self.builder.last(), stride)?;
        self.builder.then("relu", Op::Relu);
        if large {
            self.builder.then("maxpool", Op::max_pool2d(Window::square(3, 2, 1)));
        }
        Ok(())
    }

    /// Two or three convolutions and a shortcut around them.
    fn block(&mut self, stage: usize, block: usize) -> Result<(), Unfit> {
        let name = format!("layer{stage}.{block}");
        let input = self.builder.last();
        let stride = if stage > 1 && block == 0 { 2 } else { 1 };
        let convs: Vec<(usize, &Module)> =
            (1..=3).filter_map(|index| Some((index, self.names.get(&format!("{name}.conv{index}"))?))).collect();
        let strided = if convs.len() == 3 { 2 } else { 1 };
        let mut main = input;
        for &(index, conv) in &convs {
            let norm = self.names.get(&format!("{name}.bn{index}"));
            main = self.conv(conv, norm, main, if index == strided { stride } else { 1 })?;
            if index < convs.len() {
                main = self.builder.then(&format!("{name}.relu{index}"), Op::Relu);
            }
        }
        let projection = ["shortcut", "downsample"].into_iter().find_map(|kind| {
            let conv = self.names.get(&format!("{name}.{kind}.0"))?;
            Some((conv, self.names.get(&format!("{name}.{kind}.1"))))
        });
        let shortcut = match projection {
            Some((conv, norm)) => self.conv(conv, norm, input, stride)?,
            None => input,
        };
        self.builder.add(&format!("{name}.add"), Op::Add, &[main, shortcut]);
        self.builder.then(&format!("{name}.relu"), Op::Relu);
        Ok(())
    }

    fn head(&mut self) -> Result<(), Unfit> {
        let head = self.names.get("linear").map_or_else(|| self.names.find("fc"), Ok)?;
        self.builder.then("mean", Op::GlobalAvgPool2d);
        self.builder.then("flatten", Op::Flatten);
        self.module(head, self.builder.last(), 1, 0);
        Ok(())
    }
}
