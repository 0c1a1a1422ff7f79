//! The methods: one file each, and the registry of all of them.

pub(super) mod aligned;
mod average;
mod distill_only;
pub(super) mod neuron_interpolation;
mod neuron_transplantation;
mod optimal_transport;
mod permutation_alignment;

use super::batch_norm;
use super::context::Context;
use super::join::FusedFile;
use super::phases::Halt;
use crate::domain::progress::Phase;
use crate::fusion::Ensemble;
use crate::settings::{BatchNorm, MethodName};

/// A way in which members become one network.
#[derive(Debug, Clone, Copy)]
pub struct MethodEntry {
    /// Its name in requests.
    pub name: MethodName,
    /// Where it comes from.
    pub source: &'static str,
    /// The fields of `method` that it reads beside its name.
    pub parameters: &'static [&'static str],
    /// Makes the network, in a file below the scratch folder.
    make: fn(&mut Context<'_>, &Ensemble<'_>) -> Result<FusedFile, Halt>,
}

/// Every method.
pub const METHODS: [MethodEntry; 6] = [
    neuron_transplantation::METHOD,
    average::METHOD,
    optimal_transport::METHOD,
    permutation_alignment::METHOD,
    neuron_interpolation::METHOD,
    distill_only::METHOD,
];

/// The method of this name.
#[must_use]
pub fn method(name: MethodName) -> MethodEntry {
    match name {
        MethodName::NeuronTransplantation => neuron_transplantation::METHOD,
        MethodName::Average => average::METHOD,
        MethodName::OptimalTransport => optimal_transport::METHOD,
        MethodName::PermutationAlignment => permutation_alignment::METHOD,
        MethodName::NeuronInterpolation => neuron_interpolation::METHOD,
        MethodName::DistillOnly => distill_only::METHOD,
    }
}

/// Makes one network of the members by the job's method, in a file below the scratch folder. The file of a network that will
/// be trained, compensated, or joined with others, is gone with its map.
pub(super) fn fuse(context: &mut Context<'_>, ensemble: &Ensemble<'_>) -> Result<FusedFile, Halt> {
    context.phases.begin(Phase::Score)?;
    let name = context.method().name;
    let made = (method(name).make)(context, ensemble)?;
    if !name.selects() {
        context.counts.joins += 1;
    }
    // Those that align have measured them already, and there is nothing to measure of a network that is trained alone.
    let measures = !name.aligns() && name != MethodName::DistillOnly;
    match context.bench {
        Some(bench) if measures && context.network().batch_norm == BatchNorm::Reset => {
            batch_norm::with_statistics(context, bench, made)
        }
        _ => Ok(made),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::parse::parse;

    #[test]
    fn every_name_leads_to_its_method() {
        for listed in METHODS {
            assert_eq!(method(listed.name).name, listed.name);
            assert!(!listed.source.is_empty());
            let body = json!({"members": ["a"], "dataset": "d", "finetune": {"epochs": 1},
                "method": {"name": listed.name.as_str()}});
            assert_eq!(parse(&body).map(|job| job.method.name), Ok(listed.name));
        }
    }

    #[test]
    fn parameters_are_fields_of_requests() {
        let fields = serde_json::to_value(crate::settings::Method::default()).expect("plain values");
        for method in METHODS {
            for parameter in method.parameters {
                assert!(fields.get(parameter).is_some(), "{}: {parameter}", method.name.as_str());
            }
        }
    }
}
