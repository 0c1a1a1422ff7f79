//! Names of an attention's tensors.

use serde::{Deserialize, Serialize};

/// Where an attention's projections stand in the `state_dict`, below the node's name. `output` is a module, with tensors
/// `weight` and `bias`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Projections {
    /// Queries, keys and values as three modules.
    Separate {
        /// Module of the queries.
        query: String,
        /// Module of the keys.
        key: String,
        /// Module of the values.
        value: String,
        /// Module of the output.
        output: String,
    },
    /// Queries, keys and values as the three thirds of the rows of one tensor.
    Packed {
        /// The matrix, (3C x C).
        weight: String,
        /// The bias, (3C).
        bias: String,
        /// Module of the output.
        output: String,
    },
}

impl Projections {
    /// As PyTorch's own `MultiheadAttention` has them.
    #[must_use]
    pub fn torch() -> Self {
        Self::Packed { weight: "in_proj_weight".into(), bias: "in_proj_bias".into(), output: "out_proj".into() }
    }

    /// As timm's vision transformers have them.
    #[must_use]
    pub fn timm() -> Self {
        Self::Packed { weight: "qkv.weight".into(), bias: "qkv.bias".into(), output: "proj".into() }
    }

    /// As the vision transformers of Hugging Face have them below `encoder.layer.N.attention`.
    #[must_use]
    pub fn hugging_face() -> Self {
        let module = |name: &str| format!("attention.{name}");
        let (query, key, value) = (module("query"), module("key"), module("value"));
        Self::Separate { query, key, value, output: "output.dense".into() }
    }
}

impl Default for Projections {
    fn default() -> Self {
        Self::torch()
    }
}
