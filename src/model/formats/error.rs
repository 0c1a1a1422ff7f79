//! Why a file is not a usable checkpoint.

use crate::domain::problem::Code;
use crate::model::formats::archive::ArchiveError;
use crate::model::formats::bundle::error::BundleError;
use crate::model::formats::foreign::Foreign;
use crate::model::formats::index::IndexError;
use crate::model::formats::limits::{MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS};
use crate::model::formats::onnx::OnnxError;
use crate::model::formats::pytorch::error::PyTorchError;
use crate::model::header::DTYPES;

/// Why a file is not a usable checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Something else than a checkpoint, or one that has to be saved otherwise.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// A zip archive that cannot be read.
    #[error(transparent)]
    MappedArchive(#[from] ArchiveError),
    /// A folder of a model's files that cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An index of shards that cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A checkpoint within an archive of other files.
    #[error("the file is an archive in which `{0}` lies: upload that file itself")]
    Within(String),
    /// A file of PyTorch that cannot be used.
    #[error(transparent)]
    PyTorch(#[from] PyTorchError),
    /// An array that cannot be read.
    #[error("array `{name}`: {reason}")]
    Npy {
        /// The array.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An ONNX model that is no network which can be read.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A tensor that would lie outside the file.
    #[error("tensor `{name}` ends at byte {end}, but the file has only {len}: it is truncated or damaged")]
    Outside {
        /// The tensor.
        name: String,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// Reading failed.
    #[error("the file cannot be read: {detail}")]
    Io {
        /// What kind of failure it is.
        code: Code,
        /// What the system said.
        detail: String,
    },
    /// More repetitions of elements than memory should hold.
    #[error(
        "tensor `{name}` repeats elements: with it, {bytes} bytes would be copied; at most {limit} are for this file"
    )]
    CopiesTooLarge {
        /// The tensor.
        name: String,
        /// Bytes of all tensors so far that need a copy.
        bytes: u64,
        /// How many may be.
        limit: u64,
    },
    /// Not even a header length.
    #[error("the file has {len} bytes; a safetensors file begins with 8 bytes of header length and its header")]
    TooShort {
        /// Length of the file.
        len: u64,
    },
    /// The header would end behind the file.
    #[error(
        "the file is none of those that are read (of safetensors, `torch.save`, `torch.onnx.export` or `numpy.savez`), or is truncated: \
         of safetensors, its first 8 bytes would announce a header of {header} bytes, but the whole file has {len}"
    )]
    HeaderOutside {
        /// Announced length.
        header: u64,
        /// Length of the file.
        len: u64,
    },
    /// A header over [`MAX_HEADER_BYTES`].
    #[error("the header has {0} bytes; at most {MAX_HEADER_BYTES} are accepted")]
    HeaderTooLarge(u64),
    /// Not the JSON of the format.
    #[error("the header is not valid: {0}")]
    Header(String),
    /// Two tensors of one name.
    #[error("the header names tensor `{0}` twice")]
    DuplicateName(String),
    /// More than [`MAX_TENSORS`] tensors.
    #[error("the header names more than {MAX_TENSORS} tensors")]
    TooManyTensors,
    /// No tensor at all.
    #[error("the file holds no tensors")]
    NoTensors,
    /// A name that is empty or over [`MAX_NAME_BYTES`].
    #[error("the tensor name `{start}…` has {len} bytes; 1 to {MAX_NAME_BYTES} are accepted")]
    BadName {
        /// How the name begins.
        start: String,
        /// Its length in bytes.
        len: usize,
    },
    /// More than [`MAX_RANK`] axes.
    #[error("tensor `{0}` has more than {MAX_RANK} axes")]
    RankTooHigh(String),
    /// An element type that we cannot read.
    #[error("tensor `{name}` has the element type `{dtype}`; known are {known}", known = DTYPES.map(|(name, _)| name).join(", "))]
    UnknownDtype {
        /// The tensor.
        name: String,
        /// What the header says.
        dtype: String,
    },
    /// A shape whose size overflows.
    #[error("the shape {shape:?} of tensor `{name}` is larger than any file")]
    ShapeTooLarge {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Offsets that do not match the shape.
    #[error("tensor `{name}` has {expected} bytes by its shape and element type, but its offsets span {begin}..{end}")]
    SizeMismatch {
        /// The tensor.
        name: String,
        /// Bytes by shape and element type.
        expected: u64,
        /// First offset.
        begin: u64,
        /// Last offset.
        end: u64,
    },
    /// A hole or an overlap.
    #[error("tensor `{name}` begins at offset {begin}, but the tensor before it ends at {expected}")]
    NotContiguous {
        /// The tensor.
        name: String,
        /// Where it begins.
        begin: u64,
        /// Where it should begin.
        expected: u64,
    },
    /// The file ends before its last tensor does.
    #[error("the file is truncated: its header describes {expected} bytes, it has {len}")]
    Truncated {
        /// Length by the header.
        expected: u64,
        /// Length of the file.
        len: u64,
    },
    /// The file goes on behind its last tensor.
    #[error(
        "the file has {len} bytes, but its header describes only {expected}: there are bytes behind the last tensor"
    )]
    TrailingBytes {
        /// Length by the header.
        expected: u64,
        /// Length of the file.
        len: u64,
    },
}
