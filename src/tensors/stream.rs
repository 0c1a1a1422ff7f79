//! Writing a safetensors file whose tensors are made block by block while it is written: no more of it is in memory than a
//! few blocks. Blocks are made and written by all threads; one of them computes the digest of the blocks before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::model::formats::safetensors;
use crate::model::header::{Dtype, TensorInfo};
use crate::tensors::state_dict::StateDictError;
use crate::tensors::write::Written;
use crate::tensors::{Number, convert};

/// Bytes of a block, but for rows that are longer. Small enough for a core's cache: a block is written while it is there.
const BLOCK_BYTES: usize = 256 << 10;
/// Blocks that are made at once, and hashed while the next ones are made. What the last wave's digest takes is time in
/// which nothing is made.
const WAVE: usize = 16;

/// Makes the rows of a tensor, in any order and from any thread.
pub trait MakeRow: Send + Sync {
    /// Writes the elements of `row` over all of `target`.
    fn make<T: Number>(&self, row: usize, target: &mut [T]);
}

/// A [`MakeRow`] behind a pointer.
pub trait Make: Send + Sync {
    /// See [`MakeRow::make`].
    fn f32(&self, row: usize, target: &mut [f32]);
    /// See [`MakeRow::make`].
    fn f64(&self, row: usize, target: &mut [f64]);
}

impl<M: MakeRow> Make for M {
    fn f32(&self, row: usize, target: &mut [f32]) {
        self.make(row, target);
    }

    fn f64(&self, row: usize, target: &mut [f64]) {
        self.make(row, target);
    }
}

/// A float tensor whose rows are made on demand, in any order and from any thread.
pub struct Rows<'a> {
    /// Name in the `state_dict`.
    pub name: String,
    /// Shape; the first axis counts the rows, but a vector is a single row.
    pub shape: Vec<usize>,
    /// Makes a row.
    pub maker: Box<dyn Make + 'a>,
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("name", &self.name).field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Rows<'_> {
    /// Elements of one row.
    #[must_use]
    pub fn row_len(&self) -> usize {
        let of_row = if self.shape.len() > 1 { &self.shape[1..] } else { &self.shape[..] };
        of_row.iter().product()
    }

    /// All elements, made in parallel.
    #[must_use]
    pub fn collect(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.shape.iter().product()];
        let rows = values.par_chunks_exact_mut(self.row_len().max(1)).enumerate();
        rows.for_each(|(row, target)| self.maker.f32(row, target));
        values
    }
}

/// Writes `tensors`, each as the type that `dtype` names, and integer scalars to `path`, and syncs the file to the disk.
/// `progress` is called with (finished blocks, all blocks).
///
/// # Errors
/// When writing fails.
pub fn write_rows(
    path: &Path,
    tensors: &[Rows<'_>],
    counters: &[(String, i64)],
    metadata: &BTreeMap<String, String>,
    dtype: impl Fn(&str) -> Dtype,
    progress: impl FnMut(usize, usize),
) -> Result<Written, StateDictError> {
    let floats = tensors.iter().map(|tensor| TensorInfo {
        name: tensor.name.clone(),
        dtype: dtype(&tensor.name),
        shape: tensor.shape.clone(),
    });
    let integers =
        counters.iter().map(|(name, _)| TensorInfo { name: name.clone(), dtype: Dtype::I64, shape: Vec::new() });
    let mut infos: Vec<TensorInfo> = floats.chain(integers).collect();
    safetensors::sort_for_file(&mut infos);
    let sources = Sources {
        rows: tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
        counters: counters.iter().map(|(name, count)| (name.as_str(), *count)).collect(),
    };
    let write = || -> io::Result<Written> {
        let file = File::create(path)?;
        let header = safetensors::encode_header(&infos, metadata);
        file.write_all_at(&header, 0)?;
        let (blocks, len) = blocks(&infos, &sources, header.len());
        file.set_len(len as u64)?;
        let mut digest = Sha256::new();
        digest.update(&header);
        pump(&file, &blocks, &mut digest, progress)?;
        Ok(Written { sha256: hex::encode(digest.finalize()), bytes: len as u64 })
    };
    write().map_err(|source| StateDictError::Write { path: path.to_owned(), source })
}

/// Where elements come from, by the tensor's name.
struct Sources<'a> {
    rows: BTreeMap<&'a str, &'a Rows<'a>>,
    counters: BTreeMap<&'a str, i64>,
}

/// A stretch of the file.
struct Block<'a> {
    offset: usize,
    content: EntryContent<'a>,
}

/// What fills it.
enum EntryContent<'a> {
    Rows { source: &'a Rows<'a>, dtype: Dtype, first: usize, count: usize },
    Counter(i64),
}

/// Cuts the file into blocks, in order, from offset `at` on; also its length.
fn blocks<'a>(infos: &[TensorInfo], sources: &Sources<'a>, mut at: usize) -> (Vec<Block<'a>>, usize) {
    let mut blocks = Vec::new();
    for info in infos {
        if let Some(count) = sources.counters.get(info.name.as_str()) {
            blocks.push(Block { offset: at, content: EntryContent::Counter(*count) });
            at += info.dtype.size();
        }
        let Some(&source) = sources.rows.get(info.name.as_str()) else { continue };
        let row_bytes = source.row_len() * info.dtype.size();
        let rows = info.elements() / source.row_len().max(1);
        let per_block = (BLOCK_BYTES / row_bytes.max(1)).max(1);
        for first in (0..rows).step_by(per_block) {
            let count = per_block.min(rows - first);
            let content = EntryContent::Rows { source, dtype: info.dtype, first, count };
            blocks.push(Block { offset: at, content });
            at += count * row_bytes;
        }
    }
    (blocks, at)
}

/// Makes and writes the blocks wave by wave, while the wave before is hashed; while the last one is, the file is synced.
fn pump(
    file: &File,
    blocks: &[Block<'_>],
    digest: &mut Sha256,
    mut progress: impl FnMut(usize, usize),
) -> io::Result<()> {
    let mut made: Vec<Buffer> = std::iter::repeat_with(Buffer::default).take(WAVE).collect();
    let mut ready: Vec<Buffer> = std::iter::repeat_with(Buffer::default).take(WAVE).collect();
    let (mut done, mut unhashed) = (0, 0);
    for wave in blocks.chunks(WAVE).chain([&[][..]]) {
        let make = || {
            if wave.is_empty() {
                return file.sync_all();
            }
            let pairs = made.par_iter_mut().zip(wave).with_max_len(1);
            pairs.try_for_each(|(buffer, block)| file.write_all_at(buffer.make(block), block.offset as u64))
        };
        let hash = || ready[..unhashed].iter().for_each(|buffer| digest.update(buffer.bytes()));
        let (written, ()) = rayon::join(make, hash);
        written?;
        unhashed = wave.len();
        done += wave.len();
        std::mem::swap(&mut made, &mut ready);
        progress(done, blocks.len());
    }
    Ok(())
}

/// Memory for one block, used again for later ones.
#[derive(Default)]
struct Buffer {
    floats: Vec<f32>,
    doubles: Vec<f64>,
    converted: Vec<u8>,
    filled: Filled,
}

/// Which part of a buffer holds the block's bytes.
#[derive(Default, Clone, Copy)]
enum Filled {
    Floats,
    Doubles,
    #[default]
    Converted,
}

impl Buffer {
    /// Makes a block's bytes.
    fn make(&mut self, block: &Block<'_>) -> &[u8] {
        match block.content {
            EntryContent::Counter(count) => {
                self.converted = count.to_le_bytes().to_vec();
                self.filled = Filled::Converted;
            }
            EntryContent::Rows { source, dtype, first, count } => {
                let (row_len, as_in_memory) = (source.row_len(), cfg!(target_endian = "little"));
                let all = count * row_len;
                if dtype == Dtype::F64 {
                    self.doubles.resize(all, 0.0);
                    let rows = self.doubles.chunks_exact_mut(row_len.max(1)).enumerate();
                    rows.for_each(|(row, target)| source.maker.f64(first + row, target));
                } else {
                    self.floats.resize(all, 0.0);
                    let rows = self.floats.chunks_exact_mut(row_len.max(1)).enumerate();
                    rows.for_each(|(row, target)| source.maker.f32(first + row, target));
                }
                self.filled = match dtype {
                    Dtype::F32 if as_in_memory => Filled::Floats,
                    Dtype::F64 if as_in_memory => Filled::Doubles,
                    _ => Filled::Converted,
                };
                if matches!(self.filled, Filled::Converted) {
                    self.converted.resize(all * dtype.size(), 0);
                    match dtype {
                        Dtype::F64 => convert::from_f64(&self.doubles, &mut self.converted),
                        _ => convert::from_f32(&self.floats, dtype, &mut self.converted),
                    }
                }
            }
        }
        self.bytes()
    }

    fn bytes(&self) -> &[u8] {
        match self.filled {
            Filled::Floats => bytemuck::cast_slice(&self.floats),
            Filled::Doubles => bytemuck::cast_slice(&self.doubles),
            Filled::Converted => &self.converted,
        }
    }
}
