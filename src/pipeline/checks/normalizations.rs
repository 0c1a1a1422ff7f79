//! The normalisations that members are commonly trained with.

use serde_json::json;

use crate::cost::checks::MEASURED_EXAMPLES;
use crate::data::Pixels;
use crate::pipeline::load::Subset;
use crate::settings::Normalize;

/// Mean and standard deviation of `ImageNet`'s channels, as torchvision's models are trained with.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// By how much two normalisations may differ that no test tells apart: of the mean, in standard deviations, and of the logarithm of
/// the standard deviation.
const ALIKE: f32 = 0.1;

/// A normalisation that may be the one of the training.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    /// In words.
    pub(super) name: &'static str,
    /// None for inputs as they are stored, bytes divided by 255.
    pub(super) normalize: Option<Normalize>,
    /// What to write into the job, or on the command line.
    pub(super) advice: String,
}

impl Candidate {
    /// The examples of `part`, normalised so.
    pub(super) fn of(&self, part: &Subset) -> Subset {
        part.normalized(self.normalize.clone())
    }
}

/// The common normalisations of `train` that differ from the one which the job says.
pub(super) fn candidates(train: &Subset) -> Vec<Candidate> {
    let measured = train.spread(MEASURED_EXAMPLES).measured();
    let channels = measured.mean.len();
    let stored = Candidate {
        name: "no normalisation",
        normalize: None,
        advice: "leave `dataset.normalize` out (--normalize none)".to_owned(),
    };
    let own = Candidate {
        name: "the dataset's own mean and standard deviation",
        advice: "\"normalize\": \"train\" (--normalize train)".to_owned(),
        normalize: Some(measured),
    };
    let half = given("mean and standard deviation 0.5", vec![0.5; channels], vec![0.5; channels]);
    let imagenet = (channels == 3)
        .then(|| given("ImageNet's mean and standard deviation", IMAGENET[0].to_vec(), IMAGENET[1].to_vec()));
    // Only bytes are divided by 255 when they are read.
    let bytes = matches!(train.split.pixels(), Pixels::U8(_))
        .then(|| given("bytes from 0 to 255", vec![0.0; channels], vec![1.0 / 255.0; channels]));
    let mut all: Vec<Candidate> = Vec::new();
    for candidate in [Some(stored), Some(own), imagenet, Some(half), bytes].into_iter().flatten() {
        let known = all.iter().map(|other| other.normalize.as_ref()).chain([train.normalize.as_ref()]);
        if !known.into_iter().any(|other| is_alike(candidate.normalize.as_ref(), other, channels)) {
            all.push(candidate);
        }
    }
    all
}

fn given(name: &'static str, mean: Vec<f32>, std: Vec<f32>) -> Candidate {
    let numbers = |values: &[f32]| -> Vec<f64> {
        values.iter().map(|value| value.to_string().parse().unwrap_or(f64::from(*value))).collect()
    };
    let [mean_list, std_list] = [&mean, &std].map(|values| numbers(values));
    let flag = |list: &[f64]| list.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let advice = format!(
        "\"normalize\": {} (--normalize {}:{})",
        json!({ "mean": mean_list, "std": std_list }),
        flag(&mean_list),
        flag(&std_list)
    );
    Candidate { name, normalize: Some(Normalize { mean, std }), advice }
}

/// Mean and standard deviation of a channel; numbers for one channel are those of all.
fn channel(normalize: Option<&Normalize>, index: usize) -> [f32; 2] {
    let Some(Normalize { mean, std }) = normalize else { return [0.0, 1.0] };
    let of = |values: &[f32]| values.get(index).or(values.first()).copied();
    [of(mean).unwrap_or(0.0), of(std).unwrap_or(1.0)]
}

fn is_alike(one: Option<&Normalize>, other: Option<&Normalize>, channels: usize) -> bool {
    (0..channels).all(|index| {
        let ([mean, std], [other_mean, other_std]) = (channel(one, index), channel(other, index));
        (mean - other_mean).abs() <= ALIKE * std.min(other_std) && (std / other_std).ln().abs() <= ALIKE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_test_tells_apart_is_one() {
        let of = |mean: f32, std: f32| Normalize { mean: vec![mean], std: vec![std] };
        let (cifar, imagenet, half) = (of(0.49, 0.247), of(0.485, 0.229), of(0.5, 0.5));
        assert!(is_alike(Some(&cifar), Some(&imagenet), 3));
        assert!(!is_alike(Some(&cifar), Some(&half), 3));
        assert!(!is_alike(None, Some(&half), 1) && is_alike(None, Some(&of(0.0, 1.0)), 1));
    }

    #[test]
    fn advice_is_a_field_of_the_dataset() {
        let candidate = given("mean and standard deviation 0.5", vec![0.5], vec![0.5]);
        assert_eq!(candidate.advice, r#""normalize": {"mean":[0.5],"std":[0.5]} (--normalize 0.5:0.5)"#);
    }
}
