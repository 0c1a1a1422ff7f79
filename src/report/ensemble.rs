//! By which rule the members' outputs became the ensemble's, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::score::Score;
use crate::settings::EnsembleRule;

/// The rule by which the members' outputs became the ensemble's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnsembleChoice {
    /// The rule.
    pub rule: EnsembleRule,
    /// What decided for it.
    pub by: RuleDecider,
    /// Examples that decided, or that factors were computed from; 0 where none were needed.
    pub examples: usize,
    /// What each rule that was tried scores on the validation split; a rule that is fitted is scored on what it was not fitted to.
    pub tried: Vec<TriedRule>,
    /// The median over the classes of the highest mean probability that a member gives it over the lowest; where it decided.
    pub spread: Option<f64>,
}

/// What decided for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleDecider {
    /// The job names it.
    Request,
    /// The accuracy on the validation split: another rule than the mean of logits must be better by two standard errors of the
    /// difference.
    Validation,
    /// How differently the members spread their probabilities over the classes.
    Spread,
    /// There was nothing to decide by.
    Default,
}

/// A rule that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TriedRule {
    /// The rule.
    pub rule: EnsembleRule,
    /// On the validation split.
    pub validation: Score,
}

impl fmt::Display for EnsembleChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ensemble is `{}`", self.rule.as_str())?;
        match self.by {
            RuleDecider::Request => write!(f, ", as requested"),
            RuleDecider::Default => write!(f, ": there is nothing to choose another rule by"),
            RuleDecider::Spread => write!(
                f,
                ": the members' mean probabilities of a class differ by a factor of {:.2} ({} inputs)",
                self.spread.unwrap_or(1.0),
                self.examples
            ),
            RuleDecider::Validation => {
                write!(f, " by the validation split ({} examples)", self.examples)?;
                for (index, TriedRule { rule, validation }) in self.tried.iter().enumerate() {
                    let lead = if index == 0 { ": " } else { ", " };
                    write!(f, "{lead}{} {validation}", rule.as_str())?;
                }
                Ok(())
            }
        }
    }
}
