//! Memories of a device that is not there.

use crate::exec::gpu::tape::{Place, Region};

/// What places begin at multiples of.
const ALIGNMENT: usize = 256;

/// Bytes from an aligned address on; all that was never written is a NaN in both storages.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Room for `len` bytes; what is there stays.
    fn grow(&mut self, len: usize) {
        if len <= self.len() {
            return;
        }
        let len = len.max(2 * self.len());
        let mut bytes = vec![0xFF; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        bytes.truncate(start + len);
        bytes[start..start + self.len()].copy_from_slice(&self.bytes[self.start..]);
        *self = Self { bytes, start };
    }
}

/// One memory for each region.
#[derive(Debug, Default)]
pub(super) struct Memories {
    arena: Memory,
    scratch: Memory,
    constant: Memory,
    held: Memory,
    /// Bytes of the arena that are given away.
    used: usize,
    /// Gaps between places, which nobody may write to.
    gaps: Vec<Place>,
}

impl Memories {
    fn of(&self, region: Region) -> &Memory {
        match region {
            Region::Arena => &self.arena,
            Region::Scratch => &self.scratch,
            Region::Constant => &self.constant,
            Region::Held => &self.held,
        }
    }

    fn of_mut(&mut self, region: Region) -> &mut Memory {
        match region {
            Region::Arena => &mut self.arena,
            Region::Scratch => &mut self.scratch,
            Region::Constant => &mut self.constant,
            Region::Held => &mut self.held,
        }
    }

    /// A new place in the arena, with a gap behind it.
    pub(super) fn place(&mut self, bytes: usize) -> Place {
        let place = Place { region: Region::Arena, offset: self.used, bytes };
        let end = self.used + bytes;
        self.used = end.next_multiple_of(ALIGNMENT) + ALIGNMENT;
        self.arena.grow(self.used);
        self.gaps.push(Place { offset: end, bytes: self.used - end, ..place });
        place
    }

    /// Room for what a tape needs: scratch memory, all of it NaN, and its tables.
    pub(super) fn prepare(&mut self, scratch: usize, constants: &[i32]) {
        self.scratch = Memory::default();
        self.scratch.grow(scratch + ALIGNMENT);
        self.constant = Memory::default();
        let bytes: &[u8] = bytemuck::cast_slice(constants);
        self.constant.grow(bytes.len() + ALIGNMENT);
        let place = Place { region: Region::Constant, offset: 0, bytes: bytes.len() };
        self.bytes_mut(place).copy_from_slice(bytes);
    }

    /// Puts images where kernels find what the device holds.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held = Memory::default();
        self.held.grow(bytes.len());
        let place = Place { region: Region::Held, offset: 0, bytes: bytes.len() };
        self.bytes_mut(place).copy_from_slice(bytes);
    }

    /// Whether nothing was written beside the places and behind the scratch memory of `scratch` bytes.
    pub(super) fn is_sound(&self, scratch: usize) -> bool {
        let behind = Place { region: Region::Scratch, offset: scratch, bytes: ALIGNMENT };
        let untouched = |gap: &Place| self.bytes(*gap).iter().all(|byte| *byte == 0xFF);
        self.gaps.iter().all(untouched) && untouched(&behind)
    }

    pub(super) fn bytes(&self, place: Place) -> &[u8] {
        let memory = self.of(place.region);
        &memory.bytes[memory.start + place.offset..][..place.bytes]
    }

    pub(super) fn bytes_mut(&mut self, place: Place) -> &mut [u8] {
        let memory = self.of_mut(place.region);
        let start = memory.start + place.offset;
        &mut memory.bytes[start..][..place.bytes]
    }

    /// Where a kernel finds a place.
    pub(super) fn pointer(&mut self, place: Place) -> *mut u8 {
        self.bytes_mut(place).as_mut_ptr()
    }
}
