//! Makers of the fused network's rows: each knows where its elements stand in the members.

use crate::fusion::Shares;
use crate::fusion::assemble::routes::PositionRun;
use crate::tensors::{Elements, MakeRow, Number};

/// Elements per run below which positions are picked one by one: copying such short runs costs more.
const SHORT_RUN: usize = 8;

/// Rows of one member each, which read that member's units.
pub(in crate::fusion) struct MatrixRows<'a> {
    pub(in crate::fusion) members: Vec<Elements<'a>>,
    /// Elements of each member's rows.
    pub(in crate::fusion) source_len: Vec<usize>,
    pub(in crate::fusion) picks: Vec<Pick>,
    /// Member and row that each row comes from.
    pub(in crate::fusion) places: Vec<(usize, usize)>,
}

impl MakeRow for MatrixRows<'_> {
    fn make<T: Number>(&self, row: usize, target: &mut [T]) {
        let (member, row) = self.places[row];
        let len = self.source_len[member];
        self.picks[member].copy(&self.members[member], row * len, len, target);
    }
}

/// Rows of the output layer, which read all members' units, each by the member's share.
pub(in crate::fusion) struct OutputRows<'a> {
    pub(in crate::fusion) members: Vec<Elements<'a>>,
    /// Elements of each member's rows.
    pub(in crate::fusion) source_len: Vec<usize>,
    pub(in crate::fusion) picks: Vec<Pick>,
    pub(in crate::fusion) shares: &'a Shares,
}

impl MakeRow for OutputRows<'_> {
    fn make<T: Number>(&self, row: usize, target: &mut [T]) {
        target.fill(T::default());
        for (member, pick) in self.picks.iter().enumerate() {
            let len = self.source_len[member];
            pick.add_scaled(&self.members[member], row * len, len, target, |_| self.shares.of(member, row));
        }
    }
}

/// Rows of one member each, without columns.
pub(in crate::fusion) struct Kernels<'a> {
    pub(in crate::fusion) members: Vec<Elements<'a>>,
    /// Member and row that each row comes from.
    pub(in crate::fusion) places: Vec<(usize, usize)>,
}

impl MakeRow for Kernels<'_> {
    fn make<T: Number>(&self, row: usize, target: &mut [T]) {
        let (member, row) = self.places[row];
        self.members[member].copy_to(row * target.len(), target);
    }
}

/// Rows of all members, each by the member's share.
pub(in crate::fusion) struct Mean<'a> {
    pub(in crate::fusion) members: Vec<Elements<'a>>,
    pub(in crate::fusion) shares: &'a [f64],
}

impl MakeRow for Mean<'_> {
    fn make<T: Number>(&self, row: usize, target: &mut [T]) {
        target.fill(T::default());
        let mut scratch = Vec::<T>::new();
        for (member, share) in self.members.iter().zip(self.shares) {
            let own = member.slice(row * target.len(), target.len(), &mut scratch);
            target.iter_mut().zip(own).for_each(|(sum, value)| *sum += *value * T::of(*share));
        }
    }
}

/// Tokens, which are one row, with a value for each channel.
pub(in crate::fusion) struct Tokens<'a> {
    pub(in crate::fusion) members: Vec<Elements<'a>>,
    pub(in crate::fusion) picks: Vec<Pick>,
    pub(in crate::fusion) count: usize,
}

impl MakeRow for Tokens<'_> {
    fn make<T: Number>(&self, _row: usize, target: &mut [T]) {
        let len = target.len() / self.count;
        for (token, target) in target.chunks_exact_mut(len.max(1)).enumerate() {
            for (pick, values) in self.picks.iter().zip(&self.members) {
                let own = values.len() / self.count;
                pick.place(values, token * own, own, target);
            }
        }
    }
}

/// A vector, which is one row; of the output layer where there are shares.
pub(in crate::fusion) struct Vector<'a> {
    pub(in crate::fusion) members: Vec<Elements<'a>>,
    pub(in crate::fusion) picks: Vec<Pick>,
    pub(in crate::fusion) shares: Option<&'a Shares>,
}

impl MakeRow for Vector<'_> {
    fn make<T: Number>(&self, _row: usize, target: &mut [T]) {
        target.fill(T::default());
        for (member, (pick, values)) in self.picks.iter().zip(&self.members).enumerate() {
            match self.shares {
                Some(shares) => {
                    pick.add_scaled(values, 0, values.len(), target, |class| shares.of(member, class));
                }
                None => pick.place(values, 0, values.len(), target),
            }
        }
    }
}

/// Which elements of a member's row go where in a fused row.
pub(in crate::fusion) struct Pick {
    /// In elements.
    runs: Vec<PositionRun>,
    /// Whether each run begins where the one before ends.
    joined: bool,
    /// For each element from the first run to the last, its source; where runs are joined and short.
    sources: Option<Vec<u32>>,
}

impl Pick {
    /// Runs of positions of `inner` elements each.
    pub(in crate::fusion) fn new(runs: &[PositionRun], inner: usize) -> Self {
        let in_elements = |run: &PositionRun| PositionRun {
            source: run.source * inner,
            target: run.target * inner,
            len: run.len * inner,
        };
        let runs: Vec<PositionRun> = runs.iter().map(in_elements).collect();
        let elements: usize = runs.iter().map(|run| run.len).sum();
        let joined = runs.windows(2).all(|pair| pair[0].target + pair[0].len == pair[1].target);
        let addressable = runs.iter().all(|run| u32::try_from(run.source + run.len).is_ok());
        let short = elements < runs.len() * SHORT_RUN;
        let sources = || runs.iter().flat_map(|run| (run.source..run.source + run.len).map(|at| at as u32)).collect();
        let sources = (short && joined && addressable).then(sources);
        Self { runs, joined, sources }
    }

    /// Where the runs begin and end in the fused row.
    fn span(&self) -> (usize, usize) {
        let end = |run: &PositionRun| run.target + run.len;
        (self.runs.first().map_or(0, |run| run.target), self.runs.last().map_or(0, end))
    }

    /// The row of `len` elements from `first` on, with zeros around what is picked.
    fn copy<T: Number>(&self, source: &Elements<'_>, first: usize, len: usize, target: &mut [T]) {
        let (begin, end) = if self.joined { self.span() } else { (0, 0) };
        target[..begin].fill(T::default());
        target[end..].fill(T::default());
        self.place(source, first, len, target);
    }

    /// Writes what is picked of the row of `len` elements from `first` on, and nothing else.
    fn place<T: Number>(&self, source: &Elements<'_>, first: usize, len: usize, target: &mut [T]) {
        let row = if let Elements::Floats(values) = source { T::borrow(&values[first..first + len]) } else { None };
        if let (Some(sources), Some(row)) = (&self.sources, row) {
            let (begin, end) = self.span();
            for (value, &at) in target[begin..end].iter_mut().zip(sources) {
                *value = row[at as usize];
            }
            return;
        }
        for run in &self.runs {
            source.copy_to(first + run.source, &mut target[run.target..run.target + run.len]);
        }
    }

    /// Adds what is picked, each element times the share of its place in the row.
    fn add_scaled<T: Number>(
        &self,
        source: &Elements<'_>,
        first: usize,
        len: usize,
        target: &mut [T],
        share: impl Fn(usize) -> f64,
    ) {
        let mut scratch = Vec::<T>::new();
        let row = source.slice(first, len, &mut scratch);
        for run in &self.runs {
            let pairs = target[run.target..run.target + run.len].iter_mut().zip(&row[run.source..run.source + run.len]);
            pairs.enumerate().for_each(|(at, (sum, value))| *sum += *value * T::of(share(run.source + at)));
        }
    }
}
