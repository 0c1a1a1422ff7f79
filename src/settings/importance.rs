//! How units are ranked.

use serde::{Deserialize, Serialize};

/// How units are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// `magnitude` and `css`, the layers behind each refitted, and the better of both or the paper's own method; `magnitude`
    /// where layers are not refitted on calibration data.
    #[default]
    Auto,
    /// Mean of squared group norms, the paper's.
    Magnitude,
    /// Mean of absolute group norms.
    L1,
    /// By chance.
    Random,
    /// Mean squared activation times the squared norm of what reads it.
    Activation,
    /// Column-subset selection: units that the chosen ones do not explain yet.
    Css,
    /// Amount of the sum of weight times gradient: what the loss changes to first order.
    Taylor,
    /// Sum of squared weight times mean squared gradient: what the loss changes to second order.
    Fisher,
}

impl Importance {
    /// The name in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Magnitude => "magnitude",
            Self::L1 => "l1",
            Self::Random => "random",
            Self::Activation => "activation",
            Self::Css => "css",
            Self::Taylor => "taylor",
            Self::Fisher => "fisher",
        }
    }

    /// Whether the ranking looks at activations on calibration data.
    #[must_use]
    pub fn needs_activations(self) -> bool {
        matches!(self, Self::Activation | Self::Css)
    }

    /// Whether the ranking looks at gradients, which need labels.
    #[must_use]
    pub fn needs_gradients(self) -> bool {
        matches!(self, Self::Taylor | Self::Fisher)
    }

    /// Whether the ranking looks at the train split.
    #[must_use]
    pub fn needs_data(self) -> bool {
        self.needs_activations() || self.needs_gradients()
    }
}
