//! Every operation of a graph as ONNX operators.

use super::OnnxExportError;
use super::emitter::{AxisOrder, Emitter};
use super::message::{Attribute, integers};
use crate::model::graph::{Approximate, Convolution, Node, NodeId, Op};

use AxisOrder::{ChannelsFirst, ChannelsLast};

impl Emitter<'_> {
    /// Writes the node `id`, which is not the input, and puts its output.
    pub(super) fn operation(&mut self, id: NodeId, node: &Node) -> Result<(), OnnxExportError> {
        let x = node.inputs.first().copied().unwrap_or(id);
        match &node.op {
            // A graph's input is its first node, which has no operand; what reads zeros pads what stands beside them.
            Op::Input { .. } | Op::Dropout { .. } | Op::Zeros { .. } => self.put_same(x),
            Op::Linear { .. } => self.linear(id, x),
            Op::Conv1d { .. } | Op::Conv2d { .. } => {
                if let Some(conv) = node.op.convolution() {
                    self.convolution(id, x, &conv);
                }
            }
            Op::BatchNorm { affine: true, eps, .. } => {
                self.with_weights(id, x, "BatchNormalization", *eps, ChannelsFirst);
            }
            Op::BatchNorm { features, eps, .. } => self.plain_norm(id, x, *features, *eps),
            Op::GlobalResponseNorm { features, eps } => self.response_norm(id, x, *features, *eps),
            Op::LayerNorm { eps, .. } => self.with_weights(id, x, "LayerNormalization", *eps, ChannelsLast),
            Op::GroupNorm { group_width, features, eps } => {
                self.group_norm(id, x, features / group_width.unwrap_or(*features), *eps);
            }
            Op::Relu
            | Op::Relu6
            | Op::LeakyRelu { .. }
            | Op::Gelu { .. }
            | Op::Silu
            | Op::Hardswish
            | Op::Sigmoid
            | Op::Hardsigmoid
            | Op::Tanh
            | Op::Elu { .. }
            | Op::Selu
            | Op::Mish
            | Op::Softplus
            | Op::Scale { .. }
            | Op::Softmax => self.function(x, &node.op),
            Op::MaxPool1d { .. } | Op::MaxPool2d { .. } | Op::AvgPool1d { .. } | Op::AvgPool2d { .. } => {
                if let Some(pool) = node.op.pool() {
                    self.pool(x, &pool, matches!(node.op, Op::MaxPool1d { .. } | Op::AvgPool1d { .. }));
                }
            }
            Op::AdaptiveAvgPool2d { output } => return self.adaptive_mean(id, x, *output),
            Op::AdaptiveMaxPool2d { output } => return self.adaptive_maximum(id, x, *output),
            Op::GlobalAvgPool2d => self.global_mean(x),
            Op::BlurPool2d { .. } => {
                if let Some(blur) = node.op.blur() {
                    self.blur(x, blur);
                }
            }
            Op::Flatten | Op::Reshape { .. } => self.reshape(id, x, &node.op),
            Op::ZeroPad { begin, end } => {
                let value = self.get(x, ChannelsFirst);
                let padded = self.padded(&value, &[&[0], &begin[..]].concat(), &[&[0], &end[..]].concat());
                self.put(ChannelsFirst, padded);
            }
            Op::Add => self.combined("Add", &node.inputs),
            Op::Multiply => self.combined("Mul", &node.inputs),
            Op::Concat => self.concat(&node.inputs),
            Op::LayerScale { features, unit_axes } => self.layer_scale(id, x, *features, *unit_axes),
            Op::ClassToken { features } => self.class_token(id, x, *features),
            Op::PositionalEmbedding { .. } => {
                let (value, weights) = (self.get(x, ChannelsLast), self.weights(id));
                let sum = self.node("Add", &[&value, &weights[0]], &[]);
                self.put(ChannelsLast, sum);
            }
            Op::Attention { features, heads, .. } => self.attention(id, x, *features, *heads),
            Op::TokenMean => {
                let value = self.get(x, ChannelsLast);
                let axes = [("axes", Attribute::Integers(vec![1])), ("keepdims", Attribute::Integer(0))];
                let mean = self.node("ReduceMean", &[&value], &axes);
                self.put(ChannelsFirst, mean);
            }
            Op::TokenSelect { index } => {
                let (value, index) = (self.get(x, ChannelsLast), self.integer(*index as i64));
                let token = self.node("Gather", &[&value, &index], &[("axis", Attribute::Integer(1))]);
                self.put(ChannelsFirst, token);
            }
        }
        Ok(())
    }

    fn linear(&mut self, id: NodeId, x: NodeId) {
        let weights = self.weights(id);
        let value = self.get(x, ChannelsLast);
        if self.graph.shape(id).len() == 1 {
            let inputs: Vec<&str> = std::iter::once(&value).chain(&weights).map(String::as_str).collect();
            let product = self.node("Gemm", &inputs, &[("transB", Attribute::Integer(1))]);
            return self.put(ChannelsLast, product);
        }
        let product = self.product(&value, &weights[0], weights.get(1));
        self.put(ChannelsLast, product);
    }

    /// `x Wᵀ + b` of a value whose channels come last.
    pub(super) fn product(&mut self, value: &str, weight: &str, bias: Option<&String>) -> String {
        let matrix = self.node("Transpose", &[weight], &[("perm", Attribute::Integers(vec![1, 0]))]);
        let product = self.node("MatMul", &[value, &matrix], &[]);
        match bias {
            Some(bias) => self.node("Add", &[&product, bias], &[]),
            None => product,
        }
    }

    fn convolution(&mut self, id: NodeId, x: NodeId, conv: &Convolution) {
        let sequence = usize::from(self.graph.shape(id).len() == 2);
        let window = conv.window;
        let of = |pair: [usize; 2]| Attribute::Integers(integers(&pair[sequence..]));
        let rim = &window.padding[sequence..];
        let attributes = [
            ("dilations", of(window.dilation)),
            ("group", Attribute::Integer(conv.groups() as i64)),
            ("kernel_shape", of(window.kernel)),
            ("pads", Attribute::Integers(integers(&[rim, rim].concat()))),
            ("strides", of(window.stride)),
        ];
        let (value, weights) = (self.get(x, ChannelsFirst), self.weights(id));
        let inputs: Vec<&str> = std::iter::once(&value).chain(&weights).map(String::as_str).collect();
        let output = self.node("Conv", &inputs, &attributes);
        self.put(ChannelsFirst, output);
    }

    /// An operator whose inputs are the value and the node's tensors, in their order.
    fn with_weights(&mut self, id: NodeId, x: NodeId, op: &str, eps: f64, order: AxisOrder) {
        let mut inputs = vec![self.get(x, order)];
        inputs.extend(self.weights(id));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let output = self.node(op, &inputs, &[("epsilon", Attribute::Float(eps as f32))]);
        self.put(order, output);
    }

    fn group_norm(&mut self, id: NodeId, x: NodeId, groups: usize, eps: f64) {
        let shape = self.graph.shape(id).clone();
        let value = self.get(x, ChannelsFirst);
        let grouped = self.reshaped(&value, &[0, groups as i64, -1]);
        let ones = self.floats("ones", &[groups], &vec![1.0; groups]);
        let zeros = self.floats("zeros", &[groups], &vec![0.0; groups]);
        let epsilon = [("epsilon", Attribute::Float(eps as f32))];
        let normal = self.node("InstanceNormalization", &[&grouped, &ones, &zeros], &epsilon);
        let mut result = self.reshaped(&normal, &[vec![0], integers(&shape)].concat());
        for (op, weight) in ["Mul", "Add"].into_iter().zip(self.weights(id)) {
            let by_channel = self.reshaped(&weight, &[vec![shape[0] as i64], vec![1; shape.len() - 1]].concat());
            result = self.node(op, &[&result, &by_channel], &[]);
        }
        self.put(ChannelsFirst, result);
    }

    /// A function of each value, or of the channels of each position.
    fn function(&mut self, x: NodeId, op: &Op) {
        let order = self.order(&[x]);
        let value = self.get(x, order);
        let float = |value: f64| Attribute::Float(value as f32);
        let result = match op {
            Op::Relu6 => {
                let (low, high) = (self.scalar(0.0), self.scalar(6.0));
                self.node("Clip", &[&value, &low, &high], &[])
            }
            Op::LeakyRelu { negative_slope } => self.node("LeakyRelu", &[&value], &[("alpha", float(*negative_slope))]),
            Op::Gelu { approximate } => self.gelu(&value, *approximate),
            Op::Silu => {
                let gate = self.node("Sigmoid", &[&value], &[]);
                self.node("Mul", &[&value, &gate], &[])
            }
            Op::Hardswish => self.node("HardSwish", &[&value], &[]),
            Op::Sigmoid => self.node("Sigmoid", &[&value], &[]),
            Op::Hardsigmoid => {
                self.node("HardSigmoid", &[&value], &[("alpha", float(1.0 / 6.0)), ("beta", float(0.5))])
            }
            Op::Tanh => self.node("Tanh", &[&value], &[]),
            Op::Elu { alpha } => self.node("Elu", &[&value], &[("alpha", float(*alpha))]),
            Op::Selu => {
                let factors = [("alpha", float(1.673_263_242_354_377_2)), ("gamma", float(1.050_700_987_355_480_5))];
                self.node("Selu", &[&value], &factors)
            }
            Op::Mish => {
                let soft = self.node("Softplus", &[&value], &[]);
                let gate = self.node("Tanh", &[&soft], &[]);
                self.node("Mul", &[&value, &gate], &[])
            }
            Op::Softplus => self.node("Softplus", &[&value], &[]),
            Op::Scale { factor } => {
                let factor = self.scalar(*factor);
                self.node("Mul", &[&value, &factor], &[])
            }
            Op::Softmax => {
                let axis = if order == ChannelsFirst { 1 } else { -1 };
                self.node("Softmax", &[&value], &[("axis", Attribute::Integer(axis))])
            }
            _ => self.node("Relu", &[&value], &[]),
        };
        self.put(order, result);
    }

    fn gelu(&mut self, value: &str, approximate: Approximate) -> String {
        let (one, half) = (self.scalar(1.0), self.scalar(0.5));
        let inner = match approximate {
            Approximate::None => {
                let root = self.scalar(std::f64::consts::SQRT_2);
                let scaled = self.node("Div", &[value, &root], &[]);
                self.node("Erf", &[&scaled], &[])
            }
            Approximate::Tanh => {
                let (factor, root) = (self.scalar(0.044_715), self.scalar(std::f64::consts::FRAC_2_PI.sqrt()));
                let square = self.node("Mul", &[value, value], &[]);
                let cube = self.node("Mul", &[&square, value], &[]);
                let small = self.node("Mul", &[&cube, &factor], &[]);
                let sum = self.node("Add", &[value, &small], &[]);
                let scaled = self.node("Mul", &[&sum, &root], &[]);
                self.node("Tanh", &[&scaled], &[])
            }
        };
        let above = self.node("Add", &[&inner, &one], &[]);
        let product = self.node("Mul", &[value, &above], &[]);
        self.node("Mul", &[&product, &half], &[])
    }

    fn reshape(&mut self, id: NodeId, x: NodeId, op: &Op) {
        let value = self.get(x, ChannelsFirst);
        let result = if *op == Op::Flatten {
            self.node("Flatten", &[&value], &[("axis", Attribute::Integer(1))])
        } else {
            let sizes = [vec![0], integers(self.graph.shape(id))].concat();
            self.reshaped(&value, &sizes)
        };
        self.put(ChannelsFirst, result);
    }

    fn combined(&mut self, op: &str, operands: &[NodeId]) {
        let order = self.order(operands);
        let values: Vec<String> = operands.iter().map(|id| self.get(*id, order)).collect();
        let result = self.node(op, &[&values[0], &values[1]], &[]);
        self.put(order, result);
    }

    fn concat(&mut self, operands: &[NodeId]) {
        let mut values: Vec<String> = Vec::with_capacity(operands.len());
        let axes = self.graph.shape(operands[0]).len();
        let channels = |channels: usize| [vec![channels], vec![0; axes - 1]].concat();
        // Zeros before the first channels wait for them.
        let mut before = 0;
        for id in operands {
            match (&self.graph.node(*id).op, values.last().cloned()) {
                (Op::Zeros { features }, None) => before += features,
                (Op::Zeros { features }, Some(value)) => {
                    let padded = self.padded(&value, &channels(0), &channels(*features));
                    values.pop();
                    values.push(padded);
                }
                _ => {
                    let value = self.get(*id, ChannelsFirst);
                    let own = if before > 0 { self.padded(&value, &channels(before), &channels(0)) } else { value };
                    values.push(own);
                    before = 0;
                }
            }
        }
        if let [only] = &values[..] {
            return self.put(ChannelsFirst, only.clone());
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let result = self.node("Concat", &values, &[("axis", Attribute::Integer(1))]);
        self.put(ChannelsFirst, result);
    }

    /// A BatchNorm without factors and summands.
    fn plain_norm(&mut self, id: NodeId, x: NodeId, features: usize, eps: f64) {
        let count = self.integers(&[features as i64]);
        let [ones, zeros] = [1.0, 0.0].map(|value| {
            let value = self.scalar(value);
            self.node("Expand", &[&value, &count], &[])
        });
        let (value, statistics) = (self.get(x, ChannelsFirst), self.weights(id));
        let inputs = [&value, &ones, &zeros, &statistics[0], &statistics[1]].map(String::as_str);
        let output = self.node("BatchNormalization", &inputs, &[("epsilon", Attribute::Float(eps as f32))]);
        self.put(ChannelsFirst, output);
    }

    fn response_norm(&mut self, id: NodeId, x: NodeId, features: usize, eps: f64) {
        let (value, weights) = (self.get(x, ChannelsFirst), self.weights(id));
        let positions = self.graph.shape(id).len() - 1;
        let over = |axes: Vec<i64>| [("axes", Attribute::Integers(axes)), ("keepdims", Attribute::Integer(1))];
        let norms = self.node("ReduceL2", &[&value], &over((2..2 + positions as i64).collect()));
        let mean = self.node("ReduceMean", &[&norms], &over(vec![1]));
        let eps = self.scalar(eps);
        let least = self.node("Add", &[&mean, &eps], &[]);
        let shares = self.node("Div", &[&norms, &least], &[]);
        let response = self.node("Mul", &[&value, &shares], &[]);
        let sizes = [vec![features as i64], vec![1; positions]].concat();
        let [factors, summands] = [0, 1].map(|tensor: usize| self.reshaped(&weights[tensor], &sizes));
        let scaled = self.node("Mul", &[&response, &factors], &[]);
        let shifted = self.node("Add", &[&scaled, &summands], &[]);
        let sum = self.node("Add", &[&value, &shifted], &[]);
        self.put(ChannelsFirst, sum);
    }

    /// A value with zeros before and behind each axis but the batch.
    fn padded(&mut self, value: &str, begin: &[usize], end: &[usize]) -> String {
        let pads = self.integers(&integers(&[&[0], begin, &[0], end].concat()));
        self.node("Pad", &[value, &pads], &[])
    }

    fn layer_scale(&mut self, id: NodeId, x: NodeId, features: usize, unit_axes: usize) {
        let order = self.order(&[x]);
        let positions = if order == ChannelsFirst { self.graph.shape(id).len() - 1 } else { 0 };
        let (value, mut weight) = (self.get(x, order), self.weights(id).remove(0));
        if positions != unit_axes {
            weight = self.reshaped(&weight, &[vec![features as i64], vec![1; positions]].concat());
        }
        let result = self.node("Mul", &[&value, &weight], &[]);
        self.put(order, result);
    }

    fn class_token(&mut self, id: NodeId, x: NodeId, features: usize) {
        let (value, weights) = (self.get(x, ChannelsLast), self.weights(id));
        let batch = [("start", Attribute::Integer(0)), ("end", Attribute::Integer(1))];
        let batch = self.node("Shape", &[&value], &batch);
        let rest = self.integers(&[1, features as i64]);
        let shape = self.node("Concat", &[&batch, &rest], &[("axis", Attribute::Integer(0))]);
        let token = self.node("Expand", &[&weights[0], &shape], &[]);
        let result = self.node("Concat", &[&token, &value], &[("axis", Attribute::Integer(1))]);
        self.put(ChannelsLast, result);
    }
}
