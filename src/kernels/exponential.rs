//! The exponential function and the normal distribution's in single precision, of sums and products alone, so that loops
//! over them become vector instructions.

/// Where the exponential function leaves the normal numbers of single precision.
const LOWEST: f32 = -87.3;
const HIGHEST: f32 = 88.3;
/// Added and taken off again, it rounds to a whole number, whose lowest bits are those of the sum.
const ROUNDING: f32 = 12_582_912.0;
/// The natural logarithm of 2 in two parts; multiples of the first one are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Taylor's coefficients, the highest power first: enough for half a logarithm of 2.
const TAYLOR: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 1.0 / 2.0, 1.0, 1.0];

/// `exp(x)`, to two units in the last place.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    let within = if x < LOWEST { LOWEST } else { x };
    let within = if within > HIGHEST { HIGHEST } else { within };
    let shifted = within * std::f32::consts::LOG2_E + ROUNDING;
    let whole = shifted - ROUNDING;
    let rest = within - whole * LN_2[0] - whole * LN_2[1];
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    let value = power * TAYLOR.iter().fold(0.0, |sum, coefficient| sum * rest + coefficient);
    let value = if x < LOWEST { 0.0 } else { value };
    if x > HIGHEST { f32::INFINITY } else { value }
}

/// How fast the variable of [`TAIL`] falls.
const FALL: f32 = 0.3 * std::f32::consts::FRAC_1_SQRT_2;
/// `erfc(z) exp(z²) / t` as a polynomial of `t = 1 / (1 + 0.3 z)` for z from 0 to 9.5, the highest power first; fitted so
/// that its largest relative error, 2e-8, is as small as it can be.
const TAIL: [f32; 9] = [
    -0.129_434_46,
    0.485_098_36,
    -0.511_230_5,
    0.546_399_86,
    -0.093_634_7,
    0.214_437_8,
    0.148_482_02,
    0.170_692,
    0.169_189_61,
];

/// The normal distribution's function, `erfc(-x / sqrt 2) / 2`, to 5e-7 in 1; below -5 the relative error grows to 4e-6.
#[inline]
pub(super) fn normal(x: f32) -> f32 {
    let t = 1.0 / (1.0 + FALL * x.abs());
    let tail = 0.5 * t * exp(-0.5 * x * x) * TAIL.iter().fold(0.0, |sum, coefficient| sum * t + coefficient);
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_function_is_near_that_of_double_precision() {
        for index in -8_720_i16..=8_820 {
            let x = f32::from(index) / 100.0;
            let (got, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / expected - 1.0).abs() < 2.5e-7, "exp({x}): {got} for {expected}");
        }
        let far = [-1e30, f32::NEG_INFINITY, -100.0].map(exp);
        assert!(far.iter().all(|value| value.to_bits() == 0), "{far:?}");
        assert!(exp(100.0).is_infinite() && exp(f32::INFINITY).is_infinite() && exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_distribution_is_near_that_of_double_precision() {
        for index in -1_250_i16..=1_250 {
            let x = f32::from(index) / 100.0;
            let (got, expected) = (f64::from(normal(x)), 0.5 * libm::erfc(-f64::from(x) / 2.0_f64.sqrt()));
            let tolerance = if x > -5.0 { 1e-6 } else { 5e-6 };
            assert!((got / expected - 1.0).abs() < tolerance, "normal({x}): {got} for {expected}");
        }
        assert!(normal(f32::NAN).is_nan());
    }
}
