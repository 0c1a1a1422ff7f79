//! Plain averaging of weights: the baseline that ignores which unit is which.

use crate::fusion::provenance::Provenance;
use crate::fusion::recipe::{Recipe, counters};
use crate::fusion::{Ensemble, FusionError};
use crate::model::parameters;
use crate::tensors::{Elements, Rows};

/// The mean of the members' weights, tensor by tensor, each member by its share.
///
/// # Errors
/// When members have different widths or weights cannot be read.
pub fn average<'a>(ensemble: &'a Ensemble<'a>) -> Result<Recipe<'a>, FusionError> {
    let graph = ensemble.graph();
    let mut tensors = Vec::new();
    for parameter in parameters::of_graph(graph) {
        let len: usize = parameter.shape.iter().product();
        let mut members = Vec::new();
        for (index, member) in ensemble.members().iter().enumerate() {
            let elements = member.weights.elements(&parameter.name)?;
            if elements.len() != len {
                return Err(FusionError::WidthsDiffer { member: index, tensor: parameter.name });
            }
            members.push(elements);
        }
        let shares = ensemble.shares();
        let fill = Box::new(move |row, target: &mut [f32]| mean(&members, shares, row * target.len(), target));
        tensors.push(Rows { name: parameter.name, shape: parameter.shape, fill });
    }
    let provenance = Provenance { shares: ensemble.shares().to_vec(), groups: Vec::new() };
    Ok(Recipe { graph: graph.clone(), tensors, counters: counters(ensemble), provenance })
}

/// The mean of the elements from `first` on.
fn mean(members: &[Elements<'_>], shares: &[f32], first: usize, target: &mut [f32]) {
    let mut sums = vec![0.0_f64; target.len()];
    let mut scratch = Vec::new();
    for (elements, share) in members.iter().zip(shares) {
        let values = elements.slice(first, target.len(), &mut scratch);
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*share) * f64::from(*value));
    }
    target.iter_mut().zip(sums).for_each(|(mean, sum)| *mean = sum as f32);
}
