//! A network's tensors in our order of axes, and their way from and to a `state_dict` in PyTorch's.

use crate::exec::engine::LoadError;
use crate::kernels::{Float, layout};
use crate::model::parameters::counter;
use crate::tensors::{StateDict, StateDictError, Weights};

/// How blocks of a tensor are transposed: (channels x pixels) outside, (pixels x channels) inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transposition {
    /// Rows outside.
    pub channels: usize,
    /// Rows inside.
    pub pixels: usize,
}

impl Transposition {
    /// `None` where both orders are the same.
    #[must_use]
    pub fn new(channels: usize, pixels: usize) -> Option<Self> {
        (channels > 1 && pixels > 1).then_some(Self { channels, pixels })
    }
}

/// A tensor that training changes, with its gradient.
#[derive(Debug)]
pub struct LearnedParameter<T> {
    /// Name in the `state_dict`.
    pub name: String,
    /// Shape in the `state_dict`.
    pub shape: Vec<usize>,
    pub(in crate::exec) transposition: Option<Transposition>,
    pub(in crate::exec) values: Vec<T>,
    pub(in crate::exec) gradient: Vec<T>,
}

impl<T: Float> LearnedParameter<T> {
    pub(in crate::exec) fn new(name: String, shape: Vec<usize>, transposition: Option<Transposition>) -> Self {
        let len = shape.iter().product();
        Self { name, shape, transposition, values: vec![T::ZERO; len], gradient: Vec::new() }
    }

    /// The values and their gradient, both in our order of axes; the gradient is empty before the first step.
    pub fn values_and_gradient(&mut self) -> (&mut [T], &[T]) {
        (&mut self.values, &self.gradient)
    }

    /// `values`, something of this tensor's shape in our order of axes, in PyTorch's order.
    #[must_use]
    pub fn to_pytorch(&self, values: &[T]) -> Vec<f32> {
        let mut reordered = vec![T::ZERO; values.len()];
        let source = match self.transposition {
            Some(t) => {
                layout::channels_first(t.channels, t.pixels, values, &mut reordered, false);
                &reordered
            }
            None => values,
        };
        source.iter().map(|value| value.f64() as f32).collect()
    }

    /// The inverse of [`Self::to_pytorch`].
    ///
    /// # Errors
    /// When `values` has another length than this tensor.
    pub fn from_pytorch(&self, values: &[f32]) -> Result<Vec<T>, LoadError> {
        expect_len(&self.name, self.shape.iter().product(), values)?;
        let mut reordered = vec![0.0; values.len()];
        let source = match self.transposition {
            Some(t) => {
                layout::channels_last(t.channels, t.pixels, values, &mut reordered);
                &reordered
            }
            None => values,
        };
        Ok(source.iter().map(|value| T::of(f64::from(*value))).collect())
    }
}

/// Running statistics of a BatchNorm.
#[derive(Debug, Clone)]
pub struct RunningStatistics<T> {
    pub(in crate::exec) node: String,
    pub(in crate::exec) mean: Vec<T>,
    pub(in crate::exec) var: Vec<T>,
    /// PyTorch's counter of batches; `None` where the `state_dict` had none.
    pub(in crate::exec) tracked: Option<i64>,
    /// Batches since the statistics were reset, for cumulative averages.
    pub(in crate::exec) since_reset: u64,
}

impl<T: Float> RunningStatistics<T> {
    /// Of the BatchNorm called `node`, before any batch.
    #[must_use]
    pub fn new(node: String, features: usize) -> Self {
        let (mean, var) = (vec![T::ZERO; features], vec![T::ONE; features]);
        Self { node, mean, var, tracked: Some(0), since_reset: 0 }
    }

    /// Forgets all batches.
    pub(in crate::exec) fn reset(&mut self) {
        self.mean.fill(T::ZERO);
        self.var.fill(T::ONE);
        self.tracked = self.tracked.map(|_| 0);
        self.since_reset = 0;
    }

    /// Takes them from a `state_dict`.
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another size.
    pub fn load(&mut self, weights: &(impl Weights + ?Sized)) -> Result<(), LoadError> {
        for (suffix, target) in [("running_mean", &mut self.mean), ("running_var", &mut self.var)] {
            let name = format!("{}.{suffix}", self.node);
            let values = weights.f32(&name)?;
            expect_len(&name, target.len(), &values)?;
            target.iter_mut().zip(values.iter()).for_each(|(target, value)| *target = T::of(f64::from(*value)));
        }
        self.tracked = weights.counter(&counter(&self.node));
        self.since_reset = 0;
        Ok(())
    }

    pub(in crate::exec) fn export(&self, weights: &mut StateDict) -> Result<(), StateDictError> {
        for (suffix, values) in [("running_mean", &self.mean), ("running_var", &self.var)] {
            let values: Vec<f32> = values.iter().map(|value| value.f64() as f32).collect();
            weights.insert_f32(&format!("{}.{suffix}", self.node), &[values.len()], values)?;
        }
        self.tracked.map_or(Ok(()), |tracked| weights.insert_counter(&counter(&self.node), tracked))
    }
}

fn expect_len(name: &str, expected: usize, values: &[f32]) -> Result<(), LoadError> {
    if values.len() == expected {
        Ok(())
    } else {
        Err(LoadError::Size { name: name.to_owned(), expected, got: values.len() })
    }
}
