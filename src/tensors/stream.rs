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
use crate::tensors::convert;
use crate::tensors::state_dict::StateDictError;
use crate::tensors::write::{Written, sort_for_file};

/// Bytes of a block, but for rows that are longer. Small enough for a core's cache: a block is written while it is there.
const BLOCK_BYTES: usize = 512 << 10;
/// Blocks that are made at once, and hashed while the next ones are made.
const WAVE: usize = 32;

/// Writes the elements of one row, given its index, over all of a slice.
pub type Fill<'a> = Box<dyn Fn(usize, &mut [f32]) + Send + Sync + 'a>;

/// A float tensor whose rows are made on demand, in any order and from any thread.
pub struct Rows<'a> {
    /// Name in the `state_dict`.
    pub name: String,
    /// Shape; the first axis counts the rows, but a vector is a single row.
    pub shape: Vec<usize>,
    /// Makes a row.
    pub fill: Fill<'a>,
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
        rows.for_each(|(row, target)| (self.fill)(row, target));
        values
    }
}

/// Writes `tensors`, each as the type that `dtype` names, and integer scalars to `path`, and syncs the file to the disk.
/// `progress` hears of (finished blocks, all blocks).
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
    sort_for_file(&mut infos);
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
        file.sync_all()?;
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
    content: Content<'a>,
}

/// What fills it.
enum Content<'a> {
    Rows { source: &'a Rows<'a>, dtype: Dtype, first: usize, count: usize },
    Counter(i64),
}

/// Cuts the file into blocks, in order, from offset `at` on; also its length.
fn blocks<'a>(infos: &[TensorInfo], sources: &Sources<'a>, mut at: usize) -> (Vec<Block<'a>>, usize) {
    let mut blocks = Vec::new();
    for info in infos {
        if let Some(count) = sources.counters.get(info.name.as_str()) {
            blocks.push(Block { offset: at, content: Content::Counter(*count) });
            at += info.dtype.size();
        }
        let Some(&source) = sources.rows.get(info.name.as_str()) else { continue };
        let row_bytes = source.row_len() * info.dtype.size();
        let rows = info.elements() / source.row_len().max(1);
        let per_block = (BLOCK_BYTES / row_bytes.max(1)).max(1);
        for first in (0..rows).step_by(per_block) {
            let count = per_block.min(rows - first);
            let content = Content::Rows { source, dtype: info.dtype, first, count };
            blocks.push(Block { offset: at, content });
            at += count * row_bytes;
        }
    }
    (blocks, at)
}

/// Makes and writes the blocks wave by wave, while the wave before is hashed.
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
    converted: Vec<u8>,
    is_converted: bool,
}

impl Buffer {
    /// Makes a block's bytes.
    fn make(&mut self, block: &Block<'_>) -> &[u8] {
        match block.content {
            Content::Counter(count) => {
                self.converted = count.to_le_bytes().to_vec();
                self.is_converted = true;
            }
            Content::Rows { source, dtype, first, count } => {
                let row_len = source.row_len();
                self.floats.resize(count * row_len, 0.0);
                let rows = self.floats.chunks_exact_mut(row_len.max(1)).enumerate();
                rows.for_each(|(row, target)| (source.fill)(first + row, target));
                self.is_converted = dtype != Dtype::F32 || cfg!(target_endian = "big");
                if self.is_converted {
                    self.converted.resize(self.floats.len() * dtype.size(), 0);
                    convert::from_f32(&self.floats, dtype, &mut self.converted);
                }
            }
        }
        self.bytes()
    }

    fn bytes(&self) -> &[u8] {
        if self.is_converted { &self.converted } else { bytemuck::cast_slice(&self.floats) }
    }
}
