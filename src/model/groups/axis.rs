//! An axis of a tensor as stretches of units.

use std::ops::Range;

/// A group's position in the pruning order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub usize);

/// Whose units a stretch of an axis holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The network's input: the same for all members.
    Input,
    /// The network's outputs: the same for all members.
    Output,
    /// Units of a group.
    Group(GroupId),
}

/// A stretch of an axis: `units` units from `first` on, each at `repeat` neighbouring positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxisSegment {
    /// Whose units.
    pub owner: Owner,
    /// Index of the first unit in its group (for input and output: the channel).
    pub first: usize,
    /// Number of units.
    pub units: usize,
    /// Positions per unit.
    pub repeat: usize,
}

impl AxisSegment {
    /// Number of positions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units * self.repeat
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An axis of a tensor, from its first position to its last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Axis(Vec<AxisSegment>);

/// A segment at its place on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its first position.
    pub start: usize,
    /// What stands there.
    pub segment: AxisSegment,
}

impl Placed {
    /// The units, by their indices in their group.
    #[must_use]
    pub fn units(&self) -> Range<usize> {
        self.segment.first..self.segment.first + self.segment.units
    }

    /// The positions of all units.
    #[must_use]
    pub fn positions(&self) -> Range<usize> {
        self.start..self.start + self.segment.len()
    }

    /// The positions of `unit`, which is one of [`Self::units`].
    #[must_use]
    pub fn positions_of(&self, unit: usize) -> Range<usize> {
        let first = self.start + (unit - self.segment.first) * self.segment.repeat;
        first..first + self.segment.repeat
    }

    /// The group whose units stand here, if they are some group's.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        self.segment.owner.group()
    }
}

impl Owner {
    /// The group, if it is one.
    #[must_use]
    pub fn group(self) -> Option<GroupId> {
        match self {
            Self::Group(group) => Some(group),
            Self::Input | Self::Output => None,
        }
    }
}

impl Axis {
    /// The segments in order.
    #[must_use]
    pub fn segments(&self) -> &[AxisSegment] {
        &self.0
    }

    /// The segments in order, each at its place.
    pub fn placed(&self) -> impl Iterator<Item = Placed> + '_ {
        self.0.iter().scan(0, |next, segment| {
            let start = *next;
            *next += segment.len();
            Some(Placed { start, segment: *segment })
        })
    }

    /// The segments that hold units of `owner`, each at its place.
    pub fn placed_of(&self, owner: Owner) -> impl Iterator<Item = Placed> + '_ {
        self.placed().filter(move |placed| placed.segment.owner == owner)
    }

    /// Number of positions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(AxisSegment::len).sum()
    }

    /// Number of positions where groups have other widths, `width` of each; input and outputs stay.
    pub fn len_with(&self, width: impl Fn(GroupId) -> usize) -> usize {
        let len =
            |segment: &AxisSegment| segment.owner.group().map_or(segment.len(), |group| width(group) * segment.repeat);
        self.0.iter().map(len).sum()
    }

    /// Whether there is no position.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether units of `owner` stand on it.
    #[must_use]
    pub fn holds(&self, owner: Owner) -> bool {
        self.0.iter().any(|segment| segment.owner == owner)
    }

    /// The groups whose units stand on it, segment by segment.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.0.iter().filter_map(|segment| segment.owner.group())
    }

    /// The same stretches `times` times, one after another.
    #[must_use]
    pub fn repeated(&self, times: usize) -> Self {
        Self(self.0.repeat(times))
    }
}

impl FromIterator<AxisSegment> for Axis {
    fn from_iter<I: IntoIterator<Item = AxisSegment>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}
