//! Normalisation of each channel over all rows of a batch.

use crate::exec::gpu::kernels::reduce::{self, Slices};
use crate::exec::gpu::tape::{Argument, Place, Tape, Values};

/// A normalisation: its constants, of `channels` numbers each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNorm {
    /// Channels of a row.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f64,
    /// The factors, else 1.
    pub weight: Option<Place>,
    /// The summands, else 0.
    pub bias: Option<Place>,
}

/// What a batch is normalised by, `channels` numbers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Means.
    pub mean: Place,
    /// `1 / sqrt(var + eps)`.
    pub inverse_std: Place,
}

/// Statistics that follow those of the batches, `channels` numbers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Means.
    pub mean: Place,
    /// Unbiased variances.
    pub var: Place,
}

/// What results go through last; the numbers are those of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Linear = 0,
    /// `max(y, 0)`.
    Relu = 1,
    /// `min(max(y, 0), 6)`; no gradient passes where `y` is 0 or 6.
    Relu6 = 2,
}

impl Activation {
    /// ReLU, or nothing.
    #[must_use]
    pub fn of(relu: bool) -> Self {
        if relu { Self::Relu } else { Self::Linear }
    }
}

/// Where what is measured goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The batch's own.
    pub statistics: Statistics,
    /// Those of all batches.
    pub running: Running,
    /// How much a batch moves these; see [scalars](super::scalars).
    pub scalars: Place,
}

/// What follows the normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Added to what is normalised.
    pub residual: Option<Values>,
    /// What the sum goes through.
    pub activation: Activation,
}

/// The gradients that are wanted; those of operands say whether they are added to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backward {
    /// The operand.
    pub x: Values,
    /// The result, which tells where the activation let through.
    pub y: Values,
    /// The result's gradient.
    pub dy: Values,
    /// What came last.
    pub activation: Activation,
    /// Of the operand.
    pub dx: Option<(Values, bool)>,
    /// Of what was added before the activation.
    pub dresidual: Option<(Values, bool)>,
    /// Of the factors.
    pub dweight: Option<Place>,
    /// Of the summands.
    pub dbias: Option<Place>,
}

/// How a gradient passes an activation; the numbers are those of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mask {
    All = 0,
    ByY = 1,
    Again = 2,
}

/// Measures `x` (rows x channels) and moves the running statistics towards it, by the share in word 6 of `scalars`.
pub fn measure(tape: &mut Tape, bn: &BatchNorm, x: Values, statistics: Statistics, running: Running, scalars: Place) {
    let slices = Slices::sums(tape.storage, x);
    if slices.slices() == 1 {
        return whole(tape, bn, x, Measured { statistics, running, scalars }, None, slices);
    }
    let moments = tape.scratch(slices.slices() * bn.channels * 8);
    let mut arguments = vec![x.into(), moments.into()];
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_measure", slices.grid(), slices.threads, arguments);
    let mut arguments = vec![moments.into()];
    arguments.extend(measured(statistics, running, scalars));
    arguments.extend::<[Argument; 4]>([slices.rows.into(), bn.channels.into(), slices.slice.into(), bn.eps.into()]);
    tape.launch_plain("batch_norm_combine", [bn.channels.div_ceil(8), 1, 1], 256, arguments);
}

/// [`measure`] and [`apply`], in one launch where there are few rows.
pub fn forward(tape: &mut Tape, bn: &BatchNorm, x: Values, to: Measured, sum: Sum, y: Values) {
    let slices = Slices::sums(tape.storage, x);
    if slices.slices() == 1 {
        return whole(tape, bn, x, to, Some((sum, y)), slices);
    }
    measure(tape, bn, x, to.statistics, to.running, to.scalars);
    apply(tape, bn, to.statistics, x, sum.residual, sum.activation, y);
}

fn measured(statistics: Statistics, running: Running, scalars: Place) -> [Argument; 5] {
    [statistics.mean, statistics.inverse_std, running.mean, running.var, scalars].map(Argument::from)
}

fn whole(tape: &mut Tape, bn: &BatchNorm, x: Values, to: Measured, then: Option<(Sum, Values)>, slices: Slices) {
    let residual = then.and_then(|(sum, _)| sum.residual);
    let mut arguments = vec![x.into(), residual.into(), then.map(|(_, y)| y).into()];
    arguments.extend(measured(to.statistics, to.running, to.scalars));
    arguments.extend::<[Argument; 4]>([
        bn.weight.into(),
        bn.bias.into(),
        Argument::Int(then.map_or(Activation::Linear, |(sum, _)| sum.activation) as i32),
        bn.eps.into(),
    ]);
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_whole", slices.grid(), slices.threads, arguments);
}

/// Makes statistics of the running ones, for evaluation.
pub fn fixed(tape: &mut Tape, bn: &BatchNorm, running: Running, statistics: Statistics) {
    let arguments = vec![
        running.mean.into(),
        running.var.into(),
        statistics.mean.into(),
        statistics.inverse_std.into(),
        bn.channels.into(),
        bn.eps.into(),
    ];
    tape.launch_plain("batch_norm_fixed", [bn.channels.div_ceil(128), 1, 1], 128, arguments);
}

/// `y = (x - mean) / sqrt(var + eps) * weight + bias`, plus `residual` if there is one, then the activation.
pub fn apply(
    tape: &mut Tape,
    bn: &BatchNorm,
    statistics: Statistics,
    x: Values,
    residual: Option<Values>,
    activation: Activation,
    y: Values,
) {
    let slices = Slices::each(tape.storage, x);
    let mut arguments = vec![x.into(), residual.into(), y.into()];
    arguments.extend(constants(bn, statistics));
    arguments.push(Argument::Int(activation as i32));
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_apply", slices.grid(), slices.threads, arguments);
}

fn constants(bn: &BatchNorm, statistics: Statistics) -> [Argument; 4] {
    [statistics.mean.into(), statistics.inverse_std.into(), bn.weight.into(), bn.bias.into()]
}

/// The gradients through a batch's own statistics. `dx` and `dresidual` may be `dy` itself.
pub fn backward(tape: &mut Tape, bn: &BatchNorm, statistics: Statistics, backward: &Backward) {
    run(tape, bn, statistics, *backward, Mask::ByY);
}

/// [`backward`] where nothing was added before the activation: `y` is computed again and not read, which is faster.
pub fn backward_alone(tape: &mut Tape, bn: &BatchNorm, statistics: Statistics, backward: &Backward) {
    run(tape, bn, statistics, *backward, Mask::Again);
}

fn run(tape: &mut Tape, bn: &BatchNorm, statistics: Statistics, mut wanted: Backward, mask: Mask) {
    let mut mask = if wanted.activation == Activation::Linear { Mask::All } else { mask };
    let slices = Slices::sums(tape.storage, wanted.x);
    if slices.slices() == 1 {
        return second(tape, "batch_norm_back", (bn, statistics), &wanted, mask, slices);
    }
    let sums = slices.slices() * bn.channels * 8;
    let scratch = tape.scratch(sums.next_multiple_of(16) + 2 * (bn.channels * 4).next_multiple_of(16));
    let partial = scratch.part(0, sums);
    // Where the masked gradient is written anyway, the second pass reads it instead of the whole one and the result.
    let masked = wanted.dresidual.and_then(|(values, accumulate)| (!accumulate).then_some(values));
    let mut arguments = operands(&wanted);
    arguments.extend(constants(bn, statistics));
    arguments.extend::<[Argument; 2]>([masked.into(), partial.into()]);
    arguments.extend(masks(&wanted, mask));
    arguments.extend(slices.arguments());
    tape.launch("batch_norm_sums_of", slices.grid(), slices.threads, arguments);
    let spare = |index: usize| {
        let bytes = bn.channels * 4;
        scratch.part(sums.next_multiple_of(16) + index * bytes.next_multiple_of(16), bytes)
    };
    let (dweight, dbias) = (wanted.dweight.unwrap_or_else(|| spare(0)), wanted.dbias.unwrap_or_else(|| spare(1)));
    reduce::finish(tape, partial, slices.slices(), &[Some(dweight), Some(dbias)], bn.channels);
    if let Some(masked) = masked {
        (wanted.dy, wanted.dresidual, mask) = (masked, None, Mask::All);
    }
    (wanted.dweight, wanted.dbias) = (Some(dweight), Some(dbias));
    if wanted.dx.is_some() || wanted.dresidual.is_some() {
        let slices = Slices::each(tape.storage, wanted.x);
        second(tape, "batch_norm_input", (bn, statistics), &wanted, mask, slices);
    }
}

fn operands(wanted: &Backward) -> Vec<Argument> {
    vec![wanted.x.into(), wanted.y.into(), wanted.dy.into()]
}

/// How the gradient is masked, and the largest result that lets it through.
fn masks(wanted: &Backward, mask: Mask) -> [Argument; 2] {
    let most = if wanted.activation == Activation::Relu6 { 6.0_f32.next_down() } else { f32::INFINITY };
    [Argument::Int(mask as i32), most.into()]
}

/// Launches a kernel that writes the operands' gradients.
fn second(
    tape: &mut Tape,
    kernel: &'static str,
    (bn, statistics): (&BatchNorm, Statistics),
    wanted: &Backward,
    mask: Mask,
    slices: Slices,
) {
    let place = |gradient: Option<(Values, bool)>| Argument::from(gradient.map(|(values, _)| values));
    let add = |gradient: Option<(Values, bool)>| Argument::from(gradient.is_some_and(|(_, accumulate)| accumulate));
    let mut arguments = operands(wanted);
    arguments.extend(constants(bn, statistics));
    arguments.extend::<[Argument; 4]>([
        wanted.dweight.into(),
        wanted.dbias.into(),
        place(wanted.dx),
        place(wanted.dresidual),
    ]);
    arguments.extend([add(wanted.dx), add(wanted.dresidual)]);
    arguments.extend(masks(wanted, mask));
    arguments.extend(slices.arguments());
    tape.launch(kernel, slices.grid(), slices.threads, arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::gpu::kernels::reduce::testing::{Bench, STORAGES, close, rounded};
    use crate::exec::gpu::tape::Storage;
    use crate::kernels::batch_norm::{self as cpu, BatchStatistics, Momentum};
    use crate::kernels::elementwise;
    use crate::kernels::finite_difference::workspace;
    use crate::kernels::function::Function;

    const SHAPES: [[usize; 3]; 7] =
        [[1, 1, 1], [7, 1, 3], [43, 3, 5], [200, 5, 37], [5, 60, 64], [3, 3000, 18], [4, 5, 300]];
    const EPS: f64 = 1e-5;

    /// Numbers on both sides of 6; what a storage holds stays what it holds.
    fn large(numbers: &[f64]) -> Vec<f64> {
        numbers.iter().map(|number| 8.0 * number).collect()
    }

    /// A layer with its numbers, on the processor and on the device.
    struct Layer {
        weight: Option<Vec<f64>>,
        bias: Option<Vec<f64>>,
        bn: BatchNorm,
        statistics: Statistics,
        running: Running,
        scalars: Place,
    }

    impl Layer {
        fn new(bench: &mut Bench, channels: usize, plain: bool) -> Self {
            let sample = |seed| large(&crate::kernels::finite_difference::sample(channels, seed));
            let [weight, bias] = [7, 8].map(|seed| (!plain).then(|| sample(seed)));
            let [on_weight, on_bias] = [&weight, &bias].map(|numbers| numbers.as_ref().map(|n| bench.numbers(n)));
            let bn = BatchNorm { channels, eps: EPS, weight: on_weight, bias: on_bias };
            let statistics = Statistics { mean: bench.place(channels), inverse_std: bench.place(channels) };
            let running =
                Running { mean: bench.numbers(&vec![0.5; channels]), var: bench.numbers(&vec![2.0; channels]) };
            let scalars = bench.numbers(&[9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.1]);
            Self { weight, bias, bn, statistics, running, scalars }
        }

        fn weights(&self) -> Vec<f64> {
            self.weight.clone().unwrap_or_else(|| vec![1.0; self.bn.channels])
        }

        /// The batch's statistics and its result.
        fn forward(&self, x: &[f64], residual: Option<&[f64]>, last: Activation) -> (BatchStatistics, Vec<f64>) {
            let mut statistics = BatchStatistics::default();
            statistics.measure(&mut workspace(), x, self.bn.channels);
            let y = self.normalised(x, &statistics, residual, last);
            (statistics, y)
        }

        fn normalised(&self, x: &[f64], s: &BatchStatistics, residual: Option<&[f64]>, last: Activation) -> Vec<f64> {
            let (weight, mut affine, mut y) = (self.weights(), cpu::Affine::default(), vec![0.0; x.len()]);
            let bias = |c: usize| self.bias.as_ref().map_or(0.0, |bias| bias[c]);
            affine.set(EPS, (0..self.bn.channels).map(|c| (s.mean[c], s.var[c], weight[c], bias(c))));
            affine.apply(x, false, &mut y);
            if let Some(residual) = residual {
                let normal = y.clone();
                elementwise::add(&normal, residual, false, &mut y);
            }
            let sum = y.clone();
            match last {
                Activation::Linear => {}
                Activation::Relu => Function::Relu.apply(&sum, &mut y),
                Activation::Relu6 => Function::Relu6.apply(&sum, &mut y),
            }
            y
        }
    }

    fn cases() -> impl Iterator<Item = (Storage, [usize; 3], Activation)> {
        let shapes = STORAGES.into_iter().flat_map(|storage| SHAPES.map(|shape| (storage, shape)));
        let activations = [Activation::Linear, Activation::Relu, Activation::Relu6];
        shapes.flat_map(move |(storage, shape)| activations.map(|activation| (storage, shape, activation)))
    }

    #[test]
    fn a_batch_is_measured_and_normalised() {
        for (storage, shape, last) in cases() {
            let mut bench = Bench::new(storage);
            let (len, channels) = (shape.iter().product(), shape[2]);
            let (x, residual) = (bench.sample(len, 1), large(&bench.sample(len, 2)));
            let layer = Layer::new(&mut bench, channels, last == Activation::Relu);
            let (on_x, on_residual) = (bench.values(&x, shape), bench.values(&residual, shape));
            let [alone, added, fused] = [0; 3].map(|_| bench.output(shape));
            let Layer { bn, statistics, running, scalars, .. } = layer;
            measure(&mut bench.tape, &bn, on_x, statistics, running, scalars);
            apply(&mut bench.tape, &bn, statistics, on_x, None, last, alone);
            apply(&mut bench.tape, &bn, statistics, on_x, Some(on_residual), last, added);
            bench.play();
            let (expected, y) = layer.forward(&x, None, last);
            bench.exact("mean", statistics.mean, &expected.mean);
            let inverse: Vec<f64> = expected.var.iter().map(|var| 1.0 / (var + EPS).sqrt()).collect();
            bench.exact("inverse deviation", statistics.inverse_std, &inverse);
            bench.same("alone", alone, &y);
            bench.same("added", added, &layer.forward(&x, Some(&residual), last).1);
            let (mut mean, mut var) = (vec![0.5; channels], vec![2.0; channels]);
            let rows = shape[0] * shape[1];
            expected.update_running(rows, Momentum::Exponential(0.1), &mut mean, &mut var);
            bench.exact("running mean", running.mean, &mean);
            bench.exact("running variance", running.var, &var);
            let sum = Sum { residual: Some(on_residual), activation: last };
            forward(&mut bench.tape, &bn, on_x, Measured { statistics, running, scalars }, sum, fused);
            bench.play();
            bench.same("fused", fused, &layer.forward(&x, Some(&residual), last).1);
            expected.update_running(rows, Momentum::Exponential(0.1), &mut mean, &mut var);
            bench.exact("running mean", running.mean, &mean);
            // And what evaluation makes of it.
            fixed(&mut bench.tape, &bn, running, statistics);
            apply(&mut bench.tape, &bn, statistics, on_x, None, last, fused);
            bench.play();
            bench.same("fixed", fused, &layer.normalised(&x, &BatchStatistics { mean, var }, None, last));
        }
    }

    #[test]
    fn values_far_from_zero_keep_their_variance() {
        for shape in [[300, 1, 5], [4, 5000, 5]] {
            let mut bench = Bench::new(Storage::F32);
            let x: Vec<f64> =
                bench.sample(shape.iter().product(), 1).iter().map(|x| f64::from((1000.0 + x) as f32)).collect();
            let layer = Layer::new(&mut bench, 5, true);
            let on_x = bench.values(&x, shape);
            measure(&mut bench.tape, &layer.bn, on_x, layer.statistics, layer.running, layer.scalars);
            bench.play();
            let expected = layer.forward(&x, None, Activation::Linear).0.var;
            let inverse: Vec<f64> = expected.iter().map(|var| 1.0 / (var + EPS).sqrt()).collect();
            close("inverse", &bench.device.floats(layer.statistics.inverse_std), &inverse, 1e-5);
        }
    }

    /// What is wanted of the way back.
    #[derive(Clone, Copy)]
    struct Case {
        last: Activation,
        mask: Mask,
        add: bool,
        /// Whether something was added before the activation.
        residual: bool,
        plain: bool,
    }

    const CASES: [Case; 11] = {
        use Activation::{Linear, Relu, Relu6};
        [
            Case { last: Linear, mask: Mask::Again, add: false, residual: false, plain: false },
            Case { last: Relu, mask: Mask::ByY, add: false, residual: false, plain: true },
            Case { last: Relu, mask: Mask::Again, add: true, residual: false, plain: false },
            Case { last: Relu, mask: Mask::Again, add: false, residual: false, plain: true },
            Case { last: Relu, mask: Mask::ByY, add: false, residual: true, plain: false },
            Case { last: Relu, mask: Mask::ByY, add: true, residual: true, plain: false },
            Case { last: Linear, mask: Mask::ByY, add: false, residual: true, plain: true },
            Case { last: Relu6, mask: Mask::Again, add: false, residual: false, plain: false },
            Case { last: Relu6, mask: Mask::Again, add: true, residual: false, plain: false },
            Case { last: Relu6, mask: Mask::ByY, add: false, residual: true, plain: true },
            Case { last: Relu6, mask: Mask::ByY, add: true, residual: true, plain: false },
        ]
    };

    #[test]
    fn gradients_are_those_of_the_processor() {
        for (storage, shape) in STORAGES.into_iter().flat_map(|storage| SHAPES.map(|shape| (storage, shape))) {
            for case in CASES {
                gradients(storage, shape, case);
            }
        }
    }

    fn gradients(storage: Storage, shape: [usize; 3], case: Case) {
        let mut bench = Bench::new(storage);
        let (len, channels) = (shape.iter().product(), shape[2]);
        let [x, residual, dy, old] = [1, 2, 3, 4].map(|seed| bench.sample(len, seed));
        let residual = large(&residual);
        let layer = Layer::new(&mut bench, channels, case.plain);
        let (s, y) = layer.forward(&x, case.residual.then_some(&residual[..]), case.last);
        let y = rounded(storage, &y);
        let inverse: Vec<f64> = s.var.iter().map(|var| 1.0 / (var + EPS).sqrt()).collect();
        bench.device.put(layer.statistics.mean, &s.mean.iter().map(|mean| *mean as f32).collect::<Vec<_>>());
        bench
            .device
            .put(layer.statistics.inverse_std, &inverse.iter().map(|number| *number as f32).collect::<Vec<_>>());
        let [on_x, on_y, on_dy] = [&x, &y, &dy].map(|numbers| bench.values(numbers, shape));
        let dx = bench.target(&old, shape, case.add);
        let dresidual = case.residual.then(|| bench.target(&old, shape, case.add));
        let [dweight, dbias] = [0; 2].map(|_| (!case.plain).then(|| bench.place(channels)));
        let wanted = Backward {
            x: on_x,
            y: if case.mask == Mask::Again { bench.output(shape) } else { on_y },
            dy: on_dy,
            activation: case.last,
            dx: Some((dx, case.add)),
            dresidual: dresidual.map(|values| (values, case.add)),
            dweight,
            dbias,
        };
        let run = if case.mask == Mask::Again { backward_alone } else { backward };
        run(&mut bench.tape, &layer.bn, layer.statistics, &wanted);
        bench.play();
        let mut masked = dy;
        let bounds = match case.last {
            Activation::Linear => [f64::NEG_INFINITY, f64::INFINITY],
            Activation::Relu => [0.0, f64::INFINITY],
            Activation::Relu6 => [0.0, 6.0],
        };
        let passes = |y: f64| bounds[0] < y && y < bounds[1];
        masked.iter_mut().zip(&y).filter(|(_, y)| !passes(**y)).for_each(|(gradient, _)| *gradient = 0.0);
        let weight = layer.weights();
        let back = cpu::Backward { statistics: &s, weight: &weight, eps: EPS };
        let (mut of_weight, mut of_bias, mut of_x) = (vec![0.0; channels], vec![0.0; channels], old.clone());
        back.parameters(&mut workspace(), &x, &masked, &mut of_weight, &mut of_bias);
        back.input(&x, &masked, &of_weight, &of_bias, &mut of_x, case.add);
        bench.same("dx", dx, &of_x);
        if let (Some(dweight), Some(dbias)) = (dweight, dbias) {
            bench.exact("dweight", dweight, &of_weight);
            bench.exact("dbias", dbias, &of_bias);
        }
        if let Some(dresidual) = dresidual {
            let old = if case.add { old } else { vec![0.0; len] };
            let expected: Vec<f64> = masked.iter().zip(old).map(|(gradient, old)| gradient + old).collect();
            bench.same("dresidual", dresidual, &expected);
        }
    }
}
