//! From the shapes of an operation's operands to the shape of its output.

use super::{BlurWindow, Convolution, MAX_ELEMENTS, Op, PoolKind, Pooling, Shape, Window};

/// Largest size, step, rim or dilation of a window.
const MAX_WINDOW: usize = 1 << 16;

/// The largest filter and step of a blur pool.
const MAX_BLUR: usize = 64;

/// Shape of the output of `op`, from the shapes of as many operands as [`Op::arity`] allows; else what was expected and
/// what came.
pub(super) fn output(op: &Op, inputs: &[&Shape]) -> Result<Shape, String> {
    if let Some(conv) = op.convolution() {
        return convolution(&conv, inputs[0], matches!(op, Op::Conv1d { .. }));
    }
    if let Some(of_windows) = op.pool() {
        return pool(&of_windows, inputs[0], matches!(op, Op::MaxPool1d { .. } | Op::AvgPool1d { .. }));
    }
    match op {
        Op::Input { shape } if (1..=3).contains(&shape.len()) && !shape.contains(&0) => Ok(shape.clone()),
        Op::Input { shape } => Err(format!("expected [D], [C, L] or [C, H, W] with positive sizes, got {shape:?}")),
        Op::Linear { in_features, out_features, .. } => {
            width("input features", *in_features, inputs[0])?;
            Ok(with_channels(*out_features, inputs[0]))
        }
        Op::BatchNorm { features, eps, .. }
        | Op::LayerNorm { features, eps }
        | Op::GlobalResponseNorm { features, eps } => {
            positive(*eps)?;
            width("channels", *features, inputs[0]).cloned()
        }
        Op::GroupNorm { group_width, features, eps } => {
            positive(*eps)?;
            parts(group_width.unwrap_or(*features), *features, "channels")?;
            width("channels", *features, inputs[0]).cloned()
        }
        Op::LayerScale { features, unit_axes } => {
            if *unit_axes > 2 {
                return Err(format!("expected at most 2 axes of length 1, got {unit_axes}"));
            }
            width("channels", *features, inputs[0]).cloned()
        }
        Op::AdaptiveAvgPool2d { output } | Op::AdaptiveMaxPool2d { output } => {
            let [c, _, _] = image(inputs[0])?;
            Ok(vec![c, output[0], output[1]])
        }
        Op::BlurPool2d { .. } => blur_pool(op, inputs[0]),
        Op::GlobalAvgPool2d if inputs[0].len() > 1 => {
            Ok(inputs[0].iter().take(1).copied().chain(vec![1; inputs[0].len() - 1]).collect())
        }
        Op::GlobalAvgPool2d => Err(format!("expected an input of shape [C, L] or [C, H, W], got {:?}", inputs[0])),
        Op::Flatten => Ok(vec![inputs[0].iter().product()]),
        Op::Reshape { positions } => reshape(positions, inputs[0]),
        Op::ZeroPad { begin, end } => zero_pad(begin, end, inputs[0]),
        Op::Zeros { features } => Ok(with_channels(*features, inputs[0])),
        Op::Add if inputs[0] == inputs[1] => Ok(inputs[0].clone()),
        Op::Add => Err(format!("expected operands of one shape, got {:?} and {:?}", inputs[0], inputs[1])),
        Op::Multiply => multiply(inputs[0], inputs[1]),
        Op::Concat => concat(inputs),
        Op::Dropout { p } if (0.0..1.0).contains(p) => Ok(inputs[0].clone()),
        Op::Dropout { p } => Err(format!("expected a probability from 0 to below 1, got {p}")),
        Op::LeakyRelu { negative_slope } if !negative_slope.is_finite() => {
            Err(format!("expected a finite negative_slope, got {negative_slope}"))
        }
        Op::Elu { alpha } if !alpha.is_finite() => Err(format!("expected a finite alpha, got {alpha}")),
        Op::Scale { factor } if !factor.is_finite() => Err(format!("expected a finite factor, got {factor}")),
        _ => tokens_or_elementwise(op, inputs[0]),
    }
}

/// The operations of transformers; all others left keep the shape.
fn tokens_or_elementwise(op: &Op, input: &Shape) -> Result<Shape, String> {
    match op {
        Op::ClassToken { features } => {
            let [_, tokens] = line(width("channels", *features, input)?)?;
            Ok(vec![*features, tokens + 1])
        }
        Op::PositionalEmbedding { tokens, features } if *input == [*features, *tokens] => Ok(input.clone()),
        Op::PositionalEmbedding { tokens, features } => {
            Err(format!("expected an input of shape [{features}, {tokens}] ([C, T]), got {input:?}"))
        }
        Op::Attention { features, heads, .. } => {
            if *heads == 0 || !features.is_multiple_of(*heads) {
                return Err(format!("expected a number of heads that divides {features} channels, got {heads}"));
            }
            let [_, tokens] = line(width("channels", *features, input)?)?;
            match tokens.checked_mul(tokens).and_then(|scores| scores.checked_mul(*heads)) {
                Some(scores) if scores <= MAX_ELEMENTS => Ok(input.clone()),
                _ => Err(format!("{tokens} tokens and {heads} heads make more than {MAX_ELEMENTS} scores")),
            }
        }
        Op::TokenMean => line(input).map(|[c, _]| vec![c]),
        Op::TokenSelect { index } => match line(input)? {
            [c, tokens] if *index < tokens => Ok(vec![c]),
            [_, tokens] => Err(format!("expected the index of one of {tokens} tokens, got {index}")),
        },
        _ => Ok(input.clone()),
    }
}

fn with_channels(channels: usize, shape: &Shape) -> Shape {
    std::iter::once(channels).chain(shape[1..].iter().copied()).collect()
}

fn image(shape: &Shape) -> Result<[usize; 3], String> {
    shape[..].try_into().map_err(|_| format!("expected an input of shape [C, H, W], got {shape:?}"))
}

fn line(shape: &Shape) -> Result<[usize; 2], String> {
    shape[..].try_into().map_err(|_| format!("expected an input of shape [C, L], got {shape:?}"))
}

/// Checks the channels of `input`, and hands it on.
fn width<'a>(what: &str, expected: usize, input: &'a Shape) -> Result<&'a Shape, String> {
    if expected == input[0] {
        Ok(input)
    } else {
        Err(format!("expected {expected} {what}, got {} (an input of shape {input:?})", input[0]))
    }
}

fn positive(eps: f64) -> Result<(), String> {
    if eps >= 0.0 && eps.is_finite() { Ok(()) } else { Err(format!("expected an eps of at least 0, got {eps}")) }
}

/// Number of groups of `of_one` each that make `all`.
fn parts(of_one: usize, all: usize, what: &str) -> Result<usize, String> {
    match all.checked_div(of_one) {
        Some(groups) if groups * of_one == all => Ok(groups),
        _ => Err(format!("expected a multiple of {of_one} {what}, got {all}")),
    }
}

/// Height and width of `input`; a sequence is an image of height 1.
fn size(input: &Shape, sequence: bool) -> Result<[usize; 2], String> {
    if sequence { line(input).map(|[_, l]| [1, l]) } else { image(input).map(|[_, h, w]| [h, w]) }
}

fn positions([height, width]: [usize; 2], channels: usize, sequence: bool) -> Shape {
    if sequence { vec![channels, width] } else { vec![channels, height, width] }
}

fn check_window(window: &Window) -> Result<(), String> {
    if [window.stride, window.kernel, window.dilation].iter().any(|pair| pair.contains(&0)) {
        return Err("kernel, stride and dilation must be at least 1".to_owned());
    }
    let sizes = [window.stride, window.kernel, window.dilation, window.padding];
    match sizes.into_iter().flatten().find(|&size| size > MAX_WINDOW) {
        Some(size) => Err(format!("kernel, stride, padding and dilation must be at most {MAX_WINDOW}, got {size}")),
        None => Ok(()),
    }
}

fn misfit(window: &Window, [h, w]: [usize; 2]) -> String {
    format!("the window {:?} (dilation {:?}) does not fit into {h} x {w}", window.kernel, window.dilation)
}

fn convolution(conv: &Convolution, input: &Shape, sequence: bool) -> Result<Shape, String> {
    let before = size(input, sequence)?;
    width("input channels", conv.in_channels, input)?;
    let groups = parts(conv.inputs_of_one(), conv.in_channels, "input channels")?;
    if !conv.out_channels.is_multiple_of(groups) {
        return Err(format!("expected output channels for {groups} groups alike, got {}", conv.out_channels));
    }
    check_window(&conv.window)?;
    let after = conv.window.output(before).ok_or_else(|| misfit(&conv.window, before))?;
    Ok(positions(after, conv.out_channels, sequence))
}

fn pool(pool: &Pooling, input: &Shape, sequence: bool) -> Result<Shape, String> {
    let (window, before) = (&pool.window, size(input, sequence)?);
    check_window(window)?;
    if window.kernel.iter().zip(window.padding).any(|(kernel, padding)| padding > kernel / 2) {
        return Err(format!("padding {:?} is more than half of the window {:?}", window.padding, window.kernel));
    }
    if matches!(pool.kind, PoolKind::Mean { .. }) && window.dilation != [1, 1] {
        return Err(format!("a mean over windows has no dilation, got {:?}", window.dilation));
    }
    let after = window.output_with(before, pool.ceil_mode).ok_or_else(|| misfit(window, before))?;
    Ok(positions(after, input[0], sequence))
}

fn blur_pool(op: &Op, input: &Shape) -> Result<Shape, String> {
    let ([c, h, w], blur) = (image(input)?, op.blur());
    let blur = blur.filter(|blur| (2..=MAX_BLUR).contains(&blur.kernel) && (1..=MAX_BLUR).contains(&blur.stride));
    let Some(BlurWindow { kernel, stride, padding }) = blur else {
        return Err(format!("expected a kernel from 2 to {MAX_BLUR} and a stride from 1 to {MAX_BLUR}"));
    };
    if padding >= h.min(w) {
        return Err(format!("an image of {h} x {w} is too small to be reflected over a rim of {padding}"));
    }
    let window = Window::square(kernel, stride, padding);
    let [height, width] = window.output([h, w]).ok_or_else(|| misfit(&window, [h, w]))?;
    Ok(vec![c, height, width])
}

fn reshape(positions: &[usize], input: &Shape) -> Result<Shape, String> {
    let elements: usize = input.iter().product();
    let per_channel = positions.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis)).unwrap_or(0);
    if positions.len() > 2 || per_channel == 0 || !elements.is_multiple_of(per_channel) {
        return Err(format!(
            "{elements} values (an input of shape {input:?}) do not fall into positions {positions:?}"
        ));
    }
    Ok(std::iter::once(elements / per_channel).chain(positions.iter().copied()).collect())
}

fn zero_pad(begin: &[usize], end: &[usize], input: &Shape) -> Result<Shape, String> {
    let axes = input.len() - 1;
    if axes == 0 || begin.len() != axes || end.len() != axes {
        return Err(format!("expected `begin` and `end` for each of the {axes} axes behind the channels of {input:?}"));
    }
    if let Some(size) = begin.iter().chain(end).find(|size| **size > MAX_WINDOW) {
        return Err(format!("expected at most {MAX_WINDOW} zeros on each side, got {size}"));
    }
    let wide = input[1..].iter().zip(begin).zip(end).map(|((size, begin), end)| size.saturating_add(begin + end));
    Ok(std::iter::once(input[0]).chain(wide).collect())
}

fn multiply(left: &Shape, right: &Shape) -> Result<Shape, String> {
    let single = |shape: &Shape| shape[1..].iter().all(|&axis| axis == 1);
    if left[0] == right[0] && left.len() == right.len() {
        if left == right || single(right) {
            return Ok(left.clone());
        }
        if single(left) {
            return Ok(right.clone());
        }
    }
    Err(format!("expected operands of one shape, or one with a single position, got {left:?} and {right:?}"))
}

fn concat(inputs: &[&Shape]) -> Result<Shape, String> {
    if let Some(other) = inputs.iter().find(|shape| shape[1..] != inputs[0][1..]) {
        return Err(format!("expected operands that differ in their channels only, got {:?} and {other:?}", inputs[0]));
    }
    let channels = inputs.iter().try_fold(0_usize, |sum, shape| sum.checked_add(shape[0]));
    Ok(with_channels(channels.unwrap_or(usize::MAX), inputs[0]))
}
