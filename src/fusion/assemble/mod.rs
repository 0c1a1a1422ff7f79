//! From what is kept to a network: kept rows and columns of the members side by side, as a recipe of rows.

mod average;
mod gather;
mod orders;
mod provenance;
mod recipe;
pub(in crate::fusion) mod routes;
mod rows;

pub use average::average;
pub use gather::{gather, materialise};
pub use orders::{FuseJointly, hierarchical, in_order, iterative, joint};
pub use provenance::{Origin, Provenance, Unit};
pub(in crate::fusion) use recipe::counters;
pub use recipe::{Fused, Recipe};
