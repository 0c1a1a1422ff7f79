//! What is known of a machine's GPUs, and of the libraries that compute on them.

use serde::{Deserialize, Serialize};

/// The least compute capability that networks are computed on.
pub const LEAST_CAPABILITY: [u32; 2] = [8, 0];

/// What the driver and the libraries take of a GPU's memory in each process that computes on it, about.
pub const CONTEXT_BYTES: u64 = 512 << 20;

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number on this machine, from 0 on.
    pub index: usize,
    /// What its maker calls it.
    pub name: String,
    /// All of its memory.
    pub memory_bytes: u64,
    /// Its compute capability, major and minor.
    pub compute_capability: [u32; 2],
    /// Its multiprocessors.
    pub multiprocessors: u32,
}

impl Gpu {
    /// Why networks are not computed on it.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let [[major, minor], [least, least_minor]] = [self.compute_capability, LEAST_CAPABILITY];
        (self.compute_capability < LEAST_CAPABILITY).then(|| {
            format!(
                "the {} has compute capability {major}.{minor}, and at least {least}.{least_minor} is needed",
                self.name
            )
        })
    }
}

/// The versions of what computes on GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GpuVersions {
    /// NVIDIA's driver, as the system names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "580.95.05")]
    pub driver: Option<String>,
    /// The version of CUDA up to which the driver goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "13.0")]
    pub cuda: Option<String>,
    /// The compiler.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "13.0")]
    pub nvrtc: Option<String>,
    /// Matrix products.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "13.1.0")]
    pub cublaslt: Option<String>,
    /// Convolutions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "9.14.0")]
    pub cudnn: Option<String>,
}

/// Where a library was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLibrary {
    /// The name that programs ask for.
    pub name: String,
    /// Its file; none where the system does not say.
    pub path: Option<std::path::PathBuf>,
}

/// What a machine has for computing on GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gpus {
    /// All GPUs that the driver shows, also those that are too old.
    pub devices: Vec<Gpu>,
    /// What was found of the driver and the libraries.
    pub versions: GpuVersions,
    /// Their files.
    pub libraries: Vec<FoundLibrary>,
    /// Why nothing can be computed on a GPU, and what would change that; none where something can. It names no path.
    pub why_not: Option<String>,
    /// More on that for whoever runs this machine: files, and what the loader says.
    pub detail: Option<String>,
}

impl Gpus {
    /// No GPU, for this reason.
    #[must_use]
    pub fn none(why_not: impl Into<String>) -> Self {
        Self { why_not: Some(why_not.into()), ..Self::default() }
    }

    /// Why nothing can be computed on a GPU, with all details.
    #[must_use]
    pub fn why_not_in_full(&self) -> Option<String> {
        let why_not = self.why_not.as_ref()?;
        Some(self.detail.as_ref().map_or_else(|| why_not.clone(), |detail| format!("{why_not} ({detail})")))
    }

    /// The GPUs that networks can be computed on.
    pub fn usable(&self) -> impl Iterator<Item = &Gpu> {
        self.devices.iter().filter(|gpu| self.why_not.is_none() && gpu.why_not().is_none())
    }

    /// Whether there is a driver, so that somebody may expect a GPU to be used.
    #[must_use]
    pub fn has_driver(&self) -> bool {
        self.versions.cuda.is_some()
    }

    /// Why nothing is computed on the GPU with this number.
    #[must_use]
    pub fn refusal(&self, index: usize) -> Option<String> {
        if let Some(why_not) = &self.why_not {
            return Some(why_not.clone());
        }
        match self.devices.iter().find(|gpu| gpu.index == index) {
            Some(gpu) => gpu.why_not(),
            None if self.devices.len() == 1 => Some("this machine has one GPU, `cuda:0`".to_owned()),
            None => Some(format!(
                "this machine has {} GPUs, `cuda:0` to `cuda:{}`",
                self.devices.len(),
                self.devices.len().saturating_sub(1)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: usize, compute_capability: [u32; 2]) -> Gpu {
        Gpu { index, name: format!("Card {index}"), memory_bytes: 1 << 34, compute_capability, multiprocessors: 100 }
    }

    #[test]
    fn old_gpus_and_unknown_numbers_are_refused_in_words() {
        let gpus = Gpus { devices: vec![gpu(0, [7, 5]), gpu(1, [9, 0])], ..Gpus::default() };
        assert_eq!(gpus.usable().map(|gpu| gpu.index).collect::<Vec<_>>(), [1]);
        let words = [0, 1, 2].map(|index| gpus.refusal(index));
        assert_eq!(words[0].as_deref(), Some("the Card 0 has compute capability 7.5, and at least 8.0 is needed"));
        assert_eq!(words[1], None);
        assert_eq!(words[2].as_deref(), Some("this machine has 2 GPUs, `cuda:0` to `cuda:1`"));
        let without = Gpus { why_not: Some("cuDNN is missing".to_owned()), ..gpus };
        assert_eq!((without.usable().count(), without.refusal(1).as_deref()), (0, Some("cuDNN is missing")));
    }
}
