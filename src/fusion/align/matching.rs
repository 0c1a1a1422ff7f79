//! Permutation alignment by weights: the orders in which the members' weights agree most.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::alignment::Alignment;
use super::assignment::assign;
use super::movable;
use super::transport::products;
use crate::fusion::ensemble::sides::Tensor;
use crate::fusion::{Ensemble, FusionError};
use crate::model::groups::{GroupId, Owner};

/// Most rounds over all groups for one member, and over all members: matching ends long before.
const ROUNDS: usize = 100;

/// Share of the agreement by which a round must raise it to count as progress.
const PROGRESS: f64 = 1e-9;

/// An order of units for each member, such that the sum of products of corresponding weights is high: group after group is
/// assigned anew, given the others, until none gains (the first of the paper's algorithms). Two members: the second is
/// matched to the first. More (`MergeMany`): each in turn to the mean of the others, until none moves. `seed` draws the orders of groups and
/// members. `monitor` is called after each round, and returns whether to go on.
///
/// # Errors
/// When members have different widths, weights cannot be read, or `monitor` says to stop.
pub fn match_weights(
    ensemble: &Ensemble<'_>,
    seed: u64,
    monitor: &mut dyn FnMut() -> bool,
) -> Result<Vec<Alignment>, FusionError> {
    let groups = movable(ensemble)?;
    let tensors: Vec<Tensor> = Tensor::of_member(ensemble, 0);
    let tensors = tensors.into_iter().filter(|tensor| !tensor.role.is_statistic()).collect();
    let mut matcher = Matcher { ensemble, tensors, groups, rng: ChaCha8Rng::seed_from_u64(seed), monitor };
    let members = ensemble.members().len();
    let mut alignments = vec![Alignment::identity(ensemble); members];
    if members == 2 {
        let reference = matcher.mean(&alignments, 1)?;
        alignments[1] = matcher.align(1, alignments[1].clone(), &reference)?;
        return Ok(alignments);
    }
    for _ in 0..ROUNDS {
        let mut moved = false;
        let mut order: Vec<usize> = (0..members).collect();
        order.shuffle(&mut matcher.rng);
        for member in order {
            let reference = matcher.mean(&alignments, member)?;
            let aligned = matcher.align(member, alignments[member].clone(), &reference)?;
            moved |= aligned != alignments[member];
            alignments[member] = aligned;
        }
        if !moved {
            break;
        }
    }
    Ok(alignments)
}

struct Matcher<'a> {
    ensemble: &'a Ensemble<'a>,
    tensors: Vec<Tensor>,
    groups: Vec<GroupId>,
    rng: ChaCha8Rng,
    monitor: &'a mut dyn FnMut() -> bool,
}

impl Matcher<'_> {
    /// The mean of all aligned members but `left_out`, tensor by tensor; zeros where there is no other.
    fn mean(&self, alignments: &[Alignment], left_out: usize) -> Result<Vec<Vec<f32>>, FusionError> {
        let members = self.ensemble.members().iter().zip(alignments).enumerate();
        let others: Vec<_> = members.filter(|(index, _)| *index != left_out).map(|(_, pair)| pair).collect();
        let mean = |tensor: &Tensor| {
            let mut sum: Vec<f32> = vec![0.0; self.ensemble.members()[0].weights.elements(&tensor.name)?.len()];
            for (member, alignment) in &others {
                let values = alignment.reordered(tensor, member.weights, None)?;
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value / others.len() as f32);
            }
            Ok(sum)
        };
        self.tensors.iter().map(mean).collect()
    }

    /// Matches a member to the reference, starting at an order.
    fn align(
        &mut self,
        member: usize,
        mut alignment: Alignment,
        reference: &[Vec<f32>],
    ) -> Result<Alignment, FusionError> {
        for _ in 0..ROUNDS {
            let mut order = self.groups.clone();
            order.shuffle(&mut self.rng);
            let mut gained = false;
            for group in order {
                let agreement = self.agreement(member, &alignment, reference, group)?;
                let units = self.ensemble.widths(group)[member];
                let total = |order: &[usize]| -> f64 {
                    order.iter().enumerate().map(|(place, unit)| agreement[place * units + unit]).sum()
                };
                let cost: Vec<f64> = agreement.iter().map(|product| -product).collect();
                let (before, assigned) = (total(&alignment.groups[group.0]), assign(&cost, units));
                if total(&assigned) > before + PROGRESS * before.abs() {
                    alignment.groups[group.0] = assigned;
                    gained = true;
                }
            }
            if !(self.monitor)() {
                return Err(FusionError::Stopped);
            }
            if !gained {
                break;
            }
        }
        Ok(alignment)
    }

    /// The products of what belongs to each of the reference's units of `group` with what belongs to each of the member's
    /// (units x units), all other axes in the member's present order.
    fn agreement(
        &self,
        member: usize,
        alignment: &Alignment,
        reference: &[Vec<f32>],
        group: GroupId,
    ) -> Result<Vec<f64>, FusionError> {
        let (owner, units) = (Owner::Group(group), self.ensemble.widths(group)[member]);
        let weights = self.ensemble.members()[member].weights;
        let mut sums = vec![0.0; units * units];
        for (tensor, reference) in self.tensors.iter().zip(reference) {
            for (index, side) in tensor.sides.iter().enumerate().filter(|(_, side)| side.holds(owner)) {
                let own = alignment.reordered(tensor, weights, Some(index))?;
                let rows = side.by_unit(reference, owner, units);
                let products = products(&rows, &side.by_unit(&own, owner, units), units);
                sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += f64::from(product));
            }
        }
        Ok(sums)
    }
}
