//! Plain averaging of weights: the baseline that ignores which unit is which.

use crate::fusion::gather::Fused;
use crate::fusion::provenance::Provenance;
use crate::fusion::{Ensemble, FusionError};
use crate::model::parameters;
use crate::tensors::StateDict;

/// The mean of the members' weights, tensor by tensor.
///
/// # Errors
/// When members have different widths or weights cannot be read.
pub fn average(ensemble: &Ensemble<'_>) -> Result<Fused, FusionError> {
    let graph = ensemble.graph();
    let mut weights = StateDict::default();
    for parameter in parameters::of_graph(graph) {
        let mut sums = vec![0.0_f64; parameter.shape.iter().product()];
        for (index, member) in ensemble.members().iter().enumerate() {
            let values = member.weights.f32(&parameter.name)?;
            if values.len() != sums.len() {
                return Err(FusionError::WidthsDiffer { member: index, tensor: parameter.name });
            }
            sums.iter_mut().zip(&*values).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let count = ensemble.members().len() as f64;
        let mean = sums.into_iter().map(|sum| (sum / count) as f32).collect();
        weights.insert_f32(&parameter.name, &parameter.shape, mean)?;
    }
    for node in graph.nodes() {
        let counter = parameters::counter(&node.name);
        if let Some(count) = ensemble.members()[0].weights.counter(&counter) {
            weights.insert_counter(&counter, count)?;
        }
    }
    let provenance = Provenance { shares: ensemble.shares().to_vec(), groups: Vec::new() };
    Ok(Fused { graph: graph.clone(), weights, provenance })
}
