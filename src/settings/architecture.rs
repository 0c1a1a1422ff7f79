//! Which network the members are.

/// Which network the members are.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Architecture {
    /// Recognised from names and shapes.
    #[default]
    Auto,
    /// One of `/v1/architectures`.
    Family {
        /// Its name.
        name: String,
        /// Number of heads of a transformer, where its convention is not meant.
        heads: Option<usize>,
    },
    /// Spelled out, in the JSON form of [`crate::model::graph::Graph`].
    Graph(serde_json::Value),
}
