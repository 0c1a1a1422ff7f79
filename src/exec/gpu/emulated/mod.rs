//! A device that is not there: kernels run on the processor, products and convolutions in plain loops.

mod bench;
mod host;
mod library;
mod memory;
mod player;

use half::bf16;

pub use bench::{Bench, STORAGES, near};

use crate::exec::gpu::tape::{Argument, Command, Launch, Place, Storage, Tape, Values};
use library::Bits;
use memory::Memories;

/// Memories in which every byte is 0xFF, NaN in both storages, until it is written.
#[derive(Debug, Default)]
pub struct Emulated {
    memories: Memories,
}

impl Emulated {
    /// With nothing in its memories.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes in the arena, from a multiple of 256 on.
    pub fn place(&mut self, bytes: usize) -> Place {
        self.memories.place(bytes)
    }

    /// A place with these numbers.
    pub fn numbers(&mut self, numbers: &[f32]) -> Place {
        let place = self.place(4 * numbers.len());
        self.put(place, numbers);
        place
    }

    /// A place with these words.
    pub fn words(&mut self, words: &[u32]) -> Place {
        let place = self.place(4 * words.len());
        self.put_bytes(place, bytemuck::cast_slice(words));
        place
    }

    /// Values, of which `numbers` has the channels one after another.
    ///
    /// # Panics
    /// When they are not as many.
    pub fn values(
        &mut self,
        numbers: &[f32],
        examples: usize,
        positions: usize,
        channels: usize,
        storage: Storage,
    ) -> Values {
        let values = self.output(examples, positions, channels, storage);
        assert_eq!(numbers.len(), values.rows() * channels, "a number for each channel of each position");
        let mut padded = vec![0.0; values.numbers()];
        for (row, from) in padded.chunks_exact_mut(values.stride).zip(numbers.chunks_exact(channels)) {
            row[..channels].copy_from_slice(from);
        }
        let bytes = match storage {
            Storage::F32 => bytemuck::cast_slice(&padded).to_vec(),
            Storage::Bf16 => padded.iter().flat_map(|number| bf16::from_f32(*number).to_le_bytes()).collect(),
        };
        self.put_bytes(values.place, &bytes);
        values
    }

    /// Values that nobody has written yet.
    pub fn output(&mut self, examples: usize, positions: usize, channels: usize, storage: Storage) -> Values {
        let stride = storage.stride(channels);
        let place = self.place(examples * positions * stride * storage.bytes());
        Values { place, examples, positions, channels, stride }
    }

    /// The channels of all positions one after another.
    ///
    /// # Panics
    /// When what lies behind the channels is not 0.
    #[must_use]
    pub fn read(&self, values: Values, storage: Storage) -> Vec<f32> {
        let padded = self.stored(values.place.part(0, values.numbers() * storage.bytes()), storage);
        let mut numbers = Vec::with_capacity(values.rows() * values.channels);
        for (index, row) in padded.chunks_exact(values.stride).enumerate() {
            let (row, pad) = row.split_at(values.channels);
            assert!(pad.iter().all(|number| *number == 0.0), "behind the channels of row {index}: {pad:?}");
            numbers.extend_from_slice(row);
        }
        numbers
    }

    /// All numbers of a place.
    #[must_use]
    pub fn stored(&self, place: Place, storage: Storage) -> Vec<f32> {
        let bytes = self.bytes(place);
        match storage {
            Storage::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Storage::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        }
    }

    /// Writes numbers to the beginning of a place.
    pub fn put(&mut self, place: Place, numbers: &[f32]) {
        self.put_bytes(place.part(0, 4 * numbers.len()), bytemuck::cast_slice(numbers));
    }

    /// All numbers of a place.
    #[must_use]
    pub fn floats(&self, place: Place) -> Vec<f32> {
        self.stored(place, Storage::F32)
    }

    /// All words of a place.
    #[must_use]
    pub fn read_words(&self, place: Place) -> Vec<u32> {
        self.bytes(place).chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// All bytes of a place.
    #[must_use]
    pub fn bytes(&self, place: Place) -> &[u8] {
        self.memories.bytes(place)
    }

    /// Writes all bytes of a place.
    pub fn put_bytes(&mut self, place: Place, bytes: &[u8]) {
        self.memories.bytes_mut(place).copy_from_slice(bytes);
    }

    /// Does what the tape says, in order. Scratch memory is NaN before.
    ///
    /// # Panics
    /// When a kernel cannot be run, or writes outside of places.
    pub fn play(&mut self, tape: &Tape) {
        self.memories.prepare(tape.scratch, &tape.constants);
        for command in &tape.commands {
            match command {
                Command::Launch(launch) => self.launch(launch),
                Command::Product(product) => host::product(&mut self.memories, product),
                Command::Convolution(convolution) => host::convolution(&mut self.memories, convolution),
                Command::Zero(place) => self.memories.bytes_mut(*place).fill(0),
                Command::Copy(from, to) => {
                    let bytes = self.bytes(*from).to_vec();
                    self.put_bytes(*to, &bytes);
                }
            }
            assert!(self.memories.is_sound(tape.scratch), "written beside the places: {command:?}");
        }
    }

    fn launch(&mut self, launch: &Launch) {
        let bits = |argument: &Argument| match *argument {
            Argument::Place(place) => Bits::Pointer(self.memories.pointer(place)),
            Argument::Null => Bits::Pointer(std::ptr::null_mut()),
            Argument::Int(number) => Bits::Int(number),
            Argument::Float(number) => Bits::Float(number),
        };
        let arguments: Vec<Bits> = launch.arguments.iter().map(bits).collect();
        library::run(&launch.kernel.to_string(), launch.grid, launch.threads, &arguments);
    }
}

#[cfg(test)]
mod tests;
