//! How large a fused network shall become.

use std::collections::BTreeMap;

/// The requested size, with what it leaves alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Of the whole network.
    pub size: Size,
    /// Every width becomes a multiple of this, at least one; 1 for any width.
    pub round_to: usize,
    /// Layers that never become narrower than a member.
    pub keep: Vec<String>,
    /// Layers whose widths are given one by one.
    pub layers: BTreeMap<String, LayerSize>,
}

impl Default for Target {
    fn default() -> Self {
        Self { size: Size::default(), round_to: 1, keep: Vec::new(), layers: BTreeMap::new() }
    }
}

impl From<Size> for Target {
    fn from(size: Size) -> Self {
        Self { size, ..Self::default() }
    }
}

/// Size of a whole network.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Size {
    /// Total width divided by the number of members.
    #[default]
    Member,
    /// The widths of the member with this index.
    WidthsOf(usize),
    /// A factor of the member width, above 0.
    Factor(f64),
    /// As wide as a budget allows.
    Budget(Budget),
}

/// What a network may cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// What is limited.
    pub resource: Resource,
    /// The most of it.
    pub limit: u64,
    /// Which layers get how much of it.
    pub allocation: Allocation,
}

/// What a budget limits; see [`crate::model::costs::Costs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Trainable weights.
    Parameters,
    /// Multiply-accumulate operations for one example.
    Macs,
    /// Bytes of the float tensors.
    Bytes,
}

impl Resource {
    /// Every resource.
    pub const ALL: [Self; 3] = [Self::Parameters, Self::Macs, Self::Bytes];

    /// Its name in requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parameters => "params",
            Self::Macs => "macs",
            Self::Bytes => "bytes",
        }
    }
}

/// Which layers get how much of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocation {
    /// All layers the same factor of the member width, as nearly as whole units allow.
    #[default]
    Uniform,
    /// More for layers whose pruning changes the network's outputs more.
    Sensitivity,
}

/// Width of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LayerSize {
    /// This many units.
    Width(usize),
    /// A factor of the member width, above 0.
    Factor(f64),
}
