//! Mean and standard deviation per channel, in one pass over blocks in any order.

/// Running sums of one split.
#[derive(Debug)]
pub(super) struct Statistics {
    /// Elements of one channel of one example.
    plane: usize,
    channels: Vec<Channel>,
}

/// What was seen of one channel.
#[derive(Debug, Clone, Copy, Default)]
struct Channel {
    bytes: Exact,
    floats: Moments,
}

/// Sums of bytes, without rounding: 2^47 of them fit.
#[derive(Debug, Clone, Copy, Default)]
struct Exact {
    count: u64,
    sum: u64,
    squares: u64,
}

/// Count, mean, and sum of squared deviations (Chan et al. 1983).
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    deviations: f64,
}

impl Moments {
    fn of(values: &[f32]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let deviations = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
        Self { count, mean, deviations }
    }

    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + delta * other.count / count,
            deviations: self.deviations + other.deviations + delta * delta * self.count * other.count / count,
        }
    }
}

impl Statistics {
    /// For examples of `[D]` (one channel) or `[C, H, W]`.
    pub(super) fn new(example_shape: &[usize]) -> Self {
        let channels = if let [channels, _, _] = example_shape { *channels } else { 1 };
        let elements: usize = example_shape.iter().product();
        Self { plane: elements / channels, channels: vec![Channel::default(); channels] }
    }

    /// As if the only channel had been seen `times` times side by side.
    pub(super) fn repeated(&self, times: usize) -> Self {
        Self { plane: self.plane, channels: self.channels.repeat(times) }
    }

    /// Takes in whole examples of bytes.
    pub(super) fn add_bytes(&mut self, block: &[u8]) {
        let channels = self.channels.len();
        for (index, plane) in block.chunks_exact(self.plane).enumerate() {
            let seen = &mut self.channels[index % channels].bytes;
            seen.count += plane.len() as u64;
            seen.sum += plane.iter().map(|value| u64::from(*value)).sum::<u64>();
            seen.squares += plane.iter().map(|value| u64::from(*value).pow(2)).sum::<u64>();
        }
    }

    /// Takes in whole examples of finite floats.
    pub(super) fn add_floats(&mut self, block: &[f32]) {
        let channels = self.channels.len();
        for (index, plane) in block.chunks_exact(self.plane).enumerate() {
            let seen = &mut self.channels[index % channels].floats;
            *seen = seen.merge(Moments::of(plane));
        }
    }

    /// Mean and standard deviation of each channel, bytes divided by 255.
    pub(super) fn finish(&self) -> (Vec<f64>, Vec<f64>) {
        self.channels.iter().map(Channel::finish).unzip()
    }
}

impl Channel {
    fn finish(&self) -> (f64, f64) {
        if self.bytes.count == 0 {
            return (self.floats.mean, (self.floats.deviations / self.floats.count).sqrt());
        }
        let count = self.bytes.count as f64;
        let mean = self.bytes.sum as f64 / count;
        let variance = (self.bytes.squares as f64 / count - mean * mean).max(0.0);
        (mean / 255.0, variance.sqrt() / 255.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_floats_agree_with_the_definition() {
        let bytes = [0_u8, 255, 51, 102, 10, 20, 30, 40];
        let floats = bytes.map(|value| f32::from(value) / 255.0);
        for split in [4, 8] {
            let (mut of_bytes, mut of_floats) = (Statistics::new(&[2, 1, 2]), Statistics::new(&[2, 1, 2]));
            bytes.chunks(split).for_each(|block| of_bytes.add_bytes(block));
            floats.chunks(split).for_each(|block| of_floats.add_floats(block));
            let ((mean, std), (mean_f, std_f)) = (of_bytes.finish(), of_floats.finish());
            // Channel 0 holds 0, 255, 10, 20.
            let first = [0.0, 255.0, 10.0, 20.0].map(|value: f64| value / 255.0);
            let expected = first.iter().sum::<f64>() / 4.0;
            let spread = (first.iter().map(|value| (value - expected).powi(2)).sum::<f64>() / 4.0).sqrt();
            assert!((mean[0] - expected).abs() < 1e-12 && (std[0] - spread).abs() < 1e-12);
            for channel in 0..2 {
                assert!((mean[channel] - mean_f[channel]).abs() < 1e-7, "{mean:?} {mean_f:?}");
                assert!((std[channel] - std_f[channel]).abs() < 1e-7, "{std:?} {std_f:?}");
            }
        }
    }

    #[test]
    fn a_vector_is_one_channel() {
        let mut statistics = Statistics::new(&[3]);
        statistics.add_floats(&[1.0, 2.0, 3.0]);
        assert_eq!(statistics.finish().0, [2.0]);
    }
}
