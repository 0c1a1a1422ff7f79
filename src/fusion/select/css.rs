//! Column-subset selection by pivoted Cholesky: the next unit is the one that the chosen ones explain least, weighted by how
//! strongly it is read.

/// Share of a unit's second moment below which what is left of it is rounding: products are formed in f32.
const ROUNDING: f64 = 1e-5;

/// The order in which `count` of the units are chosen, each of `size` neighbouring elements, from the elements' second moments
/// `gram` (n x n, row-major) and the squared norms `reads` of the weights that read them: `argmax Σ R_ii M_ii` over a unit's
/// elements i, then for each of these `R -= r rᵀ` with `r = R_:i / sqrt(R_ii)`.
/// Of R only the diagonal is kept, and one row for each chosen element: O(n (size count)²). A unit that the chosen ones explain
/// fully (a copy of one) has nothing left and is taken only when nothing else is; among equals the first is chosen.
pub(super) fn choose(gram: &[f64], reads: &[f64], size: usize, count: usize) -> Vec<usize> {
    let n = reads.len();
    let (size, units) = (size.max(1), n / size.max(1));
    let diagonal: Vec<f64> = (0..n).map(|i| gram[i * n + i]).collect();
    let mut left = diagonal.clone();
    let mut taken = vec![false; units];
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(size * count.min(units));
    let mut chosen = Vec::with_capacity(count.min(units));
    while chosen.len() < count.min(units) {
        let of_element = |i: usize| if left[i] > ROUNDING * diagonal[i] { left[i] * reads[i] } else { 0.0 };
        let gain = |unit: usize| (unit * size..(unit + 1) * size).map(of_element).sum::<f64>();
        let open = (0..units).filter(|unit| !taken[*unit]);
        let Some(next) = open.reduce(|best, i| if gain(i) > gain(best) { i } else { best }) else { break };
        taken[next] = true;
        chosen.push(next);
        for element in next * size..(next + 1) * size {
            if left[element] > ROUNDING * diagonal[element] {
                let row = eliminate(&gram[element * n..(element + 1) * n], element, &rows, &mut left);
                rows.push(row);
            }
        }
    }
    chosen
}

/// The row of the factor that takes `element`, whose second moments with the others are `moments`, behind `rows`; takes what
/// it explains off what is `left`.
fn eliminate(moments: &[f64], element: usize, rows: &[Vec<f64>], left: &mut [f64]) -> Vec<f64> {
    let scale = 1.0 / left[element].sqrt();
    let mut row = moments.to_vec();
    for earlier in rows {
        let factor = earlier[element];
        row.iter_mut().zip(earlier).for_each(|(row, earlier)| *row -= factor * earlier);
    }
    for (value, left) in row.iter_mut().zip(left) {
        *value *= scale;
        *left -= *value * *value;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Second moments of columns of activations.
    fn gram(columns: &[&[f64]]) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        columns.iter().flat_map(|a| columns.iter().map(move |b| dot(a, b))).collect()
    }

    #[test]
    fn a_copy_is_never_taken_before_something_new() {
        let (a, b, c): (&[f64], &[f64], &[f64]) = (&[3.0, 0.0, 0.0], &[0.0, 2.0, 0.0], &[0.0, 0.0, 0.1]);
        assert_eq!(choose(&gram(&[a, a, b, c, b]), &[1.0; 5], 1, 3), [0, 2, 3]);
        assert_eq!(choose(&gram(&[a, a, b]), &[1.0; 3], 1, 3), [0, 2, 1]);
    }

    #[test]
    fn sums_of_chosen_units_have_nothing_left() {
        let (a, b, sum): (&[f64], &[f64], &[f64]) = (&[3.0, 0.0, 0.0], &[0.0, 4.0, 0.0], &[3.0, 4.0, 0.0]);
        let chosen = choose(&gram(&[a, b, sum, &[0.0, 0.0, 0.01]]), &[1.0; 4], 1, 3);
        assert_eq!((chosen[0], chosen[2]), (2, 3), "a and the sum explain b, b and the sum explain a: {chosen:?}");
    }

    #[test]
    fn units_of_several_elements_are_taken_whole() {
        let axis = |i: usize, length: f64| (0..4).map(|j| if i == j { length } else { 0.0 }).collect::<Vec<_>>();
        let (a, b, c, d) = (axis(0, 3.0), axis(1, 1.0), axis(2, 2.0), axis(3, 2.0));
        let moments = gram(&[&a, &b, &b, &a, &c, &d]);
        assert_eq!(choose(&moments, &[1.0; 6], 2, 2), [0, 2], "the second has the elements of the first");
        assert_eq!(choose(&moments, &[1.0; 6], 2, 3), [0, 2, 1]);
    }

    #[test]
    fn how_strongly_a_unit_is_read_counts() {
        let (a, b): (&[f64], &[f64]) = (&[3.0, 0.0], &[0.0, 2.0]);
        assert_eq!(choose(&gram(&[a, b]), &[1.0, 1.0], 1, 1), [0]);
        assert_eq!(choose(&gram(&[a, b]), &[1.0, 3.0], 1, 1), [1]);
    }
}
