//! Gradients on their way to the optimizer.

use crate::exec::gpu::tape::{Place, Tape};

const THREADS: usize = 256;

/// `gradients` gets the numbers of `low`, a multiple of 4 `numbers` in bf16.
pub fn widen(tape: &mut Tape, low: Place, gradients: Place, numbers: usize) {
    let pieces = numbers / 4;
    let arguments = vec![low.into(), gradients.into(), pieces.into()];
    tape.launch_plain("widen_gradients", [pieces.div_ceil(THREADS).max(1), 1, 1], THREADS, arguments);
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::exec::gpu::emulated::Emulated;
    use crate::exec::gpu::tape::Storage;

    #[test]
    fn numbers_stay_what_they_are() {
        let mut device = Emulated::new();
        let numbers: Vec<bf16> = (0..1036_u16).map(|i| bf16::from_f32(f32::from(i) * 0.37 - 9.0)).collect();
        let low = device.place(2 * numbers.len());
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        device.put_bytes(low, &bytes);
        let gradients = device.place(4 * numbers.len());
        let mut tape = Tape::new(Storage::Bf16);
        widen(&mut tape, low, gradients, numbers.len());
        device.play(&tape);
        let expected: Vec<f32> = numbers.iter().map(|number| number.to_f32()).collect();
        assert_eq!(device.floats(gradients), expected);
    }
}
