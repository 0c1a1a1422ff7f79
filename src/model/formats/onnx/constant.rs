//! Values that do not depend on the network's input: weights, which stay where they lie in the file, and small numbers.

use std::rc::Rc;

use super::file_tensor::FileTensor;
use super::numbers::{float, whole_numbers};
use super::size::{AxisSize, shown};

/// Most elements of a constant that is computed with.
pub(super) const MAX_SMALL: usize = 1 << 16;
/// Most axes of a value.
pub(super) const MAX_AXES: usize = 16;

/// Where the elements of a constant come from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Buffer {
    /// Whole numbers, most of them sizes.
    Sizes(Rc<[AxisSize]>),
    /// Results of computations.
    Floats(Rc<[f64]>),
    /// A float tensor of the file, by its place in the list of all.
    Stored(usize),
    /// Every element is its own place: indices that are counted through, as many as a batch may have.
    Counting,
}

/// Elements of a buffer, each axis with the step from one to the next; 0 repeats them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant<'a> {
    /// Name of the value in the file.
    pub(super) name: &'a str,
    pub(super) dims: Vec<AxisSize>,
    pub(super) strides: Vec<usize>,
    pub(super) offset: usize,
    pub(super) buffer: Buffer,
}

/// Steps of axes in row-major order; none where they overflow.
pub(super) fn row_major(dims: &[AxisSize]) -> Option<Vec<usize>> {
    let mut strides = vec![0; dims.len()];
    let mut all = 1_usize;
    for (stride, dim) in strides.iter_mut().zip(dims).rev() {
        *stride = all;
        all = all.checked_mul(dim.usize()?)?;
    }
    Some(strides)
}

impl<'a> Constant<'a> {
    /// The tensor at `place` of the list of all.
    pub(super) fn stored(name: &'a str, tensor: &FileTensor<'_>, place: usize) -> Result<Self, String> {
        let dims: Vec<AxisSize> = tensor.shape.iter().map(|axis| AxisSize::of(*axis as i64)).collect();
        let strides = row_major(&dims).ok_or("its shape is larger than any file")?;
        let buffer = if tensor.dtype.is_float() {
            Buffer::Stored(place)
        } else if tensor.shape.iter().product::<usize>() > MAX_SMALL {
            return Err(format!("a tensor of {:?} with more than {MAX_SMALL} elements is no weight", tensor.dtype));
        } else {
            let numbers = whole_numbers(tensor).ok_or_else(|| format!("{:?} is not read", tensor.dtype))?;
            Buffer::Sizes(numbers.into_iter().map(AxisSize::of).collect())
        };
        Ok(Self { name, dims, strides, offset: 0, buffer })
    }

    fn computed(name: &'a str, dims: Vec<AxisSize>, buffer: Buffer) -> Result<Self, String> {
        let strides = row_major(&dims).ok_or_else(|| format!("the shape {} is not known", shown(&dims)))?;
        Ok(Self { name, dims, strides, offset: 0, buffer })
    }

    /// Whole numbers in row-major order.
    pub(super) fn of_sizes(name: &'a str, dims: Vec<AxisSize>, sizes: Vec<AxisSize>) -> Result<Self, String> {
        Self::computed(name, dims, Buffer::Sizes(sizes.into()))
    }

    /// Floats in row-major order.
    pub(super) fn of_floats(name: &'a str, dims: Vec<AxisSize>, floats: Vec<f64>) -> Result<Self, String> {
        Self::computed(name, dims, Buffer::Floats(floats.into()))
    }

    /// A list of sizes, as shapes are.
    pub(super) fn list(name: &'a str, sizes: Vec<AxisSize>) -> Result<Self, String> {
        Self::of_sizes(name, vec![AxisSize::of(sizes.len() as i64)], sizes)
    }

    /// Whether both are the same elements, whatever their names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.dims, &self.strides, self.offset) == (&other.dims, &other.strides, other.offset)
            && self.buffer == other.buffer
    }

    /// Number of elements, where it is known.
    pub(super) fn count(&self) -> Option<usize> {
        AxisSize::product(self.dims.iter().copied())?.usize()
    }

    /// Places of all elements in the buffer, row-major.
    pub(super) fn places(&self) -> Result<Vec<usize>, String> {
        let count = self.count().filter(|count| *count <= MAX_SMALL);
        let count =
            count.ok_or_else(|| format!("a constant of the shape {} is not computed with", shown(&self.dims)))?;
        let mut places = vec![self.offset; count];
        let mut inner = count;
        for (dim, stride) in self.dims.iter().zip(&self.strides) {
            let size = dim.usize().unwrap_or(1).max(1);
            inner /= size;
            for (index, place) in places.iter_mut().enumerate() {
                let step = (index / inner.max(1) % size).checked_mul(*stride);
                let sum = step.and_then(|step| place.checked_add(step));
                *place = sum.ok_or("its elements lie too far apart")?;
            }
        }
        Ok(places)
    }

    /// All elements as whole numbers.
    pub(super) fn sizes(&self) -> Result<Vec<AxisSize>, String> {
        match &self.buffer {
            Buffer::Sizes(sizes) => {
                Ok(self.places()?.into_iter().filter_map(|place| sizes.get(place)).copied().collect())
            }
            _ => Err("expected whole numbers, got floats".to_owned()),
        }
    }

    /// All elements as known whole numbers.
    pub(super) fn integers(&self) -> Result<Vec<i64>, String> {
        let known = |size: AxisSize| size.known().ok_or_else(|| format!("expected a number, got {size}"));
        self.sizes()?.into_iter().map(known).collect()
    }

    /// All elements as floats.
    pub(super) fn floats(&self, tensors: &[&FileTensor<'_>]) -> Result<Vec<f64>, String> {
        let unknown = || "expected numbers that do not depend on the batch".to_owned();
        let of = |place: usize| match &self.buffer {
            Buffer::Sizes(sizes) => sizes.get(place)?.known().map(|number| number as f64),
            Buffer::Floats(floats) => floats.get(place).copied(),
            Buffer::Stored(tensor) => float(tensors.get(*tensor)?, place),
            Buffer::Counting => Some(place as f64),
        };
        self.places()?.into_iter().map(|place| of(place).ok_or_else(unknown)).collect()
    }

    /// The only element.
    pub(super) fn scalar(&self, tensors: &[&FileTensor<'_>]) -> Option<f64> {
        if self.count() == Some(1) { self.floats(tensors).ok()?.first().copied() } else { None }
    }

    /// Whether it is this one number, repeated.
    pub(super) fn is_repeated(&self, number: f64, tensors: &[&FileTensor<'_>]) -> bool {
        let mut axes = self.dims.iter().zip(&self.strides);
        let first = Self { dims: Vec::new(), strides: Vec::new(), ..self.clone() };
        axes.all(|(dim, stride)| *stride == 0 || *dim == AxisSize::ONE)
            && first.scalar(tensors).is_some_and(|own| own.to_bits() == number.to_bits())
    }

    /// The axis that `axis` names, which may be counted from the end; `more` axes are to come.
    pub(super) fn axis(&self, axis: i64, more: usize) -> Result<usize, String> {
        place_of_axis(axis, self.dims.len() + more)
    }

    pub(super) fn transpose(&self, order: &[usize]) -> Result<Self, String> {
        let moved = |axis: &usize| Some((*self.dims.get(*axis)?, *self.strides.get(*axis)?));
        let moved: Option<Vec<_>> = order.iter().map(moved).collect();
        let moved = moved.filter(|moved| moved.len() == self.dims.len());
        let (dims, strides) = moved.ok_or_else(|| format!("{order:?} is no order of its axes"))?.into_iter().unzip();
        Ok(Self { dims, strides, ..self.clone() })
    }

    pub(super) fn unsqueeze(&self, axes: &[i64]) -> Result<Self, String> {
        let mut places = axes.iter().map(|axis| self.axis(*axis, axes.len())).collect::<Result<Vec<_>, _>>()?;
        places.sort_unstable();
        let mut grown = self.clone();
        if self.dims.len() + places.len() > MAX_AXES {
            return Err(format!("more than {MAX_AXES} axes are not read"));
        }
        for place in places {
            let at = place.min(grown.dims.len());
            grown.dims.insert(at, AxisSize::ONE);
            grown.strides.insert(at, 0);
        }
        Ok(grown)
    }

    pub(super) fn squeeze(&self, axes: Option<&[i64]>) -> Result<Self, String> {
        let gone = match axes {
            Some(axes) => axes.iter().map(|axis| self.axis(*axis, 0)).collect::<Result<Vec<_>, _>>()?,
            None => (0..self.dims.len()).filter(|axis| self.dims[*axis] == AxisSize::ONE).collect(),
        };
        if let Some(axis) = gone.iter().find(|axis| self.dims[**axis] != AxisSize::ONE) {
            return Err(format!("axis {axis} of {} has not the size 1", shown(&self.dims)));
        }
        let kept = || (0..self.dims.len()).filter(|axis| !gone.contains(axis));
        let (dims, strides) =
            (kept().map(|axis| self.dims[axis]).collect(), kept().map(|axis| self.strides[axis]).collect());
        Ok(Self { dims, strides, ..self.clone() })
    }

    /// `count` indices of an axis from `begin` on, where they are.
    pub(super) fn slice(&self, axis: usize, begin: usize, count: usize) -> Option<Self> {
        let size = self.dims.get(axis)?.usize()?;
        let mut part = self.clone();
        if count == 0 || begin.checked_add(count)? > size {
            return None;
        }
        part.offset = part.offset.checked_add(begin.checked_mul(self.strides[axis])?)?;
        part.dims[axis] = AxisSize::of(count as i64);
        Some(part)
    }

    /// Some indices of an axis. Weights stay where they are, if neighbours are taken; other small constants are copied.
    pub(super) fn take(&self, axis: usize, indices: &[usize], tensors: &[&FileTensor<'_>]) -> Result<Self, String> {
        let neighbours = indices.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let whole = if neighbours { indices.first() } else { None };
        if let Some(part) = whole.and_then(|begin| self.slice(axis, *begin, indices.len())) {
            return Ok(part);
        }
        let size = self.dims[axis].usize().ok_or("the axis depends on the batch")?;
        let inner = AxisSize::product(self.dims[axis + 1..].iter().copied())
            .and_then(AxisSize::usize)
            .ok_or("it is too large")?;
        let mut dims = self.dims.clone();
        dims[axis] = AxisSize::of(indices.len() as i64);
        let count = AxisSize::product(dims.iter().copied()).and_then(AxisSize::usize);
        let count = count.filter(|count| *count <= MAX_SMALL).ok_or("it is too large to be taken apart")?;
        let from = |index: usize| {
            let (rest, within) = (index / inner.max(1), index % inner.max(1));
            let (outer, place) = (rest / indices.len(), rest % indices.len());
            (outer * size + indices[place]) * inner + within
        };
        if let Buffer::Sizes(_) = self.buffer {
            let all = self.sizes()?;
            return Self::of_sizes(self.name, dims, (0..count).filter_map(|at| all.get(from(at))).copied().collect());
        }
        let all = self.floats(tensors)?;
        Self::of_floats(self.name, dims, (0..count).filter_map(|at| all.get(from(at))).copied().collect())
    }

    /// Repeated to `sizes`, by the rules of broadcasting.
    pub(super) fn expand(&self, sizes: &[AxisSize]) -> Result<Self, String> {
        let misfit = || format!("{} does not expand to {}", shown(&self.dims), shown(sizes));
        let rank = sizes.len().max(self.dims.len());
        if rank > MAX_AXES {
            return Err(misfit());
        }
        let (mut dims, mut strides) = (Vec::with_capacity(rank), Vec::with_capacity(rank));
        for axis in 0..rank {
            let own = (axis + self.dims.len()).checked_sub(rank).map(|own| (self.dims[own], self.strides[own]));
            let wanted = (axis + sizes.len()).checked_sub(rank).map_or(AxisSize::ONE, |axis| sizes[axis]);
            let (dim, stride) = match own {
                Some((dim, stride)) if dim == wanted || wanted == AxisSize::ONE => (dim, stride),
                Some((AxisSize::ONE, _)) | None => (wanted, 0),
                Some(_) => return Err(misfit()),
            };
            dims.push(dim);
            strides.push(stride);
        }
        Ok(Self { dims, strides, ..self.clone() })
    }

    /// The same elements in row-major order with other axes. Weights are not copied: they must lie in that order already.
    pub(super) fn reshape(&self, sizes: &[AxisSize]) -> Result<Self, String> {
        let (own, new) = (self.count(), AxisSize::product(sizes.iter().copied()).and_then(AxisSize::usize));
        if own.is_none() || own != new || sizes.len() > MAX_AXES {
            return Err(format!("{} does not reshape to {}", shown(&self.dims), shown(sizes)));
        }
        let dense = row_major(&self.dims).is_some_and(|dense| {
            let axes = dense.iter().zip(&self.strides).zip(&self.dims);
            axes.filter(|(_, dim)| **dim != AxisSize::ONE).all(|((dense, stride), _)| dense == stride)
        });
        let plain = if dense { self.clone() } else { self.compact()? };
        let strides = row_major(sizes).ok_or("its shape is not known")?;
        Ok(Self { dims: sizes.to_vec(), strides, ..plain })
    }

    /// Small elements on their own, in row-major order.
    fn compact(&self) -> Result<Self, String> {
        let places = self.places()?;
        let buffer = match &self.buffer {
            Buffer::Sizes(sizes) => {
                Buffer::Sizes(places.iter().filter_map(|place| sizes.get(*place)).copied().collect())
            }
            Buffer::Floats(floats) => {
                Buffer::Floats(places.iter().filter_map(|place| floats.get(*place)).copied().collect())
            }
            Buffer::Counting => return Err("indices are reshaped after they were transposed".to_owned()),
            Buffer::Stored(_) => return Err("a weight is reshaped after it was transposed or expanded".to_owned()),
        };
        Self::computed(self.name, self.dims.clone(), buffer)
    }
}

/// The axis of `rank` that `axis` names, which may be counted from the end.
pub(super) fn place_of_axis(axis: i64, rank: usize) -> Result<usize, String> {
    let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let place = from_start.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank);
    place.ok_or_else(|| format!("there is no axis {axis} of {rank}"))
}
