//! The file of a reference, checked, and what kind of outputs it holds.

use crate::cost::identification::FEWEST_INPUTS;
use crate::domain::problem::{Fault, FaultCode, Problem};
use crate::pipeline::phases::Halt;
use crate::tensors::{Checkpoint, Weights};

/// What a member's last layer gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputScale {
    Logits,
    /// Their logarithms of probabilities.
    LogSoftmax,
    Softmax,
}

/// Inputs, and what one member makes of them in the client's own code.
pub(super) struct ReferenceData {
    /// Examples of the network's input shape, one after another.
    pub(super) inputs: Vec<f32>,
    /// As many outputs as classes for each.
    pub(super) outputs: Vec<f32>,
    /// Number of inputs.
    pub(super) count: usize,
}

/// A mistake in the file.
pub(super) fn fault(detail: String) -> Halt {
    Halt::Failed(Problem::faults(vec![Fault::new("/reference", FaultCode::ShapeMismatch, detail)]))
}

/// Reads the tensors `inputs` and `logits`, for inputs of the shape `input`.
pub(super) fn read(checkpoint: &Checkpoint, input: &[usize], name: &str) -> Result<ReferenceData, Halt> {
    let shape = |tensor: &str| {
        let info = checkpoint.header().tensors.iter().find(|info| info.name == tensor);
        info.map(|info| info.shape.clone()).ok_or_else(|| {
            fault(format!("`{name}` has no tensor `{tensor}`: expected `inputs` and `logits`, see docs/reference.md"))
        })
    };
    let (inputs, logits) = (shape("inputs")?, shape("logits")?);
    let count = inputs.first().copied().unwrap_or(0);
    let elements: usize = input.iter().product();
    if inputs.iter().skip(1).product::<usize>() != elements || inputs.len() < 2 {
        return Err(fault(format!(
            "`inputs` of `{name}`: expected shape [N, …{input:?}], got {inputs:?}; where the network reads these, the job says so by \
             `input_shape`"
        )));
    }
    if count < FEWEST_INPUTS || logits.first() != Some(&count) {
        let detail = format!(
            "`{name}`: expected at least {FEWEST_INPUTS} inputs and as many logits, got {count} and {}",
            logits.first().copied().unwrap_or(0)
        );
        return Err(fault(detail));
    }
    let values =
        |tensor: &str| checkpoint.f32(tensor).map_err(|error| fault(format!("`{tensor}` of `{name}`: {error}")));
    let (inputs, outputs) = (values("inputs")?, values("logits")?);
    let width = outputs.len() / count;
    let varied = outputs.chunks_exact(width.max(1)).skip(1).any(|row| row != &outputs[..width]);
    if !varied {
        return Err(fault(format!("`{name}`: all inputs give the same logits; expected varied inputs")));
    }
    if inputs.iter().chain(outputs.iter()).any(|value| !value.is_finite()) {
        return Err(fault(format!("`{name}` holds values that are not finite")));
    }
    Ok(ReferenceData { inputs: inputs.into_owned(), outputs: outputs.into_owned(), count })
}

/// What kind of outputs these are.
pub(super) fn scale_of(outputs: &[f32], classes: usize) -> OutputScale {
    if classes < 2 {
        return OutputScale::Logits;
    }
    // As far off as probabilities of eight bits of precision add up to.
    let near_one = |sum: f64| (sum - 1.0).abs() < 1e-2;
    let rows = || outputs.chunks_exact(classes);
    if rows().all(|row| row.iter().all(|value| *value >= 0.0) && near_one(row.iter().map(|v| f64::from(*v)).sum())) {
        OutputScale::Softmax
    } else if rows().all(|row| near_one(row.iter().map(|value| f64::from(*value).exp()).sum())) {
        OutputScale::LogSoftmax
    } else {
        OutputScale::Logits
    }
}

/// Logits as outputs of that kind.
pub(super) fn scaled(logits: &[f32], classes: usize, scale: OutputScale) -> Vec<f32> {
    let row = |row: &[f32]| -> Vec<f32> {
        let largest = row.iter().fold(f64::NEG_INFINITY, |largest, value| largest.max(f64::from(*value)));
        let sum = row.iter().map(|value| (f64::from(*value) - largest).exp()).sum::<f64>().ln() + largest;
        let log = row.iter().map(|value| f64::from(*value) - sum);
        match scale {
            OutputScale::Logits => row.to_vec(),
            OutputScale::LogSoftmax => log.map(|value| value as f32).collect(),
            OutputScale::Softmax => log.map(|value| value.exp() as f32).collect(),
        }
    };
    logits.chunks_exact(classes.max(1)).flat_map(row).collect()
}
