//! Operators that only rearrange elements: of constants and of values.

use super::constant::{Constant, MAX_AXES, place_of_axis};
use super::file::FileNode;
use super::file_tensor::FileTensor;
use super::folding::{reshaped, sliced};
use super::size::{Size, shown};
use super::value::Value;
use super::view::View;

/// Most parts that a value is split into.
const MAX_PARTS: usize = 1 << 10;

/// Integers of an attribute, or of the constant operand at `index`; none where there is neither.
pub(super) fn integers(
    node: &FileNode<'_>,
    attribute: &str,
    operands: &[Option<Value<'_>>],
    index: usize,
) -> Result<Option<Vec<i64>>, String> {
    match (node.integers(attribute), operands.get(index)) {
        (Some(values), _) => Ok(Some(values.to_vec())),
        (None, Some(Some(Value::Constant(values)))) => values.integers().map(Some),
        (None, Some(Some(_))) => Err(format!("its `{attribute}` depend on the input")),
        (None, _) => Ok(None),
    }
}

/// Whether an attribute that is a switch is on.
pub(super) fn switch(node: &FileNode<'_>, name: &str, default: bool) -> bool {
    node.integer(name).map_or(default, |value| value != 0)
}

/// The shape of a value, or a part of it.
pub(super) fn shape_of<'a>(node: &FileNode<'_>, name: &'a str, sizes: &[Size]) -> Result<Constant<'a>, String> {
    let end = node.integer("end").unwrap_or(i64::MAX);
    let places = sliced(node.integer("start").unwrap_or(0), end, 1, sizes.len())?;
    Constant::list(name, places.into_iter().map(|place| sizes[place]).collect())
}

/// An order of axes as it is written.
fn permutation(node: &FileNode<'_>, rank: usize) -> Result<Vec<usize>, String> {
    match node.integers("perm") {
        Some(order) => order.iter().map(|axis| place_of_axis(*axis, rank)).collect(),
        None => Ok((0..rank).rev().collect()),
    }
}

/// Begins, ends and steps of a Slice, by axis.
fn slices(
    node: &FileNode<'_>,
    operands: &[Option<Value<'_>>],
    rank: usize,
) -> Result<Vec<(usize, i64, i64, i64)>, String> {
    let list = |name: &str, index: usize| integers(node, name, operands, index);
    let missing = || "it does not say what to take".to_owned();
    let (begins, ends) = (list("starts", 1)?.ok_or_else(missing)?, list("ends", 2)?.ok_or_else(missing)?);
    let axes = list("axes", 3)?.unwrap_or_else(|| (0..begins.len() as i64).collect());
    let steps = list("steps", 4)?.unwrap_or_else(|| vec![1; begins.len()]);
    if begins.len() != ends.len() || begins.len() != axes.len() || begins.len() != steps.len() {
        return Err("its lists differ in length".to_owned());
    }
    let each = axes.iter().enumerate();
    each.map(|(index, axis)| Ok((place_of_axis(*axis, rank)?, begins[index], ends[index], steps[index]))).collect()
}

/// Sizes of the parts of a Split.
fn parts(node: &FileNode<'_>, operands: &[Option<Value<'_>>], size: usize) -> Result<Vec<usize>, String> {
    let count = node.outputs.len().max(1);
    let sizes: Option<Vec<usize>> = if let Some(sizes) = integers(node, "split", operands, 1)? {
        sizes.iter().map(|size| usize::try_from(*size).ok()).collect()
    } else {
        let each = size.div_ceil(count);
        (0..count).map(|part| size.checked_sub(part * each).map(|rest| rest.min(each))).collect()
    };
    let fits = |sizes: &Vec<usize>| {
        sizes.len() == count && sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size)) == Some(size)
    };
    sizes.filter(fits).ok_or_else(|| format!("its parts do not make the axis of {size}"))
}

/// The parts that a `SplitToSequence` makes.
pub(super) fn parts_of<'a>(node: &FileNode<'a>, operands: &[Option<Value<'a>>]) -> Result<Vec<Value<'a>>, String> {
    let sizes = match operands.first() {
        Some(Some(Value::Live(view))) => view.sizes(),
        Some(Some(Value::Constant(constant))) => constant.dims.clone(),
        _ => return Err("it has nothing to split".to_owned()),
    };
    let axis = place_of_axis(node.integer("axis").unwrap_or(0), sizes.len())?;
    let size = sizes[axis].usize().ok_or("the axis depends on the batch")?;
    let split = integers(node, "split", operands, 1)?;
    let each = match (split.as_deref(), operands.get(1)) {
        (None, _) => vec![1; size],
        (Some([one]), Some(Some(Value::Constant(own)))) if own.dims.is_empty() => {
            let one = usize::try_from(*one).ok().filter(|one| *one > 0).ok_or("a part is empty")?;
            (0..size.div_ceil(one)).map(|part| one.min(size - part * one)).collect()
        }
        (Some(sizes), _) => {
            let sizes: Option<Vec<usize>> = sizes.iter().map(|size| usize::try_from(*size).ok()).collect();
            sizes.ok_or("a part is empty")?
        }
    };
    if each.len() > MAX_PARTS {
        return Err(format!("more than {MAX_PARTS} parts are not read"));
    }
    let drop_axis = split.is_none() && !switch(node, "keepdims", true);
    let mut begin = 0;
    let mut parts = Vec::with_capacity(each.len());
    for size in each {
        let end = begin + size;
        let outside = || "its parts do not make the axis".to_owned();
        parts.push(match &operands[0] {
            Some(Value::Live(view)) => {
                let part = view.slice(axis, begin, end).ok_or_else(outside)?;
                Value::Live(if drop_axis { squeeze(&part, Some(vec![axis as i64]))? } else { part })
            }
            Some(Value::Constant(constant)) => {
                let part = constant.slice(axis, begin, size).ok_or_else(outside)?;
                Value::Constant(if drop_axis { part.squeeze(Some(&[axis as i64]))? } else { part })
            }
            _ => return Err(outside()),
        });
        begin = end;
    }
    Ok(parts)
}

/// The outputs of an operator that rearranges constants.
pub(super) fn of_constants<'a>(
    node: &'a FileNode<'a>,
    name: &'a str,
    operands: &[&Constant<'a>],
    tensors: &[&FileTensor<'_>],
) -> Result<Vec<Constant<'a>>, String> {
    let values: Vec<Option<Value<'_>>> =
        operands.iter().map(|constant| Some(Value::Constant((*constant).clone()))).collect();
    let list = |attribute: &str| integers(node, attribute, &values, 1);
    let Some(x) = operands.first() else { return Err(unknown(node)) };
    let result = match node.op {
        "Identity" | "Cast" => Ok((*x).clone()),
        "Shape" => shape_of(node, name, &x.dims),
        "Transpose" => x.transpose(&permutation(node, x.dims.len())?),
        "Unsqueeze" => x.unsqueeze(&list("axes")?.ok_or("it names no axes")?),
        "Squeeze" => x.squeeze(list("axes")?.as_deref()),
        "Reshape" => {
            let wanted = operands.get(1).ok_or("it has no shape")?.sizes()?;
            x.reshape(&reshaped(&x.dims, &wanted, switch(node, "allowzero", false))?)
        }
        "Expand" => x.expand(&operands.get(1).ok_or("it has no shape")?.sizes()?),
        "Flatten" => {
            let axis = x.axis(node.integer("axis").unwrap_or(1), 1)?;
            let (head, tail) = x.dims.split_at(axis);
            let product = |sizes: &[Size]| Size::product(sizes.iter().copied()).ok_or("its size overflows");
            x.reshape(&[product(head)?, product(tail)?])
        }
        "Slice" => {
            let mut part = (*x).clone();
            for (axis, begin, end, step) in slices(node, &values, x.dims.len())? {
                let size = part.dims[axis].usize().ok_or("the axis depends on the batch")?;
                part = part.take(axis, &sliced(begin, end, step, size)?, tensors)?;
            }
            Ok(part)
        }
        "Split" => {
            let axis = x.axis(node.integer("axis").unwrap_or(0), 0)?;
            let size = x.dims[axis].usize().ok_or("the axis depends on the batch")?;
            let mut begin = 0;
            let mut all = Vec::new();
            for size in parts(node, &values, size)? {
                all.push(x.slice(axis, begin, size).ok_or("a part is empty")?);
                begin += size;
            }
            return Ok(all);
        }
        _ => Err(unknown(node)),
    };
    // A tensor keeps its name, however it is turned; exporters give a tensor that is there twice its other name by Identity.
    let name = if node.op == "Identity" { name } else { x.name };
    result.map(|value| vec![Constant { name, ..value }])
}

fn unknown(node: &FileNode<'_>) -> String {
    let names: Vec<&str> = node.attribute_names().collect();
    format!("the operator is not one that is read of constants (attributes: {})", names.join(", "))
}

/// The outputs of an operator that rearranges a value; none where it is none of these.
pub(super) fn of_view<'a>(node: &FileNode<'a>, operands: &[Option<Value<'a>>]) -> Result<Option<Vec<View>>, String> {
    let Some(Some(Value::Live(x))) = operands.first() else { return Ok(None) };
    let rank = x.axes.len();
    let misfit = || format!("the value {} is taken apart in a way that is not read", shown(&x.sizes()));
    let view = match node.op {
        "Identity" => x.clone(),
        "Cast" => {
            let to = super::file_tensor::dtype(node.integer("to").unwrap_or_default());
            if !to.is_some_and(crate::model::header::Dtype::is_float) {
                return Err("it makes whole numbers of values".to_owned());
            }
            x.clone()
        }
        "Dropout" => {
            let training = operands.get(2).and_then(Option::as_ref);
            if let Some(Value::Constant(training)) = training
                && training.integers()? == [0]
            {
                x.clone()
            } else if training.is_some() {
                return Err("it drops values at random; export the network in evaluation mode".to_owned());
            } else {
                x.clone()
            }
        }
        "Transpose" => x.transpose(&permutation(node, rank)?).ok_or_else(misfit)?,
        "Reshape" => {
            let Some(Some(Value::Constant(wanted))) = operands.get(1) else {
                return Err("its shape depends on the input".to_owned());
            };
            let sizes = reshaped(&x.sizes(), &wanted.sizes()?, switch(node, "allowzero", false))?;
            reshape(x, &sizes)?
        }
        "Flatten" => {
            let axis = place_of_axis(node.integer("axis").unwrap_or(1), rank + 1)?;
            let sizes = x.sizes();
            let product = |sizes: &[Size]| Size::product(sizes.iter().copied()).ok_or("its size overflows");
            reshape(x, &[product(&sizes[..axis])?, product(&sizes[axis..])?])?
        }
        "Unsqueeze" => {
            let axes = integers(node, "axes", operands, 1)?.ok_or("it names no axes")?;
            let mut places =
                axes.iter().map(|axis| place_of_axis(*axis, rank + axes.len())).collect::<Result<Vec<_>, _>>()?;
            places.sort_unstable();
            let mut view = x.clone();
            if rank + places.len() > MAX_AXES {
                return Err(misfit());
            }
            for place in places {
                view.axes.insert(place.min(view.axes.len()), Vec::new());
            }
            view
        }
        "Squeeze" => squeeze(x, integers(node, "axes", operands, 1)?)?,
        "Expand" => {
            let Some(Some(Value::Constant(wanted))) = operands.get(1) else {
                return Err("its shape depends on the input".to_owned());
            };
            let (own, wanted) = (x.sizes(), wanted.sizes()?);
            let same = wanted.len() <= own.len()
                && wanted.iter().rev().zip(own.iter().rev()).all(|(wanted, own)| *wanted == Size::ONE || wanted == own);
            if !same {
                return Err(format!("it repeats a value of {} to {}", shown(&own), shown(&wanted)));
            }
            x.clone()
        }
        "Slice" => {
            let mut view = x.clone();
            for (axis, begin, end, step) in slices(node, operands, rank)? {
                // All of an axis, whatever its size.
                if begin == 0 && step == 1 && end >= i64::from(i32::MAX) {
                    continue;
                }
                let size = view.size(axis).usize().ok_or("it takes some examples of a batch")?;
                let places = sliced(begin, end, step, size)?;
                let neighbours = places.windows(2).all(|pair| pair[1] == pair[0] + 1);
                let begin = places.first().copied().filter(|_| neighbours).ok_or_else(misfit)?;
                view = view.slice(axis, begin, begin + places.len()).ok_or_else(misfit)?;
            }
            view
        }
        "Split" => {
            let axis = place_of_axis(node.integer("axis").unwrap_or(0), rank)?;
            let size = x.size(axis).usize().ok_or("it takes some examples of a batch")?;
            let mut begin = 0;
            let mut views = Vec::new();
            for size in parts(node, operands, size)? {
                views.push(x.slice(axis, begin, begin + size).ok_or_else(misfit)?);
                begin += size;
            }
            return Ok(Some(views));
        }
        "Gather" => gather(node, x, operands)?,
        _ => return Ok(None),
    };
    Ok(Some(vec![view]))
}

/// The value with other axes.
fn reshape(x: &View, sizes: &[Size]) -> Result<View, String> {
    let own = x.sizes();
    if sizes.len() > MAX_AXES {
        return Err(format!("more than {MAX_AXES} axes are not read"));
    }
    x.reshape(sizes).ok_or_else(|| format!("{} is reshaped to {}, which is not read", shown(&own), shown(sizes)))
}

fn squeeze(x: &View, axes: Option<Vec<i64>>) -> Result<View, String> {
    let rank = x.axes.len();
    let gone = match axes {
        Some(axes) => axes.iter().map(|axis| place_of_axis(*axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).filter(|axis| x.size(*axis) == Size::ONE).collect(),
    };
    if let Some(axis) = gone.iter().find(|axis| !x.axes[**axis].is_empty()) {
        return Err(format!(
            "axis {axis} of {} is taken away, but it is the batch or larger than 1",
            shown(&x.sizes())
        ));
    }
    let kept = x.axes.iter().enumerate().filter(|(axis, _)| !gone.contains(axis)).map(|(_, atoms)| atoms.clone());
    Ok(View { axes: kept.collect(), ..x.clone() })
}

/// One index of an axis.
fn gather(node: &FileNode<'_>, x: &View, operands: &[Option<Value<'_>>]) -> Result<View, String> {
    let axis = place_of_axis(node.integer("axis").unwrap_or(0), x.axes.len())?;
    let Some(Some(Value::Constant(at))) = operands.get(1) else {
        return Err("its indices depend on the input".to_owned());
    };
    // What PyTorch's `as_strided` becomes, where it changes nothing but the axes.
    if x.axes.len() == 1 && at.is_enumeration() {
        return reshape(x, &at.dims);
    }
    let size = x.size(axis).usize().ok_or("it takes some examples of a batch")?;
    let [index] = at.integers()?[..] else {
        return Err("it takes several indices of an axis".to_owned());
    };
    let index = place_of_axis(index, size)?;
    let mut view = x.slice(axis, index, index + 1).ok_or("the value is taken apart in a way that is not read")?;
    match at.dims.len() {
        0 => {
            view.axes.remove(axis);
        }
        1 => {}
        _ => return Err("its index has several axes".to_owned()),
    }
    Ok(view)
}
