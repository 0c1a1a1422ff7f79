//! Where a job computes.

use serde::{Deserialize, Serialize};

/// Where a job computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// Wherever a worker has room.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// Any NVIDIA GPU.
    AnyCuda,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
}

impl Device {
    /// Whether it is a GPU, known or not.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::AnyCuda | Self::Cuda(_))
    }

    /// Whether a job that requests `self` may be computed on `found`.
    #[must_use]
    pub fn may_be(self, found: Self) -> bool {
        match self {
            Self::Auto => true,
            Self::AnyCuda => found.is_gpu(),
            Self::Cpu | Self::Cuda(_) => self == found,
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::AnyCuda => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::AnyCuda),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected `auto`, `cpu`, `cuda` or `cuda:N`, got `{text}`")),
        }
    }
}
