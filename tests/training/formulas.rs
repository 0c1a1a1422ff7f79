//! The formulas of `tests/fixtures/training/make.py`, for whoever compares with what PyTorch made of them.

/// Reproducible values in [-0.5, 0.5).
pub(crate) fn noise(count: usize, salt: u64) -> impl Iterator<Item = f64> {
    (0..count as u64).map(move |index| {
        let mut mixed = (index * 2_654_435_761 + salt * 97_531) % (1 << 32);
        mixed = (mixed ^ (mixed >> 15)) * 2_246_822_519 % (1 << 32);
        mixed ^= mixed >> 13;
        mixed as f64 / 4_294_967_296.0 - 0.5
    })
}

pub(crate) fn weight(name: &str, shape: &[usize], salt: u64) -> Vec<f32> {
    let count: usize = shape.iter().product();
    if name.ends_with("running_mean") || name.ends_with("running_var") {
        return vec![if name.ends_with("var") { 1.0 } else { 0.0 }; count];
    }
    let bound = 2.0 * (6.0 / (count / shape[0]) as f64).sqrt();
    let one = if name.ends_with("weight") { 1.0 } else { 0.0 };
    let scaled = |value: f64| if shape.len() == 1 { value * 0.2 + one } else { value * bound };
    noise(count, salt).map(|value| scaled(value) as f32).collect()
}

pub(crate) fn batch(length: usize, step: usize, size: usize) -> (Vec<f32>, Vec<u32>) {
    let labels: Vec<u32> = (0..size as u32).map(|i| i * 3 % 10).collect();
    let image = |(i, label): (usize, &u32)| {
        let pattern = noise(length, 900 + u64::from(*label));
        noise(length, (1000 + step * size + i) as u64).zip(pattern).map(|(a, b)| (a + b) as f32).collect::<Vec<_>>()
    };
    (labels.iter().enumerate().flat_map(image).collect(), labels)
}
