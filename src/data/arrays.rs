//! Examples and labels that come as arrays: NumPy archives, safetensors, IDX files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use super::DatasetError;
use super::elements::Element;
use super::intake::{DatasetBuilder, SplitName};
use super::labels::{LabelColumn, LabelRows, Labels};
use super::store::{PixelType, Pixels};
use crate::model::header::Dtype;
use crate::tensors::map;

/// Bytes that are read and decoded at a time (at least one example).
const BLOCK_BYTES: usize = 1 << 20;

/// What an array is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ArrayRole {
    /// Inputs.
    Examples(SplitName),
    /// Classes.
    Labels(SplitName),
}

impl ArrayRole {
    /// The role of the array `name`, as Keras (`x_train`), scikit-learn (`X_train`) and `MedMNIST` (`train_images`) call them; `None`
    /// for one that is no part of a dataset.
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if let "x" | "images" = name.as_str() {
            return Some(Self::Examples(SplitName::Train));
        }
        if let "y" | "labels" = name.as_str() {
            return Some(Self::Labels(SplitName::Train));
        }
        match name.split_once('_')? {
            ("x", part) | (part, "images") => SplitName::of(part).map(Self::Examples),
            ("y", part) | (part, "labels") => SplitName::of(part).map(Self::Labels),
            _ => None,
        }
    }
}

/// An array that stands ready to be read.
pub(super) struct Array<'a> {
    /// Its name, for messages.
    pub(super) name: &'a str,
    /// How elements are stored.
    pub(super) element: Element,
    /// Length of each axis.
    pub(super) shape: &'a [usize],
    /// The first axis runs fastest.
    pub(super) fortran: bool,
    /// At its first element.
    pub(super) source: &'a mut dyn Read,
}

/// The arrays of a dataset that were found, by their roles.
#[derive(Debug, Default)]
pub(super) struct Roles(BTreeMap<ArrayRole, String>);

impl Roles {
    /// Notes that `name` plays `role`.
    ///
    /// # Errors
    /// When another array plays it already.
    pub(super) fn insert(&mut self, role: ArrayRole, name: &str) -> Result<(), DatasetError> {
        match self.0.insert(role, name.to_owned()) {
            None => Ok(()),
            Some(first) => Err(DatasetError::Duplicate { first, second: name.to_owned() }),
        }
    }

    /// Whether there are examples to train on, and of no split any labels.
    pub(super) fn are_unlabelled(&self) -> bool {
        let is_of_labels = |role: &ArrayRole| matches!(role, ArrayRole::Labels(_));
        self.0.contains_key(&ArrayRole::Examples(SplitName::Train)) && !self.0.keys().any(is_of_labels)
    }

    /// Checks that train is whole, and test too if there is any of it. `name_of` a role is what messages call it; `found`
    /// lists what there is instead.
    pub(super) fn check(&self, name_of: impl Fn(ArrayRole) -> &'static str, found: &str) -> Result<(), DatasetError> {
        let pair = |part| [ArrayRole::Examples(part), ArrayRole::Labels(part)];
        let is_there = |role: &ArrayRole| self.0.contains_key(role);
        let begun = |part: &SplitName| *part == SplitName::Train || pair(*part).iter().any(is_there);
        let needed = SplitName::ALL.into_iter().filter(begun).flat_map(pair);
        let missing: Vec<&str> = needed.filter(|role| !is_there(role)).map(name_of).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(DatasetError::Missing { missing: missing.join(" and "), found: found.to_owned() })
    }
}

/// What messages call the arrays of NumPy archives and safetensors files.
pub(super) fn array_name(role: ArrayRole) -> &'static str {
    match role {
        ArrayRole::Examples(SplitName::Train) => "array `x`",
        ArrayRole::Labels(SplitName::Train) => "array `y`",
        ArrayRole::Examples(SplitName::Validation) => "array `x_val`",
        ArrayRole::Labels(SplitName::Validation) => "array `y_val`",
        ArrayRole::Examples(SplitName::Test) => "array `x_test`",
        ArrayRole::Labels(SplitName::Test) => "array `y_test`",
    }
}

/// Reads the whole array into `intake`.
///
/// # Errors
/// When shape, length or an element is unusable.
pub(super) fn read(array: Array<'_>, role: ArrayRole, intake: &mut DatasetBuilder<'_>) -> Result<(), DatasetError> {
    match role {
        ArrayRole::Examples(part) => read_examples(array, part, intake),
        ArrayRole::Labels(part) => read_labels(array, part, intake),
    }
}

/// How an array holds its examples.
#[derive(Debug, PartialEq, Eq)]
struct ExampleLayout {
    /// Number of examples.
    count: usize,
    /// Shape of one: `[D]` or `[C, H, W]`.
    shape: Vec<usize>,
    /// Whether the channels of a pixel stand together.
    channels_last: bool,
}

/// How the array `name` of this shape holds its examples.
fn layout(name: &str, shape: &[usize]) -> Result<ExampleLayout, DatasetError> {
    let wrong = |expected| DatasetError::Shape { array: name.to_owned(), shape: shape.to_vec(), expected };
    // `MedMNIST`'s arrays have their colours last, and its volumes as many axes as other images with colours.
    let medical = name.ends_with("_images");
    let (count, example, channels_last) = match *shape {
        [n, d] => (n, vec![d], false),
        [n, h, w] => (n, vec![1, h, w], false),
        [n, h, w, c] if medical && looks_channels_last(h, w, c) => (n, vec![c, h, w], true),
        [_, h, w, c] if looks_channels_last(h, w, c) => {
            return Err(DatasetError::ChannelsLast { array: name.to_owned(), shape: shape.to_vec() });
        }
        [_, d, h, w] if medical && d >= 8 && d == h && h == w => {
            return Err(wrong("images N x H x W or N x H x W x 3; volumes are not read"));
        }
        [n, c, h, w] => (n, vec![c, h, w], false),
        _ => return Err(wrong("N x D, N x H x W or N x C x H x W")),
    };
    if shape.contains(&0) {
        return Err(wrong("at least one example, and no axis of length 0"));
    }
    Ok(ExampleLayout { count, shape: example, channels_last })
}

/// Puts the channels of `example`, whose shape is `[C, H, W]` and whose channels stand together, first.
fn channels_first<T: Copy>(example: &mut [T], shape: &[usize], pixels: &mut Vec<T>) {
    let channels = shape.first().copied().unwrap_or(1);
    pixels.clear();
    pixels.extend((0..channels).flat_map(|channel| example.iter().skip(channel).step_by(channels).copied()));
    example.copy_from_slice(pixels);
}

/// Whether axes are far more likely height, width and colours than channels, height and width.
fn looks_channels_last(h: usize, w: usize, c: usize) -> bool {
    h >= 8 && w >= 8 && (matches!(c, 3 | 4) || (c == 1 && h == w))
}

fn read_examples(array: Array<'_>, part: SplitName, intake: &mut DatasetBuilder<'_>) -> Result<(), DatasetError> {
    let (ExampleLayout { count, shape, channels_last }, folder) = (layout(array.name, array.shape)?, intake.folder());
    let pixels = if array.element.dtype == Dtype::U8 { PixelType::U8 } else { PixelType::F32 };
    let examples = intake.begin(part, count, &shape, pixels)?;
    let elements = examples.elements();
    let (name, element, axes) = (array.name, array.element, array.shape);
    let (mut floats, mut turned_bytes, mut turned_floats) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    blocks(array, elements, &folder, &mut |bytes| {
        if pixels == PixelType::U8 {
            if channels_last {
                bytes.chunks_mut(elements).for_each(|example| channels_first(example, &shape, &mut turned_bytes));
            }
            examples.put(done / elements, Pixels::U8(bytes))?;
        } else {
            let bad = |(index, value)| non_finite(name, axes, done + index, value);
            element.floats(bytes, &mut floats).map_err(bad)?;
            if channels_last {
                floats.chunks_mut(elements).for_each(|example| channels_first(example, &shape, &mut turned_floats));
            }
            examples.put(done / elements, Pixels::F32(&floats))?;
        }
        done += bytes.len() / element.dtype.size();
        Ok(())
    })
}

/// Names the element with the row-major number `index`.
fn non_finite(name: &str, shape: &[usize], mut index: usize, value: f64) -> DatasetError {
    let mut position = vec![0; shape.len()];
    for (place, axis) in position.iter_mut().zip(shape).rev() {
        *place = index % axis;
        index /= axis;
    }
    DatasetError::NonFinite { array: name.to_owned(), position, value }
}

fn read_labels(array: Array<'_>, part: SplitName, intake: &mut DatasetBuilder<'_>) -> Result<(), DatasetError> {
    let floats = array.element.is_float();
    let labels = match *array.shape {
        [count] | [count, 1] => {
            intake.begin_labels(count)?;
            // A column or row has the same order either way.
            read_column(Array { fortran: false, ..array }, &intake.folder())?
        }
        [count, width] if width > 0 => {
            intake.begin_labels(count.saturating_mul(width))?;
            Labels::Numbers(read_rows(array, width, &intake.folder())?)
        }
        _ => {
            let expected = "N, one label per example, or N x K, one number for each of K outputs";
            return Err(DatasetError::Shape { array: array.name.to_owned(), shape: array.shape.to_vec(), expected });
        }
    };
    intake.set_labels_as_read(part, labels, floats);
    Ok(())
}

/// A class for each example or, of floats that are not all whole numbers from 0, a number.
fn read_column(array: Array<'_>, folder: &Path) -> Result<Labels, DatasetError> {
    let (name, element, axes) = (array.name, array.element, array.shape);
    if !element.is_float() {
        let mut labels = Vec::new();
        blocks(array, 1, folder, &mut |bytes| {
            let done = labels.len();
            let bad = |(index, value)| DatasetError::Label { array: name.to_owned(), index: done + index, value };
            element.labels(bytes, &mut labels).map_err(bad)
        })?;
        return Ok(Labels::Classes(labels));
    }
    let (mut column, mut block) = (LabelColumn::default(), Vec::new());
    blocks(array, 1, folder, &mut |bytes| {
        let done = column.len();
        element.floats(bytes, &mut block).map_err(|(index, value)| non_finite(name, axes, done + index, value))?;
        for number in &block {
            column.take(f64::from(*number));
        }
        Ok(())
    })?;
    Ok(column.into_labels())
}

/// `width` numbers for each example.
fn read_rows(array: Array<'_>, width: usize, folder: &Path) -> Result<LabelRows, DatasetError> {
    let (name, element, axes) = (array.name, array.element, array.shape);
    let (mut values, mut block) = (Vec::new(), Vec::new());
    blocks(array, width, folder, &mut |bytes| {
        let done = values.len();
        element.floats(bytes, &mut block).map_err(|(index, value)| non_finite(name, axes, done + index, value))?;
        values.extend_from_slice(&block);
        Ok(())
    })?;
    Ok(LabelRows { width, values })
}

/// Calls `each` with the array's bytes in row-major order, whole examples of `elements` elements at a time. An array whose
/// first axis runs fastest goes through a file in `folder`.
fn blocks(
    mut array: Array<'_>,
    elements: usize,
    folder: &Path,
    each: &mut dyn FnMut(&mut [u8]) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let example = elements.saturating_mul(array.element.dtype.size());
    let total = array.shape.first().map_or(1, |count| *count as u64).saturating_mul(example as u64);
    let per_block = ((BLOCK_BYTES / example).max(1) as u64) * example as u64;
    if array.fortran {
        let io = |source| DatasetError::Io { path: folder.to_owned(), source };
        let mut file = tempfile::tempfile_in(folder).map_err(io)?;
        in_pieces(&mut array, total, per_block, &mut |bytes| file.write_all(bytes).map_err(io))?;
        let columns = map(&file).map_err(io)?;
        return from_fortran(&array, &columns, example, each);
    }
    in_pieces(&mut array, total, per_block, each)
}

/// Calls `each` with the array's bytes as they come, `most` of them at a time.
fn in_pieces(
    array: &mut Array<'_>,
    total: u64,
    most: u64,
    each: &mut dyn FnMut(&mut [u8]) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let (mut left, mut block) = (total, Vec::new());
    while left > 0 {
        let wanted = left.min(most);
        block.clear();
        // Grows with what arrives, never with what a header promises.
        (&mut *array.source).take(wanted).read_to_end(&mut block).map_err(|error| unreadable(array.name, error))?;
        if (block.len() as u64) < wanted {
            let found = (total - left + block.len() as u64).to_string();
            return Err(DatasetError::Length { array: array.name.to_owned(), expected: total, found });
        }
        left -= wanted;
        each(&mut block)?;
    }
    check_end(array, total)
}

/// Reads on to the end, so that a decompressor checks its sum, and so that a wrong header is noticed.
fn check_end(array: &mut Array<'_>, expected: u64) -> Result<(), DatasetError> {
    let mut rest = [0; 1];
    match array.source.read(&mut rest).map_err(|error| unreadable(array.name, error))? {
        0 => Ok(()),
        _ => Err(DatasetError::Length { array: array.name.to_owned(), expected, found: "more".to_owned() }),
    }
}

/// Names the file whose decompression or reading failed.
pub(super) fn unreadable(entry: &str, error: std::io::Error) -> DatasetError {
    match error.downcast::<DatasetError>() {
        Ok(ours) => ours,
        Err(source) if source.raw_os_error().is_some() => DatasetError::Io { path: entry.into(), source },
        Err(error) => DatasetError::DamagedEntry { entry: entry.to_owned(), reason: error.to_string() },
    }
}

/// Hands out the row-major examples of an array whose first axis runs fastest.
fn from_fortran(
    array: &Array<'_>,
    bytes: &[u8],
    example_bytes: usize,
    each: &mut dyn FnMut(&mut [u8]) -> Result<(), DatasetError>,
) -> Result<(), DatasetError> {
    let size = array.element.dtype.size();
    let (Some(&count), Some(axes)) = (array.shape.first(), array.shape.get(1..)) else { return Ok(()) };
    let mut block = Vec::with_capacity(example_bytes);
    for example in 0..count {
        block.clear();
        let mut index = vec![0; axes.len()];
        let mut at = example;
        loop {
            block.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            match next_in_column_order(&mut index, axes, count) {
                Some(offset) => at = example + offset,
                None => break,
            }
        }
        each(&mut block)?;
    }
    Ok(())
}

/// Advances `index` (row-major, the last axis first) and gives the place, in elements, of that element of the first of
/// `count` examples when the first axis runs fastest. `None` after the last element.
fn next_in_column_order(index: &mut [usize], axes: &[usize], count: usize) -> Option<usize> {
    let turned = (0..axes.len()).rev().find(|&axis| index[axis] + 1 < axes[axis])?;
    index[turned] += 1;
    index[turned + 1..].fill(0);
    let (offset, _) =
        index.iter().zip(axes).fold((0, count), |(at, stride), (index, axis)| (at + index * stride, stride * axis));
    Some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_is_undone() {
        // numpy.arange(6).reshape(2, 3).ravel("F")
        let mut bytes: &[u8] = &[0, 3, 1, 4, 2, 5];
        let mut seen = Vec::new();
        let array = Array { name: "x", element: Element::U8, shape: &[2, 3], fortran: true, source: &mut bytes };
        blocks(array, 3, &std::env::temp_dir(), &mut |block| {
            seen.extend_from_slice(block);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        // An array of shape 2 x 2 x 3 has element (n, i, j) at n + 2 i + 4 j.
        let mut index = [0, 0];
        let places: Vec<usize> = std::iter::from_fn(|| next_in_column_order(&mut index, &[2, 3], 2)).collect();
        assert_eq!(places, [4, 8, 2, 6, 10]);
    }

    #[test]
    fn shapes_become_examples() {
        let of = |name: &str, shape: &[usize]| {
            layout(name, shape).map(|layout| (layout.count, layout.shape, layout.channels_last))
        };
        assert_eq!(of("x", &[5, 4]).unwrap(), (5, vec![4], false));
        assert_eq!(of("x", &[5, 28, 28]).unwrap(), (5, vec![1, 28, 28], false));
        assert_eq!(of("x", &[5, 3, 32, 32]).unwrap(), (5, vec![3, 32, 32], false));
        assert_eq!(of("x", &[5, 16, 128, 1]).unwrap(), (5, vec![16, 128, 1], false));
        let channels_last = of("x", &[5, 32, 32, 3]).unwrap_err().to_string();
        assert!(channels_last.contains("transpose(0, 3, 1, 2)"), "{channels_last}");
        assert!(matches!(of("x", &[5]), Err(DatasetError::Shape { .. })));
        assert!(matches!(of("x", &[0, 28, 28]), Err(DatasetError::Shape { .. })));
        assert_eq!(of("val_images", &[5, 28, 28, 3]).unwrap(), (5, vec![3, 28, 28], true));
        assert_eq!(of("val_images", &[5, 3, 28, 28]).unwrap(), (5, vec![3, 28, 28], false));
        let volumes = of("train_images", &[5, 28, 28, 28]).unwrap_err().to_string();
        assert!(volumes.contains("volumes are not read"), "{volumes}");
        let mut example = [1, 10, 100, 2, 20, 200];
        channels_first(&mut example, &[3, 1, 2], &mut Vec::new());
        assert_eq!(example, [1, 2, 10, 20, 100, 200]);
    }

    #[test]
    fn arrays_are_known_by_their_names() {
        for (name, expected) in [
            ("x", Some(ArrayRole::Examples(SplitName::Train))),
            ("X_train", Some(ArrayRole::Examples(SplitName::Train))),
            ("y_valid", Some(ArrayRole::Labels(SplitName::Validation))),
            ("train_images", Some(ArrayRole::Examples(SplitName::Train))),
            ("val_labels", Some(ArrayRole::Labels(SplitName::Validation))),
            ("test_images", Some(ArrayRole::Examples(SplitName::Test))),
            ("x_mean", None),
            ("train_ids", None),
            ("weights", None),
        ] {
            assert_eq!(ArrayRole::of(name), expected, "{name}");
        }
    }
}
