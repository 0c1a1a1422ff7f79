//! Operators that only rearrange elements: of constants and of values.

use super::constant::{Constant, MAX_AXES, place_of_axis};
use super::file::FileNode;
use super::file_tensor::FileTensor;
use super::folding::{reshaped, sliced};
use super::operands::{integers, switch};
use super::size::{AxisSize, shown};
use super::splits::{parts, slices, squeeze};
use super::value::OnnxValue;
use super::view::{Atom, ValueView, ViewAxis};

/// The shape of a value, or a part of it.
pub(super) fn shape_of<'a>(node: &FileNode<'_>, name: &'a str, sizes: &[AxisSize]) -> Result<Constant<'a>, String> {
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

/// The outputs of an operator that rearranges constants.
pub(super) fn of_constants<'a>(
    node: &'a FileNode<'a>,
    name: &'a str,
    operands: &[&Constant<'a>],
    tensors: &[&FileTensor<'_>],
) -> Result<Vec<Constant<'a>>, String> {
    let values: Vec<Option<OnnxValue<'_>>> =
        operands.iter().map(|constant| Some(OnnxValue::Constant((*constant).clone()))).collect();
    let list = |attribute: &str| integers(node, attribute, &values, 1);
    let Some(x) = operands.first() else { return Err(unknown(node)) };
    let result = match node.op {
        "Identity" => Ok((*x).clone()),
        "Cast" => {
            let to = super::file_tensor::dtype(node.integer("to").unwrap_or_default());
            x.cast(to.is_none_or(crate::model::header::Dtype::is_float), tensors)
        }
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
            let product = |sizes: &[AxisSize]| AxisSize::product(sizes.iter().copied()).ok_or("its size overflows");
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
pub(super) fn of_view<'a>(
    node: &FileNode<'a>,
    operands: &[Option<OnnxValue<'a>>],
) -> Result<Option<Vec<ValueView>>, String> {
    let Some(Some(OnnxValue::Live(x))) = operands.first() else { return Ok(None) };
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
            if let Some(OnnxValue::Constant(training)) = training
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
            let Some(Some(OnnxValue::Constant(wanted))) = operands.get(1) else {
                return Err("its shape depends on the input".to_owned());
            };
            let sizes = reshaped(&x.sizes(), &wanted.sizes()?, switch(node, "allowzero", false))?;
            reshape(x, &sizes)?
        }
        "Flatten" => {
            let axis = place_of_axis(node.integer("axis").unwrap_or(1), rank + 1)?;
            let sizes = x.sizes();
            let product = |sizes: &[AxisSize]| AxisSize::product(sizes.iter().copied()).ok_or("its size overflows");
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
        "Expand" => expanded(x, operands)?,
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

/// The value with axes of size 1 repeated.
fn expanded(x: &ValueView, operands: &[Option<OnnxValue<'_>>]) -> Result<ValueView, String> {
    let Some(Some(OnnxValue::Constant(wanted))) = operands.get(1) else {
        return Err("its shape depends on the input".to_owned());
    };
    let (own, wanted) = (x.sizes(), wanted.sizes()?);
    let misfit = || format!("it repeats a value of {} to {}", shown(&own), shown(&wanted));
    let missing = own.len().checked_sub(wanted.len()).ok_or_else(misfit)?;
    let mut view = x.clone();
    for (axis, wanted) in wanted.iter().enumerate().map(|(axis, wanted)| (axis + missing, *wanted)) {
        if wanted == AxisSize::ONE || wanted == own[axis] {
            continue;
        }
        if !view.axes[axis].is_empty() || wanted.usize().is_none() {
            return Err(misfit());
        }
        view.axes[axis] = vec![Atom { place: ViewAxis::Axis(0), stride: 0, size: wanted }];
    }
    Ok(view)
}

/// The value with other axes.
fn reshape(x: &ValueView, sizes: &[AxisSize]) -> Result<ValueView, String> {
    let own = x.sizes();
    if sizes.len() > MAX_AXES {
        return Err(format!("more than {MAX_AXES} axes are not read"));
    }
    x.reshape(sizes).ok_or_else(|| format!("{} is reshaped to {}, which is not read", shown(&own), shown(sizes)))
}

/// One index of an axis.
fn gather(node: &FileNode<'_>, x: &ValueView, operands: &[Option<OnnxValue<'_>>]) -> Result<ValueView, String> {
    let axis = place_of_axis(node.integer("axis").unwrap_or(0), x.axes.len())?;
    let Some(Some(OnnxValue::Constant(at))) = operands.get(1) else {
        return Err("its indices depend on the input".to_owned());
    };
    // What PyTorch's `as_strided` becomes, where it changes nothing but the axes.
    let enumerates = || at.as_counting().is_some_and(|counted| counted.is_enumeration());
    let takes_all = AxisSize::product(at.dims.iter().copied()) == Some(x.size(axis));
    if x.axes.len() == 1 && takes_all && enumerates() {
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
