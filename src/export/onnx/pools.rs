//! Pools as ONNX operators. A window that hangs over the end gets as much rim there as it needs: runtimes differ in what
//! `ceil_mode` counts.

use super::OnnxExportError;
use super::emitter::{AxisOrder, Emitter};
use super::message::{Attribute, integers};
use crate::model::graph::{BlurWindow, NodeId, PoolKind, Pooling};

use AxisOrder::ChannelsFirst;

/// Most elements of a constant matrix, and most parts of an axis that are cut out one by one.
const MAX_MATRIX: usize = 1 << 22;
const MAX_PARTS: usize = 1 << 10;

/// What one output position of an adaptive pool covers of an axis: first position and last + 1.
type Part = (usize, usize);

/// The parts of an axis of `input` positions under `output` positions (PyTorch's adaptive pools).
fn parts(input: usize, output: usize) -> Vec<Part> {
    (0..output).map(|at| (at * input / output, ((at + 1) * input).div_ceil(output))).collect()
}

/// Kernel and stride of a pool over windows that covers these parts, if there is one.
fn window(parts: &[Part]) -> Option<(usize, usize)> {
    let kernel = parts[0].1 - parts[0].0;
    let stride = parts.get(1).map_or(kernel, |(begin, _)| *begin);
    let regular = parts.iter().enumerate().all(|(at, part)| *part == (at * stride, at * stride + kernel));
    (regular && stride > 0).then_some((kernel, stride))
}

impl Emitter<'_> {
    /// A pool over windows, whose output is the next node's.
    pub(super) fn pool(&mut self, x: NodeId, pool: &Pooling, sequence: bool) {
        let window = pool.window;
        let axes = if sequence { 1..2 } else { 0..2 };
        let input = self.graph.shape(x)[1..].to_vec();
        let size = |axis: usize| input[axis - axes.start];
        let outputs = window.output_with([if sequence { 1 } else { size(0) }, size(1)], pool.ceil_mode);
        let outputs = outputs.unwrap_or_default();
        let begin: Vec<usize> = axes.clone().map(|axis| window.padding[axis]).collect();
        let end: Vec<usize> = axes
            .clone()
            .map(|axis| {
                let span = window.dilation[axis] * (window.kernel[axis] - 1) + 1;
                let reach = outputs[axis].saturating_sub(1) * window.stride[axis] + span;
                reach.saturating_sub(size(axis) + window.padding[axis]).max(window.padding[axis])
            })
            .collect();
        let of = |pair: [usize; 2]| Attribute::Integers(integers(&pair[axes.clone()]));
        let mut attributes = vec![("kernel_shape", of(window.kernel)), ("strides", of(window.stride))];
        let mut value = self.get(x, ChannelsFirst);
        let mut rims = [begin.clone(), end.clone()].concat();
        let op = match pool.kind {
            PoolKind::Max => {
                attributes.push(("dilations", of(window.dilation)));
                // A rim as wide as the kernel, which only dilation makes, is not allowed.
                if end.iter().zip(axes.clone()).any(|(end, axis)| *end >= window.kernel[axis]) {
                    attributes.push(("ceil_mode", Attribute::Integer(1)));
                    rims = [begin.clone(), begin].concat();
                }
                "MaxPool"
            }
            PoolKind::Mean { count_padding } => {
                let mut counted = count_padding;
                if count_padding && begin != end {
                    // The rim counts, what hangs over it does not: the rim becomes part of the image.
                    if begin.iter().any(|rim| *rim > 0) {
                        let all = [vec![0, 0], begin.clone(), vec![0, 0], begin.clone()].concat();
                        let all = self.integers(&integers(&all));
                        value = self.node("Pad", &[&value, &all], &[]);
                    }
                    let rest = end.iter().zip(&begin).map(|(end, begin)| end - begin);
                    rims = vec![0; begin.len()].into_iter().chain(rest).collect();
                    counted = false;
                }
                attributes.push(("count_include_pad", Attribute::Integer(i64::from(counted))));
                "AveragePool"
            }
        };
        attributes.push(("pads", Attribute::Integers(integers(&rims))));
        let output = self.node(op, &[&value], &attributes);
        self.put(ChannelsFirst, output);
    }

    pub(super) fn global_mean(&mut self, x: NodeId) {
        let value = self.get(x, ChannelsFirst);
        let output = self.node("GlobalAveragePool", &[&value], &[]);
        self.put(ChannelsFirst, output);
    }

    /// A pool over windows of a kernel and a stride along each axis, without a rim.
    fn regular(&mut self, op: &str, value: &str, [height, width]: [(usize, usize); 2]) -> String {
        let pair = |a: usize, b: usize| Attribute::Integers(integers(&[a, b]));
        let attributes = [("kernel_shape", pair(height.0, width.0)), ("strides", pair(height.1, width.1))];
        self.node(op, &[value], &attributes)
    }

    pub(super) fn adaptive_mean(&mut self, id: NodeId, x: NodeId, output: [usize; 2]) -> Result<(), OnnxExportError> {
        let (value, shape) = (self.get(x, ChannelsFirst), self.graph.shape(x));
        let (height, width) = (shape[1], shape[2]);
        if output.iter().any(|size| *size > MAX_MATRIX) {
            return Err(OnnxExportError::TooManyPositions(self.graph.node(id).name.clone()));
        }
        let (rows, columns) = (parts(height, output[0]), parts(width, output[1]));
        let result = if output == [1, 1] {
            self.node("GlobalAveragePool", &[&value], &[])
        } else if let (Some(down), Some(along)) = (window(&rows), window(&columns)) {
            self.regular("AveragePool", &value, [down, along])
        } else {
            let too_large =
                |axis: usize, size: usize| output[axis].checked_mul(size).is_none_or(|all| all > MAX_MATRIX);
            if too_large(0, height) || too_large(1, width) {
                return Err(OnnxExportError::TooManyPositions(self.graph.node(id).name.clone()));
            }
            // Means of rows and of columns, each as a product with a constant matrix.
            let share = |(begin, end): Part, at: usize| {
                if (begin..end).contains(&at) { 1.0 / (end - begin) as f32 } else { 0.0 }
            };
            let of_rows: Vec<f32> = rows.iter().flat_map(|part| (0..height).map(|at| share(*part, at))).collect();
            let of_columns: Vec<f32> =
                (0..width).flat_map(|at| columns.iter().map(move |part| share(*part, at))).collect();
            let of_rows = self.floats("means", &[output[0], height], &of_rows);
            let of_columns = self.floats("means", &[width, output[1]], &of_columns);
            let narrow = self.node("MatMul", &[&value, &of_columns], &[]);
            self.node("MatMul", &[&of_rows, &narrow], &[])
        };
        self.put(ChannelsFirst, result);
        Ok(())
    }

    pub(super) fn adaptive_maximum(
        &mut self,
        id: NodeId,
        x: NodeId,
        output: [usize; 2],
    ) -> Result<(), OnnxExportError> {
        let (mut value, shape) = (self.get(x, ChannelsFirst), self.graph.shape(x));
        if output.iter().any(|size| *size > MAX_PARTS) {
            return Err(OnnxExportError::TooManyPositions(self.graph.node(id).name.clone()));
        }
        let (rows, columns) = (parts(shape[1], output[0]), parts(shape[2], output[1]));
        if output == [1, 1] {
            value = self.node("GlobalMaxPool", &[&value], &[]);
        } else if let (Some(down), Some(along)) = (window(&rows), window(&columns)) {
            value = self.regular("MaxPool", &value, [down, along]);
        } else {
            value = self.maxima(&value, 2, &rows);
            value = self.maxima(&value, 3, &columns);
        }
        self.put(ChannelsFirst, value);
        Ok(())
    }

    /// The maxima of parts of an axis.
    fn maxima(&mut self, value: &str, axis: i64, parts: &[Part]) -> String {
        let own = self.integers(&[axis]);
        let mut maxima = Vec::with_capacity(parts.len());
        for (begin, end) in parts {
            let (begin, end) = (self.integers(&[*begin as i64]), self.integers(&[*end as i64]));
            let part = self.node("Slice", &[value, &begin, &end, &own], &[]);
            let axes = [("axes", Attribute::Integers(vec![axis])), ("keepdims", Attribute::Integer(1))];
            maxima.push(self.node("ReduceMax", &[&part], &axes));
        }
        let maxima: Vec<&str> = maxima.iter().map(String::as_str).collect();
        self.node("Concat", &maxima, &[("axis", Attribute::Integer(axis))])
    }

    /// A binomial filter over each channel, behind a reflected rim.
    pub(super) fn blur(&mut self, x: NodeId, BlurWindow { kernel, stride, padding }: BlurWindow) {
        let value = self.get(x, ChannelsFirst);
        let channels = self.graph.shape(x)[0];
        let rims = self.integers(&integers(&[0, 0, padding, padding, 0, 0, padding, padding]));
        let wide = self.node("Pad", &[&value, &rims], &[("mode", Attribute::Text("reflect"))]);
        let choose = |k: usize| (1..=k).fold(1.0, |all, i| all * (kernel - i) as f64 / i as f64);
        let line: Vec<f64> = (0..kernel).map(|k| choose(k) / 2.0_f64.powi(kernel as i32 - 1)).collect();
        let filter: Vec<f32> = line.iter().flat_map(|a| line.iter().map(move |b| (a * b) as f32)).collect();
        let filters = filter.repeat(channels);
        let filters = self.floats("binomial", &[channels, 1, kernel, kernel], &filters);
        let pair = |size: usize| Attribute::Integers(integers(&[size, size]));
        let attributes =
            [("group", Attribute::Integer(channels as i64)), ("kernel_shape", pair(kernel)), ("strides", pair(stride))];
        let output = self.node("Conv", &[&wide, &filters], &attributes);
        self.put(ChannelsFirst, output);
    }
}
