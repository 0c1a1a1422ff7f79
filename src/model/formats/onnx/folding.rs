//! Operators whose operands are all constants, most of them computations of shapes, carried out while the file is read.

use std::cmp::Ordering;

use super::constant::{Buffer, Constant, MAX_SMALL, place_of_axis};
use super::file::FileNode;
use super::file_tensor::FileTensor;
use super::size::{AxisSize, shown};
use super::value::OnnxValue;

/// Operators whose values are true or not.
const COMPARISONS: [&str; 5] = ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"];

/// The value of an elementwise operator on constants; none where the operator is none of these.
pub(super) fn elementwise<'a>(
    op: &str,
    name: &'a str,
    operands: &[&Constant<'a>],
    tensors: &[&FileTensor<'_>],
) -> Result<Option<Constant<'a>>, String> {
    let whole = operands.iter().all(|operand| matches!(operand.buffer, Buffer::Sizes(_)));
    if operands.iter().any(|operand| operand.buffer == Buffer::Counting) {
        return if matches!(op, "Add" | "Mul") { indices(op, name, operands).map(Some) } else { Ok(None) };
    }
    match (op, operands) {
        ("Where", [condition, yes, no]) => {
            let shape = broadcast(&[condition, yes, no])?;
            let condition = condition.expand(&shape)?.sizes()?;
            let choose = |index: usize| condition.get(index).is_some_and(|chosen| chosen.factor != 0);
            if let (Ok(yes), Ok(no)) = (yes.expand(&shape)?.sizes(), no.expand(&shape)?.sizes()) {
                let all = yes.into_iter().zip(no).enumerate();
                let chosen = all.map(|(index, (yes, no))| if choose(index) { yes } else { no }).collect();
                return Constant::of_sizes(name, shape, chosen).map(Some);
            }
            let (yes, no) = (yes.expand(&shape)?.floats(tensors)?, no.expand(&shape)?.floats(tensors)?);
            let all = yes.into_iter().zip(no).enumerate();
            let chosen = all.map(|(index, (yes, no))| if choose(index) { yes } else { no }).collect();
            Constant::of_floats(name, shape, chosen).map(Some)
        }
        (_, [x]) => {
            let function: fn(f64) -> f64 = match op {
                "Sqrt" => f64::sqrt,
                "Reciprocal" => |x| 1.0 / x,
                "Exp" => f64::exp,
                "Log" => f64::ln,
                "Neg" => |x| -x,
                "Floor" => f64::floor,
                "Abs" => f64::abs,
                "Sign" => |x| if x == 0.0 { 0.0 } else { x.signum() },
                "Ceil" => f64::ceil,
                "Not" => |x| f64::from(x == 0.0),
                _ => return Ok(None),
            };
            let values: Vec<f64> = x.floats(tensors)?.into_iter().map(function).collect();
            if whole && matches!(op, "Neg" | "Not") {
                let sizes = values.into_iter().map(|value| AxisSize::of(value as i64)).collect();
                return Constant::of_sizes(name, x.dims.clone(), sizes).map(Some);
            }
            Constant::of_floats(name, x.dims.clone(), values).map(Some)
        }
        (_, [a, b]) if whole => {
            if !matches!(op, "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Min" | "Max") && !COMPARISONS.contains(&op) {
                return Ok(None);
            }
            let shape = broadcast(operands)?;
            let pairs = a.expand(&shape)?.sizes()?.into_iter().zip(b.expand(&shape)?.sizes()?);
            let unknown = |a: AxisSize, b: AxisSize| format!("{op} of {a} and {b} depends on the batch, or overflows");
            let sizes: Result<Vec<AxisSize>, String> =
                pairs.map(|(a, b)| of_sizes(op, a, b).ok_or_else(|| unknown(a, b))).collect();
            Constant::of_sizes(name, shape, sizes?).map(Some)
        }
        (_, [a, b]) => {
            let function: fn(f64, f64) -> f64 = match op {
                "Add" => |a, b| a + b,
                "Sub" => |a, b| a - b,
                "Mul" => |a, b| a * b,
                "Div" => |a, b| a / b,
                "Pow" => f64::powf,
                "Equal" => |a, b| f64::from(a.partial_cmp(&b) == Some(Ordering::Equal)),
                "Less" => |a, b| f64::from(a < b),
                "LessOrEqual" => |a, b| f64::from(a <= b),
                "Greater" => |a, b| f64::from(a > b),
                "GreaterOrEqual" => |a, b| f64::from(a >= b),
                "Min" => f64::min,
                "Max" => f64::max,
                _ => return Ok(None),
            };
            let shape = broadcast(operands)?;
            let pairs = a.expand(&shape)?.floats(tensors)?.into_iter().zip(b.expand(&shape)?.floats(tensors)?);
            if COMPARISONS.contains(&op) {
                let truths = pairs.map(|(a, b)| AxisSize::of(function(a, b) as i64)).collect();
                return Constant::of_sizes(name, shape, truths).map(Some);
            }
            Constant::of_floats(name, shape, pairs.map(|(a, b)| function(a, b)).collect()).map(Some)
        }
        _ => Ok(None),
    }
}

/// A constant within bounds, each of which may be missing.
pub(super) fn clipped<'a>(
    name: &'a str,
    x: &Constant<'a>,
    bounds: &[Option<OnnxValue<'a>>],
    tensors: &[&FileTensor<'_>],
) -> Result<Constant<'a>, String> {
    let mut value = Constant { name, ..x.clone() };
    for (op, bound) in ["Max", "Min"].into_iter().zip(bounds) {
        match bound {
            None => {}
            Some(OnnxValue::Constant(bound)) => {
                let within = elementwise(op, name, &[&value, bound], tensors)?;
                value = within.ok_or("its bounds are not read")?;
            }
            Some(_) => return Err("its bounds depend on the input".to_owned()),
        }
    }
    Ok(value)
}

/// Sums and multiples of indices that are counted through.
fn indices<'a>(op: &str, name: &'a str, operands: &[&Constant<'a>]) -> Result<Constant<'a>, String> {
    let [a, b] = operands else { return Err(format!("{op} of indices is not read")) };
    let one = |constant: &Constant<'_>| match constant.integers().as_deref() {
        Ok([factor]) if constant.dims.is_empty() => Some(*factor),
        _ => None,
    };
    let result = match (op, one(a), one(b)) {
        ("Mul", _, Some(factor)) => a.counting_times(factor),
        ("Mul", Some(factor), _) => b.counting_times(factor),
        ("Add", _, _) => {
            let shape = broadcast(operands)?;
            a.as_counting().zip(b.as_counting()).and_then(|(a, b)| a.counting_plus(&b, &shape))
        }
        _ => None,
    };
    result.map(|constant| Constant { name, ..constant }).ok_or_else(|| format!("{op} of these indices is not read"))
}

/// A whole number from two; none where it depends on the batch.
fn of_sizes(op: &str, a: AxisSize, b: AxisSize) -> Option<AxisSize> {
    let truth = |is: bool| Some(AxisSize::of(is.into()));
    if op == "Mul" {
        return a.times(b);
    }
    if let (Some(a), Some(b)) = (a.known(), b.known()) {
        return match op {
            "Add" => a.checked_add(b).map(AxisSize::of),
            "Sub" => a.checked_sub(b).map(AxisSize::of),
            "Div" => a.checked_div(b).map(AxisSize::of),
            "Mod" => a.checked_rem_euclid(b).map(AxisSize::of),
            "Min" => Some(AxisSize::of(a.min(b))),
            "Max" => Some(AxisSize::of(a.max(b))),
            "Equal" => truth(a == b),
            "Less" => truth(a < b),
            "LessOrEqual" => truth(a <= b),
            "Greater" => truth(a > b),
            _ => truth(a >= b),
        };
    }
    match op {
        "Div" => a.over(b),
        "Equal" if a == b => truth(true),
        // There is at least one example.
        "Equal" if a.factor > 0 && b.factor <= 0 || b.factor > 0 && a.factor <= 0 => truth(false),
        "Add" if a.factor == 0 => Some(b),
        "Add" | "Sub" if b.factor == 0 => Some(a),
        _ => None,
    }
}

/// The shape that operands have together.
fn broadcast(operands: &[&Constant<'_>]) -> Result<Vec<AxisSize>, String> {
    let rank = operands.iter().map(|operand| operand.dims.len()).max().unwrap_or(0);
    let mut shape = vec![AxisSize::ONE; rank];
    for operand in operands {
        for (size, dim) in shape.iter_mut().rev().zip(operand.dims.iter().rev()) {
            if *size == AxisSize::ONE {
                *size = *dim;
            } else if *dim != AxisSize::ONE && dim != size {
                return Err(format!("{} does not meet {}", shown(&operand.dims), shown(&shape)));
            }
        }
    }
    Ok(shape)
}

/// The value of an operator that makes or rearranges lists of numbers; none where it is none of these.
pub(super) fn list<'a>(
    node: &FileNode<'_>,
    name: &'a str,
    operands: &[&Constant<'a>],
    tensors: &[&FileTensor<'_>],
) -> Result<Option<Constant<'a>>, String> {
    match (node.op, operands) {
        ("Concat", parts) if !parts.is_empty() => concat(node, name, parts, tensors).map(Some),
        ("Gather", [from, at]) => {
            let axis = from.axis(node.integer("axis").unwrap_or(0), 0)?;
            let size = from.dims[axis].usize().ok_or("the axis depends on the batch")?;
            let places = at.integers()?;
            let places = places.iter().map(|place| place_of_axis(*place, size));
            let places: Vec<usize> = places.collect::<Result<_, _>>()?;
            let picked = from.take(axis, &places, tensors)?;
            // The axis becomes those of the indices.
            let dims = [&from.dims[..axis], &at.dims, &from.dims[axis + 1..]].concat();
            picked.reshape(&dims).map(|picked| Some(Constant { name, ..picked }))
        }
        ("Range", [begin, end, step]) => {
            if let (Ok([begin]), Ok([end]), Ok([step])) =
                (begin.sizes().as_deref(), end.sizes().as_deref(), step.sizes().as_deref())
                && (*begin, *step) == (AxisSize::of(0), AxisSize::ONE)
                && end.batch
            {
                return Ok(Some(Constant::counting(name, *end)));
            }
            let number = |of: &Constant<'_>| of.integers().map(|list| list.first().copied().unwrap_or(0));
            let (begin, end, step) = (number(begin)?, number(end)?, number(step)?);
            let count = end.checked_sub(begin).and_then(|span| span.checked_div(step));
            let count = count.and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= MAX_SMALL);
            let exact = count.filter(|count| begin + *count as i64 * step == end).ok_or("a range that is not read")?;
            Constant::list(name, (0..exact).map(|index| AxisSize::of(begin + index as i64 * step)).collect()).map(Some)
        }
        ("ConstantOfShape", [shape]) => {
            let dims = shape.sizes()?;
            let value = node.tensor("value");
            let float = value.is_none_or(|tensor| tensor.dtype.is_float());
            let filled = match value {
                Some(tensor) => Constant::stored(name, tensor, usize::MAX)?,
                None => Constant::of_floats(name, vec![AxisSize::ONE], vec![0.0])?,
            };
            let filled = match (value, float) {
                (Some(tensor), true) => {
                    let held = [tensor];
                    let first = Constant { buffer: Buffer::Stored(0), ..filled }.floats(&held)?;
                    Constant::of_floats(name, vec![AxisSize::ONE], first)?
                }
                _ => filled,
            };
            if filled.count() != Some(1) {
                return Err("expected one value".to_owned());
            }
            filled.reshape(&[])?.expand(&dims).map(Some)
        }
        ("ReduceProd", [x]) if x.dims.len() == 1 => {
            let all = AxisSize::product(x.sizes()?).ok_or("the product overflows")?;
            let dims = if node.integer("keepdims").unwrap_or(1) == 1 { vec![AxisSize::ONE] } else { Vec::new() };
            Constant::of_sizes(name, dims, vec![all]).map(Some)
        }
        ("Size", [x]) => {
            let all = AxisSize::product(x.dims.iter().copied()).ok_or("the product overflows")?;
            Constant::of_sizes(name, Vec::new(), vec![all]).map(Some)
        }
        _ => Ok(None),
    }
}

fn concat<'a>(
    node: &FileNode<'_>,
    name: &'a str,
    parts: &[&Constant<'a>],
    tensors: &[&FileTensor<'_>],
) -> Result<Constant<'a>, String> {
    let axis = parts[0].axis(node.integer("axis").ok_or("there is no axis")?, 0)?;
    let mut dims = parts[0].dims.clone();
    let counts = parts.iter().map(|part| part.dims.get(axis)?.known());
    let counts = counts.into_iter().try_fold(0_i64, |sum, count| sum.checked_add(count?));
    let total = counts.filter(|total| *total <= MAX_SMALL as i64).ok_or("the sizes are not known, or too large")?;
    let others = |part: &Constant<'_>| {
        part.dims.len() == dims.len() && (0..dims.len()).all(|other| other == axis || part.dims[other] == dims[other])
    };
    if !parts.iter().all(|part| others(part)) {
        return Err("the operands' shapes differ".to_owned());
    }
    let outer =
        AxisSize::product(dims[..axis].iter().copied()).and_then(AxisSize::usize).ok_or("the sizes are not known")?;
    dims[axis] = AxisSize::of(total);
    if parts.iter().all(|part| matches!(part.buffer, Buffer::Sizes(_))) {
        let lists = parts.iter().map(|part| part.sizes()).collect::<Result<Vec<_>, _>>()?;
        return Constant::of_sizes(name, dims, interleaved(&lists, outer));
    }
    let lists = parts.iter().map(|part| part.floats(tensors)).collect::<Result<Vec<_>, _>>()?;
    Constant::of_floats(name, dims, interleaved(&lists, outer))
}

/// Lists one behind the other, `outer` times a part of each.
fn interleaved<T: Copy>(lists: &[Vec<T>], outer: usize) -> Vec<T> {
    let part = |at: usize| lists.iter().filter_map(move |list| list.chunks((list.len() / outer.max(1)).max(1)).nth(at));
    (0..outer).flat_map(part).flatten().copied().collect()
}

/// The sizes that a Reshape names, with 0 and -1 resolved.
pub(super) fn reshaped(own: &[AxisSize], wanted: &[AxisSize], allow_zero: bool) -> Result<Vec<AxisSize>, String> {
    let mut sizes = Vec::with_capacity(wanted.len());
    for (axis, size) in wanted.iter().enumerate() {
        if size.known() == Some(0) && !allow_zero {
            sizes.push(*own.get(axis).ok_or("a size 0 stands where there is no axis")?);
        } else {
            sizes.push(*size);
        }
    }
    let open: Vec<usize> = (0..sizes.len()).filter(|axis| sizes[*axis].known() == Some(-1)).collect();
    let all = AxisSize::product(own.iter().copied()).ok_or("its size overflows")?;
    if let [axis] = open[..] {
        let others =
            AxisSize::product(sizes.iter().enumerate().filter(|(other, _)| *other != axis).map(|(_, size)| *size));
        let rest = others.and_then(|others| all.over(others));
        sizes[axis] = rest.ok_or_else(|| format!("{} does not reshape to {}", shown(own), shown(wanted)))?;
    }
    if sizes.iter().any(|size| size.factor < 1) {
        return Err(format!("{} is no shape", shown(wanted)));
    }
    Ok(sizes)
}

/// The indices that a Slice takes of an axis of `size`, from `begin` to before `end`.
pub(super) fn sliced(begin: i64, end: i64, step: i64, size: usize) -> Result<Vec<usize>, String> {
    let own = size as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(own) } else { at };
    // Backwards, the first index is there and the last may be before all.
    let (low, high) = if step > 0 { (0, own) } else { (-1, own - 1) };
    let (begin, end) = (from_end(begin).clamp(low, high), from_end(end).clamp(low, high));
    let span = if step > 0 { end - begin } else { begin - end };
    let stride = step.unsigned_abs();
    if stride == 0 || size > MAX_SMALL {
        return Err("it takes its indices in steps of 0, or too many".to_owned());
    }
    let count = span.max(0).unsigned_abs().div_ceil(stride);
    Ok((0..count).filter_map(|index| usize::try_from(begin + step * index as i64).ok()).collect())
}
