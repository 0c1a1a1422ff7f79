//! How many joins make one network of the members.

use crate::settings::Order;

/// Number of joins that an order needs.
#[must_use]
pub fn joins(order: Order, members: usize) -> usize {
    match order {
        Order::Joint | Order::PruneThenMerge | Order::MergeFinetunePrune => 1,
        Order::Iterative => members.saturating_sub(1).max(1),
        Order::Hierarchical if members <= 3 => 1,
        Order::Hierarchical => joins(order, members / 2) + joins(order, members - members / 2) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_sort_joins_two_or_three_at_once() {
        let hierarchical = [1, 2, 3, 4, 5, 6, 7, 8].map(|members| joins(Order::Hierarchical, members));
        assert_eq!(hierarchical, [1, 1, 1, 3, 3, 3, 5, 7]);
        assert_eq!([1, 2, 5].map(|members| joins(Order::Iterative, members)), [1, 1, 4]);
        assert_eq!(joins(Order::Joint, 9), 1);
    }
}
