//! Operations with weights per channel, on the channels of one member.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::fusion::reference::feature_map::FeatureMap;
use crate::model::graph::Op;

/// Applies `op` with its `tensors` to `x`; what comes out has as many channels. Sums are taken in f64.
pub(super) fn apply(op: &Op, x: FeatureMap, tensors: &[Cow<'_, [f32]>]) -> Vec<f32> {
    let (channels, positions, example) = (x.channels, x.positions(), x.example());
    let mut values = x.values;
    match op {
        Op::ClassToken { .. } => return with_token(&values, positions, &tensors[0]),
        Op::PositionalEmbedding { .. } => each(&mut values, example, |x| add_transposed(x, positions, &tensors[0])),
        Op::LayerScale { .. } => each(&mut values, example, |x| affine(x, positions, |c| (tensors[0][c].into(), 0.0))),
        Op::BatchNorm { affine: learned, eps, .. } => each(&mut values, example, |x| {
            affine(x, positions, |c| {
                let first = if *learned { 2 } else { 0 };
                let of = |tensor: usize| f64::from(tensors[tensor][c]);
                let (weight, bias) = if *learned { (of(0), of(1)) } else { (1.0, 0.0) };
                let (mean, var) = (of(first), of(first + 1));
                let factor = weight / (var + eps).sqrt();
                (factor, bias - mean * factor)
            });
        }),
        Op::LayerNorm { eps, .. } => each(&mut values, example, |x| {
            over_channels(x, positions, |column| standardise(column, *eps));
            scale_and_shift(x, positions, tensors);
        }),
        Op::GlobalResponseNorm { eps, .. } => each(&mut values, example, |x| {
            let norm = |channel: &[f32]| channel.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let norms: Vec<f64> = x.chunks_exact(positions).map(norm).collect();
            let mean = norms.iter().sum::<f64>() / channels as f64 + eps;
            affine(x, positions, |c| (1.0 + f64::from(tensors[0][c]) * norms[c] / mean, tensors[1][c].into()));
        }),
        Op::GroupNorm { group_width, eps, .. } => each(&mut values, example, |x| {
            let groups = x.chunks_exact_mut(group_width.unwrap_or(channels) * positions);
            groups.for_each(|group| standardise(group, *eps));
            scale_and_shift(x, positions, tensors);
        }),
        _ => each(&mut values, example, |x| over_channels(x, positions, softmax)),
    }
    values
}

/// Works on every example by itself.
fn each(values: &mut [f32], example: usize, work: impl Fn(&mut [f32]) + Send + Sync) {
    values.par_chunks_exact_mut(example).for_each(work);
}

/// `factor x + summand`, by channel.
fn affine(x: &mut [f32], positions: usize, of_channel: impl Fn(usize) -> (f64, f64)) {
    for (c, channel) in x.chunks_exact_mut(positions).enumerate() {
        let (factor, summand) = of_channel(c);
        for value in channel {
            *value = (f64::from(*value) * factor + summand) as f32;
        }
    }
}

fn scale_and_shift(x: &mut [f32], positions: usize, tensors: &[Cow<'_, [f32]>]) {
    affine(x, positions, |c| (tensors[0][c].into(), tensors[1][c].into()));
}

/// Hands the channels of every position to `work`.
fn over_channels(x: &mut [f32], positions: usize, work: impl Fn(&mut [f32])) {
    let mut column = vec![0.0; x.len() / positions];
    for position in 0..positions {
        let places = || (position..x.len()).step_by(positions);
        column.iter_mut().zip(places()).for_each(|(value, place)| *value = x[place]);
        work(&mut column);
        places().zip(&column).for_each(|(place, value)| x[place] = *value);
    }
}

/// Mean 0, variance 1.
fn standardise(values: &mut [f32], eps: f64) {
    let count = values.len() as f64;
    let mean = values.iter().copied().map(f64::from).sum::<f64>() / count;
    let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    let factor = 1.0 / (variance + eps).sqrt();
    for value in values {
        *value = ((f64::from(*value) - mean) * factor) as f32;
    }
}

/// Positive values with sum 1.
pub(super) fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in values.iter_mut() {
        let exponential = f64::from(*value - largest).exp();
        sum += exponential;
        *value = exponential as f32;
    }
    for value in values {
        *value = (f64::from(*value) / sum) as f32;
    }
}

/// One more token before the others: N x C x (T + 1).
fn with_token(values: &[f32], tokens: usize, token: &[f32]) -> Vec<f32> {
    let channels = values.chunks_exact(tokens).zip(token.iter().cycle());
    channels.flat_map(|(channel, first)| std::iter::once(*first).chain(channel.iter().copied())).collect()
}

/// Adds an embedding of shape (tokens x channels) to channels x tokens.
fn add_transposed(x: &mut [f32], tokens: usize, embedding: &[f32]) {
    let channels = x.len() / tokens;
    for (c, channel) in x.chunks_exact_mut(tokens).enumerate() {
        channel.iter_mut().enumerate().for_each(|(t, value)| *value += embedding[t * channels + c]);
    }
}
