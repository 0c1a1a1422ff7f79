//! How much each member counts in the outputs.

/// Each member's factor on its logits; the ensemble's logits are the sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares {
    /// Of sum 1.
    members: Vec<f64>,
    /// For each member, its factor in every class; none where a member has one for all.
    by_class: Option<Vec<Vec<f64>>>,
}

impl Shares {
    /// One factor for each member, the same in all classes.
    #[must_use]
    pub fn of_members(members: Vec<f64>) -> Self {
        Self { members, by_class: None }
    }

    /// A factor for each member (outer) and class (inner). A member's share is the mean over the classes, as a part of all.
    #[must_use]
    pub fn of_classes(by_class: Vec<Vec<f64>>) -> Self {
        let means = by_class.iter().map(|own| own.iter().sum::<f64>() / own.len().max(1) as f64);
        let means: Vec<f64> = means.map(|mean| mean.max(0.0)).collect();
        let total: f64 = means.iter().sum();
        let equal = 1.0 / by_class.len().max(1) as f64;
        let members = means.iter().map(|mean| if total > 0.0 { mean / total } else { equal }).collect();
        Self { members, by_class: Some(by_class) }
    }

    /// The members' shares, of sum 1.
    #[must_use]
    pub fn members(&self) -> &[f64] {
        &self.members
    }

    /// Whether classes have factors of their own.
    #[must_use]
    pub fn weigh_classes(&self) -> bool {
        self.by_class.is_some()
    }

    /// The factor of `member` in `class`, a row of the output layer.
    #[must_use]
    pub fn of(&self, member: usize, class: usize) -> f64 {
        self.by_class.as_ref().map_or(self.members[member], |by_class| by_class[member][class])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_of_classes_make_shares_of_members() {
        let shares = Shares::of_classes(vec![vec![0.9, 0.3], vec![0.1, 0.7]]);
        assert_eq!((shares.of(0, 1), shares.of(1, 0)), (0.3, 0.1));
        assert!((shares.members()[0] - 0.6).abs() < 1e-12 && shares.weigh_classes());
        assert_eq!(Shares::of_classes(vec![vec![-1.0], vec![-2.0]]).members(), [0.5, 0.5]);
        assert!((Shares::of_members(vec![0.25, 0.75]).of(1, 7) - 0.75).abs() < 1e-12);
    }
}
