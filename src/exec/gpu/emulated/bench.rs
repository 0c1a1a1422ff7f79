//! What tests of kernels need: inputs at random, outputs that are NaN before, and a comparison with other results.

use half::bf16;

use super::Emulated;
use crate::exec::gpu::tape::{Place, Storage, Tape, Values};
use crate::kernels::finite_difference::sample;

/// Both storages.
pub const STORAGES: [Storage; 2] = [Storage::F32, Storage::Bf16];

/// A device with one tape.
#[derive(Debug)]
pub struct Bench {
    /// The device.
    pub device: Emulated,
    /// What [`Self::play`] plays.
    pub tape: Tape,
    /// That of the values.
    pub storage: Storage,
    seed: u64,
}

impl Bench {
    /// With nothing to do yet.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        Self { device: Emulated::new(), tape: Tape::new(storage), storage, seed: 0 }
    }

    /// As the storage has them.
    #[must_use]
    pub fn rounded(&self, numbers: &[f64]) -> Vec<f64> {
        let round = |number: &f64| match self.storage {
            Storage::F32 => f64::from(*number as f32),
            Storage::Bf16 => bf16::from_f32(*number as f32).to_f64(),
        };
        numbers.iter().map(round).collect()
    }

    /// Numbers at random in [-1, 1].
    pub fn sample(&mut self, len: usize) -> Vec<f64> {
        self.seed += 1;
        sample(len, self.seed)
    }

    /// Values from these numbers, with what became of them.
    pub fn values(&mut self, shape: [usize; 3], numbers: &[f64]) -> (Values, Vec<f64>) {
        let numbers = self.rounded(numbers);
        let singles: Vec<f32> = numbers.iter().map(|number| *number as f32).collect();
        (self.device.values(&singles, shape[0], shape[1], shape[2], self.storage), numbers)
    }

    /// Values of `[examples, positions, channels]` at random.
    pub fn input(&mut self, shape: [usize; 3]) -> (Values, Vec<f64>) {
        let numbers = self.sample(shape.iter().product());
        self.values(shape, &numbers)
    }

    /// Values that are not to be read.
    pub fn output(&mut self, [examples, positions, channels]: [usize; 3]) -> Values {
        self.device.output(examples, positions, channels, self.storage)
    }

    /// Values that are to be overwritten or added to, with what is there.
    pub fn target(&mut self, shape: [usize; 3], accumulate: bool) -> (Values, Vec<f64>) {
        if accumulate { self.input(shape) } else { (self.output(shape), vec![0.0; shape.iter().product()]) }
    }

    /// Parameters at random.
    pub fn weights(&mut self, len: usize) -> (Place, Vec<f64>) {
        let singles: Vec<f32> = self.sample(len).iter().map(|number| *number as f32).collect();
        (self.device.numbers(&singles), singles.iter().copied().map(f64::from).collect())
    }

    /// Plays the tape and forgets what was on it.
    pub fn play(&mut self) {
        self.device.play(&self.tape);
        self.tape = Tape::new(self.storage);
    }

    /// Compares values with what they should be.
    pub fn check(&self, what: &str, values: Values, expected: &[f64]) {
        let tolerance = if self.storage == Storage::F32 { 1e-5 } else { 1e-2 };
        near(what, &self.device.read(values, self.storage), expected, tolerance);
    }

    /// Compares single numbers with what they should be.
    pub fn check_floats(&self, what: &str, place: Place, expected: &[f64]) {
        near(what, &self.device.floats(place), expected, 1e-5);
    }
}

/// Fails where a number is further from what it should be than `tolerance` times the largest one.
///
/// # Panics
/// See above.
pub fn near(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3_f64, |most, number| most.max(number.abs()));
    let mut worst = 0.0_f64;
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let off = (f64::from(*got) - expected).abs() / scale;
        assert!(off <= tolerance, "{what}: {got} for {expected} at {index}");
        worst = worst.max(off);
    }
    println!("{what}: {worst:.1e}");
}
