//! Which unit of which member each unit of a fused network is.

use serde::{Deserialize, Serialize};

use crate::fusion::{Ensemble, Selection};
use crate::model::groups::GroupId;

/// A unit of a member; written as `[member, unit]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unit(
    /// Index of the member.
    pub usize,
    /// Index of the unit in the member's layer.
    pub usize,
);

/// Where the units of one coupling group come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The layers whose outputs these units are; they share them through sums.
    pub layers: Vec<String>,
    /// For each unit of the fused network, in its order, the member's unit.
    pub units: Vec<Unit>,
}

/// Where a fused network's units come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Each member's weight in the mean of the outputs.
    pub shares: Vec<f32>,
    /// Every coupling group, in pruning order.
    pub groups: Vec<Origin>,
}

impl Provenance {
    /// Of the network that `selection` makes of `ensemble`.
    pub(in crate::fusion) fn of(ensemble: &Ensemble<'_>, selection: &Selection) -> Self {
        let members = 0..ensemble.members().len();
        let groups = ensemble.couplings()[0].groups.iter().enumerate().map(|(index, group)| {
            let kept = |member| selection.kept(GroupId(index), member).iter().map(move |&unit| Unit(member, unit));
            // Heads have no producers; they are named after their attention.
            let attention = ensemble.couplings()[0].attention_of(GroupId(index));
            let producers = group.producers.iter().chain(&attention);
            Origin {
                layers: producers.map(|id| ensemble.graph().node(*id).name.clone()).collect(),
                units: members.clone().flat_map(kept).collect(),
            }
        });
        Self { shares: ensemble.member_shares(), groups: groups.collect() }
    }

    /// Of one member as it is.
    #[must_use]
    pub fn of_member(ensemble: &Ensemble<'_>, member: usize) -> Self {
        let groups = ensemble.couplings()[member].groups.iter().enumerate().map(|(index, group)| {
            let attention = ensemble.couplings()[member].attention_of(GroupId(index));
            let producers = group.producers.iter().chain(&attention);
            Origin {
                layers: producers.map(|id| ensemble.graph().node(*id).name.clone()).collect(),
                units: (0..group.width).map(|unit| Unit(member, unit)).collect(),
            }
        });
        let shares = (0..ensemble.members().len()).map(|other| f32::from(u8::from(other == member)));
        Self { shares: shares.collect(), groups: groups.collect() }
    }

    /// The same network seen through its parts: member `i` of this fusion is itself the fusion `parts[i]`, whose members
    /// are numbered from `first[i]` on. A part without provenance is an original member.
    #[must_use]
    pub fn through(self, parts: &[(Option<&Self>, usize)]) -> Self {
        let mut shares = Vec::new();
        for (share, (part, _)) in self.shares.iter().zip(parts) {
            match part {
                Some(part) => shares.extend(part.shares.iter().map(|inner| inner * share)),
                None => shares.push(*share),
            }
        }
        let resolve = |group: usize, Unit(member, unit): Unit| {
            let (part, first) = parts[member];
            let Unit(inner, unit) = part.map_or(Unit(0, unit), |part| part.groups[group].units[unit]);
            Unit(first + inner, unit)
        };
        let groups = self.groups.into_iter().enumerate().map(|(index, origin)| Origin {
            units: origin.units.into_iter().map(|unit| resolve(index, unit)).collect(),
            layers: origin.layers,
        });
        Self { shares, groups: groups.collect() }
    }
}
