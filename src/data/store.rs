//! Where decoded examples are kept: in a file without a name, that is written once and then mapped. The system holds as
//! much of it in memory as there is room for, so that a dataset may be larger than that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::DatasetError;
use crate::tensors::map;

/// Bytes that are copied at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Bytes in memory of one stored pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PixelType {
    /// 0 to 255, divided by 255 when it is used.
    U8,
    /// Used as it is.
    F32,
}

impl PixelType {
    /// Bytes of one.
    pub(super) fn size(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// Whole examples, one after another, each row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pixels<'a> {
    /// Divided by 255 when they are used.
    U8(&'a [u8]),
    /// Used as they are.
    F32(&'a [f32]),
}

impl<'a> Pixels<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::U8(bytes) => bytes,
            Self::F32(floats) => bytemuck::cast_slice(floats),
        }
    }
}

/// A file on its way to be kept.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    folder: PathBuf,
    pixels: PixelType,
}

/// A finished one.
#[derive(Debug)]
pub(super) struct Stored {
    map: Mmap,
    pixels: PixelType,
    /// Stays open, so that whoever looks after the disk can see what this process takes of it.
    _file: File,
}

impl Draft {
    /// Makes a file of `elements` zeros in `folder`; it is gone with the last handle to it, whatever ends this process.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn new(folder: &Path, elements: u64, pixels: PixelType) -> Result<Self, DatasetError> {
        let io = |source| DatasetError::Io { path: folder.to_owned(), source };
        let file = tempfile::tempfile_in(folder).map_err(io)?;
        let bytes = elements.saturating_mul(pixels.size());
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // Nothing has to be read in vain where there is no room.
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(bytes).map_err(io)?,
            Err(error) => return Err(io(error.into())),
        }
        Ok(Self { file, folder: folder.to_owned(), pixels })
    }

    /// Writes `pixels`, of this file's type, from the element `at` on.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn write(&self, at: usize, pixels: Pixels<'_>) -> Result<(), DatasetError> {
        self.file.write_all_at(pixels.bytes(), at as u64 * self.pixels.size()).map_err(|source| self.io(source))
    }

    /// Writes each plane of `plane` bytes in `from` `times` times, one after another.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn repeat(&self, from: &Self, planes: usize, plane: usize, times: usize) -> Result<(), DatasetError> {
        let together = (BLOCK_BYTES / plane).max(1);
        let (mut grey, mut repeated) = (Vec::new(), Vec::new());
        for first in (0..planes).step_by(together) {
            grey.resize(together.min(planes - first) * plane, 0);
            from.file.read_exact_at(&mut grey, (first * plane) as u64).map_err(|source| from.io(source))?;
            repeated.clear();
            grey.chunks_exact(plane).for_each(|plane| (0..times).for_each(|_| repeated.extend_from_slice(plane)));
            self.write(first * plane * times, Pixels::U8(&repeated))?;
        }
        Ok(())
    }

    /// Nothing is written any more from here on.
    ///
    /// # Errors
    /// When the system refuses the map.
    pub(super) fn finish(self) -> Result<Stored, DatasetError> {
        let map = map(&self.file).map_err(|source| self.io(source))?;
        Ok(Stored { map, pixels: self.pixels, _file: self.file })
    }

    fn io(&self, source: io::Error) -> DatasetError {
        DatasetError::Io { path: self.folder.clone(), source }
    }
}

impl Stored {
    /// All of them.
    pub(super) fn pixels(&self) -> Pixels<'_> {
        match self.pixels {
            PixelType::U8 => Pixels::U8(&self.map),
            // A map begins on a page, and holds whole elements.
            PixelType::F32 => Pixels::F32(bytemuck::cast_slice(&self.map)),
        }
    }

    #[cfg(test)]
    pub(super) fn of(pixels: Pixels<'_>) -> Self {
        let (elements, kind) = match pixels {
            Pixels::U8(bytes) => (bytes.len(), PixelType::U8),
            Pixels::F32(floats) => (floats.len(), PixelType::F32),
        };
        let draft = Draft::new(&std::env::temp_dir(), elements as u64, kind).unwrap();
        draft.write(0, pixels).unwrap();
        draft.finish().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_anywhere_is_read_and_the_rest_is_zero() {
        let folder = tempfile::tempdir().unwrap();
        let draft = Draft::new(folder.path(), 6, PixelType::F32).unwrap();
        draft.write(4, Pixels::F32(&[5.0])).unwrap();
        draft.write(1, Pixels::F32(&[2.0, -3.0])).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        assert_eq!(draft.finish().unwrap().pixels(), Pixels::F32(&[0.0, 2.0, -3.0, 0.0, 5.0, 0.0]));
    }

    #[test]
    fn planes_are_repeated_across_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let (planes, plane) = (5, BLOCK_BYTES / 2 - 1);
        let grey = Draft::new(folder.path(), (planes * plane) as u64, PixelType::U8).unwrap();
        let bytes: Vec<u8> = (0..planes * plane).map(|at| (at % 251) as u8).collect();
        grey.write(0, Pixels::U8(&bytes)).unwrap();
        let colour = Draft::new(folder.path(), (3 * planes * plane) as u64, PixelType::U8).unwrap();
        colour.repeat(&grey, planes, plane, 3).unwrap();
        let expected: Vec<u8> = bytes.chunks(plane).flat_map(|plane| plane.repeat(3)).collect();
        assert!(colour.finish().unwrap().pixels() == Pixels::U8(&expected));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Draft::new(Path::new("/nowhere/at/all"), 1, PixelType::U8).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
