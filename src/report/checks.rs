//! What was seen of the members before anything else ran, and what is probably wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::score::Score;
use crate::settings::Normalize;

/// What was seen of the members before anything else ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MemberChecks {
    /// The split that they were run on: the validation split, or the test split where there is no other.
    pub split: CheckedSplit,
    /// Examples of it that they were run on, evenly spread.
    #[schema(example = 1000)]
    pub examples: usize,
    /// Examples of it that there are.
    #[schema(example = 5000)]
    pub available: usize,
    /// How well each does, in the order of the job.
    pub members: Vec<CheckedMember>,
    /// What is probably wrong.
    pub findings: Vec<CheckFinding>,
}

/// A split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckedSplit {
    /// The one that networks are chosen by.
    Validation,
    /// The one that decides nothing.
    Test,
}

/// A member and how well it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckedMember {
    /// Its name.
    #[schema(example = "m0.safetensors")]
    pub name: String,
    /// How well it does on the examples of the check.
    pub score: Score,
}

/// Something that is probably wrong with a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckFinding {
    /// What, for programs.
    pub code: CheckCode,
    /// What was seen and what to do.
    pub detail: String,
    /// The normalisation that the members were likely trained with; null for none at all, where the finding is about that.
    #[serde(default)]
    pub normalize: Option<Normalize>,
}

/// What is probably wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckCode {
    /// The best member does hardly better than guessing.
    MembersNearChance,
    /// The members were trained on inputs that were normalised otherwise.
    NormalizeUnlikeTraining,
    /// The members were trained on examples that networks are chosen by.
    ValidationSeenInTraining,
}

impl CheckCode {
    /// As it stands in reports and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MembersNearChance => "members_near_chance",
            Self::NormalizeUnlikeTraining => "normalize_unlike_training",
            Self::ValidationSeenInTraining => "validation_seen_in_training",
        }
    }
}

impl fmt::Display for CheckFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.code.as_str())
    }
}

impl fmt::Display for MemberChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split = match self.split {
            CheckedSplit::Validation => "validation",
            CheckedSplit::Test => "test",
        };
        let all = if self.examples == self.available { String::new() } else { format!(" of {}", self.available) };
        write!(f, "the members on {}{all} examples of the {split} split: ", self.examples)?;
        for (index, CheckedMember { name, score }) in self.members.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match score.accuracy() {
                Some(accuracy) => {
                    let error = (accuracy * (1.0 - accuracy) / self.examples.max(1) as f64).sqrt();
                    write!(f, "{comma}{name} {:.2} ± {:.2} %", accuracy * 100.0, error * 100.0)?;
                }
                None => write!(f, "{comma}{name} {score}")?,
            }
        }
        write!(f, ". Is this what you measured?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_comes_with_figures_and_their_errors() {
        let member = |name: &str, accuracy: f64| CheckedMember {
            name: name.to_owned(),
            score: Score::of_classes(accuracy, 1.0),
        };
        let checks = MemberChecks {
            split: CheckedSplit::Validation,
            examples: 100,
            available: 5000,
            members: vec![member("m0", 0.9), member("m1", 0.8)],
            findings: Vec::new(),
        };
        let expected = "the members on 100 of 5000 examples of the validation split: m0 90.00 ± 3.00 %, m1 80.00 ± 4.00 %. Is this what you \
                        measured?";
        assert_eq!(checks.to_string(), expected);
        let whole = MemberChecks { split: CheckedSplit::Test, available: 100, ..checks };
        assert!(whole.to_string().starts_with("the members on 100 examples of the test split"));
    }

    #[test]
    fn a_finding_ends_with_its_code_as_json_has_it() {
        for code in
            [CheckCode::MembersNearChance, CheckCode::NormalizeUnlikeTraining, CheckCode::ValidationSeenInTraining]
        {
            assert_eq!(serde_json::to_value(code).expect("JSON"), code.as_str());
            let finding = CheckFinding { code, detail: "look".to_owned(), normalize: None };
            assert_eq!(finding.to_string(), format!("look [{}]", code.as_str()));
        }
    }
}
