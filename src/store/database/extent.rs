//! How far a transaction reaches.

/// How much of the database a transaction keeps others from writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Extent {
    /// Everything: there is one writer, and what it has read stays true until it commits.
    Everything,
    /// The rows of one job, which it must lock by reading them. Transactions for other jobs may write at the same time; in SQLite they
    /// wait, as all do.
    OneJob,
}
