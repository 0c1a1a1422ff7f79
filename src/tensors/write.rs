//! Writing safetensors files: streamed, hashed on the way, synced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::{CpuStorage, DType, Storage, Tensor};
use half::{bf16, f16};
use sha2::{Digest, Sha256};

use crate::model::formats::safetensors;
use crate::model::header::{Dtype, TensorInfo};
use crate::tensors::state_dict::{StateDictError, tensor_error};

/// Elements that are converted to bytes at once.
const CHUNK: usize = 1 << 16;

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Length of the file.
    pub bytes: u64,
}

/// Writes `tensors` to `path`, floats as what `float` says for their names, integers as i64.
pub(super) fn safetensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
    float: impl Fn(&str) -> Dtype,
) -> Result<Written, StateDictError> {
    let info = |(name, tensor): (&String, &Tensor)| TensorInfo {
        name: name.clone(),
        dtype: if tensor.dtype().is_float() { float(name) } else { Dtype::I64 },
        shape: tensor.dims().to_vec(),
    };
    let mut infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    safetensors::sort_for_file(&mut infos);
    let io = |source| StateDictError::Write { path: path.to_owned(), source };
    let file = File::create(path).map_err(io)?;
    let mut sink = Hashing { inner: BufWriter::with_capacity(1 << 20, file), digest: Sha256::new(), bytes: 0 };
    sink.write_all(&safetensors::encode_header(&infos, metadata)).map_err(io)?;
    for info in &infos {
        let tensor = tensors[&info.name].contiguous().map_err(tensor_error(&info.name))?;
        write_tensor(&mut sink, &tensor, info.dtype).map_err(io)?;
    }
    sink.flush().map_err(io)?;
    sink.inner.get_ref().sync_all().map_err(io)?;
    Ok(Written { sha256: hex::encode(sink.digest.finalize()), bytes: sink.bytes })
}

/// Writes the elements of a contiguous tensor as `dtype`.
fn write_tensor(sink: &mut impl Write, tensor: &Tensor, dtype: Dtype) -> io::Result<()> {
    let wide = match tensor.dtype() {
        DType::F64 if dtype == Dtype::F64 => DType::F64,
        own if own.is_float() => DType::F32,
        _ => DType::I64,
    };
    let tensor = tensor.to_dtype(wide).map_err(io::Error::other)?;
    let (storage, layout) = tensor.storage_and_layout();
    let range = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
    match (&*storage, dtype) {
        (Storage::Cpu(CpuStorage::F32(values)), Dtype::F32) => write_f32(sink, &values[range]),
        (Storage::Cpu(CpuStorage::F32(values)), Dtype::F64) => {
            write_each(sink, &values[range], |v| f64::from(v).to_le_bytes())
        }
        (Storage::Cpu(CpuStorage::F32(values)), Dtype::F16) => {
            write_each(sink, &values[range], |v| f16::from_f32(v).to_le_bytes())
        }
        (Storage::Cpu(CpuStorage::F32(values)), Dtype::Bf16) => {
            write_each(sink, &values[range], |v| bf16::from_f32(v).to_le_bytes())
        }
        (Storage::Cpu(CpuStorage::F64(values)), Dtype::F64) => write_each(sink, &values[range], f64::to_le_bytes),
        (Storage::Cpu(CpuStorage::I64(values)), _) => write_each(sink, &values[range], i64::to_le_bytes),
        _ => Err(io::Error::other("only CPU tensors of a float type can be written")),
    }
}

/// Writes f32 elements without a copy where memory already has the file's byte order.
fn write_f32(sink: &mut impl Write, values: &[f32]) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        sink.write_all(bytemuck::cast_slice(values))
    } else {
        write_each(sink, values, f32::to_le_bytes)
    }
}

/// Converts and writes in chunks.
fn write_each<T: Copy, const N: usize>(
    sink: &mut impl Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    values.chunks(CHUNK).try_for_each(|chunk| {
        let buffer: Vec<u8> = chunk.iter().flat_map(|value| bytes(*value)).collect();
        sink.write_all(&buffer)
    })
}

/// Hashes and counts what passes.
struct Hashing<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.digest.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
