//! Fully connected layers: `y = x Wᵀ + b`, W of shape (out x in).

use std::num::NonZeroUsize;

use crate::kernels::reduce::column_sums;
use crate::kernels::{Epilogue, Float, Matrix, Workspace, elementwise, matmul, product};

/// Batches up to this size are not worth packing the weights.
const FEW_ROWS: usize = 3;

/// Widths of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Width of the input.
    pub input: usize,
    /// Width of the output.
    pub output: usize,
}

impl Linear {
    /// `y = x Wᵀ + b`, then ReLU if wanted; x is (batch x in), y (batch x out).
    pub fn forward<T: Float>(
        &self,
        work: &mut Workspace<T>,
        x: &[T],
        weight: &[T],
        bias: Option<&[T]>,
        relu: bool,
        y: &mut [T],
    ) {
        let x = Matrix::new(x, x.len() / self.input, self.input);
        if x.rows <= FEW_ROWS {
            matmul(NonZeroUsize::MIN, x, self.weights(weight).transposed(), y, false);
            return elementwise::finish_rows(y, self.output, bias, relu);
        }
        product(work, x, self.weights(weight).transposed(), Epilogue { bias, relu, accumulate: false }, y);
    }

    /// `dW = dyᵀ x`, `db` = sum of the rows of dy.
    pub fn backward_parameters<T: Float>(
        &self,
        work: &mut Workspace<T>,
        x: &[T],
        dy: &[T],
        dweight: &mut [T],
        dbias: Option<&mut [T]>,
    ) {
        let batch = x.len() / self.input;
        let (dy_rows, x) = (Matrix::new(dy, batch, self.output), Matrix::new(x, batch, self.input));
        product(work, dy_rows.transposed(), x, Epilogue::PLAIN, dweight);
        if let Some(dbias) = dbias {
            column_sums(dy, work, dbias);
        }
    }

    /// `dx = dy W`, or `dx += dy W`.
    pub fn backward_input<T: Float>(
        &self,
        work: &mut Workspace<T>,
        dy: &[T],
        weight: &[T],
        dx: &mut [T],
        accumulate: bool,
    ) {
        let dy = Matrix::new(dy, dy.len() / self.output, self.output);
        product(work, dy, self.weights(weight), Epilogue::adding(accumulate), dx);
    }

    fn weights<'a, T>(&self, weight: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(weight, self.output, self.input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::finite_difference::{assert_gradient, projection, sample, workspace};

    #[test]
    fn gradients_equal_finite_differences() {
        let layer = Linear { input: 5, output: 3 };
        let (x, w, b, c) = (sample(4 * 5, 1), sample(15, 2), sample(3, 3), sample(4 * 3, 4));
        let loss = |x: &[f64], w: &[f64], b: &[f64]| {
            let mut y = vec![0.0; 12];
            layer.forward(&mut workspace(), x, w, Some(b), false, &mut y);
            projection(&y, &c)
        };
        let (mut dx, mut dw, mut db) = (sample(20, 5), vec![0.0; 15], vec![0.0; 3]);
        let before = dx.clone();
        layer.backward_parameters(&mut workspace(), &x, &c, &mut dw, Some(&mut db));
        layer.backward_input(&mut workspace(), &c, &w, &mut dx, true);
        dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx -= before);
        assert_gradient("x", &x, &dx, |x| loss(x, &w, &b));
        assert_gradient("weight", &w, &dw, |w| loss(&x, w, &b));
        assert_gradient("bias", &b, &db, |b| loss(&x, &w, b));
    }
}
