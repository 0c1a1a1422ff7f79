//! Convolutions, then matrices: LeNet, VGG with and without BatchNorm, and plain nets like them.
//!
//! Names and shapes do not tell where pools are and how convolutions are padded. Each family's conventions are tried, and
//! those stay that turn the input into exactly as many values as the first matrix reads.

use crate::model::families::builder::Builder;
use crate::model::families::chain::{self, Layer};
use crate::model::families::mlp::{add_matrices, order_of};
use crate::model::families::modules::{Module, ModuleKind, names};
use crate::model::families::{Candidate, Unfit};
use crate::model::graph::{Graph, Op, Shape, Window};

/// Heights and widths that are tried where the input's shape is not known.
const COMMON_SIZES: [usize; 6] = [28, 32, 64, 96, 128, 224];

/// The size that only grey images have (MNIST and its kin).
const GREY_SIZE: usize = 28;

/// The size that stands for all where every size fits.
const ANY_SIZE: usize = 32;

/// The family of all networks that are in no other.
const ANY_FAMILY: &str = "cnn";

/// Positions behind which VGG-11, 13, 16 and 19 have pools, by their number of convolutions.
const VGG_POOLS: [(usize, [usize; 5]); 4] =
    [(8, [0, 1, 3, 5, 7]), (10, [1, 3, 5, 7, 9]), (13, [1, 3, 6, 9, 12]), (16, [1, 3, 7, 11, 15])];

/// All networks that fit.
pub(super) fn candidates(modules: &[Module], input: Option<&Shape>) -> Result<Vec<Candidate>, Unfit> {
    let layers = chain::order(modules).map_err(Unfit::Unknown)?;
    let convs = layers.iter().take_while(|layer| matches!(layer.module.kind, ModuleKind::Conv { .. })).count();
    let (convs, matrices) = layers.split_at(convs);
    let net = ConvNet { modules, convs, matrices };
    match input {
        Some(shape) => net.fitting(shape),
        None => Ok(net.fitting_common_sizes()),
    }
}

/// Whether the network takes the mean over all positions.
fn has_mean(candidate: &Candidate) -> bool {
    candidate.graph.nodes().iter().any(|node| node.op == Op::GlobalAvgPool2d)
}

/// Whether means make the image fit that the first matrix reads, whatever its size.
fn fits_any(candidate: &Candidate) -> bool {
    let is_adaptive = |op: &Op| matches!(op, Op::GlobalAvgPool2d | Op::AdaptiveAvgPool2d { .. });
    candidate.graph.nodes().iter().any(|node| is_adaptive(&node.op))
}

/// A chain of convolutions and the matrices behind it.
struct ConvNet<'a> {
    modules: &'a [Module],
    convs: &'a [Layer<'a>],
    matrices: &'a [Layer<'a>],
}

/// How convolutions are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    /// Not at all.
    None,
    /// By half the kernel.
    Same,
    /// Only the first, by half its kernel.
    FirstSame,
}

impl Padding {
    fn of(self, index: usize, kernel: usize) -> usize {
        match self {
            Self::Same => kernel / 2,
            Self::FirstSame if index == 0 => kernel / 2,
            Self::None | Self::FirstSame => 0,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::None => "convolutions without padding",
            Self::Same => "convolutions padded by half their kernel",
            Self::FirstSame => "only the first convolution padded, by half its kernel",
        }
    }
}

impl ConvNet<'_> {
    /// All networks that fit an input of `shape`. Means over all positions or over as many windows as the first matrix
    /// reads make any placement of pools fit, so such networks count only where no other fits.
    fn fitting(&self, shape: &Shape) -> Result<Vec<Candidate>, Unfit> {
        let first = self.convs[0].module;
        let ModuleKind::Conv { input, .. } = first.kind else { return Ok(Vec::new()) };
        if !matches!(shape[..], [channels, _, _] if channels == input) {
            let detail = format!(
                "the first layer `{}` reads images of {input} channels, an example has shape {shape:?}",
                first.name
            );
            return Err(Unfit::Input(detail));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for padding in [Padding::Same, Padding::None, Padding::FirstSame] {
            for pools in self.pool_schemes() {
                if let Some(candidate) = self.candidate(shape, padding, &pools)
                    && !candidates.iter().any(|other| other.graph == candidate.graph)
                {
                    candidates.push(candidate);
                }
            }
        }
        if !candidates.iter().all(fits_any) {
            candidates.retain(|candidate| !fits_any(candidate));
        }
        if candidates.is_empty() {
            return Err(Unfit::Input(format!(
                "no usual placement of pools and padding turns an input of shape {shape:?} into what `{}` reads",
                self.matrices.first().map_or("", |layer| layer.module.name.as_str())
            )));
        }
        Ok(candidates)
    }

    /// Networks for inputs of usual sizes. Where means make every size fit, one size stands for all, unless there is a
    /// size at which the positions are those that the first matrix reads. Published families go before the catch-all,
    /// whose unpadded networks fit some size or other by chance.
    fn fitting_common_sizes(&self) -> Vec<Candidate> {
        let ModuleKind::Conv { input, .. } = self.convs[0].module.kind else { return Vec::new() };
        let mut candidates = Vec::new();
        for size in COMMON_SIZES.into_iter().filter(|&size| size != GREY_SIZE || input == 1) {
            let shape = vec![input, size, size];
            for mut candidate in self.fitting(&shape).unwrap_or_default() {
                if !fits_any(&candidate) || size == ANY_SIZE {
                    candidate.assumptions.insert(0, format!("inputs of shape {shape:?}"));
                    candidates.push(candidate);
                }
            }
        }
        if candidates.iter().any(|candidate| !fits_any(candidate)) {
            candidates.retain(|candidate| has_mean(candidate) || !fits_any(candidate));
        }
        if candidates.iter().any(|candidate| candidate.family != ANY_FAMILY) {
            candidates.retain(|candidate| candidate.family != ANY_FAMILY);
        }
        candidates
    }

    /// Sets of convolutions with a pool behind them. Places in a sequence of modules tell; else conventions do.
    fn pool_schemes(&self) -> Vec<Vec<bool>> {
        let count = self.convs.len();
        if let Some(known) = self.pools_by_names() {
            let with_last = |last: bool| known.iter().copied().chain([last]).collect();
            return vec![with_last(true), with_last(false)];
        }
        let mut schemes = vec![vec![true; count]];
        if let Some((_, pools)) = VGG_POOLS.iter().find(|(convs, _)| *convs == count) {
            schemes.push((0..count).map(|index| pools.contains(&index)).collect());
        }
        schemes.push((0..count).map(|index| index + 1 == count).collect());
        schemes.push((0..count).map(|index| index % 2 == 1).collect());
        schemes.push(vec![false; count]);
        schemes
    }

    /// For all but the last convolution, whether the gap to the next in the sequence has room for more than ReLU.
    fn pools_by_names(&self) -> Option<Vec<bool>> {
        let gap = |pair: &[Layer<'_>]| {
            let (parent, place) = pair[0].norm.unwrap_or(pair[0].module).sequence()?;
            let (next_parent, next) = pair[1].module.sequence()?;
            let between = next.checked_sub(place)?.checked_sub(1)?;
            (parent == next_parent && between > 0).then_some(between > 1)
        };
        self.convs.windows(2).map(gap).collect()
    }

    /// The network with this padding and these pools, if it fits.
    fn candidate(&self, shape: &Shape, padding: Padding, pools: &[bool]) -> Option<Candidate> {
        let (graph, tail) = self.graph(shape, padding, pools)?;
        let family = self.family(padding);
        if family == "vgg" && !tail.is_empty() && pools.last() != Some(&true) {
            return None;
        }
        let mut assumptions = vec!["ReLU after every layer but the last".to_owned(), padding.describe().to_owned()];
        let pooled = self.convs.iter().zip(pools).filter(|(_, pool)| **pool);
        let pooled: Vec<&str> = pooled.map(|(layer, _)| layer.module.name.as_str()).collect();
        if !pooled.is_empty() {
            assumptions.push(format!("2 x 2 maximum pooling after {}", pooled.join(", ")));
        }
        assumptions.extend(tail);
        if self.convs.iter().chain(self.matrices).any(|layer| layer.norm.is_some()) {
            assumptions.push("BatchNorm before ReLU, with eps 1e-5".to_owned());
        }
        assumptions.push(order_of(&self.convs.iter().chain(self.matrices).copied().collect::<Vec<_>>()));
        Some(Candidate { family, graph, assumptions })
    }

    fn graph(&self, shape: &Shape, padding: Padding, pools: &[bool]) -> Option<(Graph, Vec<String>)> {
        let mut builder = Builder::new(shape, names(self.modules));
        let mut size = [shape[1], shape[2]];
        let mut channels = shape[0];
        for (index, (layer, pool)) in self.convs.iter().zip(pools).enumerate() {
            let ModuleKind::Conv { output, kernel, .. } = layer.module.kind else { return None };
            let padding = padding.of(index, kernel[0]);
            builder.module(layer.module, builder.last(), 1, padding);
            size = Window { kernel, stride: [1, 1], padding: [padding; 2], dilation: [1; 2] }.output(size)?;
            channels = output;
            if let Some(norm) = layer.norm {
                builder.module(norm, builder.last(), 1, 0);
            }
            builder.then(&format!("{}.relu", layer.module.name), Op::Relu);
            if *pool {
                let window = Window::square(2, 2, 0);
                builder.then(&format!("{}.pool", layer.module.name), Op::max_pool2d(window));
                size = window.output(size)?;
            }
        }
        let tail = self.tail(&mut builder, channels, size, padding)?;
        builder.then("flatten", Op::Flatten);
        add_matrices(&mut builder, self.matrices);
        Some((builder.build().ok()?, tail))
    }

    /// Makes the image what the first matrix reads: as it is, or by means, which are assumptions.
    fn tail(&self, builder: &mut Builder, channels: usize, size: [usize; 2], padding: Padding) -> Option<Vec<String>> {
        let ModuleKind::Linear { input, .. } = self.matrices.first()?.module.kind else { return None };
        if input == channels * size[0] * size[1] {
            return Some(Vec::new());
        }
        let side = (input / channels).isqrt();
        if input == channels {
            builder.then("mean", Op::GlobalAvgPool2d);
            Some(vec!["mean over all positions before the first matrix".to_owned()])
        } else if input == channels * side * side && self.family(padding) == "vgg" {
            builder.then("avgpool", Op::AdaptiveAvgPool2d { output: [side; 2] });
            Some(vec![format!("adaptive mean pooling to {side} x {side} before the first matrix")])
        } else {
            None
        }
    }

    /// What people call such a network.
    fn family(&self, padding: Padding) -> &'static str {
        let kernels = |size: usize| {
            let is = |layer: &Layer<'_>| matches!(layer.module.kind, ModuleKind::Conv { kernel, .. } if kernel == [size, size]);
            self.convs.iter().all(is)
        };
        if kernels(5) && self.convs.len() == 2 && self.matrices.len() == 3 {
            "lenet"
        } else if kernels(3) && padding == Padding::Same && self.convs.len() >= 6 {
            "vgg"
        } else {
            ANY_FAMILY
        }
    }
}
