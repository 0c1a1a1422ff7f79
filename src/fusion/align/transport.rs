//! Optimal-transport fusion: every member is carried over to member 0, layer by layer.

use super::alignment::Alignment;
use super::assignment::assign;
use super::movable;
use crate::fusion::ensemble::sides::{Side, Tensor};
use crate::fusion::select::ActivationStatistics;
use crate::fusion::{Ensemble, FusionError};
use crate::kernels::{Matrix, matmul};
use crate::model::groups::{GroupId, Owner};
use crate::model::parameters::Role;
use crate::settings::OutputAlignment;

/// An order of units for each member, such that the units that stand together in two members are near each other: the sum of
/// the Euclidean distances between the incoming weights (with the bias) of a unit of member 0 and its partner's, whose inputs
/// are in member 0's order already, is least. Groups come in order of computation, each with its first producer.
///
/// # Errors
/// When members have different widths, or weights cannot be read.
pub fn transport(ensemble: &Ensemble<'_>, outputs: OutputAlignment) -> Result<Vec<Alignment>, FusionError> {
    let groups = movable(ensemble)?;
    let tensors = Tensor::of_member(ensemble, 0);
    let mut alignments = vec![Alignment::identity(ensemble); ensemble.members().len()];
    for (member, alignment) in alignments.iter_mut().enumerate().skip(1) {
        let carrier = Carrier { ensemble, tensors: &tensors, member };
        for &group in &groups {
            let width = ensemble.widths(group)[0];
            if let Some(order) = carrier.order(alignment, Owner::Group(group), width)? {
                alignment.groups[group.0] = order;
            }
        }
        if outputs == OutputAlignment::Transported {
            let classes = ensemble.graph().classes();
            if let Some(order) = carrier.order(alignment, Owner::Output, classes)? {
                alignment.outputs = order;
            }
        }
    }
    Ok(alignments)
}

/// As [`transport`], by the activations of the units on calibration data: each unit of member 0 gets the one that is most
/// nearly equal to it, by `distance` of the mean squared difference.
///
/// # Errors
/// When members have different widths.
pub fn match_activations(
    ensemble: &Ensemble<'_>,
    statistics: &ActivationStatistics,
    distance: fn(f64) -> f64,
) -> Result<Vec<Alignment>, FusionError> {
    let groups = movable(ensemble)?;
    let mut alignments = vec![Alignment::identity(ensemble); ensemble.members().len()];
    for (member, alignment) in alignments.iter_mut().enumerate().skip(1) {
        for &GroupId(group) in &groups {
            let width = ensemble.widths(GroupId(group))[0];
            let squares = statistics.squared_differences(ensemble, GroupId(group), member);
            let cost: Vec<f64> = squares.into_iter().map(distance).collect();
            alignment.groups[group] = assign(&cost, width);
        }
    }
    Ok(alignments)
}

/// Carries one member over to member 0.
struct Carrier<'a> {
    ensemble: &'a Ensemble<'a>,
    tensors: &'a [Tensor],
    member: usize,
}

impl Carrier<'_> {
    /// The partner of each unit of `owner`; `None` where it has no producer.
    fn order(&self, alignment: &Alignment, owner: Owner, units: usize) -> Result<Option<Vec<usize>>, FusionError> {
        let made = |tensor: &&Tensor| {
            let dense = self.ensemble.graph().node(tensor.node).op.is_dense();
            dense && tensor.sides.first().is_some_and(|rows| rows.holds(owner))
        };
        let Some(first) = self.tensors.iter().filter(made).find(|tensor| tensor.role == Role::Weight) else {
            return Ok(None);
        };
        let incoming = self.tensors.iter().filter(|tensor| tensor.node == first.node);
        let mut squares = vec![0.0; units * units];
        for tensor in incoming {
            let [reference, own] = [0, self.member].map(|member| self.ensemble.members()[member].weights);
            let reference = reference.f32(&tensor.name)?;
            let own = alignment.reordered(tensor, own, Some(0))?;
            let by_unit = |side: &Side, values: &[f32]| side.by_unit(values, owner, units);
            let rows = &tensor.sides[0];
            add_squared_differences(&mut squares, &by_unit(rows, &reference), &by_unit(rows, &own), units);
        }
        let distances: Vec<f64> = squares.into_iter().map(|square| square.max(0.0).sqrt()).collect();
        Ok(Some(assign(&distances, units)))
    }
}

/// Adds the squared distance of every row of `a` from every row of `b`, both `units` rows.
fn add_squared_differences(squares: &mut [f64], a: &[f32], b: &[f32], units: usize) {
    let norms = |rows: &[f32]| -> Vec<f64> {
        let row_len = (rows.len() / units.max(1)).max(1);
        rows.chunks_exact(row_len).map(|row| row.iter().map(|x| f64::from(*x).powi(2)).sum()).collect()
    };
    let products = products(a, b, units);
    let (a, b) = (norms(a), norms(b));
    for (index, (square, product)) in squares.iter_mut().zip(products).enumerate() {
        *square += a[index / units] + b[index % units] - 2.0 * f64::from(product);
    }
}

/// The products of every row of `a` with every row of `b`, both `units` rows.
pub(super) fn products(a: &[f32], b: &[f32], units: usize) -> Vec<f32> {
    let len = a.len() / units.max(1);
    let threads = std::num::NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(std::num::NonZeroUsize::MIN);
    let mut products = vec![0.0; units * units];
    matmul(threads, Matrix::new(a, units, len), Matrix::new(b, units, len).transposed(), &mut products, false);
    products
}
