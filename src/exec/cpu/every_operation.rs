//! Every operation by itself, against what PyTorch computes (see `tests/fixtures/ops`) and against finite differences.

use super::*;
use crate::kernels::finite_difference::{assert_gradient, sample};
use crate::kernels::loss::Soft;
use crate::kernels::truth::Truths;
use crate::tensors::operation_cases::{Case, cases};

/// The case's network, framed and with its weights.
fn network(case: &Case<f64>) -> CpuNetwork<f64> {
    let (graph, weights) = case.framed();
    let mut network = CpuNetwork::compile(&graph, case.batch, 2).unwrap();
    network.load(&weights).unwrap();
    network
}

#[test]
fn outputs_are_those_of_pytorch() {
    for case in cases::<f64>() {
        let mut network = network(&case);
        let got = network.forward(&case.inputs).unwrap();
        assert_eq!(got.len(), case.outputs.len(), "{}", case.name);
        for (got, expected) in got.iter().zip(&case.outputs) {
            assert!((got - expected).abs() < 5e-6 * expected.abs().max(1.0), "{}: {got} for {expected}", case.name);
        }
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    let mut compared = 0;
    for case in cases::<f64>() {
        let Some(gradients) = &case.gradients else { continue };
        let mut network = network(&case);
        let labels: Vec<u32> = (0..case.batch).map(|i| (i % network.classes()) as u32).collect();
        network.gradients(&case.inputs, Targets::of(&labels)).unwrap();
        assert_eq!(gradients.len(), network.parameters().len(), "{}", case.name);
        for parameter in network.parameters() {
            let expected = &gradients[&parameter.name];
            let scale = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
            for (got, expected) in parameter.to_pytorch(&parameter.gradient).iter().zip(expected) {
                let (name, got) = (&parameter.name, f64::from(*got));
                let near = (got - expected).abs() < 1e-5 * scale + 1e-6;
                assert!(near, "{}, {name}: {got} for {expected}", case.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "{compared} values compared");
}

#[test]
fn gradients_equal_finite_differences() {
    for case in cases::<f64>() {
        let mut network = network(&case);
        let teacher = sample(case.batch * network.classes(), 2);
        let labels = vec![0; case.batch];
        let soft = Some(Soft { teacher: &teacher[..], temperature: 2.0, weight: 1.0 });
        let targets = Targets { truths: Truths::Classes(&labels), smoothing: 0.0, soft };
        for index in 0..network.parameters().len() {
            network.gradients(&case.inputs, targets).unwrap();
            let parameter = &network.compiled.parameters[index];
            let what = format!("{}, {}", case.name, parameter.name);
            let (at, gradient) = (parameter.values.clone(), parameter.gradient.clone());
            assert_gradient(&what, &at, &gradient, |values| {
                network.compiled.parameters[index].values.copy_from_slice(values);
                network.gradients(&case.inputs, targets).unwrap().loss
            });
            network.compiled.parameters[index].values.copy_from_slice(&at);
        }
    }
}
