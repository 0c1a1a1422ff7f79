//! What a file is, by its first bytes.

/// Bytes that are enough to tell.
pub const RECOGNISED_BYTES: usize = 512;

/// Formats of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Of `safetensors.torch.save_file`; also what is not recognised, for its reader says what it misses.
    Safetensors,
    /// A zip archive: of `torch.save`, or of `numpy.savez`; its directory tells.
    Zip,
    /// A tar archive, of a model's folder.
    Tar,
    /// Of `torch.save` before PyTorch 1.6.
    PyTorchLegacy,
    /// Of `torch.onnx.export`.
    Onnx,
    /// The index of a model in several files, or other JSON; its reader tells.
    Index,
}

/// Things that are taken for checkpoints, each with what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// No byte at all.
    #[error("the file is empty: save or download it again")]
    Empty,
    /// A zip archive.
    #[error("the file is a zip archive that holds no checkpoint: upload the checkpoint itself")]
    Zip,
    /// A tar archive.
    #[error("the file is a tar archive that holds no checkpoint: upload the checkpoint itself")]
    Tar,
    /// A program of `TorchScript`.
    #[error(
        "the file is TorchScript: save its weights with \
         `torch.save(dict(torch.jit.load(file).state_dict()), other_file)`"
    )]
    TorchScript,
    /// A program of `torch.export`.
    #[error(
        "the file is a program of `torch.export`: save its weights with \
         `torch.save(dict(torch.export.load(file).state_dict), other_file)`"
    )]
    ExportedProgram,
    /// A pickle.
    #[error("the file is a pickle, not a checkpoint: save the weights with `torch.save(model.state_dict(), file)`")]
    Pickle,
    /// HDF5, as Keras writes it.
    #[error(
        "the file is HDF5 (Keras, `.h5`): export the model to ONNX, as with `model.export(file, format=\"onnx\")` of Keras 3"
    )]
    Hdf5,
    /// A model of Keras 3.
    #[error(
        "the file is a model of Keras: export it to ONNX, as with `model.export(file, format=\"onnx\")` of Keras 3"
    )]
    Keras,
    /// A `SavedModel`, or a model of TensorFlow Lite.
    #[error("the file is a model of TensorFlow: export it to ONNX, as with `python -m tf2onnx.convert`")]
    TensorFlow,
    /// llama.cpp's format.
    #[error(
        "the file is GGUF, whose weights are quantised for llama.cpp: use the safetensors files that it was made of"
    )]
    Gguf,
    /// What Git LFS leaves in place of a large file.
    #[error("the file is only a pointer of Git LFS: fetch the file itself with `git lfs pull`")]
    LfsPointer,
    /// A web page.
    #[error("the file is a web page, not a checkpoint: the download needs a login or another address")]
    Html,
    /// Compressed by gzip.
    #[error("the file is compressed by gzip: unpack it with `gunzip` or `tar xzf` first")]
    Gzip,
    /// Compressed by xz, bzip2 or zstd.
    #[error("the file is compressed: unpack it first")]
    Compressed,
    /// One NumPy array.
    #[error("the file is a single NumPy array: save all weights by their names with `numpy.savez(file, **weights)`")]
    Npy,
    /// Parquet.
    #[error("the file is Parquet, which holds no weights: it may be a dataset")]
    Parquet,
    /// A picture.
    #[error("the file is a picture, not a checkpoint: an archive of pictures may be a dataset")]
    Picture,
    /// Words.
    #[error("the file is text, not a checkpoint: it may say why a download failed")]
    Text,
    /// JSON.
    #[error("the file is JSON, which holds no weights: upload the file that it belongs to")]
    Json,
}

/// The magic number of the old container of PyTorch (0x1950a86a20f9469cfc6c), as a pickle spells it.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// First bytes that nothing else begins with.
const SIGNATURES: [(&[u8], Foreign); 15] = [
    (b"\x89HDF\r\n\x1a\n", Foreign::Hdf5),
    (b"GGUF", Foreign::Gguf),
    (b"version https://git-lfs", Foreign::LfsPointer),
    (b"\x1f\x8b", Foreign::Gzip),
    (b"\xfd7zXZ\0", Foreign::Compressed),
    (b"BZh", Foreign::Compressed),
    (b"\x28\xb5\x2f\xfd", Foreign::Compressed),
    (b"7z\xbc\xaf\x27\x1c", Foreign::Compressed),
    (b"\x93NUMPY", Foreign::Npy),
    (b"PAR1", Foreign::Parquet),
    (b"\x89PNG\r\n\x1a\n", Foreign::Picture),
    (b"\xff\xd8\xff", Foreign::Picture),
    // Of the protocols without a version in front.
    (b"(dp", Foreign::Pickle),
    (b"(lp", Foreign::Pickle),
    (b"ccopy_reg\n", Foreign::Pickle),
];

/// What the file is whose first bytes (at least [`RECOGNISED_BYTES`], or all) are `head`.
///
/// # Errors
/// What it is instead of a checkpoint.
pub fn recognise(head: &[u8]) -> Result<Format, Foreign> {
    let head = &head[..head.len().min(RECOGNISED_BYTES)];
    if head.is_empty() {
        return Err(Foreign::Empty);
    }
    if is_safetensors(head) {
        return Ok(Format::Safetensors);
    }
    if let Some((_, foreign)) = SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)) {
        return Err(*foreign);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Ok(Format::Tar);
    }
    if head.get(4..8) == Some(b"TFL3") {
        return Err(Foreign::TensorFlow);
    }
    match head {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Ok(Format::Zip),
        [0x80, 2..=5, rest @ ..] if rest.starts_with(MAGIC) => Ok(Format::PyTorchLegacy),
        // With a frame around it, whose length takes 8 bytes.
        [0x80, 4..=5, 0x95, _, _, _, _, _, _, _, _, rest @ ..] if rest.starts_with(MAGIC) => Ok(Format::PyTorchLegacy),
        [0x80, 0..=5, ..] => Err(Foreign::Pickle),
        // A protobuf message that begins with a small version of its form, as ONNX's `ir_version`, and goes on with a field
        // of a model: its producer, its graph or its operator sets.
        [0x08, 1..=0x7f, 0x12 | 0x1a | 0x22 | 0x32 | 0x3a | 0x42, ..] | [0x3a, ..] => Ok(Format::Onnx),
        _ => text(head),
    }
}

/// Whether the first nine bytes are those of a safetensors file: a length that a header could have, and JSON.
#[must_use]
pub fn is_safetensors(head: &[u8]) -> bool {
    head.get(8) == Some(&b'{') && head[4..8] == [0; 4]
}

/// Kinds of texts; what is none may be a damaged file of safetensors.
fn text(head: &[u8]) -> Result<Format, Foreign> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let are_letters = |bytes: &[u8]| bytes.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let is_text = are_letters(&head[..head.len().min(16)]);
    match head {
        [b'<', b'!' | b'?' | b'a'..=b'z' | b'A'..=b'Z', ..] => Err(Foreign::Html),
        [b'{', ..] if is_text => Ok(Format::Index),
        [b'[', ..] if is_text => Err(Foreign::Json),
        _ if head.len() >= 8 && are_letters(head) => Err(Foreign::Text),
        _ => Ok(Format::Safetensors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_checkpoint_is_named() {
        for (head, expected) in [
            (&b""[..], Foreign::Empty),
            (b"\x80\x04\x95", Foreign::Pickle),
            (b"\x89HDF\r\n\x1a\n\0", Foreign::Hdf5),
            (b"GGUF\x03\0\0\0", Foreign::Gguf),
            (b"version https://git-lfs.github.com/spec/v1\n", Foreign::LfsPointer),
            (b"\n<!DOCTYPE html>", Foreign::Html),
            (b"<html>", Foreign::Html),
            (b"\x1f\x8b\x08", Foreign::Gzip),
            (b"\x93NUMPY\x01\0", Foreign::Npy),
            (b"[{\"weights\": []}]", Foreign::Json),
            (b"PAR1\x15\x04", Foreign::Parquet),
            (b"\x89PNG\r\n\x1a\n\0\0", Foreign::Picture),
            (b"\xff\xd8\xff\xe0", Foreign::Picture),
            (b"(dp0\nS'fc.weight'\n", Foreign::Pickle),
            (b"\x1c\0\0\0TFL3\0\0", Foreign::TensorFlow),
            (b"Entry not found", Foreign::Text),
            (b"import torch\n", Foreign::Text),
        ] {
            assert_eq!(recognise(head), Err(expected));
        }
    }

    #[test]
    fn checkpoints_are_told_apart() {
        let safetensors = |length: u64| [&length.to_le_bytes()[..], b"{\"a\":"].concat();
        // Lengths whose bytes are those of other formats.
        for length in [8 + (1 << 8) + (0x3a << 16), 0x3c, 0x0022_7b7b, 0x1f8b, 100, u64::from(b'[')] {
            assert_eq!(recognise(&safetensors(length)), Ok(Format::Safetensors), "{length}");
        }
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(recognise(&tar), Ok(Format::Tar));
        assert_eq!(recognise(b"PK\x03\x04...."), Ok(Format::Zip));
        for front in [&b"\x80\x02"[..], b"\x80\x04\x95\x0d\0\0\0\0\0\0\0"] {
            assert_eq!(recognise(&[front, MAGIC, b"."].concat()), Ok(Format::PyTorchLegacy));
        }
        assert_eq!(recognise(b"\x08\x09\x12\x07pytorch"), Ok(Format::Onnx));
        assert_eq!(recognise(b" {\"weight_map\": {}}"), Ok(Format::Index));
        assert_eq!(recognise(&[0xff; 16]), Ok(Format::Safetensors), "its reader says what is wrong");
    }
}
