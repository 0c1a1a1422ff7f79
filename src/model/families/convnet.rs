//! Convolutions, then matrices: LeNet, VGG with and without BatchNorm, `AlexNet`, and plain nets like them.
//!
//! Names and shapes do not tell where images become smaller, how, and how convolutions are padded. The usual ways are
//! tried, and those stay that turn the input into exactly as many values as the first matrix reads.

use crate::model::families::builder::{Builder, EPS};
use crate::model::families::chain::{self, Layer, Room};
use crate::model::families::mlp::{
    FUNCTIONS, add_activation, add_matrices, in_order, layer_settings, order_of, order_settings,
};
use crate::model::families::modules::{Module, ModuleKind, names};
use crate::model::families::named::{activations, epsilons, function, summaries};
use crate::model::families::variants::Variants;
use crate::model::families::{Candidate, Given, Unfit};
use crate::model::graph::{Op, Shape, Window};
use crate::settings::{Activation, NormPlace, Padding, Pool, Settings, Summary};

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

/// Positions behind which `AlexNet` has pools.
const ALEXNET_POOLS: [usize; 3] = [0, 1, 4];

/// Most convolutions up to which every set of places for pools is tried.
const FEW: usize = 4;

/// Size of the stem of `AlexNet`, which has stride 4.
const ALEXNET_STEM: usize = 11;

/// Size of kernels from which on only a stem has them, with stride 2.
const LARGE: usize = 7;

/// What follows such a stem.
const STEM_POOL: Window = Window { kernel: [3, 3], stride: [2, 2], padding: [1, 1], dilation: [1, 1] };

/// Ways in which images become smaller, the most usual first.
const POOLS: [Pool; 8] = [
    Pool::Max,
    Pool::Mean,
    Pool::Stride,
    Pool::MaxBeforeActivation,
    Pool::MeanBeforeActivation,
    Pool::OverlappingMax,
    Pool::PaddedMax,
    Pool::OverlappingMean,
];

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

/// Rows and columns of zeros on each side for the convolution at `index`.
fn padded(padding: Padding, index: usize, kernel: usize) -> usize {
    match padding {
        Padding::AlexNet if index == 0 => 2,
        Padding::Same | Padding::AlexNet => kernel / 2,
        Padding::FirstSame if index == 0 => kernel / 2,
        Padding::None | Padding::FirstSame => 0,
    }
}

fn kernel(layer: &Layer<'_>) -> usize {
    match layer.module.kind {
        ModuleKind::Conv { kernel, .. } => kernel[0].max(kernel[1]),
        _ => 0,
    }
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

    /// Every way to make the image smaller that ends in what the first matrix reads.
    fn plans(&self, shape: &Shape, given: &Settings) -> Vec<(Settings, Tail)> {
        let (convs, _) = Self::split(&self.orders[0]);
        let stem = kernel(&convs[0]);
        let paddings: &[Padding] = match stem {
            ALEXNET_STEM.. => &[Padding::AlexNet, Padding::Same],
            _ => &[Padding::Same, Padding::None, Padding::FirstSame],
        };
        let pools: &[Pool] = match stem {
            ALEXNET_STEM.. => &[Pool::OverlappingMax, Pool::Max, Pool::OverlappingMean, Pool::Mean],
            _ => &POOLS,
        };
        let stems: &[(usize, Option<bool>)] = match stem {
            ALEXNET_STEM.. => &[(4, None)],
            LARGE.. => &[(2, Some(true)), (2, Some(false)), (1, Some(false))],
            _ => &[(1, None)],
        };
        let mut plans: Vec<(Settings, Tail)> = Vec::new();
        for pool in pools {
            for padding in paddings {
                for (stride, stem_pool) in stems {
                    for places in self.places(*pool) {
                        let names = convs.iter().zip(&places).filter(|(_, here)| **here);
                        let settings = Settings {
                            pool: Some(*pool),
                            pool_after: Some(names.map(|(layer, _)| layer.module.name.clone()).collect()),
                            padding: Some(*padding),
                            stem_stride: (stem >= LARGE).then_some(*stride),
                            stem_pool: *stem_pool,
                            ..Settings::default()
                        };
                        // Without any place the way does not matter: the first stands for all.
                        let settings =
                            if places.contains(&true) { settings } else { Settings { pool: None, ..settings } };
                        let settings = settings.overridden(given);
                        if let Some(tail) = self.tail(shape, &settings)
                            && !plans.iter().any(|(other, _)| *other == settings)
                        {
                            plans.push((settings, tail));
                        }
                    }
                }
            }
        }
        plans
    }

    /// Sets of convolutions behind which, or in which, the image becomes smaller. Places in a sequence of modules tell where
    /// there is room for a pool; else conventions do.
    fn places(&self, pool: Pool) -> Vec<Vec<bool>> {
        let (convs, _) = Self::split(&self.orders[0]);
        let count = convs.len();
        let known: Option<Vec<bool>> = convs
            .windows(2)
            .map(|pair| {
                let places = Room::between(&pair[0], &pair[1]).places()?;
                (places > 0).then_some(places > 1)
            })
            .collect();
        if let Some(known) = known.filter(|_| pool != Pool::Stride) {
            let with_last = |last: bool| known.iter().copied().chain([last]).collect();
            let mut sets: Vec<Vec<bool>> = vec![with_last(true), with_last(false)];
            // A place more than the activation's may be a dropout's, too.
            let room: Vec<usize> =
                known.iter().enumerate().filter(|(_, room)| **room).map(|(index, _)| index).collect();
            if room.len() <= FEW {
                for chosen in 0..1_usize << room.len() {
                    let mut set = vec![false; count];
                    for (bit, index) in room.iter().enumerate() {
                        set[*index] = chosen >> bit & 1 == 1;
                    }
                    for last in [true, false] {
                        set[count - 1] = last;
                        if !sets.contains(&set) {
                            sets.push(set.clone());
                        }
                    }
                }
            }
            return sets;
        }
        let mut sets = vec![vec![true; count]];
        if let Some((_, pools)) = VGG_POOLS.iter().find(|(convs, _)| *convs == count) {
            sets.push((0..count).map(|index| pools.contains(&index)).collect());
        }
        if count == 5 {
            sets.push((0..count).map(|index| ALEXNET_POOLS.contains(&index)).collect());
        }
        sets.push((0..count).map(|index| index + 1 == count).collect());
        sets.push((0..count).map(|index| index % 2 == 1).collect());
        sets.push((0..count).map(|index| index > 0).collect());
        sets.push((0..count).map(|index| index + 1 < count).collect());
        sets.push(vec![false; count]);
        if count <= FEW {
            sets.extend((0..1_usize << count).map(|chosen| (0..count).map(|bit| chosen >> bit & 1 == 1).collect()));
        }
        let mut distinct: Vec<Vec<bool>> = Vec::new();
        for set in sets {
            if !distinct.contains(&set) {
                distinct.push(set);
            }
        }
        distinct
    }

    /// Height and width behind the last convolution, and how the first matrix reads them; none where it cannot.
    fn tail(&self, shape: &Shape, settings: &Settings) -> Option<Tail> {
        let (convs, matrices) = Self::split(&self.orders[0]);
        let ModuleKind::Linear { input, .. } = matrices.first()?.module.kind else { return None };
        let mut size = [shape[1], shape[2]];
        let mut channels = shape[0];
        for (index, layer) in convs.iter().enumerate() {
            let ModuleKind::Conv { output, kernel, .. } = layer.module.kind else { return None };
            size = Window { kernel, ..window(index, layer, settings) }.output(size)?;
            if index == 0 && settings.stem_pool == Some(true) {
                size = STEM_POOL.output(size)?;
            } else if has_pool(layer, settings) {
                size = pool_window(settings).output(size)?;
            }
            channels = output;
        }
        if input == channels * size[0] * size[1] {
            return Some(Tail::Whole);
        }
        let side = (input / channels).isqrt();
        if input == channels {
            Some(Tail::Summary)
        } else if input == channels * side * side && ["vgg", "alexnet"].contains(&self.family(settings)) {
            let pooled_last = settings
                .pool_after
                .as_ref()
                .is_some_and(|places| places.last() == convs.last().map(|layer| &layer.module.name));
            pooled_last.then_some(Tail::Adaptive(side))
        } else {
            None
        }
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

/// How the convolution at `index` moves its kernel.
fn window(index: usize, layer: &Layer<'_>, settings: &Settings) -> Window {
    let kernel = kernel(layer);
    let dilation = settings.dilation.as_ref().and_then(|list| list.first()).copied().unwrap_or(1);
    let padding = padded(settings.padding.unwrap_or(Padding::Same), index, kernel) * dilation;
    let is_in = |places: &Vec<String>| places.contains(&layer.module.name);
    let strided = settings.pool == Some(Pool::Stride) && settings.pool_after.as_ref().is_some_and(is_in);
    let stem = settings.stem_stride.filter(|_| index == 0);
    let stride = stem.unwrap_or(if strided { 2 } else { 1 });
    Window { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], ..Window::square(kernel, 1, 0) }
}

fn has_pool(layer: &Layer<'_>, settings: &Settings) -> bool {
    let is_in = |places: &Vec<String>| places.contains(&layer.module.name);
    !matches!(settings.pool, None | Some(Pool::Stride)) && settings.pool_after.as_ref().is_some_and(is_in)
}

fn pool_window(settings: &Settings) -> Window {
    match settings.pool {
        Some(Pool::OverlappingMax | Pool::OverlappingMean) => Window::square(3, 2, 0),
        Some(Pool::PaddedMax) => Window::square(3, 2, 1),
        _ => Window::square(2, 2, 0),
    }
}

fn pool(settings: &Settings) -> Op {
    let window = pool_window(settings);
    match settings.pool {
        Some(Pool::Mean | Pool::MeanBeforeActivation | Pool::OverlappingMean) => Op::avg_pool2d(window),
        _ => Op::max_pool2d(window),
    }
}
