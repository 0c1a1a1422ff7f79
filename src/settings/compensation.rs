//! Whether the layers behind a selection are refitted.

use serde::{Deserialize, Serialize};

/// Whether consumers are refitted after selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compensate {
    /// With calibration data where there is a dataset, else without data where the network allows it.
    #[default]
    Auto,
    /// Never.
    None,
    /// By activations on the train split; labels are not read.
    Calibration,
    /// By second moments of Gaussian inputs.
    DataFree,
}
