//! Adaptive mean pools over parts of different sizes, as they are written here: products with a constant matrix along each axis.

use super::constant::Constant;
use super::operation::OperationKind;
use super::reader::Reader;
use super::view::ValueView;
use crate::model::graph::Op;

/// Whether `matrix`, (outputs x inputs), takes the means of PyTorch's adaptive pools.
fn are_means(reader: &Reader<'_>, matrix: &Constant<'_>) -> bool {
    let [Some(outputs), Some(inputs)] = [0, 1].map(|axis: usize| matrix.dims.get(axis).and_then(|dim| dim.usize()))
    else {
        return false;
    };
    let Ok(values) = matrix.floats(&reader.tensors) else { return false };
    values.chunks(inputs.max(1)).enumerate().all(|(at, row)| {
        let (begin, end) = (at * inputs / outputs, ((at + 1) * inputs).div_ceil(outputs));
        let share = 1.0 / (end - begin) as f64;
        let expected = |place: usize| if (begin..end).contains(&place) { share } else { 0.0 };
        row.iter().enumerate().all(|(place, value)| (value - expected(place)).abs() <= 1e-6 * share)
    })
}

/// The means of parts of each row of an image; none where the product is no such.
pub(super) fn along_rows<'a>(
    reader: &mut Reader<'a>,
    x: &ValueView,
    matrix: &Constant<'a>,
) -> Result<Option<ValueView>, String> {
    if x.axes.len() != 4 || matrix.dims.len() != 2 || x.batch_axis() != Some(0) {
        return Ok(None);
    }
    let turned = matrix.transpose(&[1, 0])?;
    let [channels, height, width] = reader.shape(x.node)[..] else { return Ok(None) };
    let (Some(outputs), Some(inputs)) = (turned.dims[0].usize(), turned.dims[1].usize()) else { return Ok(None) };
    if *x != reader.view(x.node) || inputs != width || !are_means(reader, &turned) {
        return Ok(None);
    }
    let from = reader.settle(x.node)?;
    let shape = vec![channels, height, outputs];
    let node = reader.push(OperationKind::RowMeans, vec![from], shape, Vec::new())?;
    Ok(Some(reader.view(node)))
}

/// The means of parts of each column, behind those of the rows.
pub(super) fn along_columns<'a>(
    reader: &mut Reader<'a>,
    matrix: &Constant<'a>,
    x: &ValueView,
) -> Result<Option<ValueView>, String> {
    let [channels, height, width] = reader.shape(x.node)[..] else { return Ok(None) };
    let rows = matrix.dims.first().and_then(|dim| dim.usize());
    let (Some(outputs), 2) = (rows, matrix.dims.len()) else { return Ok(None) };
    let fits = matrix.dims[1].usize() == Some(height) && *x == reader.view(x.node);
    if *reader.kind(x.node) != OperationKind::RowMeans || !fits || !are_means(reader, matrix) {
        return Ok(None);
    }
    let inputs = reader.operations[x.node].inputs.clone();
    let op = Op::AdaptiveAvgPool2d { output: [outputs, width] };
    let node = reader.push(OperationKind::Graph(op), inputs, vec![channels, outputs, width], Vec::new())?;
    Ok(Some(reader.view(node)))
}
