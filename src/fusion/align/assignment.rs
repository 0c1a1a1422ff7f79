//! Linear assignment: pairs rows with columns at the lowest total cost.

/// For each row of the square matrix `cost` (n x n, row-major, finite), the column that it is paired with, such that the sum of
/// the pairs' costs is least. Shortest augmenting paths with dual variables (Jonker and Volgenant 1987), O(n³); where
/// several columns are equally near, the first is taken, so equal inputs give equal pairs.
///
/// # Panics
/// When `cost` has another length.
pub(in crate::fusion) fn assign(cost: &[f64], n: usize) -> Vec<usize> {
    assert_eq!(cost.len(), n * n, "a square matrix of {n} rows");
    let mut rows_of: Vec<Option<usize>> = vec![None; n];
    let (mut row_price, mut column_price) = (vec![0.0; n], vec![0.0; n]);
    for row in 0..n {
        let path = Path::shortest(cost, row, &rows_of, &row_price, &column_price);
        path.update_prices(row, &rows_of, &mut row_price, &mut column_price);
        path.augment(row, &mut rows_of);
    }
    let mut columns = vec![0; n];
    for (column, row) in rows_of.into_iter().enumerate() {
        if let Some(row) = row {
            columns[row] = column;
        }
    }
    columns
}

/// A shortest path from an unpaired row to an unpaired column, by reduced costs.
struct Path {
    /// For each column its distance from the row.
    distance: Vec<f64>,
    /// For each column the row before it.
    before: Vec<usize>,
    /// Columns whose distance is final, in the order in which they became so; the last one ends the path.
    settled: Vec<usize>,
}

impl Path {
    fn shortest(cost: &[f64], from: usize, rows_of: &[Option<usize>], row_price: &[f64], column_price: &[f64]) -> Self {
        let n = rows_of.len();
        let mut path = Self { distance: vec![f64::INFINITY; n], before: vec![from; n], settled: Vec::new() };
        let mut open: Vec<usize> = (0..n).collect();
        let (mut row, mut reached) = (from, 0.0);
        loop {
            let costs = &cost[row * n..(row + 1) * n];
            let mut nearest = 0;
            for (place, &column) in open.iter().enumerate() {
                let through = reached + costs[column] - row_price[row] - column_price[column];
                if through < path.distance[column] {
                    path.distance[column] = through;
                    path.before[column] = row;
                }
                if path.distance[column] < path.distance[open[nearest]] {
                    nearest = place;
                }
            }
            let column = open.remove(nearest);
            path.settled.push(column);
            reached = path.distance[column];
            match rows_of[column] {
                Some(next) => row = next,
                None => return path,
            }
        }
    }

    /// Keeps all reduced costs at 0 or above, and those of pairs at 0.
    fn update_prices(&self, from: usize, rows_of: &[Option<usize>], row_price: &mut [f64], column_price: &mut [f64]) {
        let Some((&end, inner)) = self.settled.split_last() else { return };
        let length = self.distance[end];
        row_price[from] += length;
        for &column in inner {
            let slack = length - self.distance[column];
            column_price[column] -= slack;
            if let Some(row) = rows_of[column] {
                row_price[row] += slack;
            }
        }
    }

    /// Pairs the rows along the path anew, so that one more row has a column.
    fn augment(&self, from: usize, rows_of: &mut [Option<usize>]) {
        let Some(&end) = self.settled.last() else { return };
        let mut column = end;
        loop {
            let row = self.before[column];
            let freed = rows_of.iter().position(|paired| *paired == Some(row));
            rows_of[column] = Some(row);
            match freed {
                Some(next) if row != from => column = next,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total(cost: &[f64], columns: &[usize]) -> f64 {
        columns.iter().enumerate().map(|(row, column)| cost[row * columns.len() + column]).sum()
    }

    /// The least cost of any pairing, by trying all.
    fn least(cost: &[f64], n: usize, row: usize, taken: &mut Vec<bool>) -> f64 {
        if row == n {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for column in 0..n {
            if !std::mem::replace(&mut taken[column], true) {
                best = best.min(cost[row * n + column] + least(cost, n, row + 1, taken));
                taken[column] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_pairing_is_cheaper((n, cost) in (1_usize..7).prop_flat_map(|n| {
            (Just(n), proptest::collection::vec((-20_i32..20).prop_map(f64::from), n * n))
        })) {
            let columns = assign(&cost, n);
            let mut sorted = columns.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..n).collect::<Vec<_>>());
            prop_assert!((total(&cost, &columns) - least(&cost, n, 0, &mut vec![false; n])).abs() < 1e-9);
        }
    }

    #[test]
    fn a_hidden_permutation_is_found() {
        let n = 200;
        let place = |row: usize| (row * 77 + 13) % n;
        let noise = |i: usize| ((i * 7919) % 1000) as f64 / 1000.0;
        let cost: Vec<f64> = (0..n * n).map(|i| if i % n == place(i / n) { 0.5 } else { 1.0 + noise(i) }).collect();
        assert_eq!(assign(&cost, n), (0..n).map(place).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_paired_with_nothing() {
        assert!(assign(&[], 0).is_empty());
    }
}
