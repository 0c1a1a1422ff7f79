//! Data sets as people have them, each beside what torchvision, Pillow, NumPy or pyarrow read (`tests/fixtures/datasets/make.py`).

use std::collections::BTreeMap;

use crate::common::packing::Packed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engraft::data::{Dataset, Limits, Pixels, Split, inspect};
use serde::Deserialize;

/// One archive, and what is to be read of it.
#[derive(Deserialize)]
struct Case {
    file: String,
    expected: Option<Expected>,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Expected {
    shape: Vec<usize>,
    classes: Option<Vec<String>>,
    splits: BTreeMap<String, ExpectedSplit>,
    /// Decoders differ by as much in a byte.
    off: u8,
}

#[derive(Deserialize)]
struct ExpectedSplit {
    labels: Vec<u32>,
    pixels: String,
}

fn decoded(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

/// What is wrong with `split`, if anything; grey images count as three equal channels where these are expected.
fn difference(split: &Split, expected: &ExpectedSplit, shape: &[usize], off: u8) -> Option<String> {
    if split.labels().classes() != expected.labels {
        return Some(format!("labels {:?} for {:?}", split.labels().classes(), expected.labels));
    }
    let Pixels::U8(pixels) = split.pixels() else { return Some("floats".to_owned()) };
    let copies = shape[0] / split.example_shape()[0];
    if split.example_shape()[1..] != shape[1..] || split.example_shape()[0] * copies != shape[0] {
        return Some(format!("examples of {:?} for {shape:?}", split.example_shape()));
    }
    let wanted = decoded(&expected.pixels);
    let got: Vec<u8> = pixels.chunks(split.elements()).flat_map(|example| example.repeat(copies)).collect();
    if got.len() != wanted.len() {
        return Some(format!("{} bytes for {}", got.len(), wanted.len()));
    }
    let most = got.iter().zip(&wanted).map(|(got, wanted)| got.abs_diff(*wanted)).max().unwrap_or(0);
    (most > off).then(|| format!("bytes differ by up to {most}"))
}

fn check(case: &Case) -> Result<(), String> {
    let packed = Packed::new(&decoded(&case.file));
    let read =
        Dataset::open(packed.path(), &std::env::temp_dir(), &Limits::default()).map_err(|error| error.to_string());
    let expected = match (&case.expected, &case.refused) {
        (Some(expected), _) => expected,
        (None, refused) => {
            let refused = refused.as_deref().unwrap_or_default();
            return match read {
                Err(error) if error.contains(refused) => Ok(()),
                Err(error) => Err(format!("refused as {error:?}, which is without {refused:?}")),
                Ok(dataset) => Err(format!("read as {:?}", dataset.facts)),
            };
        }
    };
    let dataset = read?;
    if dataset.facts != inspect(packed.path(), &Limits::default()).map_err(|error| error.to_string())? {
        return Err("other facts where it is only read through".to_owned());
    }
    if dataset.facts.class_names != expected.classes {
        return Err(format!("classes {:?} for {:?}", dataset.facts.class_names, expected.classes));
    }
    let there =
        [("train", Some(&dataset.train)), ("validation", dataset.validation.as_ref()), ("test", dataset.test.as_ref())];
    for (name, split) in there {
        let fault = match (split, expected.splits.get(name)) {
            (Some(split), Some(wanted)) => difference(split, wanted, &expected.shape, expected.off),
            (None, None) => None,
            (split, _) => Some(if split.is_some() { "it is not expected" } else { "it is missing" }.to_owned()),
        };
        fault.map_or(Ok(()), |fault| Err(format!("{name}: {fault}")))?;
    }
    Ok(())
}

#[test]
fn data_sets_are_read_as_the_usual_libraries_read_them_or_refused() {
    let text = include_str!("../fixtures/datasets/cases.json");
    let cases: BTreeMap<String, Case> = serde_json::from_str(text).expect("cases");
    assert!(cases.len() > 80, "{} cases", cases.len());
    let wrong: Vec<String> =
        cases.iter().filter_map(|(name, case)| Some(format!("{name}: {}", check(case).err()?))).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
