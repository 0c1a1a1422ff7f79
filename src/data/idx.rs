//! MNIST's own format: big-endian headers, bytes, four files that are recognised by their names.

use std::io::Read;

use flate2::read::GzDecoder;

use super::archive::{Budgeted, components};
use super::arrays::{self, Array, ArrayRole, unreadable};
use super::elements::Element;
use super::intake::{DatasetBuilder, SplitName};
use super::{DatasetError, Limits};

/// Unsigned bytes in three axes: examples, height, width.
const IMAGES: [u8; 4] = [0, 0, 8, 3];
/// Unsigned bytes in one axis: examples.
const LABELS: [u8; 4] = [0, 0, 8, 1];
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The role of the file `name` by the usual names: `train-images-idx3-ubyte`, `t10k-labels.idx1-ubyte.gz`, and the like.
pub(super) fn role(name: &str) -> Option<ArrayRole> {
    let base = components(name)?.last()?.to_ascii_lowercase();
    let part = if base.contains("train") {
        SplitName::Train
    } else if base.contains("t10k") || base.contains("test") {
        SplitName::Test
    } else {
        return None;
    };
    if base.contains("images") && base.contains("idx3") {
        Some(ArrayRole::Examples(part))
    } else if base.contains("labels") && base.contains("idx1") {
        Some(ArrayRole::Labels(part))
    } else {
        None
    }
}

/// What messages call the files.
pub(super) fn file_name(role: ArrayRole) -> &'static str {
    match role {
        ArrayRole::Examples(SplitName::Train) => "train-images-idx3-ubyte",
        ArrayRole::Labels(SplitName::Train) => "train-labels-idx1-ubyte",
        ArrayRole::Examples(SplitName::Validation) => "validation-images-idx3-ubyte",
        ArrayRole::Labels(SplitName::Validation) => "validation-labels-idx1-ubyte",
        ArrayRole::Examples(SplitName::Test) => "t10k-images-idx3-ubyte",
        ArrayRole::Labels(SplitName::Test) => "t10k-labels-idx1-ubyte",
    }
}

/// Reads one IDX file, gzipped or not, into `intake`.
///
/// # Errors
/// When it is not the file that its name promises, or is damaged.
pub(super) fn read(
    name: &str,
    role: ArrayRole,
    source: &mut dyn Read,
    limits: &Limits,
    intake: &mut DatasetBuilder<'_>,
) -> Result<(), DatasetError> {
    let mut start = [0; 2];
    source.read_exact(&mut start).map_err(|error| unreadable(name, error))?;
    let mut whole = (&start[..]).chain(source);
    if start != GZIP {
        return read_plain(name, role, &mut whole, intake);
    }
    let mut budget = limits.decoded_bytes;
    let unzipped = GzDecoder::new(whole);
    read_plain(name, role, &mut Budgeted::new(unzipped, &mut budget, limits.decoded_bytes), intake)
}

fn read_plain(
    name: &str,
    role: ArrayRole,
    source: &mut dyn Read,
    intake: &mut DatasetBuilder<'_>,
) -> Result<(), DatasetError> {
    let (magic, axes, expected) = match role {
        ArrayRole::Examples(_) => (IMAGES, 3, "images begin with 00 00 08 03 (bytes in three axes)"),
        ArrayRole::Labels(_) => (LABELS, 1, "labels begin with 00 00 08 01 (bytes in one axis)"),
    };
    let mut found = [0; 4];
    source.read_exact(&mut found).map_err(|error| unreadable(name, error))?;
    if found != magic {
        let found = found.map(|byte| format!("{byte:02x}")).join(" ");
        return Err(DatasetError::IdxMagic { entry: name.to_owned(), found, expected });
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let mut length = [0; 4];
        source.read_exact(&mut length).map_err(|error| unreadable(name, error))?;
        shape.push(u32::from_be_bytes(length) as usize);
    }
    arrays::read(Array { name, element: Element::U8, shape: &shape, fortran: false, source }, role, intake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_names_are_known() {
        for (name, expected) in [
            ("train-images-idx3-ubyte", Some(ArrayRole::Examples(SplitName::Train))),
            ("MNIST/raw/train-labels.idx1-ubyte", Some(ArrayRole::Labels(SplitName::Train))),
            ("t10k-images-idx3-ubyte.gz", Some(ArrayRole::Examples(SplitName::Test))),
            ("emnist-letters-test-labels-idx1-ubyte.gz", Some(ArrayRole::Labels(SplitName::Test))),
            ("train/images/1.png", None),
            ("images-idx3-ubyte", None),
        ] {
            assert_eq!(role(name), expected, "{name}");
        }
    }
}
