//! Networks of images: every combination of open settings that fits.

use crate::model::families::variants::Variants;
use crate::model::families::{Candidate, Unfit};
use crate::model::graph::Shape;
use crate::settings::Settings;

/// Most operations of all candidates together: a file from outside may name a hundred thousand tensors.
const MOST_NODES: usize = 1 << 18;

/// The networks that `build` makes for images of `channels` channels, one for each combination of open settings that fits:
/// of the given shape, or of height and width `size`, which then is the first assumption.
pub(super) fn for_images(
    input: Option<&Shape>,
    channels: usize,
    size: usize,
    variants: &Variants<'_>,
    build: impl Fn(&Shape, &Settings) -> Result<Candidate, Unfit>,
) -> Result<Vec<Candidate>, Unfit> {
    let usual = vec![channels, size, size];
    let shape = input.unwrap_or(&usual);
    if !matches!(shape[..], [got, _, _] if got == channels) {
        return Err(Unfit::Input(format!(
            "the network reads images of {channels} channels, an example has shape {shape:?}"
        )));
    }
    let mut found: Vec<Candidate> = Vec::new();
    let mut refused = None;
    let combinations = variants.combinations();
    let count = combinations.len();
    for settings in combinations {
        let nodes = found.first().map_or(0, |first| first.graph.nodes().len());
        if nodes.saturating_mul(count) > MOST_NODES {
            return Err(Unfit::Unknown(format!(
                "a network of {nodes} operations has too many variants ({count}) to try them all: give more of its settings"
            )));
        }
        match build(shape, &settings) {
            Ok(candidate) if found.iter().any(|other| other.graph == candidate.graph) => {}
            Ok(candidate) => found.push(candidate),
            Err(reason) => refused = refused.or(Some((settings, reason))),
        }
    }
    match refused {
        Some((settings, Unfit::Unknown(detail))) if found.is_empty() => Err(match input {
            Some(shape) if build(&usual, &settings).is_ok() => {
                Unfit::Input(format!("an example of shape {shape:?} does not fit: {detail}"))
            }
            _ => Unfit::Unknown(detail),
        }),
        Some((_, reason)) if found.is_empty() => Err(reason),
        _ => {
            if input.is_none() {
                for candidate in &mut found {
                    candidate.assumptions.insert(0, format!("inputs of shape {usual:?}"));
                }
            }
            Ok(found)
        }
    }
}
