//! Neuron Transplantation (Öz et al., ECML-PKDD 2024, arXiv 2502.06849), as pure functions over the members' weights.
//!
//! The concatenated network is never built: an [`Ensemble`] knows where each member's units would stand in it, units are
//! [scored](score) and [selected](select) from the members directly, and what is kept is [gathered](gather) into the fused
//! network. Gathering everything gives the concatenated network itself ([`materialise`]), for tests and small inputs.

pub mod align;
mod average;
pub mod calibration;
pub mod compensate;
mod ensemble;
mod execute;
mod gather;
pub mod importance;
mod mask;
mod orders;
mod padded;
mod provenance;
mod recipe;
mod routes;
mod rows;
mod score;
mod select;
pub mod sensitivity;
mod sides;
mod squares;
pub mod verify;
mod weights;

pub use average::average;
pub use ensemble::{Ensemble, FusionError, Member};
pub use gather::{gather, materialise};
pub use mask::Masked;
pub use orders::{Join, hierarchical, in_order, iterative, joins, joint};
pub use padded::Padded;
pub use provenance::{Origin, Provenance, Unit};
pub use recipe::{Fused, Recipe};
pub use score::{Scores, l1, magnitude};
pub use select::{Selection, quotas, select, select_part};
pub use weights::fit as fit_weights;
