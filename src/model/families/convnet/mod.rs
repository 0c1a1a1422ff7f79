//! Convolutions, then matrices: LeNet, VGG with and without BatchNorm, `AlexNet`, and plain nets like them.
//!
//! Names and shapes do not tell where images become smaller, how, and how convolutions are padded. The usual ways are
//! tried, and those stay that turn the input into exactly as many values as the first matrix reads.

mod plans;

use self::plans::{FEW, STEM_POOL, has_pool, kernel, pool, window};
use crate::model::families::builder::{Builder, EPS, function};
use crate::model::families::chain::{self, Layer, Room};
use crate::model::families::mlp::{
    FUNCTIONS, add_activation, add_matrices, in_order, layer_settings, order_of, order_settings,
};
use crate::model::families::modules::{Module, ModuleKind, names};
use crate::model::families::variants::{Variants, activations, epsilons, summaries};
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{Op, Shape};
use crate::settings::{Activation, NormPlace, Padding, Pool, Settings, Summary};

/// Heights and widths that are tried where the input's shape is not known.
const COMMON_SIZES: [usize; 6] = [28, 32, 64, 96, 128, 224];

/// The size that only grey images have (MNIST and its kin).
const GREY_SIZE: usize = 28;

/// The size that stands for all where every size fits.
const ANY_SIZE: usize = 32;

/// The family of all networks that are in no other.
const ANY_FAMILY: &str = "cnn";

/// Size of the stem of `AlexNet`, which has stride 4.
const ALEXNET_STEM: usize = 11;

/// Size of kernels from which on only a stem has them, with stride 2.
const LARGE: usize = 7;

/// All networks that fit.
pub(super) fn candidates(modules: &[Module], given: Given<'_>) -> Result<Vec<Candidate>, Unfit> {
    let orders = chain::orders(modules, given.settings.order.as_deref()).map_err(Unfit::Unknown)?;
    let net = ConvNet { modules, orders };
    if let Some(deep) = net.large_kernel() {
        return Err(Unfit::Unknown(format!(
            "`{deep}` has kernels of {LARGE} or more and is not the first layer, which is no chain that is known"
        )));
    }
    match given.input {
        Some(shape) => net.fitting(shape, given.settings),
        None => Ok(net.fitting_common_sizes(given.settings)),
    }
}

/// Whether the network takes the mean or the maximum over all positions.
fn has_summary(candidate: &Candidate) -> bool {
    candidate.settings.summary.is_some()
}

/// Whether means make the image fit that the first matrix reads, whatever its size.
fn fits_any(candidate: &Candidate) -> bool {
    let is_adaptive =
        |op: &Op| matches!(op, Op::GlobalAvgPool2d | Op::AdaptiveAvgPool2d { .. } | Op::AdaptiveMaxPool2d { .. });
    candidate.graph.nodes().iter().any(|node| is_adaptive(&node.op))
}

/// A chain of convolutions and the matrices behind it.
struct ConvNet<'a> {
    modules: &'a [Module],
    orders: Vec<Vec<Layer<'a>>>,
}

/// What the last convolution leaves, and how the first matrix reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// As it is.
    Whole,
    /// Summarised over all positions.
    Summary,
    /// By means over as many windows as a side of this length has.
    Adaptive(usize),
}

impl<'a> ConvNet<'a> {
    /// The name of a layer with kernels that only a stem has.
    fn large_kernel(&self) -> Option<&str> {
        let deep = self.orders[0].iter().skip(1).find(|layer| kernel(layer) >= LARGE);
        deep.map(|layer| layer.module.name.as_str())
    }

    /// The convolutions and the matrices behind them.
    fn split<'b>(layers: &'b [Layer<'a>]) -> (&'b [Layer<'a>], &'b [Layer<'a>]) {
        let convs = layers.iter().take_while(|layer| matches!(layer.module.kind, ModuleKind::Conv { .. })).count();
        layers.split_at(convs)
    }

    /// All networks that fit an input of `shape`. Means over all positions or over as many windows as the first matrix
    /// reads make any placement of pools fit, so such networks count only where no other fits.
    fn fitting(&self, shape: &Shape, given: &Settings) -> Result<Vec<Candidate>, Unfit> {
        let first = self.orders[0][0].module;
        let ModuleKind::Conv { input, .. } = first.kind else { return Ok(Vec::new()) };
        if !matches!(shape[..], [channels, _, _] if channels == input) {
            let detail = format!(
                "the first layer `{}` reads images of {input} channels, an example has shape {shape:?}",
                first.name
            );
            return Err(Unfit::Input(detail));
        }
        let (convs, matrices) = Self::split(&self.orders[0]);
        let mut plans = self.plans(shape, given);
        // A summary and windows of any size fit whatever the image is: they count where nothing else says how large it has
        // become, that is, where one position is left.
        if plans.iter().any(|(_, tail)| *tail == Tail::Whole) && !plans.iter().any(|(_, tail)| *tail == Tail::Summary) {
            plans.retain(|(_, tail)| *tail == Tail::Whole);
        }
        if plans.is_empty() {
            return Err(Unfit::Input(format!(
                "no usual placement of pools and padding turns an input of shape {shape:?} into what `{}` reads",
                matrices.first().map_or("", |layer| layer.module.name.as_str())
            )));
        }
        let summarised = plans.iter().any(|(_, tail)| *tail == Tail::Summary);
        let dilations = [1, 2].map(|dilation| Settings { dilation: Some(vec![dilation]), ..Settings::default() });
        let may_dilate = convs.len() <= 2 * FEW && convs.iter().all(|layer| kernel(layer) == 3);
        let has_norms = self.modules.iter().any(Module::is_norm);
        let variants = Variants::new(given)
            .with(order_settings(&self.orders, given))
            .with(plans.into_iter().map(|(settings, _)| settings))
            .with(layer_settings(&self.orders))
            .with(activations(&FUNCTIONS))
            .with(if summarised { summaries() } else { Vec::new() })
            .with(dilations.into_iter().filter(|_| may_dilate))
            .with(epsilons(if has_norms { &[EPS, 1e-3] } else { &[] }));
        let mut found: Vec<Candidate> = Vec::new();
        for settings in variants.combinations() {
            if let Some(candidate) = self.candidate(shape, &settings)
                && !found.iter().any(|other| other.graph == candidate.graph)
            {
                found.push(candidate);
            }
        }
        Ok(found)
    }

    /// Networks for inputs of usual sizes. Where means make every size fit, one size stands for all, unless there is a
    /// size at which the positions are those that the first matrix reads. Published families go before the catch-all,
    /// whose unpadded networks fit some size or other by chance, and plain maximum pools before all that is less usual.
    fn fitting_common_sizes(&self, given: &Settings) -> Vec<Candidate> {
        let ModuleKind::Conv { input, .. } = self.orders[0][0].module.kind else { return Vec::new() };
        let usual = Settings {
            pool: Some(Pool::Max),
            activation: Some(Activation::Relu),
            dilation: Some(vec![1]),
            ..Settings::default()
        };
        let open = given;
        for given in [given.clone().or(usual), given.clone()] {
            let mut candidates = Vec::new();
            for size in COMMON_SIZES.into_iter().filter(|&size| size != GREY_SIZE || input == 1) {
                let shape = vec![input, size, size];
                candidates.extend(self.fitting(&shape, &given).unwrap_or_default());
            }
            let size = |candidate: &Candidate| candidate.graph.input_shape()[1];
            let any: Vec<usize> = candidates.iter().filter(|candidate| fits_any(candidate)).map(size).collect();
            let stands = if any.contains(&ANY_SIZE) { ANY_SIZE } else { any.into_iter().max().unwrap_or(ANY_SIZE) };
            candidates.retain(|candidate| !fits_any(candidate) || size(candidate) == stands);
            if candidates.iter().any(|candidate| !fits_any(candidate)) {
                candidates.retain(|candidate| has_summary(candidate) || !fits_any(candidate));
            }
            if candidates.iter().any(|candidate| candidate.family != ANY_FAMILY) {
                candidates.retain(|candidate| candidate.family != ANY_FAMILY);
            }
            if let Some(first) = candidates.first() {
                // The usual network tells the size and the family; what else is open stays open.
                let family = first.family;
                let whole: Vec<Candidate> = distinct_shapes(&candidates)
                    .iter()
                    .flat_map(|shape| self.fitting(shape, open).unwrap_or_default())
                    .filter(|candidate| candidate.family == family)
                    .collect();
                return if whole.is_empty() { candidates } else { whole };
            }
        }
        Vec::new()
    }

    /// The network with these settings, if it fits.
    fn candidate(&self, shape: &Shape, settings: &Settings) -> Option<Candidate> {
        let layers = in_order(&self.orders, settings);
        let (convs, matrices) = Self::split(layers);
        let family = self.family(settings);
        let tail = self.tail(shape, settings)?;
        let pooled_last = settings
            .pool_after
            .as_ref()
            .is_some_and(|places| places.last() == convs.last().map(|layer| &layer.module.name));
        if family == "vgg" && tail != Tail::Whole && !pooled_last {
            return None;
        }
        let mut builder = Builder::new(shape, names(self.modules));
        for (index, layer) in convs.iter().enumerate() {
            builder.module(layer.module, builder.last(), window(index, layer, settings), EPS);
            let next = convs.get(index + 1).or(matrices.first())?;
            let stem_pool = index == 0 && settings.stem_pool == Some(true);
            let pool = if stem_pool {
                Some(Op::max_pool2d(STEM_POOL))
            } else {
                has_pool(layer, settings).then(|| pool(settings))
            };
            let before = matches!(settings.pool, Some(Pool::MaxBeforeActivation | Pool::MeanBeforeActivation));
            let name = format!("{}.pool", layer.module.name);
            let after_norm = settings.norm_place != Some(NormPlace::AfterActivation);
            match (pool, before) {
                // Norm and pool stand in this order: a BatchNorm commutes with a mean, and with a maximum for positive weights.
                (Some(pool), true) if layer.norm.is_none() || !after_norm => {
                    builder.then(&name, pool);
                    add_activation(&mut builder, layer, Room::between(layer, next), settings);
                }
                (Some(pool), true) => {
                    let bare = Settings { activation: Some(Activation::None), ..settings.clone() };
                    add_activation(&mut builder, layer, Room::between(layer, next), &bare);
                    builder.then(&name, pool);
                    let activation = settings.activation.unwrap_or(Activation::Relu);
                    if let Some(op) = function(activation) {
                        builder.then(&format!("{}.{}", layer.module.name, activation.word()), op);
                    }
                }
                (pool, _) => {
                    add_activation(&mut builder, layer, Room::between(layer, next), settings);
                    if let Some(pool) = pool {
                        builder.then(&name, pool);
                    }
                }
            }
        }
        let mut assumptions = Vec::new();
        match (tail, settings.summary) {
            (Tail::Whole, _) => {}
            (Tail::Summary, Some(Summary::Max)) => {
                builder.then("max", Op::AdaptiveMaxPool2d { output: [1, 1] });
            }
            (Tail::Summary, _) => {
                builder.then("mean", Op::GlobalAvgPool2d);
            }
            (Tail::Adaptive(side), _) => {
                builder.then("avgpool", Op::AdaptiveAvgPool2d { output: [side; 2] });
                assumptions.push(format!("adaptive mean pooling to {side} x {side} before the first matrix"));
            }
        }
        builder.then("flatten", Op::Flatten);
        add_matrices(&mut builder, matrices, settings);
        assumptions.push("an activation after every layer but the last".to_owned());
        assumptions.push(order_of(layers));
        let settings = match tail {
            Tail::Summary => settings.clone(),
            Tail::Whole | Tail::Adaptive(_) => Settings { summary: None, ..settings.clone() },
        };
        Some(Candidate { family, graph: builder.build().ok()?, settings, assumptions })
    }

    /// What people call such a network.
    fn family(&self, settings: &Settings) -> &'static str {
        let (convs, matrices) = Self::split(&self.orders[0]);
        let kernels = |size: usize| {
            let is = |layer: &Layer<'_>| matches!(layer.module.kind, ModuleKind::Conv { kernel, .. } if kernel == [size, size]);
            convs.iter().all(is)
        };
        if kernels(5) && convs.len() == 2 && matrices.len() == 3 {
            "lenet"
        } else if kernels(3) && settings.padding == Some(Padding::Same) && convs.len() >= 6 {
            "vgg"
        } else if convs.len() == 5 && kernel(&convs[0]) == ALEXNET_STEM {
            "alexnet"
        } else {
            ANY_FAMILY
        }
    }
}

/// The shapes of the inputs of candidates.
fn distinct_shapes(candidates: &[Candidate]) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = candidates.iter().map(|candidate| candidate.graph.input_shape().clone()).collect();
    shapes.dedup();
    shapes
}
