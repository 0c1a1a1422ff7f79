//! Why a folder of a model's files is not a checkpoint.

/// What to do where files are missing.
const ADVICE: &str = "keep all in one folder, or pack the folder as one tar or zip";
/// Most names in a message.
const SHOWN: usize = 8;

/// Why a folder of a model's files is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The tar archive ends early, or is none.
    #[error("the tar archive is damaged or truncated: {0}")]
    Tar(String),
    /// Several files of weights, and nothing that says which.
    #[error("the archive holds several files of weights without an index: {}; pack one model alone, with its index", listed(.0))]
    Several(Vec<String>),
    /// An index that cannot be read.
    #[error("`{name}`: {fault}")]
    Index {
        /// The index.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Files that the model needs.
    #[error("the model lies in other files too, which are missing: {}; {ADVICE}", listed(.0))]
    Missing(Vec<String>),
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
    /// A tensor that no index names.
    #[error(
        "`{shard}` holds the tensor `{name}`, which the index does not name there: the files are of different models"
    )]
    StrayTensor {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// Files of an ONNX model that would take too much memory.
    #[error(
        "the model's files are deflated and have {0} bytes together; pack them as a tar, or without compression (`zip -0`)"
    )]
    Deflated(u64),
    /// A shard that is no file of safetensors.
    #[error("`{name}`: {fault}")]
    Shard {
        /// The shard.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
}

/// The first of some names, and how many more there are.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
