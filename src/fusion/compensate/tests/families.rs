//! Compensation on a small network of every family.

use super::networks::families;
use super::*;

#[test]
fn copies_are_recovered_exactly_in_every_family() {
    for (name, graph) in families() {
        let state = weights(&graph, 1);
        let member = Member { graph: &graph, weights: &state };
        let ensemble = Ensemble::new(vec![member, member]).unwrap();
        let inputs = noise(&graph, 400, 3);
        let expected = logits(&graph, &state, &inputs);
        let (plain, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Css, &inputs, &EXACT);
        let after = error(&expected, &logits(&plain.graph, &compensated.weights, &inputs));
        let before = error(&expected, &logits(&plain.graph, &plain.weights, &inputs));
        assert!(after < 1e-4, "{name}: {after} after, {before} before");
        assert!(compensated.warnings.is_empty(), "{name}: {:?}", compensated.warnings);
    }
}

/// On inputs that were not seen, two networks in one of their size.
#[test]
fn refitted_networks_are_closer_to_the_ensemble_in_every_family() {
    for (name, graph) in families() {
        let states = [weights(&graph, 1), weights(&graph, 2)];
        let ensemble = Ensemble::new(states.iter().map(|weights| Member { graph: &graph, weights }).collect()).unwrap();
        let (inputs, held_out) = (noise(&graph, 1500, 3), noise(&graph, 300, 4));
        let options =
            CompensateOptions { ridge: None, sampling: Sampling { positions: 16, ..EXACT.sampling }, ..EXACT };
        let (plain, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Magnitude, &inputs, &options);
        let expected = verify::mean_of_members(&ensemble, &held_out.values, held_out.len()).unwrap();
        let after = error(&expected, &logits(&plain.graph, &compensated.weights, &held_out));
        let before = error(&expected, &logits(&plain.graph, &plain.weights, &held_out));
        assert!(after < before, "{name}: {after} after, {before} before");
        for layer in &compensated.done.layers {
            assert!(layer.relative_residual.is_finite() && layer.ridge > 0.0, "{name}: {layer:?}");
        }
    }
}

/// A chain that reads one layer again and again gives each activation of the runner beside the reference executor's.
#[test]
fn the_runner_computes_what_the_executor_does() {
    for (name, graph) in families() {
        let state = weights(&graph, 5);
        let inputs = noise(&graph, 20, 6);
        let member = Member { graph: &graph, weights: &state };
        let network = [LayerwiseNetwork::of(member).unwrap()];
        let chosen: Vec<usize> = (0..20).collect();
        let mut stream = Stream::new(&inputs, &chosen, &graph, HELD_BYTES);
        let end = NodeId(graph.nodes().len());
        let mut got = Vec::new();
        let visit = |batch: &mut crate::fusion::calibration::RunningBatch, _: &mut _| {
            got.extend_from_slice(&batch.value(0, graph.output())?.values);
            Ok(())
        };
        stream.pass(&network, end, 0, 1, &mut |_| true, visit).unwrap();
        let expected = verify::reference(member, &inputs.values, 20).unwrap();
        assert!(verify::Agreement::of(&expected, &got).holds(), "{name}");
    }
}

/// Heads are kept whole, as many as the channels make; of copies each is kept once.
#[test]
fn heads_of_copies_are_kept_once() {
    let graph = super::networks::vit();
    let state = weights(&graph, 1);
    let member = Member { graph: &graph, weights: &state };
    let ensemble = Ensemble::new(vec![member, member]).unwrap();
    let inputs = noise(&graph, 400, 3);
    let (plain, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Css, &inputs, &EXACT);
    let of_heads = plain.provenance.groups.iter().filter(|group| group.layers.len() == 1 && group.units.len() == 2);
    let heads: Vec<Vec<usize>> =
        of_heads.map(|group| group.units.iter().map(|unit| unit.1).collect::<Vec<_>>()).collect();
    assert_eq!(heads.len(), 2);
    for mut kept in heads {
        kept.sort_unstable();
        assert_eq!(kept, [0, 1]);
    }
    let refitted = |compensated: &Compensated| -> Vec<String> {
        compensated.done.layers.iter().map(|layer| layer.layer.clone()).collect()
    };
    // One copy is kept as it was: only the output layer lost the other's half.
    assert_eq!(refitted(&compensated), ["n23"]);
    let other = weights(&graph, 2);
    let ensemble = Ensemble::new(vec![member, Member { graph: &graph, weights: &other }]).unwrap();
    let (_, compensated) = fuse(&ensemble, &halves(&ensemble), Importance::Css, &inputs, &EXACT);
    let layers = refitted(&compensated);
    for layer in ["n6 (queries, keys, values)", "n6 (output)", "n23"] {
        assert!(layers.iter().any(|name| name == layer), "{layers:?}");
    }
}
