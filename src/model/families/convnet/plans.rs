//! Where and how images become smaller on their way through a chain of convolutions: the usual ways, and whether they end in
//! what the first matrix reads.

use super::{ALEXNET_STEM, ConvNet, LARGE, Tail};
use crate::model::families::chain::{Layer, Room};
use crate::model::families::modules::ModuleKind;
use crate::model::graph::{Op, Shape, Window};
use crate::settings::{Padding, Pool, Settings};

/// Positions behind which VGG-11, 13, 16 and 19 have pools, by their number of convolutions.
const VGG_POOLS: [(usize, [usize; 5]); 4] =
    [(8, [0, 1, 3, 5, 7]), (10, [1, 3, 5, 7, 9]), (13, [1, 3, 6, 9, 12]), (16, [1, 3, 7, 11, 15])];

/// Positions behind which `AlexNet` has pools.
const ALEXNET_POOLS: [usize; 3] = [0, 1, 4];

/// Most convolutions up to which every set of places for pools is tried.
pub(super) const FEW: usize = 4;

/// What follows such a stem.
pub(super) const STEM_POOL: Window = Window { kernel: [3, 3], stride: [2, 2], padding: [1, 1], dilation: [1, 1] };

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

impl ConvNet<'_> {
    /// Every way to make the image smaller that ends in what the first matrix reads.
    pub(super) fn plans(&self, shape: &Shape, given: &Settings) -> Vec<(Settings, Tail)> {
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
    pub(super) fn tail(&self, shape: &Shape, settings: &Settings) -> Option<Tail> {
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

pub(super) fn kernel(layer: &Layer<'_>) -> usize {
    match layer.module.kind {
        ModuleKind::Conv { kernel, .. } => kernel[0].max(kernel[1]),
        _ => 0,
    }
}

/// How the convolution at `index` moves its kernel.
pub(super) fn window(index: usize, layer: &Layer<'_>, settings: &Settings) -> Window {
    let kernel = kernel(layer);
    let dilation = settings.dilation.as_ref().and_then(|list| list.first()).copied().unwrap_or(1);
    let padding = padded(settings.padding.unwrap_or(Padding::Same), index, kernel) * dilation;
    let is_in = |places: &Vec<String>| places.contains(&layer.module.name);
    let strided = settings.pool == Some(Pool::Stride) && settings.pool_after.as_ref().is_some_and(is_in);
    let stem = settings.stem_stride.filter(|_| index == 0);
    let stride = stem.unwrap_or(if strided { 2 } else { 1 });
    Window { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], ..Window::square(kernel, 1, 0) }
}

pub(super) fn has_pool(layer: &Layer<'_>, settings: &Settings) -> bool {
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

pub(super) fn pool(settings: &Settings) -> Op {
    let window = pool_window(settings);
    match settings.pool {
        Some(Pool::Mean | Pool::MeanBeforeActivation | Pool::OverlappingMean) => Op::avg_pool2d(window),
        _ => Op::max_pool2d(window),
    }
}
