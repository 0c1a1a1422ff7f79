//! Every operation against what PyTorch computes; see `tests/fixtures/ops`.

use crate::fusion::reference::verify;
use crate::fusion::{Consensus, Ensemble, Member, Mixture, Selection, Shares, gather};
use crate::kernels::finite_difference::sample;
use crate::model::families::fresh;
use crate::model::parameters;
use crate::tensors::StateDict;
use crate::tensors::operation_cases::cases;

#[test]
fn every_operation_computes_what_pytorch_does() {
    let cases = cases::<f32>();
    let mut wrong = Vec::new();
    for case in &cases {
        let (graph, weights) = (case.graph(), case.weights());
        let member = Member { graph: &graph, weights: &weights };
        let got = verify::reference(member, &case.inputs, case.batch).unwrap();
        assert_eq!(got.len(), case.outputs.len(), "{}", case.name);
        let most = got.iter().zip(&case.outputs).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
        if most.is_nan() || most > 5e-6 {
            wrong.push(format!("{}: {most}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases.len() > 70);
}

#[test]
fn factors_of_classes_are_part_of_the_concatenation() {
    let graph = fresh::mlp(&vec![6], &[5, 4], 3).unwrap();
    let weights = |seed: u64| {
        let mut weights = StateDict::default();
        for (index, parameter) in parameters::of_graph(&graph).into_iter().enumerate() {
            let values = sample(parameter.shape.iter().product(), seed + index as u64);
            weights.insert_f32(&parameter.name, &parameter.shape, values.iter().map(|x| *x as f32).collect()).unwrap();
        }
        weights
    };
    let states = [weights(1), weights(50)];
    let members = || states.iter().map(|weights| Member { graph: &graph, weights }).collect();
    let shares = Shares::of_classes(vec![vec![0.9, 0.2, 0.5], vec![0.1, 0.8, 0.5]]);
    let consensus = Consensus { mixture: Mixture::Logits, shares, classes: 3 };
    let ensemble = Ensemble::new(members()).unwrap().with_consensus(consensus);
    assert_eq!(ensemble.output_layer(), Some(graph.output()));
    let inputs: Vec<f32> = sample(7 * 6, 9).iter().map(|x| *x as f32).collect();
    let expected = verify::mean_of_members(&ensemble, &inputs, 7).unwrap();
    let of_first = verify::reference(ensemble.members()[0], &inputs, 7).unwrap();
    let of_second = verify::reference(ensemble.members()[1], &inputs, 7).unwrap();
    assert!((expected[1] - (0.2 * of_first[1] + 0.8 * of_second[1])).abs() < 1e-6);
    let virtually = verify::concatenation(&ensemble, &inputs, 7).unwrap();
    assert!(verify::Agreement::of(&expected, &virtually).holds());
    let built = gather(&ensemble, &Selection::all(&ensemble)).unwrap().build().unwrap();
    let really = verify::reference(built.as_member(), &inputs, 7).unwrap();
    assert!(verify::Agreement::of(&expected, &really).holds());
    assert!(
        !verify::Agreement::of(
            &verify::mean_of_members(&Ensemble::new(members()).unwrap(), &inputs, 7).unwrap(),
            &really
        )
        .holds()
    );
}
