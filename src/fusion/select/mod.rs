//! Which units stay: scores by weights, activations and gradients, and the selection by them, group after group.

mod css;
mod gradients;
mod mask;
mod random;
mod ranking;
mod readers;
mod score;
mod selection;
pub mod sensitivity;
mod squares;
mod statistics;

pub use gradients::Saliency;
pub use mask::Masked;
pub use random::random;
pub use ranking::Ranking;
pub use score::{l1, magnitude};
pub use selection::{Scores, Selection, quotas, select, select_part};
pub use statistics::{ActivationStatistics, measure};
