//! Every operation against what PyTorch computes; see `tests/fixtures/ops`.

use crate::fusion::Member;
use crate::fusion::reference::verify;
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
