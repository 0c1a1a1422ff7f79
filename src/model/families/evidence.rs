//! How sure it is what network the members are, and why.

use serde::{Deserialize, Serialize};

use crate::model::families::{Candidate, Open, Source, open, published};
use crate::model::graph::Shape;
use crate::settings::Settings;

/// How sure it is what network the members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Degree {
    /// It was spelled out, or names, shapes and given settings leave one network only.
    Certain,
    /// Of several networks that fit, one alone does what the client knows the members do.
    Proven,
    /// Of several, one is ahead on labelled data.
    Likely,
    /// Of several, the client chose to assume the most usual, which is a published one under its published names and sizes.
    Conventional,
    /// Of several, the client chose to assume the most usual.
    Assumed,
    /// Several fit, and nothing has decided yet, or nothing has to.
    Ambiguous,
}

impl Degree {
    /// Whether a reader should be warned: what was measured or trained may be another network than the members are.
    #[must_use]
    pub fn is_doubtful(self) -> bool {
        !matches!(self, Self::Certain | Self::Proven)
    }

    /// Its name, as in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Proven => "proven",
            Self::Likely => "likely",
            Self::Conventional => "conventional",
            Self::Assumed => "assumed",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// What network the members are taken for, how sure that is, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Evidence {
    /// How sure it is.
    pub degree: Degree,
    /// Why, in words.
    pub why: String,
    /// How many networks fit names, shapes and what was given.
    pub candidates: usize,
    /// The settings of the network; for `ambiguous` those of the most usual one.
    pub settings: Settings,
    /// In what they differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Open>,
    /// Those that came closest in a comparison, the best first; empty where there was none.
    pub compared: Vec<Compared>,
}

/// A network that was compared with what the members are known to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Compared {
    /// Its settings.
    pub settings: Settings,
    /// Largest difference from the reference's logits, as a part of the largest logit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Part of the examples that each member classified right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Vec<f64>>,
}

impl Evidence {
    /// What is known before anything is run.
    #[must_use]
    pub fn of(candidates: &[Candidate], source: Source) -> Self {
        let (degree, why) = match (candidates, source) {
            ([_], Source::Given) => (Degree::Certain, "the graph was given".to_owned()),
            ([_], Source::Stated) => (Degree::Certain, "the file's metadata state it".to_owned()),
            ([_], Source::Pickled) => {
                (Degree::Certain, "the file is a pickled `Sequential`, whose modules run in their order".to_owned())
            }
            ([_], Source::Recognised) => {
                (Degree::Certain, "names, shapes and given settings leave this network only".to_owned())
            }
            _ => {
                (Degree::Ambiguous, format!("{} networks fit names and shapes{}", candidates.len(), usual(candidates)))
            }
        };
        let settings = candidates.first().map(|candidate| candidate.settings.clone()).unwrap_or_default();
        Self { degree, why, candidates: candidates.len(), settings, open: open(candidates), compared: Vec::new() }
    }
}

/// What the most usual of several networks is, where it is a published one.
fn usual(candidates: &[Candidate]) -> String {
    let name = candidates.first().and_then(published);
    name.map_or(String::new(), |name| format!("; the most usual has the names and sizes of {name}"))
}

/// A network that fits, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    /// Name of the family.
    pub family: String,
    /// Shape of one input example.
    pub input_shape: Shape,
    /// The settings that tell it from the others.
    pub settings: Settings,
}

impl From<&Candidate> for Outline {
    fn from(candidate: &Candidate) -> Self {
        Self {
            family: candidate.family.to_owned(),
            input_shape: candidate.graph.input_shape().clone(),
            settings: candidate.settings.clone(),
        }
    }
}
