//! Constants of another type.

use super::constant::{Buffer, Constant};
use super::file_tensor::FileTensor;
use super::size::AxisSize;

impl Constant<'_> {
    /// Whether its elements are whole numbers by their type.
    pub(super) fn is_of_sizes(&self) -> bool {
        matches!(self.buffer, Buffer::Sizes(_) | Buffer::Counting)
    }

    /// The same as floats, or as whole numbers, which lose what is behind the point. Sizes that depend on the batch stay what they are.
    pub(super) fn cast(&self, to_float: bool, tensors: &[&FileTensor<'_>]) -> Result<Self, String> {
        let floats = match (&self.buffer, to_float) {
            (Buffer::Sizes(sizes), true) if sizes.iter().all(|size| size.known().is_some()) => {
                let floats = sizes.iter().map(|size| size.factor as f64).collect();
                return Ok(Self { buffer: Buffer::Floats(floats), ..self.clone() });
            }
            (Buffer::Floats(_) | Buffer::Stored(_), false) => self.floats(tensors)?,
            _ => return Ok(self.clone()),
        };
        if floats.iter().any(|value| value.is_nan() || value.abs() >= i64::MAX as f64) {
            return Err("a number is too large to be a whole one, or none".to_owned());
        }
        Self::of_sizes(self.name, self.dims.clone(), floats.iter().map(|value| AxisSize::of(*value as i64)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_point_is_lost() {
        let dims = || vec![AxisSize::of(3)];
        let floats = Constant::of_floats("", dims(), vec![2.7, -2.7, 5.0]).unwrap();
        let whole = floats.cast(false, &[]).unwrap();
        assert_eq!(whole.integers().unwrap(), [2, -2, 5]);
        assert_eq!(whole.cast(true, &[]).unwrap().floats(&[]).unwrap(), [2.0, -2.0, 5.0]);
        assert!(Constant::of_floats("", dims(), vec![f64::NAN; 3]).unwrap().cast(false, &[]).is_err());
        let open = Constant::list("", vec![AxisSize::BATCH]).unwrap();
        assert_eq!(open.cast(true, &[]).unwrap(), open);
    }
}
