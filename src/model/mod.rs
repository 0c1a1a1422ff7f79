//! Networks as data: the graph, its shapes, coupling groups, families, and the headers of checkpoint files.
//! Knows neither candle nor the network.

pub mod allocate;
pub mod costs;
pub mod depth;
pub mod families;
pub mod formats;
pub mod graph;
pub mod groups;
pub mod header;
pub mod natural;
pub mod parameters;
pub mod plan;
pub mod precision;
pub mod prefix;
pub mod ranges;
pub mod refit;
