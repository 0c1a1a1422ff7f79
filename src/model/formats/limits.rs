//! What is accepted of any checkpoint file: bounds on everything that is read before the tensors.

/// Longest header that is read, in bytes.
pub const MAX_HEADER_BYTES: u64 = 8 << 20;
/// Most tensors in one file.
pub const MAX_TENSORS: usize = 100_000;
/// Most axes of one tensor.
pub const MAX_RANK: usize = 8;
/// Longest tensor name, in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// Most bytes of tensors that are copied to memory, beyond [`MAX_INFLATION`] times the length of the file.
pub const MAX_COPIED_BYTES: u64 = 256 << 20;
/// How often more bytes deflated tensors may have when unpacked.
pub const MAX_INFLATION: u64 = 16;
/// Most entries of a zip archive.
pub const MAX_ARCHIVE_ENTRIES: usize = 2 * MAX_TENSORS;
/// Longest pickle that is read, in bytes.
pub const MAX_PICKLE_BYTES: u64 = 64 << 20;
/// Most values that a pickle may hold or name.
pub const MAX_PICKLE_VALUES: usize = 4 << 20;
/// Most modules of a pickled model.
pub const MAX_MODULES: usize = 100_000;
/// How deep modules may be nested.
pub const MAX_MODULE_DEPTH: usize = 64;
/// Most files beside the one that names them.
pub const MAX_FILES: usize = 1024;
/// Longest index of shards that is read, in bytes.
pub const MAX_INDEX_BYTES: u64 = 16 << 20;
/// Most bytes of deflated files of an ONNX model, which are unpacked together.
pub const MAX_UNPACKED_BYTES: u64 = 256 << 20;
