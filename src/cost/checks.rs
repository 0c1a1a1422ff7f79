//! What the first look at the members takes, before anything else runs.

/// Most and fewest examples of a split by which the members are judged at first, and the multiply-accumulate operations that a member may
/// take for them.
const MOST_FIRST: usize = 1_000;
const FEWEST_FIRST: usize = 100;
const FIRST_MACS: u64 = 1_000_000_000_000;

/// Examples by which a normalisation is measured.
pub const MEASURED_EXAMPLES: usize = 1_000;

/// Most and fewest examples on which other normalisations are tried, and the multiply-accumulate operations that they may take together.
const MOST_TRIED: usize = 512;
const FEWEST_TRIED: usize = 64;
const TRIED_MACS: u64 = 200_000_000_000;

/// Batches on which BatchNorm's statistics are measured.
pub const STATISTICS_BATCHES: usize = 4;

/// Most and fewest examples of such a batch, and how many elements the largest activation of one may have.
const LARGEST_BATCH: usize = 128;
const SMALLEST_BATCH: usize = 8;
const BATCH_ELEMENTS: usize = 1 << 22;

/// Examples of a split by which networks of `macs` multiply-accumulate operations are judged at first.
#[must_use]
pub fn first_examples(macs: u64) -> usize {
    usize::try_from(FIRST_MACS / macs.max(1)).unwrap_or(MOST_FIRST).clamp(FEWEST_FIRST, MOST_FIRST)
}

/// Examples on which a network of `macs` multiply-accumulate operations is run with each of `normalizations`.
#[must_use]
pub fn tried_examples(macs: u64, normalizations: usize) -> usize {
    let each = TRIED_MACS / macs.max(1).saturating_mul(normalizations.max(1) as u64);
    usize::try_from(each).unwrap_or(MOST_TRIED).clamp(FEWEST_TRIED, MOST_TRIED)
}

/// Examples of a batch on which the statistics of a network are measured whose largest activation has `elements` elements.
#[must_use]
pub fn statistics_batch(elements: usize) -> usize {
    (BATCH_ELEMENTS / elements.max(1)).clamp(SMALLEST_BATCH, LARGEST_BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_networks_are_tried_on_fewer_examples() {
        assert_eq!([1_000_000, 4_000_000_000, u64::MAX].map(first_examples), [1000, 250, 100]);
        assert_eq!(tried_examples(1_000_000, 5), 512);
        assert_eq!(tried_examples(200_000_000, 5), 200);
        assert_eq!(tried_examples(u64::MAX, 5), 64);
        assert_eq!((statistics_batch(1 << 10), statistics_batch(1 << 17), statistics_batch(1 << 24)), (128, 32, 8));
    }
}
