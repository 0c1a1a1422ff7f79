//! Units in groups, by the products of what they compute: means and distances need nothing else.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::fusion::align::assign;

/// Starts of K-means, of which the best result is kept.
const STARTS: usize = 10;
/// Most rounds after one start: groups settle long before.
const ROUNDS: usize = 100;

/// The products of the outputs of all units with each other (units x units, row-major).
#[derive(Debug, Clone)]
pub(super) struct UnitProducts {
    pub(super) units: usize,
    pub(super) values: Vec<f64>,
}

/// Which group each unit belongs to, and how many groups there are; none is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) of_unit: Vec<usize>,
    pub(super) count: usize,
}

/// The group that is nearest to a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Nearest {
    group: usize,
    /// Squared distance of the unit from the group's mean.
    square: f64,
}

impl UnitProducts {
    fn of(&self, a: usize, b: usize) -> f64 {
        self.values[a * self.units + b]
    }

    /// Squared distance of two units.
    fn square(&self, a: usize, b: usize) -> f64 {
        (self.of(a, a) + self.of(b, b) - 2.0 * self.of(a, b)).max(0.0)
    }

    /// Squared length of each group's mean.
    fn squares_of_means(&self, groups: &Groups) -> Vec<f64> {
        let square = |members: Vec<usize>| {
            let sum: f64 = members.iter().flat_map(|a| members.iter().map(|b| self.of(*a, *b))).sum();
            sum / (members.len() * members.len()).max(1) as f64
        };
        groups.members().into_par_iter().map(square).collect()
    }

    /// The group nearest to each unit, the first among equals.
    fn nearest(&self, groups: &Groups) -> Vec<Nearest> {
        let (means, sizes) = (self.squares_of_means(groups), groups.sizes());
        let of_unit = |unit: usize| {
            let mut sums = vec![0.0; groups.count];
            let products = &self.values[unit * self.units..(unit + 1) * self.units];
            products.iter().zip(&groups.of_unit).for_each(|(product, group)| sums[*group] += product);
            let square = |group: usize| self.of(unit, unit) + means[group] - 2.0 * sums[group] / sizes[group] as f64;
            let squares = (0..groups.count).map(|group| Nearest { group, square: square(group).max(0.0) });
            squares.min_by(|a, b| a.square.total_cmp(&b.square)).unwrap_or(Nearest { group: 0, square: 0.0 })
        };
        (0..self.units).into_par_iter().map(of_unit).collect()
    }

    /// The sum of all squared distances from the groups' means.
    fn spread(&self, groups: &Groups) -> f64 {
        let all: f64 = (0..self.units).map(|unit| self.of(unit, unit)).sum();
        let means = self.squares_of_means(groups);
        all - means.iter().zip(groups.sizes()).map(|(mean, size)| mean * size as f64).sum::<f64>()
    }
}

impl Groups {
    /// Every unit by itself.
    pub(super) fn single(units: usize) -> Self {
        Self { of_unit: (0..units).collect(), count: units }
    }

    pub(super) fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.count];
        self.of_unit.iter().for_each(|group| sizes[*group] += 1);
        sizes
    }

    /// The units of each group, ascending.
    fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.count];
        self.of_unit.iter().enumerate().for_each(|(unit, group)| members[*group].push(unit));
        members
    }

    /// Groups of the units nearest to them; one that nobody is near gets the unit that is farthest from its own.
    fn around(mut nearest: Vec<Nearest>, count: usize) -> Self {
        let of_unit = |nearest: &[Nearest]| nearest.iter().map(|nearest| nearest.group).collect();
        let mut sizes = Self { of_unit: of_unit(&nearest), count }.sizes();
        for group in 0..count {
            if sizes[group] > 0 {
                continue;
            }
            let crowded = nearest.iter().enumerate().rev().filter(|(_, nearest)| sizes[nearest.group] > 1);
            let farthest = crowded.max_by(|(_, a), (_, b)| a.square.total_cmp(&b.square)).map(|(unit, _)| unit);
            if let Some(unit) = farthest {
                sizes[nearest[unit].group] -= 1;
                sizes[group] = 1;
                nearest[unit] = Nearest { group, square: 0.0 };
            }
        }
        Self { of_unit: of_unit(&nearest), count }
    }

    /// The same groups, in the order of their first units.
    fn in_order(self) -> Self {
        let mut names = BTreeMap::new();
        let rename = |group: usize| {
            let next = names.len();
            *names.entry(group).or_insert(next)
        };
        Self { of_unit: self.of_unit.into_iter().map(rename).collect(), count: self.count }
    }
}

/// So many groups by K-means, each start by K-means++ (Arthur & Vassilvitskii 2007): the result with the least sum of squared
/// distances. There are at least as many units as groups.
pub(super) fn k_means(products: &UnitProducts, count: usize, generator: &mut ChaCha8Rng) -> Groups {
    if count >= products.units {
        return Groups::single(products.units);
    }
    let mut best: Option<(f64, Groups)> = None;
    for _ in 0..STARTS {
        let groups = settled(products, start(products, count, generator));
        let spread = products.spread(&groups);
        if best.as_ref().is_none_or(|(least, _)| spread < *least) {
            best = Some((spread, groups));
        }
    }
    best.map_or_else(|| Groups::single(products.units), |(_, groups)| groups.in_order())
}

/// Units drawn by their squared distance from those that were drawn before, each with the units nearest to it.
fn start(products: &UnitProducts, count: usize, generator: &mut ChaCha8Rng) -> Groups {
    let first = generator.random_range(0..products.units);
    let from = |centre: usize, group: usize| {
        (0..products.units).map(move |unit| Nearest { group, square: products.square(unit, centre) })
    };
    let mut nearest: Vec<Nearest> = from(first, 0).collect();
    let mut drawn = vec![false; products.units];
    drawn[first] = true;
    for group in 1..count {
        let total: f64 = nearest.iter().map(|nearest| nearest.square).sum();
        let mut left = generator.random::<f64>() * total;
        let mut open = (0..products.units).filter(|unit| !drawn[*unit]);
        let by_distance =
            nearest.iter().enumerate().filter(|(_, nearest)| nearest.square > 0.0).find(|(_, nearest)| {
                left -= nearest.square;
                left <= 0.0
            });
        // Where all are equal to one that was drawn, any will do.
        let Some(centre) = by_distance.map(|(unit, _)| unit).or_else(|| open.next()) else { break };
        drawn[centre] = true;
        for (old, new) in nearest.iter_mut().zip(from(centre, group)) {
            if new.square < old.square {
                *old = new;
            }
        }
    }
    Groups::around(nearest, count)
}

/// The groups after every unit has gone to the nearest mean, until none moves.
fn settled(products: &UnitProducts, mut groups: Groups) -> Groups {
    for _ in 0..ROUNDS {
        let moved = Groups::around(products.nearest(&groups), groups.count);
        if moved == groups {
            break;
        }
        groups = moved;
    }
    groups
}

/// Groups of one unit of each of `members` members, which stand one after another: the units of each member are assigned to the
/// means of those before it, such that the sum of squared distances is least.
pub(super) fn hungarian(products: &UnitProducts, members: usize) -> Groups {
    let count = products.units / members.max(1);
    let mut units_of: Vec<Vec<usize>> = (0..count).map(|unit| vec![unit]).collect();
    for member in 1..members {
        let cost = |units: &Vec<usize>, own: usize| {
            // The length of the mean is the same for all units, and each unit's own for all means.
            -2.0 * units.iter().map(|unit| products.of(*unit, own)).sum::<f64>() / units.len() as f64
        };
        let own = member * count..(member + 1) * count;
        let costs: Vec<f64> =
            units_of.par_iter().flat_map_iter(|units| own.clone().map(move |own| cost(units, own))).collect();
        for (units, column) in units_of.iter_mut().zip(assign(&costs, count)) {
            units.push(member * count + column);
        }
    }
    let mut of_unit = vec![0; count * members];
    for (group, units) in units_of.iter().enumerate() {
        for unit in units {
            of_unit[*unit] = group;
        }
    }
    Groups { of_unit, count }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    /// Products of points, `dimensions` numbers each.
    fn products(points: &[f64], dimensions: usize) -> UnitProducts {
        let points: Vec<&[f64]> = points.chunks_exact(dimensions).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        let values = points.iter().flat_map(|a| points.iter().map(|b| dot(a, b))).collect();
        UnitProducts { units: points.len(), values }
    }

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    #[test]
    fn groups_that_lie_apart_are_found() {
        let point = |index: usize| [(index % 5) as f64 * 10.0 + (index / 5) as f64 * 0.1, 1.0];
        let points: Vec<f64> = (0..30).flat_map(point).collect();
        let groups = k_means(&products(&points, 2), 5, &mut rng(3));
        assert_eq!(groups.of_unit, (0..30).map(|index| index % 5).collect::<Vec<_>>());
    }

    #[test]
    fn units_that_are_all_equal_still_fill_every_group() {
        let groups = k_means(&products(&[0.0; 12], 2), 4, &mut rng(1));
        assert!(groups.sizes().iter().all(|size| *size > 0), "{groups:?}");
    }

    #[test]
    fn a_permuted_copy_is_assigned_to_its_original() {
        let mut generator = rng(5);
        let points: Vec<[f64; 3]> = (0..40).map(|_| [0, 1, 2].map(|_| generator.random_range(-1.0..1.0))).collect();
        let place = |unit: usize| (unit * 7 + 3) % 40;
        let copies = (0..2).flat_map(|_| (0..40).map(|unit| points[place(unit)]));
        let all: Vec<f64> = points.iter().copied().chain(copies).flatten().collect();
        let groups = hungarian(&products(&all, 3), 3);
        let expected: Vec<usize> = (0..40).chain((0..2).flat_map(|_| (0..40).map(place))).collect();
        assert_eq!(groups.of_unit, expected);
    }

    proptest! {
        #[test]
        fn all_groups_are_filled_and_no_unit_is_nearer_to_another(
            points in proptest::collection::vec(-10_i32..10, 24), count in 1_usize..8, seed in any::<u64>()
        ) {
            let points: Vec<f64> = points.into_iter().map(f64::from).collect();
            let products = products(&points, 3);
            let groups = k_means(&products, count, &mut rng(seed));
            prop_assert_eq!(&groups, &k_means(&products, count, &mut rng(seed)));
            prop_assert_eq!((groups.count, groups.of_unit.len()), (count, 8));
            let sizes = groups.sizes();
            prop_assert!(sizes.iter().all(|size| *size > 0));
            let mean = |group: usize, axis: usize| {
                let own = groups.of_unit.iter().zip(points.chunks_exact(3)).filter(|(of, _)| **of == group);
                own.map(|(_, point)| point[axis]).sum::<f64>() / sizes[group] as f64
            };
            let square = |unit: usize, group: usize| {
                (0..3).map(|axis| (points[unit * 3 + axis] - mean(group, axis)).powi(2)).sum::<f64>()
            };
            for (unit, own) in groups.of_unit.iter().enumerate() {
                let nearest = (0..count).map(|group| square(unit, group)).fold(f64::INFINITY, f64::min);
                prop_assert!(sizes[*own] == 1 || square(unit, *own) <= nearest + 1e-9);
            }
        }
    }
}
