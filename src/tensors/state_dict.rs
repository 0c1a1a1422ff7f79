//! A network's weights in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::domain::problem::{Code, Problem};
use crate::model::header::Dtype;
use crate::model::natural;
use crate::tensors::write::{self, Written};
use crate::tensors::{Checkpoint, CheckpointError, Weights};

/// Why a state dict could not be loaded, changed or saved.
#[derive(Debug, thiserror::Error)]
pub enum StateDictError {
    /// The file is not usable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tensor library refused.
    #[error("tensor `{name}`: {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What the library said.
        source: candle_core::Error,
    },
    /// Writing failed.
    #[error("writing {path}: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<StateDictError> for Problem {
    fn from(error: StateDictError) -> Self {
        let code = match error {
            StateDictError::Checkpoint(error) => return error.into(),
            StateDictError::Tensor { .. } => Code::Internal,
            StateDictError::Write { ref source, .. } => Code::of_system(source),
        };
        Self::new(code, error.to_string())
    }
}

/// Tensors on the CPU by their names. Weights are f32 (f64 where they were put in as that), counters i64, whatever the file
/// held.
#[derive(Debug, Clone, Default)]
pub struct StateDict(BTreeMap<String, Tensor>);

impl StateDict {
    /// Reads all tensors of the safetensors file `path`.
    ///
    /// # Errors
    /// When the gate refuses the file.
    pub fn load(path: &Path) -> Result<Self, StateDictError> {
        Self::from_checkpoint(&Checkpoint::open(path)?)
    }

    /// Copies all tensors of an open file.
    ///
    /// # Errors
    /// When the tensor library refuses a shape.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, StateDictError> {
        let mut tensors = Self::default();
        for info in &checkpoint.header().tensors {
            if info.dtype.is_float() {
                tensors.insert_f32(&info.name, &info.shape, checkpoint.f32(&info.name)?.into_owned())?;
            } else if let Some(values) = checkpoint.integers(&info.name)? {
                let tensor = Tensor::from_vec(values, &info.shape[..], &Device::Cpu);
                tensors.0.insert(info.name.clone(), tensor.map_err(tensor_error(&info.name))?);
            }
        }
        Ok(tensors)
    }

    /// Puts the row-major `values` in as tensor `name`, without a copy.
    ///
    /// # Errors
    /// When `shape` does not fit the number of values.
    pub fn insert_f32(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<(), StateDictError> {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).map_err(tensor_error(name))?;
        self.0.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// As [`Self::insert_f32`], for weights that stay f64 for as long as nobody changes them; they are read as f32.
    ///
    /// # Errors
    /// When `shape` does not fit the number of values.
    pub fn insert_f64(&mut self, name: &str, shape: &[usize], values: Vec<f64>) -> Result<(), StateDictError> {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).map_err(tensor_error(name))?;
        self.0.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// Puts in the scalar integer `name` (a BatchNorm counter).
    ///
    /// # Errors
    /// When the tensor library refuses.
    pub fn insert_counter(&mut self, name: &str, value: i64) -> Result<(), StateDictError> {
        let tensor = Tensor::from_vec(vec![value], (), &Device::Cpu).map_err(tensor_error(name))?;
        self.0.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// The names in natural order (`fc2` before `fc10`).
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_by(|a, b| natural::compare(a, b));
        names
    }

    /// Number of weights: elements of float tensors that training changes or inference reads.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.0.values().filter(|tensor| tensor.dtype().is_float()).map(Tensor::elem_count).sum()
    }

    /// Writes a safetensors file, each float tensor as the type that `float` names, one after another, and syncs it to the
    /// disk.
    ///
    /// # Errors
    /// When writing fails or a tensor has a type that the file format lacks.
    pub fn save_as(
        &self,
        path: &Path,
        metadata: &BTreeMap<String, String>,
        float: impl Fn(&str) -> Dtype,
    ) -> Result<Written, StateDictError> {
        write::safetensors(path, &self.0, metadata, float)
    }

    /// Writes a safetensors file with f32 weights; see [`Self::save_as`].
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<Written, StateDictError> {
        self.save_as(path, metadata, |_| Dtype::F32)
    }
}

/// Wraps an error of the tensor library.
pub(super) fn tensor_error(name: &str) -> impl FnOnce(candle_core::Error) -> StateDictError {
    move |source| StateDictError::Tensor { name: name.to_owned(), source }
}

impl Deref for StateDict {
    type Target = BTreeMap<String, Tensor>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for StateDict {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl FromIterator<(String, Tensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl Weights for StateDict {
    fn f32(&self, name: &str) -> Result<Cow<'_, [f32]>, CheckpointError> {
        let tensor = self.0.get(name).ok_or_else(|| CheckpointError::Missing(name.to_owned()))?;
        let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1());
        match values {
            Ok(values) if tensor.dtype().is_float() => Ok(Cow::Owned(values)),
            _ => Err(CheckpointError::NotFloat(name.to_owned())),
        }
    }

    fn counter(&self, name: &str) -> Option<i64> {
        let values: Vec<i64> = self.0.get(name)?.flatten_all().ok()?.to_vec1().ok()?;
        values.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StateDict {
        let mut weights = StateDict::default();
        weights.insert_f32("fc10.weight", &[2, 2], vec![1.0, -2.0, 0.5, 4.0]).unwrap();
        weights.insert_f32("fc2.weight", &[3], vec![0.25, 0.0, -8.0]).unwrap();
        weights.insert_counter("bn.num_batches_tracked", 7).unwrap();
        weights
    }

    #[test]
    fn a_saved_state_dict_loads_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        for float in [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::Bf16] {
            let written = sample().save_as(&path, &metadata, |_| float).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(written.bytes, bytes.len() as u64);
            assert_eq!(written.sha256, hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)));
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(checkpoint.metadata(), &metadata);
            assert_eq!(checkpoint.header().get("fc2.weight").unwrap().dtype, float);
            let loaded = StateDict::from_checkpoint(&checkpoint).unwrap();
            assert_eq!(loaded.names(), ["bn.num_batches_tracked", "fc2.weight", "fc10.weight"]);
            assert_eq!(loaded.f32("fc10.weight").unwrap()[..], [1.0, -2.0, 0.5, 4.0]);
            assert_eq!(loaded.f32("fc2.weight").unwrap()[..], [0.25, 0.0, -8.0]);
            assert_eq!(loaded.counter("bn.num_batches_tracked"), Some(7));
        }
    }

    #[test]
    fn f32_is_borrowed_from_the_map() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        sample().save(&path, &BTreeMap::new()).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert!(matches!(checkpoint.f32("fc2.weight").unwrap(), Cow::Borrowed(_)));
        assert!(matches!(checkpoint.f32("bn.num_batches_tracked"), Err(CheckpointError::NotFloat(_))));
        assert!(matches!(checkpoint.f32("fc3.weight"), Err(CheckpointError::Missing(_))));
    }

    #[test]
    fn weights_that_are_not_finite_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut weights = sample();
        weights.save(&path, &BTreeMap::new()).unwrap();
        Checkpoint::open(&path).unwrap().check_finite().unwrap();
        weights.insert_f32("fc2.weight", &[3], vec![0.0, f32::NAN, f32::INFINITY]).unwrap();
        weights.save(&path, &BTreeMap::new()).unwrap();
        let error = Checkpoint::open(&path).unwrap().check_finite().unwrap_err();
        assert!(matches!(&error, CheckpointError::NonFinite { name, index: 1, .. } if name == "fc2.weight"));
        let problem = crate::domain::problem::Problem::from(error);
        assert_eq!(problem.code, crate::domain::problem::Code::NonFiniteWeights);
    }
}
