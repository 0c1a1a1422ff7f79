//! Tensors in another order than row by row.

use crate::model::header::TensorInfo;

/// The elements of a tensor whose first one begins at byte `begin` of `bytes`, in row-major order. `strides` count elements
/// between neighbours along each axis; the gate has checked that all elements lie within `bytes`.
pub(super) fn row_major(bytes: &[u8], info: &TensorInfo, begin: usize, strides: &[u64]) -> Vec<u8> {
    let size = info.dtype.size();
    let mut target = Vec::with_capacity(info.elements() * size);
    if info.elements() == 0 {
        return target;
    }
    let (columns, step) = match (info.shape.split_last(), strides.split_last()) {
        (Some((&columns, _)), Some((&step, _))) => (columns, step as usize * size),
        _ => (1, 0),
    };
    let outer = info.shape.len().saturating_sub(1);
    let mut index = vec![0; outer];
    let mut row = begin;
    loop {
        for column in 0..columns {
            let at = row + column * step;
            target.extend_from_slice(&bytes[at..at + size]);
        }
        let Some(axis) = (0..outer).rev().find(|&axis| index[axis] + 1 < info.shape[axis]) else { return target };
        index[axis] += 1;
        row += strides[axis] as usize * size;
        for behind in axis + 1..outer {
            row -= index[behind] * strides[behind] as usize * size;
            index[behind] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::header::Dtype;

    fn rows(shape: &[usize], begin: usize, strides: &[u64]) -> Vec<u8> {
        let info = TensorInfo { name: String::new(), dtype: Dtype::U8, shape: shape.to_vec() };
        row_major(&(0..24).collect::<Vec<u8>>(), &info, begin, strides)
    }

    #[test]
    fn any_order_becomes_row_major() {
        assert_eq!(rows(&[2, 3], 0, &[3, 1]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(rows(&[3, 2], 1, &[1, 3]), [1, 4, 2, 5, 3, 6]);
        assert_eq!(rows(&[2, 2, 2], 0, &[1, 12, 6]), [0, 6, 12, 18, 1, 7, 13, 19]);
        assert_eq!(rows(&[2, 3], 4, &[0, 1]), [4, 5, 6, 4, 5, 6]);
        assert_eq!(rows(&[], 7, &[]), [7]);
        assert!(rows(&[2, 0, 3], 0, &[9, 9, 9]).is_empty());
    }
}
