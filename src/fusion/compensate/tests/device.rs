//! Fits and rankings on a device with memory of its own, beside those on the processor.

use super::networks::families;
use super::*;
use crate::exec::EngineError;
use crate::exec::gpu::GpuStatistics;
use crate::exec::gpu::emulated::Emulated;
use crate::exec::statistics::{Statistics, StatisticsDevice, StatisticsPlan};
use crate::fusion::calibration::PassCount;

/// The emulated device.
#[derive(Debug)]
pub(in crate::fusion) struct OnEmulated;

impl StatisticsDevice for OnEmulated {
    fn open(
        &self,
        networks: &[(&Graph, &dyn Weights)],
        plan: StatisticsPlan,
    ) -> Result<Option<Box<dyn Statistics>>, EngineError> {
        Ok(Some(Box::new(GpuStatistics::open(Emulated::new(), networks, plan)?)))
    }
}

/// Asserts that all numbers are as expected, as parts of the largest one.
#[track_caller]
fn near(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6_f64, |most, value| most.max(value.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let off = (got - expected).abs();
        assert!(off <= tolerance * scale, "{what}, {index}: {got} for {expected} (scale {scale})");
    }
}

fn all() -> Vec<(&'static str, Graph)> {
    let others = [("mlp", mlp(true, [5, 4])), ("convnet", convnet()), ("resnet", resnet())];
    others.into_iter().chain(families()).collect()
}

fn singles(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[test]
fn activations_are_measured_as_on_the_processor() {
    for (name, graph) in all() {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 23, 3);
        for positions in [1000, 3] {
            let sampling = Sampling { samples: None, positions, seed: 5 };
            let measured =
                |on: &dyn StatisticsDevice| measure(&ensemble, &inputs, &sampling, on, &mut |_| true).unwrap();
            let [expected, got] = [measured(&Processor), measured(&OnEmulated)];
            for group in (0..ensemble.groups()).map(GroupId) {
                for member in 0..2 {
                    let [expected, got] = [&expected, &got].map(|of| of.squared_differences(&ensemble, group, member));
                    near(&format!("{name}, group {group:?} of {member}"), &got, &expected, 1e-5);
                }
            }
        }
    }
}

/// Everything that a fit can be made of, in turns.
fn every_option() -> Vec<CompensateOptions> {
    let sampling = |positions| Sampling { samples: None, positions, seed: 7 };
    let base = CompensateOptions { ridge: Some(0.1), ..EXACT };
    vec![
        CompensateOptions { sampling: sampling(1000), ..base },
        CompensateOptions {
            sampling: sampling(4),
            convolutions: Convolutions::Full,
            output_layer: OutputTargets::Probabilities,
            ..base
        },
    ]
}

/// All sums of all layers' systems, before anything is refitted.
#[test]
fn moments_are_those_of_the_processor() {
    let mut compared = 0;
    for (name, graph) in all() {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 61, 3);
        let selection = select(&ensemble, &halves(&ensemble), magnitude, |_, _| {}).unwrap();
        let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
        let one = [(&selection, &plain)];
        for options in every_option() {
            let open =
                |on: &dyn StatisticsDevice| Refitter::new(HELD_BYTES, &ensemble, &one, &inputs, &options, on).unwrap();
            let [(mut processor, layers), (mut device, _)] = [open(&Processor), open(&OnEmulated)];
            for (index, layer) in layers.iter().enumerate() {
                let systems: Vec<_> = layer.systems.iter().flatten().map(|system| (0, system)).collect();
                let count = PassCount { done: index, total: layers.len() };
                let measured = |work: &mut Refitter<'_>| work.moments(count, &systems, None, &mut |_| true).unwrap();
                let [expected, got] = [&mut processor, &mut device].map(|work| {
                    let all = measured(work).into_iter().flatten().flatten();
                    all.map(|moments| {
                        let (x, y) = moments.means();
                        let [at_x, at_y] = [&x, &y].map(|means| vec![0.0; means.len()]);
                        (moments.rows(), x, y, moments.about(&at_x, &at_y))
                    })
                    .collect::<Vec<_>>()
                });
                assert_eq!(expected.len(), got.len());
                for ((rows, x, y, normal), (got_rows, got_x, got_y, got_normal)) in expected.iter().zip(&got) {
                    let what = format!("{name}, node {}", layer.id.0);
                    assert_eq!(rows, got_rows, "{what}");
                    // Means as parts of what they are means of.
                    let about = |means: &[f64], squares: &dyn Fn(usize) -> f64| {
                        let means = means.iter().enumerate();
                        means.map(|(at, mean)| mean / squares(at).sqrt().max(1e-9)).collect::<Vec<_>>()
                    };
                    let of_x = |at: usize| normal.xx[at * (normal.features + 1)];
                    let of_y = |at: usize| normal.yy[at];
                    let [means_x, got_x] = [x, got_x].map(|means| [about(means, &of_x), vec![1.0]].concat());
                    let [means_y, got_y] = [y, got_y].map(|means| [about(means, &of_y), vec![1.0]].concat());
                    let pairs = [
                        (&means_x, &got_x),
                        (&means_y, &got_y),
                        (&normal.xx, &got_normal.xx),
                        (&normal.yx, &got_normal.yx),
                        (&normal.yy, &got_normal.yy),
                    ];
                    for (expected, got) in pairs {
                        near(&what, got, expected, 1e-5);
                        compared += expected.len();
                    }
                }
            }
        }
    }
    assert!(compared > 10_000, "{compared} sums compared");
}

#[test]
fn layers_are_refitted_as_on_the_processor() {
    for (name, graph) in all() {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 61, 3);
        let targets = halves(&ensemble);
        let selection = select(&ensemble, &targets, magnitude, |_, _| {}).unwrap();
        let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
        for options in every_option() {
            let one = [(&selection, &plain), (&selection, &plain)];
            let fitted = |on: &dyn StatisticsDevice| {
                calibrate_all(&ensemble, &one, &inputs, &options, on, &mut |_| true).unwrap()
            };
            let [expected, got] = [fitted(&Processor), fitted(&OnEmulated)];
            for (expected, got) in expected.iter().zip(&got) {
                assert_eq!(expected.done.layers.len(), got.done.layers.len(), "{name}");
                for (expected, got) in expected.done.layers.iter().zip(&got.done.layers) {
                    assert_eq!((&expected.layer, expected.rows), (&got.layer, got.rows), "{name}");
                    let what = format!("{name}, residual of {}", got.layer);
                    // What little some features vary about their means is rounded on both.
                    near(&what, &[got.relative_residual], &[expected.relative_residual], 1e-2);
                }
                // A search for the least cross-entropy ends where it ends.
                if let Some(expected) = &expected.done.output_layer {
                    let got = got.done.output_layer.as_ref().unwrap();
                    assert_eq!(expected.examples, got.examples, "{name}");
                    let [before, after] = [expected, got].map(|fit| [fit.loss_before, fit.loss_after]);
                    near(&format!("{name}, cross-entropies"), &after, &before, 2e-2);
                    continue;
                }
                let [expected_logits, got_logits] =
                    [expected, got].map(|fit| singles(&logits(&plain.graph, &fit.weights, &inputs)));
                near(&format!("{name}, logits by {options:?}"), &got_logits, &expected_logits, 1e-3);
            }
        }
    }
}

/// A layer behind a flattened image has more unknowns than a fit takes, so that channels are fitted.
#[test]
fn flattened_images_are_fitted_by_channels() {
    let graph = chain(vec![
        Op::Input { shape: vec![2, 30, 30] },
        conv(2, 5, Window::square(3, 1, 1), true),
        Op::Relu,
        Op::Flatten,
        linear(4500, 3, true),
    ]);
    let states = [weights(&graph, 1), weights(&graph, 2)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 12, 3);
    let selection = select(&ensemble, &[5], magnitude, |_, _| {}).unwrap();
    let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
    let options =
        CompensateOptions { ridge: Some(0.1), sampling: Sampling { samples: None, positions: 9, seed: 2 }, ..EXACT };
    let fitted = |on: &dyn StatisticsDevice| {
        calibrate(&ensemble, &selection, &plain, &inputs, &options, on, &mut |_| true).unwrap()
    };
    let [expected, got] = [fitted(&Processor), fitted(&OnEmulated)];
    let [a, b] = [&expected, &got].map(|fit| singles(&logits(&plain.graph, &fit.weights, &inputs)));
    near("logits", &b, &a, 1e-3);
    assert_eq!(got.done.layers[0].rows, 12 * 9);
}
