//! What is accepted of any checkpoint file: bounds on everything that is read before the tensors.

/// Longest header that is read, in bytes.
pub const MAX_HEADER_BYTES: u64 = 8 << 20;
/// Most tensors in one file.
pub const MAX_TENSORS: usize = 100_000;
/// Most axes of one tensor.
pub const MAX_RANK: usize = 8;
/// Longest tensor name, in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// Most bytes of tensors that are copied to memory, beyond the length of the file.
pub const MAX_COPIED_BYTES: u64 = 256 << 20;
