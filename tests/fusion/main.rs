//! What fusion computes, held against other implementations and against plain ones, and against what plans count.

#[path = "../common/mod.rs"]
mod common;
mod families;
mod first_look;
mod golden;
mod identity;
mod interpolation;
mod networks;
mod pickled;
mod planned_counts;
mod properties;
mod published;
