//! Refits equal the formula, solved naively.

use super::*;

/// `(A + ridge · mean diagonal · I)⁻¹ b` by elimination with pivots.
fn naive_solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>, ridge: f64) -> Vec<f64> {
    let n = b.len();
    let mean = (0..n).map(|i| a[i][i]).sum::<f64>() / n as f64;
    (0..n).for_each(|i| a[i][i] += ridge * mean);
    for i in 0..n {
        let pivot = (i..n).max_by(|p, q| a[*p][i].abs().total_cmp(&a[*q][i].abs())).unwrap();
        a.swap(i, pivot);
        b.swap(i, pivot);
        let (line, value) = (a[i].clone(), b[i]);
        for row in (0..n).filter(|row| *row != i) {
            let factor = a[row][i] / line[i];
            a[row].iter_mut().zip(&line).for_each(|(element, other)| *element -= factor * other);
            b[row] -= factor * value;
        }
    }
    (0..n).map(|i| b[i] / a[i][i]).collect()
}

/// Least squares of `y` by the rows `x`, about their means if `centred`: weights, then the constant.
fn naive_fit(x: &[Vec<f64>], y: &[f64], centred: bool, ridge: f64) -> (Vec<f64>, f64) {
    let (rows, n) = (x.len() as f64, x[0].len());
    let factor = if centred { 1.0 } else { 0.0 };
    let mean_x: Vec<f64> = (0..n).map(|i| factor * x.iter().map(|row| row[i]).sum::<f64>() / rows).collect();
    let mean_y = factor * y.iter().sum::<f64>() / rows;
    let product = |i: usize, j: usize| x.iter().map(|r| (r[i] - mean_x[i]) * (r[j] - mean_x[j])).sum::<f64>() / rows;
    let gram = (0..n).map(|i| (0..n).map(|j| product(i, j)).collect()).collect();
    let cross = |i: usize| x.iter().zip(y).map(|(r, y)| (r[i] - mean_x[i]) * (y - mean_y)).sum::<f64>() / rows;
    let weight = naive_solve(gram, (0..n).map(cross).collect(), ridge);
    let constant = mean_y - weight.iter().zip(&mean_x).map(|(w, x)| w * x).sum::<f64>();
    (weight, constant)
}

/// `relu(W x + b)` of every row.
fn naive_hidden(state: &StateDict, inputs: &InputRows, bias: bool) -> Vec<Vec<f64>> {
    let weight = state.f32("n1.weight").unwrap();
    let bias = if bias { state.f32("n1.bias").unwrap().to_vec() } else { vec![0.0; weight.len() / inputs.len] };
    let dot = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    let outputs = |x: &[f32]| {
        weight.chunks(inputs.len).zip(&bias).map(|(row, b)| (dot(row, x) + f64::from(*b)).max(0.0)).collect()
    };
    inputs.values.chunks(inputs.len).map(outputs).collect()
}

#[test]
fn the_refit_equals_the_formula() {
    for bias in [false, true] {
        let graph = chain(vec![Op::Input { shape: vec![5] }, linear(5, 6, bias), Op::Relu, linear(6, 3, bias)]);
        let states = [weights(&graph, 4), weights(&graph, 5)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 150, 6);
        let options = CompensateOptions { ridge: Some(1e-3), ..EXACT };
        let (plain, compensated) = fuse(&ensemble, &[4], Importance::Magnitude, &inputs, &options);
        let hidden = states.each_ref().map(|state| naive_hidden(state, &inputs, bias));
        let kept = naive_hidden(&plain.weights, &inputs, bias);
        let refitted = compensated.weights.f32("n3.weight").unwrap();
        for row in 0..3 {
            let output = |member: usize, at: usize| {
                let weight = states[member].f32("n3.weight").unwrap();
                let constant = if bias { f64::from(states[member].f32("n3.bias").unwrap()[row]) } else { 0.0 };
                let products = weight[row * 6..(row + 1) * 6].iter().zip(&hidden[member][at]);
                0.5 * (products.map(|(w, a)| f64::from(*w) * a).sum::<f64>() + constant)
            };
            let targets: Vec<f64> = (0..150).map(|at| output(0, at) + output(1, at)).collect();
            let (expected, constant) = naive_fit(&kept, &targets, bias, 1e-3);
            for (got, expected) in refitted[row * 4..(row + 1) * 4].iter().zip(expected) {
                assert!((f64::from(*got) - expected).abs() < 1e-4, "{got} for {expected}");
            }
            if bias {
                let got = f64::from(compensated.weights.f32("n3.bias").unwrap()[row]);
                assert!((got - constant).abs() < 1e-4, "{got} for {constant}");
            }
        }
    }
}

/// What channel-shared and full fits of a convolution are, with loops.
#[test]
fn refits_of_convolutions_equal_the_formula() {
    let window = Window::square(2, 1, 0);
    let graph = chain(vec![
        Op::Input { shape: vec![3, 1, 1] },
        conv(3, 5, Window::square(1, 1, 0), false),
        Op::Relu,
        conv(5, 4, Window { padding: [1, 1], ..window }, false),
        Op::GlobalAvgPool2d,
        Op::Flatten,
        linear(4, 2, false),
    ]);
    let states = [weights(&graph, 7), weights(&graph, 8)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 120, 9);
    let hidden = states.each_ref().map(|state| naive_hidden(state, &inputs, false));
    let options = CompensateOptions { ridge: Some(1e-2), ..EXACT };
    let (plain, compensated) = fuse(&ensemble, &[4, 4], Importance::Magnitude, &inputs, &options);
    let kept = naive_hidden(&plain.weights, &inputs, false);
    let kernels = plain.provenance.groups.iter().find(|group| group.layers == ["n3"]).unwrap();
    let refitted = compensated.weights.f32("n3.weight").unwrap();
    for (row, unit) in kernels.units.iter().enumerate() {
        // The image has one pixel, so channel j of member i is hidden[i][..][j], fitted by the kept channels.
        let weight = states[unit.0].f32("n3.weight").unwrap();
        let channels: Vec<Vec<f64>> = (0..5)
            .map(|j| naive_fit(&kept, &hidden[unit.0].iter().map(|a| a[j]).collect::<Vec<_>>(), false, 1e-2).0)
            .collect();
        for (s, tap) in (0..4).flat_map(|s| (0..4).map(move |tap| (s, tap))) {
            let expected: f64 = (0..5).map(|j| f64::from(weight[(unit.1 * 5 + j) * 4 + tap]) * channels[j][s]).sum();
            let got = f64::from(refitted[(row * 4 + s) * 4 + tap]);
            assert!((got - expected).abs() < 1e-4, "{got} for {expected}");
        }
    }
    // Padding 1 and a kernel of 2 x 2 give four windows, each with the pixel under another tap: the full system falls apart.
    let options = CompensateOptions { convolutions: Convolutions::Full, ..options };
    let (_, full) = fuse(&ensemble, &[4, 4], Importance::Magnitude, &inputs, &options);
    let refitted = full.weights.f32("n3.weight").unwrap();
    for (row, unit) in kernels.units.iter().enumerate() {
        let weight = states[unit.0].f32("n3.weight").unwrap();
        for tap in 0..4 {
            let product = |a: &Vec<f64>| (0..5).map(|j| f64::from(weight[(unit.1 * 5 + j) * 4 + tap]) * a[j]).sum();
            let targets: Vec<f64> = hidden[unit.0].iter().map(product).collect();
            let expected = naive_fit(&kept, &targets, false, 1e-2).0;
            for (s, expected) in expected.into_iter().enumerate() {
                let got = f64::from(refitted[(row * 4 + s) * 4 + tap]);
                assert!((got - expected).abs() < 1e-4, "{got} for {expected}");
            }
        }
    }
}

/// What the node at `index` gives, N x C x P.
fn outputs(graph: &Graph, weights: &StateDict, index: usize, inputs: &InputRows) -> Vec<f32> {
    logits(&Graph::new(graph.nodes()[..=index].to_vec()).unwrap(), weights, inputs)
}

/// What a window of 3 x 3 with dilation 2 sees of channels `channels` of an image of 5 x 5 with a rim of 2, around `at`.
fn naive_window(image: &[f32], channels: std::ops::Range<usize>, at: usize) -> Vec<f64> {
    let pixel = |channel: usize, y: usize, x: usize| {
        let (y, x) = ((at / 5 + 2 * y).checked_sub(2), (at % 5 + 2 * x).checked_sub(2));
        match (y.filter(|y| *y < 5), x.filter(|x| *x < 5)) {
            (Some(y), Some(x)) => f64::from(image[(channel * 5 + y) * 5 + x]),
            _ => 0.0,
        }
    };
    channels.flat_map(|channel| (0..9).map(move |tap| pixel(channel, tap / 3, tap % 3))).collect()
}

/// Depthwise and grouped kernels, dilated: one system for each group, of its own channels, behind a layer that was refitted.
#[test]
fn refits_of_groups_equal_the_formula() {
    for width in [1, 2] {
        let window = Window { dilation: [2, 2], ..Window::square(3, 1, 2) };
        let graph = chain(vec![
            Op::Input { shape: vec![2, 5, 5] },
            conv(2, 4, Window::square(3, 1, 1), true),
            Op::Relu,
            conv(4, 4, Window::square(1, 1, 0), true),
            Op::Relu,
            networks::grouped(4, width, window, true),
            Op::GlobalAvgPool2d,
            Op::Flatten,
            linear(4, 2, false),
        ]);
        let states = [weights(&graph, 11), weights(&graph, 12)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 60, 13);
        let options = CompensateOptions { ridge: Some(1e-3), ..EXACT };
        let (plain, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Magnitude, &inputs, &options);
        let x = outputs(&plain.graph, &compensated.weights, 4, &inputs);
        let targets = states.each_ref().map(|state| outputs(&graph, state, 5, &inputs));
        let [kernels, biases] = ["n5.weight", "n5.bias"].map(|name| compensated.weights.f32(name).unwrap());
        let units = &plain.provenance.groups.iter().find(|group| group.layers == ["n3"]).unwrap().units;
        for (group, unit) in units.iter().enumerate() {
            let channels = group * width..(group + 1) * width;
            let images = x.chunks_exact(4 * 25);
            let windows: Vec<Vec<f64>> = images
                .flat_map(|image| (0..25).map(|at| naive_window(image, channels.clone(), at)).collect::<Vec<_>>())
                .collect();
            for (row, own) in channels.clone().zip(unit.1 * width..) {
                let images = targets[unit.0].chunks_exact(4 * 25);
                let y: Vec<f64> =
                    images.flat_map(|image| &image[own * 25..(own + 1) * 25]).map(|y| f64::from(*y)).collect();
                let (expected, constant) = naive_fit(&windows, &y, true, 1e-3);
                for (got, expected) in kernels[row * width * 9..].iter().zip(expected) {
                    assert!((f64::from(*got) - expected).abs() < 1e-3, "{width}: {got} for {expected}");
                }
                assert!((f64::from(biases[row]) - constant).abs() < 1e-3, "{} for {constant}", biases[row]);
            }
        }
    }
}

/// Queries, keys and values by what the attention reads; its output by the heads of the fused network.
#[test]
fn refits_of_an_attention_equal_the_formula() {
    let projections = crate::model::graph::Projections::torch();
    let attention = Op::Attention { features: 6, heads: 2, projections, bias: true, output_bias: true };
    let graph =
        chain(vec![Op::Input { shape: vec![3, 5] }, linear(3, 6, true), attention, Op::TokenMean, linear(6, 2, false)]);
    let states = [weights(&graph, 21), weights(&graph, 22)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 150, 23);
    let options = CompensateOptions { ridge: Some(1e-3), ..EXACT };
    let (plain, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Magnitude, &inputs, &options);
    let units = |layers: &[&str], heads: bool| {
        let mut groups = plain.provenance.groups.iter().filter(|group| group.layers == layers);
        groups.find(|group| (group.units.len() == 2) == heads).unwrap().units.clone()
    };
    let (heads, rows) = (units(&["n2"], true), units(&["n2"], false));
    // N x C x 5 to rows of tokens.
    let tokens = |values: &[f32]| -> Vec<Vec<f64>> {
        let token =
            |image: &[f32], at: usize| image.iter().skip(at).step_by(5).map(|value| f64::from(*value)).collect();
        values.chunks_exact(30).flat_map(|image| (0..5).map(move |at| token(image, at)).collect::<Vec<_>>()).collect()
    };
    let x = tokens(&outputs(&plain.graph, &plain.weights, 1, &inputs));
    let members: Vec<Vec<Vec<f64>>> = states.iter().map(|state| tokens(&outputs(&graph, state, 1, &inputs))).collect();
    let tensor = |weights: &StateDict, name: &str| weights.f32(&format!("n2.{name}")).unwrap().into_owned();
    let [fitted, constants] = ["in_proj_weight", "in_proj_bias"].map(|name| tensor(&compensated.weights, name));
    for (row, third) in (0..3).flat_map(|third| (0..6).map(move |at| (third * 6 + at, third))) {
        let (unit, at) = (heads[row % 6 / 3], row % 3);
        let own = third * 6 + unit.1 * 3 + at;
        let [weight, bias] = ["in_proj_weight", "in_proj_bias"].map(|name| tensor(&states[unit.0], name));
        let dot = |token: &Vec<f64>| token.iter().zip(&weight[own * 6..]).map(|(x, w)| x * f64::from(*w)).sum::<f64>();
        let y: Vec<f64> = members[unit.0].iter().map(|token| dot(token) + f64::from(bias[own])).collect();
        let (expected, constant) = naive_fit(&x, &y, true, 1e-3);
        for (got, expected) in fitted[row * 6..].iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-3, "row {row}: {got} for {expected}");
        }
        assert!((f64::from(constants[row]) - constant).abs() < 1e-3, "row {row}: {} for {constant}", constants[row]);
    }
    // With the identity in place of its output projection the attention gives what its heads do.
    let mut bare = compensated.weights.clone();
    let identity = (0..36).map(|at| if at % 7 == 0 { 1.0 } else { 0.0 }).collect();
    bare.insert_f32("n2.out_proj.weight", &[6, 6], identity).unwrap();
    bare.insert_f32("n2.out_proj.bias", &[6], vec![0.0; 6]).unwrap();
    let mixed = tokens(&outputs(&plain.graph, &bare, 2, &inputs));
    let targets: Vec<Vec<Vec<f64>>> = states.iter().map(|state| tokens(&outputs(&graph, state, 2, &inputs))).collect();
    let fitted = tensor(&compensated.weights, "out_proj.weight");
    for (row, unit) in rows.iter().enumerate() {
        let y: Vec<f64> = targets[unit.0].iter().map(|token| token[unit.1]).collect();
        for (got, expected) in fitted[row * 6..].iter().zip(naive_fit(&mixed, &y, true, 1e-3).0) {
            assert!((f64::from(*got) - expected).abs() < 1e-3, "row {row}: {got} for {expected}");
        }
    }
}
