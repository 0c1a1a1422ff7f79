//! Column-subset selection by pivoted Cholesky: the next unit is the one that the chosen ones explain least, weighted by how
//! strongly it is read.

/// Share of a unit's second moment below which what is left of it is rounding: products are formed in f32.
const ROUNDING: f64 = 1e-5;

/// The order in which `count` of the units are chosen, from their second moments `gram` (n x n, row-major) and the squared
/// norms `reads` of the weights that read them: `argmax R_ii M_ii`, then `R -= r rᵀ` with `r = R_:i / sqrt(R_ii)`.
/// Of R only the diagonal is kept, and one row for each chosen unit: O(n count²). A unit that the chosen ones explain fully
/// (a copy of one) has nothing left and is taken only when nothing else is; among equals the first is chosen.
pub(super) fn choose(gram: &[f64], reads: &[f64], count: usize) -> Vec<usize> {
    let n = reads.len();
    let diagonal: Vec<f64> = (0..n).map(|i| gram[i * n + i]).collect();
    let mut left = diagonal.clone();
    let mut taken = vec![false; n];
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(count.min(n));
    let mut chosen = Vec::with_capacity(count.min(n));
    while chosen.len() < count.min(n) {
        let gain = |i: usize| if left[i] > ROUNDING * diagonal[i] { left[i] * reads[i] } else { 0.0 };
        let open = (0..n).filter(|i| !taken[*i]);
        let Some(next) = open.reduce(|best, i| if gain(i) > gain(best) { i } else { best }) else { break };
        taken[next] = true;
        chosen.push(next);
        if left[next] <= ROUNDING * diagonal[next] {
            continue;
        }
        let scale = 1.0 / left[next].sqrt();
        let mut row: Vec<f64> = gram[next * n..(next + 1) * n].to_vec();
        for earlier in &rows {
            let factor = earlier[next];
            row.iter_mut().zip(earlier).for_each(|(row, earlier)| *row -= factor * earlier);
        }
        for (value, left) in row.iter_mut().zip(&mut left) {
            *value *= scale;
            *left -= *value * *value;
        }
        rows.push(row);
    }
    chosen
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
        assert_eq!(choose(&gram(&[a, a, b, c, b]), &[1.0; 5], 3), [0, 2, 3]);
        assert_eq!(choose(&gram(&[a, a, b]), &[1.0; 3], 3), [0, 2, 1]);
    }

    #[test]
    fn sums_of_chosen_units_have_nothing_left() {
        let (a, b, sum): (&[f64], &[f64], &[f64]) = (&[3.0, 0.0, 0.0], &[0.0, 4.0, 0.0], &[3.0, 4.0, 0.0]);
        let chosen = choose(&gram(&[a, b, sum, &[0.0, 0.0, 0.01]]), &[1.0; 4], 3);
        assert_eq!((chosen[0], chosen[2]), (2, 3), "a and the sum explain b, b and the sum explain a: {chosen:?}");
    }

    #[test]
    fn how_strongly_a_unit_is_read_counts() {
        let (a, b): (&[f64], &[f64]) = (&[3.0, 0.0], &[0.0, 2.0]);
        assert_eq!(choose(&gram(&[a, b]), &[1.0, 1.0], 1), [0]);
        assert_eq!(choose(&gram(&[a, b]), &[1.0, 3.0], 1), [1]);
    }
}
