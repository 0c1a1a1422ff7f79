//! What compensation must do, whatever its arithmetic.

use super::*;

#[test]
fn keeping_everything_changes_nothing() {
    for graph in [mlp(true, [5, 4]), convnet(), resnet()] {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 40, 3);
        let (plain, compensated) = fuse(&ensemble, &totals(&ensemble), Importance::Magnitude, &inputs, &EXACT);
        assert!(compensated.done.layers.is_empty());
        let expected = verify::mean_of_members(&ensemble, &inputs.values, 40).unwrap();
        assert!(verify::Agreement::of(&expected, &logits(&plain.graph, &compensated.weights, &inputs)).holds());
    }
}

#[test]
fn copies_are_recovered_exactly() {
    for graph in [mlp(true, [9, 7]), mlp(false, [9, 7]), convnet(), resnet()] {
        let state = weights(&graph, 1);
        let member = Member { graph: &graph, weights: &state };
        let ensemble = Ensemble::new(vec![member, member]).unwrap();
        let inputs = noise(&graph, 400, 3);
        let expected = logits(&graph, &state, &inputs);
        for convolutions in [Convolutions::Shared, Convolutions::Full] {
            let options = CompensateOptions { convolutions, ..EXACT };
            let (plain, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Css, &inputs, &options);
            let got = error(&expected, &logits(&plain.graph, &compensated.weights, &inputs));
            assert!(got < 1e-6, "{convolutions:?} {graph:?}: {got}");
            let before = error(&expected, &logits(&plain.graph, &plain.weights, &inputs));
            assert!(before > 0.01, "half of each output is missing before: {before}");
        }
    }
}

#[test]
fn four_members_of_which_two_are_copies_are_as_good_as_two() {
    for graph in [mlp(true, [9, 7]), resnet()] {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let of = |indices: &[usize]| {
            let members = indices.iter().map(|index| Member { graph: &graph, weights: &states[*index] });
            Ensemble::new(members.collect()).unwrap()
        };
        let inputs = noise(&graph, 400, 3);
        let (two, four) = (of(&[0, 1]), of(&[0, 1, 0, 1]));
        let targets = halves(&two);
        let (a, from_two) = fuse(&two, &targets, Importance::Css, &inputs, &EXACT);
        let (b, from_four) = fuse(&four, &targets, Importance::Css, &inputs, &EXACT);
        assert!(b.provenance.groups.iter().flat_map(|group| &group.units).all(|unit| unit.0 < 2), "a copy was taken");
        let difference =
            error(&logits(&a.graph, &from_two.weights, &inputs), &logits(&b.graph, &from_four.weights, &inputs));
        assert!(difference < 1e-5, "{difference}");
    }
}

#[test]
fn what_is_computed_anew_equals_what_was_kept_and_runs_repeat() {
    let graph = resnet();
    let states = [weights(&graph, 1), weights(&graph, 2)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 100, 3);
    let targets = halves(&ensemble);
    let selection = select(&ensemble, &targets, magnitude, |_, _| {}).unwrap();
    let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
    let options = CompensateOptions { ridge: None, sampling: Sampling { positions: 5, ..EXACT.sampling }, ..EXACT };
    let run = |held| {
        let one = [(&selection, &plain)];
        calibrate_within(held, &ensemble, &one, &inputs, &options, &Processor, &mut |_| true).unwrap().pop().unwrap()
    };
    let [kept, anew, again] = [HELD_BYTES, 0, HELD_BYTES].map(run);
    for name in kept.weights.names() {
        let values = |run: &Compensated| run.weights.f32(name).unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(values(&kept), values(&anew), "{name}");
        assert_eq!(values(&kept), values(&again), "{name}");
    }
    assert_eq!(kept.done, anew.done);
    assert!(kept.done.layers.iter().all(|layer| layer.relative_residual.is_finite() && layer.ridge > 0.0));
}

#[test]
fn stopping_is_obeyed() {
    let graph = mlp(true, [5, 4]);
    let states = [weights(&graph, 1), weights(&graph, 2)];
    let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
    let inputs = noise(&graph, 100, 3);
    let selection = select(&ensemble, &halves(&ensemble), magnitude, |_, _| {}).unwrap();
    let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
    let mut calls = 0;
    let mut monitor = |_| {
        calls += 1;
        calls < 4
    };
    let stopped = calibrate(&ensemble, &selection, &plain, &inputs, &EXACT, &Processor, &mut monitor);
    assert!(matches!(stopped, Err(FusionError::Stopped)));
    assert!(matches!(data_free(&ensemble, &selection, &plain, &mut |_| false), Err(FusionError::Stopped)));
}

#[test]
fn without_data_gaussian_inputs_are_fitted_better_than_by_selection_alone() {
    for bias in [false, true] {
        let graph = mlp(bias, [24, 16]);
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 500, 3);
        let expected = verify::mean_of_members(&ensemble, &inputs.values, 500).unwrap();
        let selection = select(&ensemble, &halves(&ensemble), magnitude, |_, _| {}).unwrap();
        let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
        let refitted = data_free(&ensemble, &selection, &plain, &mut |_| true).unwrap();
        let before = error(&expected, &logits(&plain.graph, &plain.weights, &inputs));
        let after = error(&expected, &logits(&plain.graph, &refitted.weights, &inputs));
        assert!(after < 0.6 * before, "bias {bias}: {after} after, {before} before");
        assert_eq!(refitted.done.layers.len(), 2);
    }
}

#[test]
fn convolutions_have_no_data_free_compensation() {
    let graph = convnet();
    let state = weights(&graph, 1);
    let member = Member { graph: &graph, weights: &state };
    let ensemble = Ensemble::new(vec![member, member]).unwrap();
    let selection = select(&ensemble, &halves(&ensemble), magnitude, |_, _| {}).unwrap();
    let plain = gather(&ensemble, &selection).unwrap().build().unwrap();
    let refused = data_free(&ensemble, &selection, &plain, &mut |_| true).unwrap_err();
    assert!(matches!(refused, FusionError::Coupling(_)), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// On the examples that it was fitted to, a refitted output layer is never worse than the members' own columns.
    #[test]
    fn a_refitted_output_layer_is_never_worse(
        seed in any::<u64>(), width in 2_usize..8, members in 2_usize..4, bias in any::<bool>(), factor in 0.2_f64..0.9,
    ) {
        let graph = chain(vec![Op::Input { shape: vec![4] }, linear(4, width, bias), Op::Relu, linear(width, 3, bias)]);
        let states: Vec<StateDict> = (0..members as u64).map(|i| weights(&graph, seed.wrapping_add(i))).collect();
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let inputs = noise(&graph, 80, seed);
        let target = (((width * members) as f64) * factor).ceil() as usize;
        for importance in [Importance::Magnitude, Importance::L1, Importance::Random, Importance::Activation, Importance::Css] {
            let (plain, compensated) = fuse(&ensemble, &[target], importance, &inputs, &EXACT);
            let expected = verify::mean_of_members(&ensemble, &inputs.values, 80).unwrap();
            let before = error(&expected, &logits(&plain.graph, &plain.weights, &inputs));
            let after = error(&expected, &logits(&plain.graph, &compensated.weights, &inputs));
            prop_assert!(after <= before + 1e-6, "{importance:?}: {after} after, {before} before");
        }
    }
}
