//! Gradients on their way to the optimizer.

use crate::exec::gpu::tape::{Argument, Place, Tape};

const THREADS: usize = 256;

/// `gradients` gets the numbers of `low`, a multiple of 4 `numbers` in bf16.
pub fn widen(tape: &mut Tape, low: Place, gradients: Place, numbers: usize) {
    let pieces = numbers / 4;
    let arguments = vec![low.into(), gradients.into(), pieces.into()];
    tape.launch_plain("widen_gradients", [pieces.div_ceil(THREADS).max(1), 1, 1], THREADS, arguments);
}

/// Adds the products of weights and gradients (f32, a multiple of 4 `numbers`), or their squares, to `sums`: the first place has
/// them rounded, the second what that leaves.
pub fn add_saliency(
    tape: &mut Tape,
    [weights, gradients]: [Place; 2],
    [high, low]: [Place; 2],
    numbers: usize,
    squared: bool,
) {
    let pieces = numbers / 4;
    let places = [weights, gradients, high, low].map(Argument::from);
    let arguments = places.into_iter().chain([pieces.into(), squared.into()]).collect();
    tape.launch_plain("add_saliency", [pieces.div_ceil(THREADS).max(1), 1, 1], THREADS, arguments);
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

    /// Many batches, so that sums in f32 would be off.
    #[test]
    fn saliency_is_added_up_as_in_double_precision() {
        for squared in [false, true] {
            let mut device = Emulated::new();
            let weights: Vec<f32> = (0..8).map(|i| 0.1 + 0.3 * i as f32).collect();
            let of_batch =
                |batch: usize| (0..8).map(|i| ((batch * 37 + i * 11) % 23) as f32 * 1e-3).collect::<Vec<_>>();
            let [weight_place, high, low] = [&weights, &vec![0.0; 8], &vec![0.0; 8]].map(|all| device.numbers(all));
            let gradients = device.place(32);
            let mut expected = [0.0_f64; 8];
            for batch in 0..500 {
                let own = of_batch(batch);
                device.put(gradients, &own);
                let mut tape = Tape::new(Storage::F32);
                add_saliency(&mut tape, [weight_place, gradients], [high, low], 8, squared);
                device.play(&tape);
                for (sum, (weight, gradient)) in expected.iter_mut().zip(weights.iter().zip(&own)) {
                    let product = f64::from(*weight) * f64::from(*gradient);
                    *sum += if squared { product * product } else { product };
                }
            }
            let sums = device.floats(high).into_iter().zip(device.floats(low));
            for ((high, low), expected) in sums.zip(expected) {
                let sum = f64::from(high) + f64::from(low);
                assert!((sum - expected).abs() <= 1e-11 * expected, "{sum} for {expected}");
            }
        }
    }
}
