//! A `state_dict` as `torch.save` writes it: a zip archive of a pickle and of every tensor's bytes, stored at multiples of 64
//! bytes, so that `torch.load(file, weights_only=True)` and its `mmap=True` take it. The same tensors give the same bytes.

use std::io::{self, Write};

use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::model::header::{Dtype, TensorInfo};

/// The folder of the archive; PyTorch's is called after the file.
const FOLDER: &str = "archive";
/// Every entry's bytes begin at a multiple of this.
const ALIGNMENT: u16 = 64;
/// Entries from this length on need the long form of lengths (APPNOTE 4.3.9.2).
const LARGE: u64 = u32::MAX as u64;
/// Version of the container's form.
const VERSION: &[u8] = b"3\n";

/// Writes tensors, each with its row-major, little-endian bytes, in this order. Holds no more in memory than the pickle, which
/// has about 150 bytes for each tensor.
///
/// # Errors
/// When writing fails, or the bytes of a tensor are not those of its shape.
pub fn write_pytorch(tensors: &[(&TensorInfo, &[u8])], out: &mut impl Write) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(out);
    entry(&mut zip, "data.pkl", &pickle(tensors))?;
    entry(&mut zip, "byteorder", b"little")?;
    for (key, (info, bytes)) in tensors.iter().enumerate() {
        if bytes.len() != info.elements() * info.dtype.size() {
            return Err(io::Error::other(format!(
                "tensor `{}` has {} bytes, not as many as its shape says",
                info.name,
                bytes.len()
            )));
        }
        entry(&mut zip, &format!("data/{key}"), bytes)?;
    }
    entry(&mut zip, "version", VERSION)?;
    zip.finish()?.into_inner().flush()
}

/// One stored entry; nothing in it depends on when or where it is written.
fn entry<W: Write>(zip: &mut ZipWriter<StreamWriter<W>>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(bytes.len() as u64 >= LARGE)
        .with_alignment(ALIGNMENT);
    zip.start_file(format!("{FOLDER}/{name}"), options)?;
    zip.write_all(bytes)
}

/// The pickle, of protocol 2: an `OrderedDict` of calls that make a tensor of a storage.
fn pickle(tensors: &[(&TensorInfo, &[u8])]) -> Vec<u8> {
    let mut pickle = Pickle(vec![0x80, 2]);
    pickle.empty_ordered_dict();
    pickle.0.push(b'(');
    for (key, (info, _)) in tensors.iter().enumerate() {
        pickle.text(&info.name);
        pickle.tensor(key, info);
    }
    pickle.0.extend_from_slice(b"u.");
    pickle.0
}

/// A pickle in the making.
struct Pickle(Vec<u8>);

impl Pickle {
    fn tensor(&mut self, key: usize, info: &TensorInfo) {
        let (class, element, length) = match storage(info.dtype) {
            Storage::Typed(class) => (class, None, info.elements()),
            Storage::Untyped(element) => ("UntypedStorage", Some(element), info.elements() * info.dtype.size()),
        };
        self.global("torch._utils", if element.is_some() { "_rebuild_tensor_v3" } else { "_rebuild_tensor_v2" });
        self.0.extend_from_slice(b"((");
        self.text("storage");
        self.global(if element.is_some() { "torch.storage" } else { "torch" }, class);
        self.text(&key.to_string());
        self.text("cpu");
        self.integer(length);
        // The tuple of a persistent id, and what it stands for; then no elements before the first.
        self.0.extend_from_slice(b"tQK\0");
        self.sizes(&info.shape);
        let mut strides = vec![1; info.shape.len()];
        for axis in (1..info.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * info.shape[axis].max(1);
        }
        self.sizes(&strides);
        // No gradient is wanted, and no hooks.
        self.0.push(0x89);
        self.empty_ordered_dict();
        if let Some(element) = element {
            self.global("torch", element);
        }
        self.0.extend_from_slice(b"tR");
    }

    fn empty_ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend_from_slice(b")R");
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend_from_slice(format!("c{module}\n{name}\n").as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn sizes(&mut self, sizes: &[usize]) {
        self.0.push(b'(');
        for size in sizes {
            self.integer(*size);
        }
        self.0.push(b't');
    }

    fn integer(&mut self, value: usize) {
        if let Ok(value) = i32::try_from(value) {
            self.0.push(b'J');
            self.0.extend_from_slice(&value.to_le_bytes());
        } else {
            // Nine bytes, the last of them a sign.
            self.0.extend_from_slice(&[0x8a, 9]);
            self.0.extend_from_slice(&(value as u64).to_le_bytes());
            self.0.push(0);
        }
    }
}

/// How PyTorch names the storage of elements.
enum Storage {
    /// A class for each type.
    Typed(&'static str),
    /// Bytes; the tensor names its type in the module `torch`.
    Untyped(&'static str),
}

fn storage(dtype: Dtype) -> Storage {
    match dtype {
        Dtype::F32 => Storage::Typed("FloatStorage"),
        Dtype::F64 => Storage::Typed("DoubleStorage"),
        Dtype::F16 => Storage::Typed("HalfStorage"),
        Dtype::Bf16 => Storage::Typed("BFloat16Storage"),
        Dtype::I64 => Storage::Typed("LongStorage"),
        Dtype::I32 => Storage::Typed("IntStorage"),
        Dtype::I16 => Storage::Typed("ShortStorage"),
        Dtype::I8 => Storage::Typed("CharStorage"),
        Dtype::U8 => Storage::Typed("ByteStorage"),
        Dtype::Bool => Storage::Typed("BoolStorage"),
        Dtype::U64 => Storage::Untyped("uint64"),
        Dtype::U32 => Storage::Untyped("uint32"),
        Dtype::U16 => Storage::Untyped("uint16"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::formats::{TensorPlace, read_layout};
    use crate::model::header::DTYPES;

    #[test]
    fn what_is_written_is_read_back_from_aligned_places() {
        let mut infos: Vec<TensorInfo> = DTYPES
            .iter()
            .map(|(name, dtype)| TensorInfo { name: format!("layer.{name}"), dtype: *dtype, shape: vec![2, 3] })
            .collect();
        for (name, shape) in [("scalar", vec![]), ("empty", vec![0, 4]), ("deep", vec![1, 2, 1, 2, 1])] {
            infos.push(TensorInfo { name: name.to_owned(), dtype: Dtype::F32, shape });
        }
        let bytes: Vec<Vec<u8>> = infos
            .iter()
            .enumerate()
            .map(|(seed, info)| (0..info.elements() * info.dtype.size()).map(|at| (at * 7 + seed) as u8).collect())
            .collect();
        let tensors: Vec<(&TensorInfo, &[u8])> =
            infos.iter().zip(&bytes).map(|(info, bytes)| (info, &bytes[..])).collect();
        let (mut file, mut again) = (Vec::new(), Vec::new());
        write_pytorch(&tensors, &mut file).unwrap();
        write_pytorch(&tensors, &mut again).unwrap();
        assert_eq!(file, again);
        let layout = read_layout(&file).unwrap();
        assert_eq!(layout.header.tensors.len(), infos.len());
        for (info, place) in layout.header.tensors.iter().zip(&layout.places) {
            let index = infos.iter().position(|own| own == info).unwrap_or_else(|| panic!("{info:?}"));
            let TensorPlace::Span { begin, end } = *place else { panic!("{place:?}") };
            assert_eq!(file[begin as usize..end as usize], bytes[index][..], "{}", info.name);
            assert_eq!(begin % 64, 0, "{}", info.name);
        }
        assert!(write_pytorch(&[(&infos[0], &[0])], &mut Vec::new()).is_err());
    }
}
