//! Neuron Transplantation (Öz et al., ECML-PKDD 2024, arXiv 2502.06849), as pure functions over the members' weights.
//!
//! The concatenated network is never built: an [`Ensemble`] knows where each member's units would stand in it, units are
//! ranked and [selected](mod@select) from the members directly, and what is kept is [gathered](gather) into the fused
//! network. Gathering everything gives the concatenated network itself ([`materialise`]), for tests and small inputs.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`ensemble`] | members side by side, their weights in the mean, padding, where units stand in tensors |
//! | [`mod@select`] | scores, rankings by activations and gradients, selection, what groups are worth |
//! | [`assemble`] | kept rows and columns as a recipe, orders of joins, averages, provenance |
//! | [`align`] | members' units in one order |
//! | [`compensate`] | layers refitted in closed form |
//! | [`interpolate`] | members' units in groups, each with one unit that computes the mean of the group |
//! | [`calibration`] | networks run node by node on inputs without labels |
//! | [`mod@reference`] | the plainest way to compute a network: what the concatenation is verified by, and tests |

pub mod align;
pub mod assemble;
pub mod calibration;
pub mod compensate;
pub mod ensemble;
mod error;
pub mod interpolate;
mod minimise;
pub mod reference;
pub mod select;

pub use assemble::{
    FuseJointly, Fused, Origin, Provenance, Recipe, Unit, average, gather, hierarchical, in_order, iterative, joint,
    materialise,
};
pub use ensemble::{
    Consensus, Ensemble, Member, Mixture, PaddedMember, Shares, class_shares, fit_by_class, fit_weights,
    mean_probabilities, spread,
};
pub use error::FusionError;
pub use select::{Masked, Scores, Selection, l1, magnitude, quotas, select, select_part};
