//! Members and a dataset, small and always the same.

use std::collections::BTreeMap;

use engraft::model::formats::safetensors::encode_header;
use engraft::model::header::{Dtype, TensorInfo};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Height and width of an image.
const SIZE: usize = 12;
const CLASSES: usize = 10;

/// Two layers of 192 units between the pixels and the classes, with random weights.
pub(crate) fn member(seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut layer = |name: &str, shape: &[usize]| {
        let elements: usize = shape.iter().product();
        let bytes = (0..elements).flat_map(|_| rng.random_range(-0.1_f32..0.1).to_le_bytes()).collect();
        (name.to_owned(), Dtype::F32, shape.to_vec(), bytes)
    };
    pack(vec![
        layer("fc1.weight", &[192, SIZE * SIZE]),
        layer("fc1.bias", &[192]),
        layer("fc2.weight", &[192, 192]),
        layer("fc2.bias", &[192]),
        layer("fc3.weight", &[CLASSES, 192]),
        layer("fc3.bias", &[CLASSES]),
    ])
}

/// Images of noise with labels that mean nothing: what is learned does not matter, only that it is always the same.
pub(crate) fn dataset() -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut tensors = Vec::new();
    for (suffix, count) in [("", 4096), ("_test", 256)] {
        let pixels = (0..count * SIZE * SIZE).map(|_| rng.random()).collect();
        let labels = (0..count).map(|_| rng.random_range(0..CLASSES as u8)).collect();
        tensors.push((format!("x{suffix}"), Dtype::U8, vec![count, 1, SIZE, SIZE], pixels));
        tensors.push((format!("y{suffix}"), Dtype::U8, vec![count], labels));
    }
    pack(tensors)
}

pub(crate) fn pack(tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>) -> Vec<u8> {
    let mut infos = Vec::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        infos.push(TensorInfo { name, dtype, shape });
        data.extend(bytes);
    }
    let mut file = encode_header(&infos, &BTreeMap::new());
    file.extend(data);
    file
}
