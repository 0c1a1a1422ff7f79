//! Why a folder of shards is not a checkpoint.

/// Why a folder of shards is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The tar archive ends early, or is none.
    #[error("the tar archive is damaged or truncated: {0}")]
    Tar(String),
    /// Several files of weights, and nothing that says which.
    #[error("the archive holds several files of weights without an index: {}; pack one model alone, with its index", .0.join(", "))]
    Several(Vec<String>),
    /// Not the JSON of an index.
    #[error("`{name}` in the archive is no index of shards: {reason}")]
    Index {
        /// The index.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Shards that the index names.
    #[error("the archive lacks shards that its index names: {}; pack the whole folder", .0.join(", "))]
    MissingShards(Vec<String>),
    /// A tensor that the index promises.
    #[error(
        "the index says that `{shard}` holds the tensor `{name}`, which it does not: the files are of different models"
    )]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// A shard that is no file of safetensors.
    #[error("`{name}` in the archive: {fault}")]
    Shard {
        /// The shard.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
}
