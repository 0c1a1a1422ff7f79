//! Plain averaging of weights: the baseline that ignores which unit is which.

use crate::fusion::assemble::provenance::Provenance;
use crate::fusion::assemble::recipe::{Recipe, counters};
use crate::fusion::{Ensemble, FusionError};
use crate::model::parameters;
use crate::tensors::{Elements, MakeRow, Number, Rows};

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
        let maker = Box::new(Mean { members, shares: ensemble.shares().members() });
        tensors.push(Rows { name: parameter.name, shape: parameter.shape, maker });
    }
    let provenance = Provenance { shares: ensemble.member_shares(), groups: Vec::new() };
    Ok(Recipe { graph: graph.clone(), tensors, counters: counters(ensemble), provenance })
}

/// The mean of one tensor's elements.
struct Mean<'a> {
    members: Vec<Elements<'a>>,
    shares: &'a [f64],
}

impl MakeRow for Mean<'_> {
    fn make<T: Number>(&self, row: usize, target: &mut [T]) {
        let first = row * target.len();
        let mut sums = vec![0.0_f64; target.len()];
        let mut scratch: Vec<T> = Vec::new();
        for (elements, share) in self.members.iter().zip(self.shares) {
            let values = elements.slice(first, target.len(), &mut scratch);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * value.f64());
        }
        target.iter_mut().zip(sums).for_each(|(mean, sum)| *mean = T::of(sum));
    }
}
